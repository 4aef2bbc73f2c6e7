"""The command line. PyTorch is imported inside the commands: help and refused input answer at once."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sparseflows.cli.console import print_result
from sparseflows.cli.data import Json, data_app
from sparseflows.cli.groups import DATA, EXPERIMENTS, USE, InGroups, add_installed
from sparseflows.cli.rows import score_text, tell_rows
from sparseflows.errors import InputError, Interrupted

app = typer.Typer(cls=InGroups, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(data_app, name="data", rich_help_panel=DATA)
add_installed(app)

ParamFile = Annotated[Path, typer.Argument(metavar="PARAM.yaml", help="A param file; see the ones in param/.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that 'sparseflows run' wrote.")]
PointsFile = Annotated[
    Path,
    typer.Argument(metavar="DATA.npy", help="Points (N, D), .npy or .csv or the like, in the data's own coordinates."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: --set train.lr=0.01; may be repeated."),
]
Stage = Annotated[
    str, typer.Option("--stage", help="<method>-s<seed>/<k>, e.g. dense-s0/0; best: lowest validation NLL.")
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write, .npy or .csv.")]
Tolerance = Annotated[
    float | None,
    typer.Option("--tol", help="rtol = atol of the solver, 1e-12 to 1e-2. [the run's evaluate section]"),
]
Precision = Annotated[
    Literal["float32", "float64"] | None,
    typer.Option("--dtype", help="Precision of the solve. [map: float64; else as above]"),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 1 where a row has no finite result.")]


@app.callback()
def main() -> None:
    """Train continuous normalizing flows, prune them, and see what pruning did.

    \b
    A first look (about a minute):
      sparseflows run param/quick.yaml
      sparseflows table runs/quick
    """


@app.command(rich_help_panel=EXPERIMENTS)
def check(param: ParamFile, settings: Settings = None, as_json: Json = False) -> None:
    """Dry run: print the resolved settings, the dense params, the stages and steps. Needs no data.

    Of a sweep: its points, with the params, stages and steps of each.

    \b
    Example: sparseflows check param/toy/gaussian_spiral/ffjord.yaml --set train.epochs=10
    """
    from sparseflows.experiment.plan import plan, plan_text
    from sparseflows.experiment.sweep.points import Sweep, load_experiment
    from sparseflows.specs.yaml import dump_spec

    found = load_experiment(param, settings or ())
    if isinstance(found, Sweep):
        from sparseflows.experiment.sweep.summary import sweep_plan, sweep_plan_text

        planned = sweep_plan(found)
        print_result(planned if as_json else sweep_plan_text(planned))
        return
    planned = plan(found)
    print_result(planned | {"settings": found.model_dump()} if as_json else f"{dump_spec(found)}\n{plan_text(planned)}")


@app.command(rich_help_panel=EXPERIMENTS)
def run(
    param: ParamFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Run folders are made below this one.")] = Path(
        "runs"
    ),
    settings: Settings = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, max=256, help="Cascades to work on side by side. [1]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start over; the old folder is kept as <name>.old-<n>.")
    ] = False,
    join: Annotated[
        bool, typer.Option("--join", help="Take part in a run that is at work in the same folder: share its cascades.")
    ] = False,
    backend: Annotated[
        Literal["local", "dask", "ray"], typer.Option("--backend", help="Who works: this machine, or a cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="ADDRESS", help="dask: tcp://HOST:8786; ray: HOST:6379. [ray: auto]"),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option("--gpus-per-task", min=0.01, max=64, help="dask, ray: share of a GPU that a cascade takes."),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option("--log", metavar="NAME", help="Tell a logger too: tensorboard, or MODULE:ATTRIBUTE of your own."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a dense flow for every seed, prune and retrain it in a cascade for every method, and print the table.

    The results are in DIR/<name>. The same command after an interruption goes on where it was; other
    settings get a folder of their own. A param file with a `sweep:` is one such experiment for every point
    of it, in DIR/<name>/<point>.

    \b
    Examples:
      sparseflows run param/quick.yaml --set seeds=[0,1,2] --jobs 2
      sparseflows run param/sweeps/activation.yaml --backend dask --address tcp://10.0.0.5:8786
    """
    from sparseflows.distributed.torchrun import launched, said_once
    from sparseflows.experiment.sweep.points import Sweep, load_experiment

    place = launched()
    with said_once(place):
        found = load_experiment(param, settings or ())
        from sparseflows.cli.run import RunOptions, check_shared, run_one, run_shared, run_sweep_of
        from sparseflows.experiment.monitoring.logger_names import check_loggers

        options = RunOptions(out, force, join, backend, jobs, address, gpus, check_loggers(log or ()), as_json)
        shared = check_shared(found, options) if place is not None else None
    if place is not None and shared is not None:
        run_shared(place, shared, options)
        return
    try:
        if isinstance(found, Sweep):
            run_sweep_of(found, options)
        else:
            run_one(found, options)
    except KeyboardInterrupt:
        same = "the same command without --force" if force else "the same command"
        raise Interrupted(f"interrupted; {same} goes on from the last checkpoint") from None


@app.command(rich_help_panel=EXPERIMENTS)
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run or of a sweep.")],
    as_json: Json = False,
) -> None:
    """Print how far a run or a sweep has come: stages done and failed, who is at work where, the time left.

    \b
    Example: sparseflows status runs/quick
    """
    from sparseflows.experiment.status import status_json, status_of, status_text

    found = status_of(folder)
    print_result(status_json(folder, found) if as_json else status_text(folder, found))


@app.command(rich_help_panel=USE)
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
    from sparseflows.experiment.inference import column_names, draw_samples

    samples, lost = draw_samples(run, stage, n, seed)
    if lost:
        print(f"note: {lost:,} draws ran off to infinity and were drawn again", file=sys.stderr)
    _save(output, samples, column_names(run))


@app.command(rich_help_panel=USE)
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
        typer.Option("-o", "--output", metavar="FILE", help="Write log p of every row, (N,), nats, .npy or .csv."),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Print the NLL of a file's rows under a stage: exact divergence, adaptive solver, nats.

    Each row has its own outcome: one that fails is solved again by itself, in float64; one beyond all numbers, or one
    that data.transform does not take, has log p -inf, one that cannot be solved NaN. They are counted on standard
    error.

    \b
    Example: sparseflows score runs/quick points.npy --coordinates data -o log_prob.npy
    """
    if output is not None:
        _check_output(output)
    _check_tolerance(tol)
    from sparseflows.experiment.inference import score_points

    values, summary, outside = score_points(run, stage, points, coordinates, tol, dtype)
    if output is not None:
        _save(output, values, ("log_prob",))
    print_result(summary if as_json else score_text(summary, coordinates))
    tell_rows(values, strict, outside)


@app.command(name="map", rich_help_panel=USE)
def map_points(
    run: RunArgument,
    points: PointsFile,
    to: Annotated[Literal["noise", "data"], typer.Option(help="noise: x → z; data: z → x.")],
    output: Output,
    stage: Stage = "best",
    tol: Tolerance = None,
    dtype: Precision = None,
    strict: Strict = False,
) -> None:
    """Carry points through a stage: x (the data's own coordinates) to noise z, or noise to data.

    A row that cannot be solved, or that data.transform does not take, is NaN, one beyond all numbers infinite.

    \b
    Example: sparseflows map runs/quick points.npy --to noise -o noise.npy
    """
    _check_output(output)
    _check_tolerance(tol)
    from sparseflows.experiment.inference import carry_points, column_names

    carried, outside = carry_points(run, stage, points, to, tol, dtype)
    _save(output, carried, column_names(run) if to == "data" else None)
    tell_rows(carried, strict, outside)


def _check_tolerance(tol: float | None) -> None:
    if tol is not None and not 1e-12 <= tol <= 1e-2:
        raise InputError(f"--tol {tol:g}: give a tolerance between 1e-12 and 1e-2")


def _check_output(path: Path) -> None:
    """Refuse an output that could not be written, before the work is done."""
    if path.suffix not in (".npy", ".csv"):
        raise InputError(f"{path}: results are NumPy arrays or text; give a name that ends in .npy or .csv")
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a file in it")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: no such folder to write to")
        if not os.access(path.absolute().parent, os.W_OK):
            raise InputError(f"{path}: its folder cannot be written to; name a file in another one")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another name") from None


def _save(path: Path, array: Any, names: Sequence[str] | None = None) -> None:
    """Write an array, as text with its columns' names above it where there are any."""
    import csv
    import io

    import numpy as np

    from sparseflows.files import write_whole

    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if names is not None:
            writer.writerow(names)
        writer.writerows(np.reshape(array, (len(array), -1)).tolist())  # repr, so that every bit comes back
        write_whole(path, text.getvalue())
    else:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        write_whole(path, buffer.getvalue())
    print(f"wrote {path} {array.shape}", file=sys.stderr)
