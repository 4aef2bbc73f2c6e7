"""The front door: commands in groups, those of installed packages among them."""

import sys
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperGroup

ENTRY_POINTS = "sparseflows.commands"  # of installed packages: typer apps whose commands are ours too
EXPERIMENTS, USE, ANALYSES, DATA = "Experiments", "Using a flow", "Analyses", "Data"
_ORDER = (EXPERIMENTS, USE, ANALYSES, DATA)


class InGroups(TyperGroup):
    """A typer group whose help shows the commands under the titles that `rich_help_panel` gives them."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section a group, its commands in the order they were made."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, commands))
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in _ORDER}
        for name, command in commands.items():
            if command is not None and not command.hidden:
                title = getattr(command, "rich_help_panel", None)
                groups.setdefault(title if isinstance(title, str) else "Commands", []).append(
                    (name, command.get_short_help_str(room))
                )
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def add_installed(app: typer.Typer) -> None:
    """Add the commands that installed packages offer under `ENTRY_POINTS`; this package's analyses come so too.

    A package that cannot be loaded is told and left out; a name that is taken stays whose it is.
    """
    taken = {info.name for info in app.registered_commands}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            offered = entry.load().registered_commands
        except Exception as error:  # of another package: its defect is not ours
            print(f"sparseflows: the commands of {entry.name} ({entry.value}) are left out: {error}", file=sys.stderr)
            continue
        app.registered_commands += [info for info in offered if info.name not in taken]
