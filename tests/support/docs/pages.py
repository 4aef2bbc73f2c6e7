"""The code blocks of the documentation's pages, and what the comments before them say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\S*).*$")
MARK = re.compile(r"^<!-- (?P<mark>.*?) -->$")


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
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = lines.index(opening["fence"], number + 1)
        before = MARK.match(lines[number - 1]) if number else None
        if not opening["language"].startswith("{"):
            text = "\n".join(lines[number + 1 : end]) + "\n"
            found.append(Block(page, number + 1, opening["language"], text, before["mark"] if before else ""))
        number = end + 1
    return found


def pages() -> list[Path]:
    """The pages that are written by hand, without the notebooks, which the build executes."""
    skipped = {"_build", "notebooks"}
    return sorted(page for page in DOCS.rglob("*.md") if not skipped & set(page.relative_to(DOCS).parts))


def name_of(page: Path) -> str:
    """How a page is called in a test's name: `howto/own_data`."""
    return page.relative_to(DOCS).with_suffix("").as_posix()
