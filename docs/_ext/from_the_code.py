"""Directives whose text is the code's own, so that it cannot go stale.

They are `cli-help`, `settings-table`, `rooms` and `moved-modules`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from docutils import nodes
from docutils.parsers.rst import directives
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from sparseflows.specs.choices import OneOf

APPS = {
    "sparseflows": ("sparseflows.cli.app", "sparseflows"),
    "analysis": ("analysis.cli.app", "python -m analysis"),
}


def help_of(program: str, path: list[str]) -> str:
    """What `--help` prints for the command at `path` of one of `APPS`."""
    from sparseflows.cli.console import run_app

    module, called = APPS[program]
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = run_app(importlib.import_module(module).app, called, [*path, "--help"])
    if status:
        raise RuntimeError(f"{called} {' '.join(path)} --help ended with {status}")
    return out.getvalue().strip("\n")


def commands_of(program: str) -> list[list[str]]:
    """Every command of a program as the words that call it, those of groups included."""
    import typer

    def walk(command: Any, path: list[str]) -> list[list[str]]:
        below = getattr(command, "commands", None)
        if not below:
            return [path]
        return [found for name, one in below.items() for found in walk(one, [*path, name])]

    return walk(typer.main.get_command(importlib.import_module(APPS[program][0]).app), [])


class CliHelp(SphinxDirective):
    """A section for every command of a program, with its help text."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The sections."""
        program = self.arguments[0]
        sections: list[nodes.Node] = []
        for path in commands_of(program):
            called = f"{APPS[program][1]} {' '.join(path)}"
            section = nodes.section(ids=[nodes.make_id(called)], names=[called])
            section += nodes.title(called, called)
            text = help_of(program, path)
            section += nodes.literal_block(text, text, language="none")
            self.state.document.note_explicit_target(section)
            sections.append(section)
        return sections


class SettingsTable(SphinxDirective):
    """The keys of one section of a param file: defaults, values, meaning."""

    required_arguments = 1  # a class of sparseflows.specs
    option_spec: ClassVar[dict[str, Any]] = {"skip": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """The table."""
        section = getattr(importlib.import_module("sparseflows.specs"), self.arguments[0])
        skip = self.options.get("skip", "").split()
        rows = [
            (nodes.literal(name, name), _default(field), _meaning(field))
            for name, field in section.model_fields.items()
            if name not in skip
        ]
        return [_table({"key": 2, "default": 2, "meaning": 6}, rows)]


class Rooms(SphinxDirective):
    """A line for each room of a package, in the order of the content: the first line of its docstring.

    A room that the content does not name is an error; one that it names and that does not exist is left out.
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """The table."""
        package = Path(importlib.import_module(self.arguments[0]).__file__ or "").parent
        there = rooms_of(package)
        named = " ".join(self.content).split()
        if missing := set(there) - set(named):
            raise self.error(f"rooms of {package.name} that no line names: {', '.join(sorted(missing))}")
        rows: list[tuple[str | nodes.Node | list[nodes.Node], ...]] = []
        for room in (room for room in named if room in there):
            rows.append((nodes.strong(room, room), _marked(there[room])))
            for part, line in rooms_of(package / room).items() if (package / room).is_dir() else ():
                if (package / room / part).is_dir():
                    rows.append((nodes.Text(f"\u2003{part}"), _marked(line)))
        return [_table({"room": 2, "what is there": 8}, rows)]


def rooms_of(package: Path) -> dict[str, str]:
    """The sub-packages and modules of a package, and the first line of each one's docstring."""
    found = {}
    for path in sorted([*package.glob("*/__init__.py"), *package.glob("[!_]*.py")]):
        name = path.parent.name if path.name == "__init__.py" else path.stem
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        found[name] = (text or "").partition("\n")[0]
    return found


class MovedModules(SphinxDirective):
    """Every old name of a module beside its new one."""

    def run(self) -> list[nodes.Node]:
        """The table."""
        moved = importlib.import_module("sparseflows.moved").MOVED
        rows = [(nodes.literal(old, old), nodes.literal(new, new)) for old, new in sorted(moved.items())]
        return [_table({"until 0.1": 1, "now": 1}, rows)]


def _table(columns: dict[str, int], rows: Iterable[Sequence[str | nodes.Node | list[nodes.Node]]]) -> nodes.table:
    """A table with these columns, each with its relative width."""
    table = nodes.table(classes=["settings"])
    group = nodes.tgroup(cols=len(columns))
    table += group
    for width in columns.values():
        group += nodes.colspec(colwidth=width)
    head, body = nodes.thead(), nodes.tbody()
    group += [head, body]
    head += _row(*columns)
    for row in rows:
        body += _row(*row)
    return table


def _row(*cells: str | nodes.Node | list[nodes.Node]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        content = [nodes.Text(cell)] if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
        row += nodes.entry("", nodes.paragraph("", "", *content))
    return row


def _marked(text: str) -> list[nodes.Node]:
    """Text whose parts between backticks are code."""
    parts = enumerate(text.split("`"))
    return [nodes.literal(part, part) if index % 2 else nodes.Text(part) for index, part in parts]


def _default(field: FieldInfo) -> str | nodes.Node:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "–"
    text = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
    return nodes.literal(text, text)


def _meaning(field: FieldInfo) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    if field.description:
        found += _marked(field.description)
    names = [name for mark in field.metadata if isinstance(mark, OneOf) for name in mark.table]
    names = names or _names(field.annotation)
    if names:
        found.append(nodes.Text("; one of " if found else "one of "))
        for index, name in enumerate(names):
            found += [nodes.Text(", ")] if index else []
            found.append(nodes.literal(name, name))
    return found


def _names(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(one) for one in get_args(annotation)]
    if get_origin(annotation) is Annotated:
        return [name for mark in get_args(annotation) if isinstance(mark, OneOf) for name in mark.table]
    if get_origin(annotation) is list:
        return [name for one in get_args(annotation) for name in _names(one)]
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("cli-help", CliHelp)
    app.add_directive("settings-table", SettingsTable)
    app.add_directive("rooms", Rooms)
    app.add_directive("moved-modules", MovedModules)
    return {"version": "1", "parallel_read_safe": True}
