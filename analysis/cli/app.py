"""The commands of the analyses. Only typer is imported here: everything else comes when it is needed."""

from typing import Annotated

import typer

from analysis.cli.options import Json, JsonOnly, OptionalRuns, Out, OutOfSeveral, Runs, stage_command
from analysis.settings import SETTINGS, HessianSettings
from sparseflows.cli.groups import ANALYSES

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def analysis() -> None:
    """See what pruning did to the flows of a run.

    Every result is kept in the run folder (analysis/cache) by what it depends on: the same command is
    instant the second time, another setting is computed anew, and what was interrupted goes on.
    """


for _name in SETTINGS:
    app.command(name=_name, rich_help_panel=ANALYSES)(stage_command(_name))


@app.command(rich_help_panel=ANALYSES)
def table(
    runs: OptionalRuns = None,
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
    out: OutOfSeveral = None,
) -> None:
    """Tabulate and plot the test NLL against the params.

    Prints one table a run: the mean over the seeds of every stage, its standard error (over the seeds, or
    over the test set where there is one seed), the lowest NLL marked. NLLs are in nats, lower is better.
    Stages that failed are listed with their reason, and enter no mean. Where 'sparseflows hessian' has been
    run, the Hessian table follows: beside each row the published one, both as ratios to their own dense flow.

    Writes table.txt, .csv, .md, .tex (booktabs) and nll_vs_params.png, .pdf, .npz (the plotted numbers).
    Several runs share one figure a data set; with several data sets, its name ends each figure's name.

    With --tabular all runs share one table: dense flows, baselines, and up to four pruned stages along the front
    of params and validation NLL. Of several runs of one data set and objective, the better on the validation rows
    is shown. A verdict goes by the rules of 'sparseflows compare'; pruning has one only beside a control. Writes
    tabular.txt, .csv, .md, .tex, .json and nll_vs_params_tabular.png, .pdf, .npz.

    \b
    Example: train and prune, then compare two objectives.
      sparseflows run param/quick.yaml --out runs
      sparseflows table runs/quick
      sparseflows table runs/nll runs/flow-matching --out comparison
      sparseflows table --tabular --published runs/power runs/miniboone --out tables
    """
    if tabular:
        from analysis.cli.tabular import command as tabulate

        return tabulate(runs or [], published, baselines, as_json, out)
    from analysis.cli.table import command
    from sparseflows.errors import InputError

    if published or not baselines:
        raise InputError("--published and --no-baselines go with --tabular; add it")
    if not runs:
        raise InputError("Missing argument 'RUN...': give run folders, or --tabular --published for published rows")
    return command(runs, as_json, out)


@app.command(rich_help_panel=ANALYSES)
def compare(runs: Runs, as_json: JsonOnly = False, out: OutOfSeveral = None) -> None:
    """Which criterion beats random, and whether pruning beats a dense flow trained as long.

    Differences are paired by seed: every pruned stage against random pruning of the same kind in the same protocol,
    against the dense flow trained on for as long (control; for one-shot the dense flow itself), against a dense flow
    of its own size (reduced), and every protocol against the cascade of the same criterion. Compared is the KL gap
    where the true density is known, else the test NLL, and for classifiers the test accuracy. A verdict needs three
    seeds, equally long training, and p of at most 0.05 after Holm's correction over the tests of its question.

    What the run has nothing to compare with is said, with the setting that adds it.

    Writes compare.txt, .csv, .md, .json and compare.png, .pdf, .npz.

    \b
    Example:
      sparseflows compare runs/criteria
    """
    from analysis.cli.compare import command

    command(runs, as_json, out)


@app.command(rich_help_panel=ANALYSES)
def bounds(runs: Runs, as_json: JsonOnly = False, out: Out = None) -> None:
    """What sipp and pfp promised of every layer they pruned, beside the error that was observed.

    Both bound how far a layer's outputs move, relative to the sum of the sizes of the products in them. The table has
    the bound and the largest error on the sample that the criterion looked at, and on 200 validation rows that it did
    not see.

    Writes bounds.txt and bounds.csv.

    \b
    Example:
      sparseflows bounds runs/criteria
    """
    from analysis.cli.bounds import command

    command(runs, as_json, out)


@app.command(rich_help_panel=ANALYSES)
def classify(
    runs: Runs,
    seed: Annotated[int, typer.Option(metavar="I", min=0, help="Seed of the choice of the test points shown.")] = 0,
    as_json: JsonOnly = False,
    out: Out = None,
) -> None:
    """Classifiers: accuracy by prune ratio, decision boundaries and paths, weights by sparsity.

    Prints test accuracy and loss of every stage, means over the seeds ± s.e. Writes classify.txt, .csv, .json and
    classify.png, .pdf, .npz (accuracy and loss against the prune ratio, dense as reference line).

    Of the networks of the first seed: weights.gif, .png, .pdf, .npz, histograms of the surviving weights and of
    the l1 norms of neurons (channels) by sparsity; where the data have two columns boundary.png, .pdf, .npz, class
    probabilities and test points; and of neural ODEs trajectories.png, .pdf, .npz, paths of test points to their
    logits. Four methods share a figure; further ones are in figures whose names end in -2, -3, and so on.

    \b
    Example:
      sparseflows run param/classify/moons.yaml --out runs
      sparseflows classify runs/classify-moons
    """
    from analysis.cli.classify import command

    command(runs, seed, as_json, out)


@app.command(rich_help_panel=ANALYSES)
def report(
    runs: Runs,
    only_cached: Annotated[
        bool, typer.Option("--only-cached", help="Compute nothing: report what other commands have found so far.")
    ] = False,
    subsets: Annotated[
        int, typer.Option(metavar="N", min=1, help="Subsets of rows of each Hessian that is not there; 1 is quickest.")
    ] = HessianSettings.subsets,
    as_json: Json = False,
    out: Out = None,
) -> None:
    """One self-contained report.html: what pruning did, in words, tables, figures, an animation.

    Runs the analyses that have not been run (hessian, modes, field, cost) with their default settings; those that
    have been run are taken as they are. The page opens from disk and asks nothing of the network. A claim of the paper
    is judged against a control that trained as long; without one, the page has the command that adds it.

    \b
    Example:
      sparseflows report runs/quick
    """
    from analysis.cli.report import command

    command(runs, only_cached, subsets, as_json, out)
