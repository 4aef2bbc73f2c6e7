"""The code blocks of the documentation's pages, and what the comments before them say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line it begins on, its language, its text, and the mark before it.

    Marks: `long`, the block is run shorter than it stands; `not executed: …`, with the reason.
    """

    page: Path
    line: int
    language: str
    text: str
    mark: str


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page that name a language or none; directives, `{…}`, are no such blocks."""
    source = page.read_text(encoding="utf-8")
    return [
        Block(page, source[: m.start("language")].count("\n") + 1, m["language"], m["text"], m["mark"] or "")
        for m in BLOCK.finditer(source)
    ]


def pages() -> list[Path]:
    """The pages that are written by hand, without the notebooks, which the build executes."""
    skipped = {"_build", "notebooks"}
    return sorted(page for page in DOCS.rglob("*.md") if not skipped & set(page.relative_to(DOCS).parts))


def name_of(page: Path) -> str:
    """How a page is called in a test's name: `howto/own_data`."""
    return page.relative_to(DOCS).with_suffix("").as_posix()
