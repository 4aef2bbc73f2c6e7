"""The command line. PyTorch is imported inside the commands: help and refused input answer at once."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sparseflows.cli_data import Json, data_app
from sparseflows.console import print_result
from sparseflows.errors import InputError, Interrupted

if TYPE_CHECKING:
    from sparseflows.experiment.records import Record

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data")

ParamFile = Annotated[Path, typer.Argument(metavar="PARAM.yaml", help="A param file; see the ones in param/.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'sparseflows run' wrote.")]
PointsFile = Annotated[
    Path,
    typer.Argument(metavar="DATA.npy", help="Points (N, D), .npy or .csv, in the data's own coordinates."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: --set train.lr=0.01; may be repeated."),
]
Stage = Annotated[
    str, typer.Option("--stage", help="<method>-s<seed>/<k>, e.g. dense-s0/0; best: lowest validation NLL.")
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE.npy", help="Where to write.")]
Tolerance = Annotated[
    float | None,
    typer.Option("--tol", help="rtol = atol of the solver, 1e-12 to 1e-2. [the run's evaluate section]"),
]
Precision = Annotated[
    Literal["float32", "float64"] | None,
    typer.Option("--dtype", help="Precision of the solve. [map: float64; else as above]"),
]


@app.callback()
def main() -> None:
    """Train continuous normalizing flows, prune them, and see what pruning did.

    \b
    A first look (about a minute):
      sparseflows run param/quick.yaml
      python -m analysis table runs/quick
    """


@app.command()
def check(param: ParamFile, settings: Settings = None, as_json: Json = False) -> None:
    """Dry run: print the resolved settings, the dense params, the stages and steps. Needs no data.

    \b
    Example: sparseflows check param/toy/gaussian_spiral/ffjord.yaml --set train.epochs=10
    """
    from sparseflows.experiment.params import dump_spec, load_spec
    from sparseflows.experiment.plan import plan, plan_text

    spec = load_spec(param, settings or ())
    found = plan(spec)
    print_result(found | {"settings": spec.model_dump()} if as_json else f"{dump_spec(spec)}\n{plan_text(found)}")


@app.command()
def run(
    param: ParamFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folders are made below this one.")] = Path(
        "runs"
    ),
    settings: Settings = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, max=256, help="Cascades to work on side by side.")] = 1,
    force: Annotated[
        bool, typer.Option("--force", help="Start over; the old folder is kept as <name>.old-<n>.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a dense flow for every seed, prune and retrain it in a cascade for every method, and print the table.

    The results are in DIR/<name>. The same command after an interruption goes on where it was; other
    settings get a folder of their own.

    \b
    Example: sparseflows run param/quick.yaml --set seeds=[0,1,2] --jobs 2
    """
    from sparseflows.experiment.params import load_spec
    from sparseflows.experiment.plan import check_keep_ratios, count_stages, prepare
    from sparseflows.experiment.store import RunFolder
    from sparseflows.torchrun import launched, said_once

    place = launched()
    with said_once(place):
        spec = load_spec(param, settings or ())
        if place is not None and jobs > 1:
            raise InputError(f"--jobs {jobs} works on cascades side by side, torchrun on one flow; use one of the two")
    if place is not None:
        from sparseflows.experiment.together import run_together

        done = run_together(place, spec, out, force)
        if done is not None:
            _print_records(*done, as_json)
        return
    try:
        splits, digest = prepare(spec)
        any_rows = next(iter(splits.values()))
        check_keep_ratios(spec, any_rows.train.shape[1], any_rows.classes)
        if spec.device != "cpu":  # only PyTorch knows; asked before a folder is made
            from sparseflows.experiment.cascade import check_device

            check_device(spec.device)
        folder = RunFolder.claim(out, spec, digest, force=force)
        with folder.lock():
            for note in dict.fromkeys(note for one in splits.values() for note in (*one.warnings, *one.notes)):
                print(f"note: {note}", file=sys.stderr)
            print(f"{spec.name}: results go to {folder.path}", file=sys.stderr)
            from sparseflows.experiment.cascade import run_experiment
            from sparseflows.experiment.progress import Progress

            records = run_experiment(spec, folder, splits, Progress(count_stages(spec)), jobs)
    except KeyboardInterrupt:
        same = "the same command without --force" if force else "the same command"
        raise Interrupted(f"interrupted; {same} goes on from the last checkpoint") from None
    _print_records(folder.path, records, as_json)


def _print_records(folder: Path, records: list[Record], as_json: bool) -> None:
    from sparseflows.experiment.summary import results_text

    stages = [{name: _finite(value) for name, value in vars(record).items()} for record in records]
    print_result({"run": str(folder), "stages": stages} if as_json else results_text(records, folder))


@app.command()
def sample(
    run: RunArgument,
    n: Annotated[int, typer.Option("-n", min=1, max=100_000_000, help="How many samples.")],
    output: Output,
    stage: Stage = "best",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the noise.")] = 0,
) -> None:
    """Draw samples (n, D) from a stage, in the data's own coordinates.

    \b
    Example: sparseflows sample runs/quick --stage structured-s0/2 -n 10000 -o samples.npy
    """
    _check_output(output)
    from sparseflows.experiment.use import draw_samples

    _save(output, draw_samples(run, stage, n, seed))


@app.command()
def score(
    run: RunArgument,
    points: PointsFile,
    stage: Stage = "best",
    coordinates: Annotated[
        Literal["standardised", "data"],
        typer.Option(help="standardised: as NLLs are reported; data: a density over the data's own space."),
    ] = "standardised",
    tol: Tolerance = None,
    dtype: Precision = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE.npy", help="Write log p of every row, (N,), nats."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the NLL of a file's rows under a stage: exact divergence, adaptive solver, nats.

    \b
    Example: sparseflows score runs/quick points.npy --coordinates data -o log_prob.npy
    """
    if output is not None:
        _check_output(output)
    _check_tolerance(tol)
    from sparseflows.experiment.use import score_points

    values, summary = score_points(run, stage, points, coordinates, tol, dtype)
    if output is not None:
        _save(output, values)
    text = f"NLL {summary['nll']:.4f}" + (f" ± {summary['nll_se']:.4f}" if summary["nll_se"] is not None else "")
    print_result(
        summary
        if as_json
        else f"{text} nats over {summary['n']:,} rows, {coordinates} coordinates (NFE {summary['nfe']})"
    )


@app.command(name="map")
def map_points(
    run: RunArgument,
    points: PointsFile,
    to: Annotated[Literal["noise", "data"], typer.Option(help="noise: x → z; data: z → x.")],
    output: Output,
    stage: Stage = "best",
    tol: Tolerance = None,
    dtype: Precision = None,
) -> None:
    """Carry points through a stage: x (the data's own coordinates) to noise z, or noise to data.

    \b
    Example: sparseflows map runs/quick points.npy --to noise -o noise.npy
    """
    _check_output(output)
    _check_tolerance(tol)
    from sparseflows.experiment.use import carry_points

    _save(output, carry_points(run, stage, points, to, tol, dtype))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_tolerance(tol: float | None) -> None:
    if tol is not None and not 1e-12 <= tol <= 1e-2:
        raise InputError(f"--tol {tol:g}: give a tolerance between 1e-12 and 1e-2")


def _check_output(path: Path) -> None:
    """Refuse an output that could not be written, before the work is done."""
    if path.suffix != ".npy":
        raise InputError(f"{path}: results are NumPy arrays; give a name that ends in .npy")
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: no such folder to write to")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another name") from None


def _save(path: Path, array: Any) -> None:
    import io

    import numpy as np

    from sparseflows.files import write_whole

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_whole(path, buffer.getvalue())
    print(f"wrote {path} {array.shape}", file=sys.stderr)
