"""The command line of the analyses. Only typer is imported here: everything else comes when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


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
Stages = Annotated[
    list[str] | None,
    typer.Option(
        "--stage",
        metavar="STAGE",
        help="best, <method>-s<seed>/<k>, or a pattern such as 'structured-s0/*'; may be repeated. [all stages]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, a stage an object, instead of text.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the files. [RUN/analysis]")]
Seed = Annotated[int, typer.Option(metavar="I", min=0, help="Seed of everything that is drawn.")]


@app.callback()
def analysis() -> None:
    """See what pruning did to the flows of a run.

    Every result is kept in the run folder (analysis/cache) by what it depends on: the same command is
    instant the second time, another setting is computed anew, and what was interrupted goes on.
    """


@app.command()
def hessian(
    runs: Runs,
    stage: Stages = None,
    subset: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Training rows that the loss is over. [512, or all]")
    ] = None,
    seed: Seed = 0,
    loss: Annotated[
        Literal["nll", "flow_matching"],
        typer.Option(help="The loss whose Hessian it is; nll has the exact divergence."),
    ] = "nll",
    products: Annotated[int, typer.Option(metavar="N", min=9, help="Hessian-vector products for the trace.")] = 90,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compute the whole spectrum, as is always done up to 1,500 params.")
    ] = False,
    protocol: Annotated[
        Literal["paper"] | None, typer.Option(help="paper: add the published estimator, labelled as such.")
    ] = None,
    check: Annotated[
        Literal["pyhessian"] | None, typer.Option(help="pyhessian: run PyHessian beside it on the same loss.")
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(
            metavar="TOL", help="Of the solve whose steps the loss is taken on. [1e-4; 1e-9 up to 500 params]"
        ),
    ] = None,
    dtype: Annotated[Literal["float64", "float32"], typer.Option(help="Precision of the products.")] = "float64",
    memory: Annotated[
        int, typer.Option(metavar="MIB", min=64, help="Memory that the products may take; rows go in chunks below it.")
    ] = 1024,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Chunks worked on at a time. [one a processor]")
    ] = None,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Curvature of the loss at every stage: extreme eigenvalues, trace, condition, spectral density.

    The Hessian is that of the mean loss over a seeded subset of the training rows, with respect to the
    surviving params only. lambda_max and lambda_min are its largest and smallest algebraic eigenvalues;
    the trace comes with its standard error (Hutch++). kappa needs the whole spectrum (up to 1,500 params,
    or --exact); kappa_lanczos, after 100 Lanczos steps, is there for every stage.

    One flow's lambda_max moves by 10-15 % with the subset alone: repeat with other --seed before you
    believe a smaller difference.

    Writes hessian.json, hessian.csv and spectral_density.png, .pdf, .npz.

    \b
    Example:
      python -m analysis hessian runs/quick
      python -m analysis hessian runs/quick --stage dense-s0/0 --subset 512 --check pyhessian
    """
    from analysis.cli.hessian import Settings, command

    settings = Settings(
        subset=subset,
        seed=seed,
        loss=loss,
        products=products,
        exact=exact,
        paper=protocol == "paper",
        pyhessian=check == "pyhessian",
        tol=tol,
        dtype=dtype,
        memory_mib=memory,
        threads=threads,
    )
    command(runs, stage or [], settings, as_json, out)


@app.command()
def modes(
    runs: Runs,
    stage: Stages = None,
    samples: Annotated[int, typer.Option(metavar="N", min=100, help="Samples to draw from every stage.")] = 20_000,
    seed: Seed = 0,
    protocol: Annotated[
        Literal["paper"] | None, typer.Option(help="paper: add the published distance, labelled as such.")
    ] = None,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """How good the samples of every stage are, and whether all modes are there.

    Where the data are a mixture of Gaussians: the share of samples within 2, 3 and 5 standard deviations
    of the nearest mode, beside a perfect sampler's and the data's own, and the modes captured (at least a
    quarter of an even share of the samples within 3 standard deviations). For all other data: density and
    coverage (Naeem et al. 2020) and the sliced Wasserstein distance, each beside its value for two
    independent sets of true rows.

    Writes modes.json, modes.csv and mode_quality.png, .pdf, .npz.

    \b
    Example:
      python -m analysis modes runs/quick --samples 20000
    """
    from analysis.cli.modes import command

    command(runs, stage or [], samples, seed, protocol == "paper", as_json, out)


@app.command()
def field(
    runs: Runs,
    stage: Stages = None,
    seed: Seed = 0,
    colour: Annotated[
        Literal["divergence", "speed"], typer.Option(help="What the colour below the stream lines shows.")
    ] = "divergence",
    columns: Annotated[
        str | None,
        typer.Option(metavar="I-J[,I-J]", help="Column pairs to show where the data have more than two. [chosen]"),
    ] = None,
    frames: Annotated[int, typer.Option(metavar="N", min=2, help="Frames of the animation.")] = 40,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """Pictures of every stage: vector field, density, trajectories, an animation from noise to data.

    Two columns: stream lines on a map of the divergence or the speed at several times; the flow's density
    beside the true one on the same scale; paths of samples; and a row of panels over the prune ratios.
    More columns: samples against data in pairs of columns, and the field projected on them, said so.

    The field points from data to noise; sampling follows it backwards. Everything is computed for every
    stage and kept; because a stage takes seconds to draw, figures of its own are drawn for the best one, the
    dense one and the last of each method (first seed), and for every stage that --stage names.

    Writes field.json, field.csv, and a folder fields/ with .png and .pdf figures, their data as .npz, and
    .gif animations.

    \b
    Example:
      python -m analysis field runs/quick
      python -m analysis field runs/quick --stage best --colour speed
    """
    from analysis.cli.field import command

    command(runs, stage or [], seed, colour, columns, frames, as_json, out)


@app.command()
def cost(
    runs: Runs,
    stage: Stages = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Rows in the batch that is timed.")] = 1024,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Timings a stage, interleaved.")] = 5,
    seed: Seed = 0,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """What every stage costs: bytes, multiply-adds, evaluations both ways, seconds, beside the dense flow.

    Seconds are medians of interleaved repetitions on this machine, one thread; compare the ratios. Masked flows
    are timed twice where some of their weight matrices have zeros enough: as they are, and with those matrices
    executed as sparse ones (Flow.to_sparse), beside the dense flow and beside themselves.

    Writes cost.json and cost.csv.

    \b
    Example:
      python -m analysis cost runs/quick
    """
    from analysis.cli.cost import command

    command(runs, stage or [], rows, repeats, seed, as_json, out)


@app.command()
def table(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN", help="Run folders, or a sweep's; none is needed with --published.", callback=_with_sweeps
        ),
    ] = None,
    tabular: Annotated[
        bool, typer.Option("--tabular", help="One table in the published layout: a row a model, a pair a data set.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="With --tabular: the published rows and data sets beside yours.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="With --tabular: fit a Gaussian and a mixture of them.")
    ] = True,
    as_json: Json = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the files; needed with several RUNs. [RUN/analysis]"),
    ] = None,
) -> None:
    """Tabulate and plot the test NLL against the params.

    Prints one table a run: the mean over the seeds of every stage, its standard error (over the seeds, or
    over the test set where there is one seed), the lowest NLL marked. NLLs are in nats, lower is better.
    Stages that failed are listed with their reason, and enter no mean. Where 'analysis hessian' has been
    run, the Hessian table follows: beside each row the published one, both as ratios to their own dense flow.

    Writes table.txt, .csv, .md, .tex (booktabs) and nll_vs_params.png, .pdf, .npz (the plotted numbers).
    Several runs share one figure a data set; with several data sets, its name ends each figure's name.

    With --tabular all runs share one table: dense flows, baselines, and up to four pruned stages along the front
    of params and validation NLL. Of several runs of one data set and objective, the better on the validation rows
    is shown. Writes tabular.txt, .csv, .md, .tex, .json and nll_vs_params_tabular.png, .pdf, .npz.

    \b
    Example: train and prune, then compare two objectives.
      sparseflows run param/quick.yaml --out runs
      python -m analysis table runs/quick
      python -m analysis table runs/nll runs/flow-matching --out comparison
      python -m analysis table --tabular --published runs/power runs/miniboone --out tables
    """
    if tabular:
        from analysis.cli.tabular import command as tabulate

        return tabulate(runs or [], published, baselines, as_json, out)
    from analysis.cli.table import command

    return command(_given(runs, tabular_only=published or not baselines), as_json, out)


@app.command()
def compare(
    runs: Runs,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the files; needed with several RUNs. [RUN/analysis]"),
    ] = None,
) -> None:
    """Which criterion beats random, and whether pruning beats a dense flow trained as long.

    Differences are paired by seed: every pruned stage against random pruning of the same kind in the same protocol,
    against the dense flow trained on for as long (control; for one-shot the dense flow itself), against a dense flow
    of its own size (reduced), and every protocol against the cascade of the same criterion. Compared is the KL gap
    where the true density is known, else the test NLL, and for classifiers the test accuracy. A verdict needs three
    seeds and a difference beyond 2 s.e.; what stands after Holm's correction over all comparisons is marked.

    What the run has nothing to compare with is said, with the setting that adds it.

    Writes compare.txt, .csv, .md, .json and compare.png, .pdf, .npz.

    \b
    Example:
      python -m analysis compare runs/criteria
    """
    from analysis.cli.compare import command

    command(runs, as_json, out)


@app.command()
def bounds(
    runs: Runs,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    out: Out = None,
) -> None:
    """What sipp and pfp promised of every layer they pruned, beside the error that was observed.

    Both bound how far a layer's outputs move, relative to the sum of the sizes of the products in them. The table has
    the bound and the largest error on the sample that the criterion looked at, and on 200 validation rows that it did
    not see.

    Writes bounds.txt and bounds.csv.

    \b
    Example:
      python -m analysis bounds runs/criteria
    """
    from analysis.cli.bounds import command

    command(runs, as_json, out)


@app.command()
def classify(
    runs: Runs,
    seed: Annotated[int, typer.Option(metavar="I", min=0, help="Seed of the choice of the test points shown.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")] = False,
    out: Out = None,
) -> None:
    """Classifiers: accuracy by prune ratio, decision boundaries and paths, weights by sparsity.

    Prints test accuracy and loss of every stage, means over the seeds ± s.e. Writes classify.txt, .csv, .json and
    classify.png, .pdf, .npz (accuracy and loss against the prune ratio, dense as reference line).

    Of the networks of the first seed: weights.gif, .png, .pdf, .npz, histograms of the surviving weights and of
    the units' l1 norms by sparsity; where the data have two columns boundary.png, .pdf, .npz, class probabilities
    and test points; and of neural ODEs trajectories.png, .pdf, .npz, paths of test points to their logits. Four
    methods share a figure; further ones are in figures whose names end in -2, -3, and so on.

    \b
    Example:
      sparseflows run param/classify/moons.yaml --out runs
      python -m analysis classify runs/classify-moons
    """
    from analysis.cli.classify import command

    command(runs, seed, as_json, out)


@app.command()
def report(
    runs: Runs,
    only_cached: Annotated[
        bool, typer.Option("--only-cached", help="Compute nothing: report what other commands have found so far.")
    ] = False,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """One self-contained report.html: what pruning did, in words, tables, figures, an animation.

    Runs the analyses that have not been run (hessian, modes, field, cost) with their default settings; those that
    have been run are taken as they are. The page opens from disk and asks nothing of the network.

    \b
    Example:
      python -m analysis report runs/quick
    """
    from analysis.cli.report import command

    command(runs, only_cached, as_json, out)


def _given(runs: list[Path] | None, tabular_only: bool) -> list[Path]:
    from sparseflows.errors import InputError

    if tabular_only:
        raise InputError("--published and --no-baselines go with --tabular; add it")
    if not runs:
        raise InputError("Missing argument 'RUN...': give run folders, or --tabular --published for published rows")
    return runs
