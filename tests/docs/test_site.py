"""The built site: every link inside it leads somewhere, every picture is there, and nothing was left out."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from support.docs.pages import DOCS

pytestmark = pytest.mark.docs


class Page(HTMLParser):
    """What a page links to, the pictures it shows, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.places |= {value for name in ("id", "name") if (value := found.get(name))}
        if tag == "img":
            self.pictures.append(found)
        self.links += [value for name in ("href", "src") if (value := found.get(name))]


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_inside_the_site_leads_somewhere(built):
    broken = []
    for path, page in built.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:  # data: pictures, and the web outside
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target in built and unquote(parts.fragment) not in built[target].places:
                broken.append(f"{path.name}: {link} (no such place)")
    assert sum(len(page.links) for page in built.values()) > 500
    assert not broken


def test_every_page_is_there(built, site):
    written = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert written <= {path.relative_to(site) for path in built}


def test_pictures_say_what_they_show(built):
    shown = [(path.name, found) for path, page in built.items() for found in page.pictures]
    assert len(shown) >= 8
    nameless = [name for name, found in shown if not found.get("alt") or (found["alt"] or "").endswith(".png")]
    assert not nameless


@pytest.mark.parametrize("name", ["toy", "hessian", "table"])
def test_notebooks_were_executed_and_show_figures(built, site, name):
    path = site / "notebooks" / f"{name}.html"
    assert "cell_output" in path.read_text(encoding="utf-8")
    assert "Traceback" not in path.read_text(encoding="utf-8")
    assert any("_images" in (found.get("src") or "") for found in built[path].pictures)


def test_public_names_are_documented(built, site):
    import sparseflows

    places = built[site / "api" / "public.html"].places
    missing = [name for name in sparseflows.__all__ if name != "__version__" and f"sparseflows.{name}" not in places]
    assert not missing
