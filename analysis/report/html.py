"""The building blocks of the page: every text that goes in is escaped here, and nowhere else.

Jinja2 was left out: it is no dependency of this package, and a page of this size needs none. The page has no script
and no address that leads out; a Content-Security-Policy says so to the browser too.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from analysis.report.claims import FAILS, HOLDS, Claim
from analysis.report.pictures import Picture

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_VERDICTS = {HOLDS: "holds", FAILS: "fails"}


def page(title: str, lead: Sequence[str], contents: str, body: str, footer: str) -> str:
    """A whole document.

    Args:
        title: in plain text.
        lead: paragraphs below the title, in plain text.
        contents: the table of contents, HTML.
        body: the sections, HTML.
        footer: in plain text.
    """
    style = files("analysis.report").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the contents</a>
<header>
<h1>{escape(title)}</h1>
{"".join(f'<p class="quiet">{escape(line)}</p>' for line in lead)}
</header>
<nav aria-label="Contents">
{contents}
</nav>
<main id="main" tabindex="-1">
{body}
</main>
<footer><p>{escape(footer)}</p></footer>
</body>
</html>
"""


def heading(level: int, text: str, anchor: str = "") -> str:
    """`<h2>` and its like."""
    name = f' id="{escape(anchor)}"' if anchor else ""
    return f"<h{level}{name}>{escape(text)}</h{level}>"


def paragraph(text: str, quiet: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{_class('quiet' if quiet else '')}>{_words(text)}</p>"


def bullets(lines: Sequence[str], name: str = "") -> str:
    """A list of plain texts; nothing for none."""
    items = "".join(f"<li>{_words(line)}</li>" for line in lines)
    return f"<ul{_class(name)}>{items}</ul>" if items else ""


def key_points(lines: Sequence[str]) -> str:
    """The list that stands out."""
    return f'<div class="key">{bullets(lines)}</div>'


def links(entries: Sequence[tuple[str, str]]) -> str:
    """A list of links within the page: (text, anchor)."""
    items = "".join(f'<li><a href="#{escape(anchor)}">{escape(text)}</a></li>' for text, anchor in entries)
    return f'<ul class="links">{items}</ul>'


def folded(summary: str, inside: str) -> str:
    """Something (HTML) behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary>\n{inside}\n</details>"


def preformatted(text: str) -> str:
    """Text as it is; it can be scrolled, by keyboard too."""
    return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'


def definitions(pairs: Mapping[str, str]) -> str:
    """Names and what they stand for."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs.items())}</dl>"


def verdicts(claims: Sequence[Claim]) -> str:
    """The claims with their verdicts: a list, which a phone's width holds and a table would not."""
    items = [
        f'<li><p><span class="verdict {_VERDICTS.get(claim.verdict, "open")}">{escape(claim.verdict)}</span> '
        f"<strong>({escape(claim.letter)}) {_words(claim.claim)}</strong></p>"
        f"<p>{escape(claim.method)}: {_words(claim.numbers)}.</p></li>"
        for claim in claims
    ]
    return f'<ul class="claims">{"".join(items)}</ul>'


def figure(picture: Picture) -> str:
    """A picture with its caption. Its bytes are in the page: nothing is asked of the network."""
    source = f"data:{picture.mime};base64,{b64encode(picture.data).decode()}"
    size = f' width="{picture.width}" height="{picture.height}"' if picture.width else ""
    image = f'<img src="{source}" alt="{escape(picture.alt)}"{size}>'
    return f"<figure>{image}<figcaption>{_words(picture.caption)}</figcaption></figure>"


def anchor(*words: object) -> str:
    """An id made of words."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(str(word) for word in words).lower()).strip("-")


def _words(text: str) -> str:
    # A number stays on one line with its sign.
    return escape(text).replace(" %", "&nbsp;%").replace(" ± ", "&nbsp;±&nbsp;")


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
