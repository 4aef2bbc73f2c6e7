"""Commands made from an analysis's settings, where options, defaults and help stand."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from analysis.settings import SETTINGS


def _with_sweeps(runs: list[Path] | None) -> list[Path] | None:
    from analysis.runs.sweeps import with_sweeps

    return None if runs is None else with_sweeps(runs)


Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Run folders, as 'sparseflows run' wrote them; that of a sweep stands for all its runs.",
        callback=_with_sweeps,
    ),
]
OptionalRuns = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN", help="Run folders, or a sweep's; none is needed with --published.", callback=_with_sweeps
    ),
]
Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        metavar="STAGE",
        help="best, <method>-s<seed>/<k>, or a pattern such as 'structured-s0/*'; may be repeated. [all stages]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, a stage an object, instead of text.")]
JsonOnly = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the files. [RUN/analysis]")]
OutOfSeveral = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for the files; needed with several RUNs. [RUN/analysis]")
]


def stage_command(name: str) -> Callable[..., None]:
    """The command of one analysis of stages, as typer takes it: runs, stages, a setting an option, --json, --out."""
    kind = SETTINGS[name]

    def command(runs: list[Path], stage: list[str] | None, as_json: bool, out: Path | None, **options: Any) -> None:
        from analysis.analyses.shape import run_analysis

        run_analysis(name, runs, stage or [], kind(**options), as_json, out)

    hints = get_type_hints(kind, include_extras=True)
    options = {field.name: (hints[field.name], field.default) for field in fields(kind)}
    taken = {"runs": (Runs, inspect.Parameter.empty), "stage": (Stages, None)} | options
    taken |= {"as_json": (Json, False), "out": (Out, None)}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(one, keyword, default=d, annotation=a) for one, (a, d) in taken.items()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one: annotation for one, (annotation, _) in taken.items()}
    command.__doc__, command.__name__ = kind.__doc__, name
    return command
