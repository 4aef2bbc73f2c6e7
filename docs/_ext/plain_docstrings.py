"""Docstrings are plain text in which only `code` is markup: `|w|`, `B * D` and `T_` must not become reST's own."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(``.+?``|`[^`]+`)")
MARKUP = re.compile(r"([|*\\]|(?<=\w)_(?=\W|$))")


def plain(line: str) -> str:
    r"""`line` with `code` as a literal, and what reST would read as markup escaped.

    A literal directly before a letter or behind one needs a blank that is not shown (`\ `).
    """
    parts = CODE.split(line)
    for index, part in enumerate(parts):
        if index % 2:
            before = r"\ " if parts[index - 1][-1:].isalnum() else ""
            after = r"\ " if parts[index + 1][:1].isalnum() else ""
            parts[index] = f"{before}``{part.strip('`')}``{after}"
        else:
            parts[index] = MARKUP.sub(r"\\\1", part)
    return "".join(parts)


def _process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    inside = False  # of a doctest, which stays as it is
    for index, line in enumerate(lines):
        inside = line.lstrip().startswith(">>>") or (inside and bool(line.strip()))
        if not inside:
            lines[index] = plain(line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect before napoleon, which adds markup of its own."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"version": "1", "parallel_read_safe": True}
