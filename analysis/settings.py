"""The settings of the analyses, with their defaults: what the command line, the report and Python all pass.

A setting's name is its option, its annotation what `--help` says of it, the class's own text what the command says.
Only typer is imported here, so that help answers at once.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer

from sparseflows.errors import InputError

Seed = Annotated[int, typer.Option(metavar="I", min=0, help="Seed of everything that is drawn.")]


class Checked:
    """Settings that refuse what their options refuse: a value that is no choice, or below the least."""

    def __post_init__(self) -> None:
        """Raises InputError, with the name of the setting and what would be right."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            value, (kind, option) = getattr(self, name), get_args(hint)
            parts = get_args(kind) or (kind,)  # of `X | None`, of a Literal, or the type itself
            choices = [one for part in parts for one in (get_args(part) or (part,)) if isinstance(one, str)]
            if value is None and type(None) in parts:
                continue
            if choices and value not in choices:
                raise InputError(f"{name} is {value!r}; it is one of {', '.join(choices)}")
            if not choices and not isinstance(value, tuple(int if part is bool else part for part in parts)):
                wanted = " or ".join(part.__name__ for part in parts if part is not type(None))
                raise InputError(f"{name} is {value!r}; it is of type {wanted}")
            if option.min is not None and value < option.min:
                raise InputError(f"{name} is {value}; it is at least {option.min}")


@dataclass(frozen=True)
class HessianSettings(Checked):
    """Curvature of the loss at every stage: extreme eigenvalues, trace, condition, spectral density.

    The Hessian is that of the mean loss over a seeded subset of the training rows, with respect to the
    surviving params only. One block Lanczos and a few probes (136 products) tell lambda_max and lambda_min, the
    largest and smallest algebraic eigenvalues; the trace with its standard error; the effective rank,
    trace over lambda_max; kappa_80, lambda_max over the eigenvalue where the largest ones reach 80 % of the
    trace; how many lie above lambda_max/10, and which share below -lambda_max/100. Up to 500 params, or with
    --exact, the whole spectrum is computed instead.

    Everything is done for three subsets, and the error printed is how far these lie apart (standard
    deviation): what is smaller says nothing. --subsets 1 takes a third of the time and prints none.

    Writes hessian.json, hessian.csv and spectral_density.png, .pdf, .npz. With --stage the other stages in
    hessian.json stay as they are.

    \b
    Example:
      sparseflows hessian runs/quick
      sparseflows hessian runs/quick --stage dense-s0/0 --subset 512 --check pyhessian
      sparseflows hessian runs/quick --stage 'structured-*' --top 5
    """

    subset: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Training rows that the loss is over. [512, or all]")
    ] = None
    seed: Seed = 0
    loss: Annotated[
        Literal["nll", "flow_matching"],
        typer.Option(help="The loss whose Hessian it is; nll has the exact divergence."),
    ] = "nll"
    subsets: Annotated[
        int, typer.Option(metavar="N", min=1, help="Disjoint subsets of rows; their spread is the error printed.")
    ] = 3
    steps: Annotated[int, typer.Option(metavar="N", min=2, help="Steps of block Lanczos, 4 products each.")] = 30
    probes: Annotated[int, typer.Option(metavar="N", min=2, help="Products more, for the rest of the trace.")] = 16
    top: Annotated[
        int,
        typer.Option(
            metavar="K", min=0, help="Leading eigenvalues and eigenvectors to keep; the loss is drawn along two."
        ),
    ] = 0
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Compute the whole spectrum, as is always done up to 500 params; adds kappa."),
    ] = False
    protocol: Annotated[
        Literal["paper"] | None, typer.Option(help="paper: add the published estimator, labelled as such.")
    ] = None
    check: Annotated[
        Literal["pyhessian"] | None, typer.Option(help="pyhessian: run PyHessian beside it on the same loss.")
    ] = None
    tol: Annotated[
        float | None,
        typer.Option(
            metavar="TOL", help="Of the solve whose steps the loss is taken on. [1e-4; 1e-9 up to 500 params]"
        ),
    ] = None
    dtype: Annotated[
        Literal["float32", "float64"] | None,
        typer.Option(help="Precision of the products. [float32; float64 up to 500 params]"),
    ] = None
    memory: Annotated[
        int, typer.Option(metavar="MIB", min=64, help="Memory that the products may take; rows go in chunks below it.")
    ] = 1024
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Chunks worked on at a time. [one a processor]")
    ] = None

    def document(self) -> dict[str, Any]:
        """What results depend on; memory and threads are no part of it."""
        own = {name: value for name, value in asdict(self).items() if name not in ("memory", "threads")}
        return own | {"paper": own.pop("protocol") == "paper", "pyhessian": own.pop("check") == "pyhessian"}


@dataclass(frozen=True)
class ModesSettings(Checked):
    """How good the samples of every stage are, and whether all modes are there.

    Where the data are a mixture of Gaussians: the share of samples within 2, 3 and 5 standard deviations
    of the nearest mode, beside a perfect sampler's and the data's own, and the modes captured (at least a
    quarter of an even share of the samples within 3 standard deviations). For all other data: density and
    coverage (Naeem et al. 2020) and the sliced Wasserstein distance, each beside its value for two
    independent sets of true rows.

    Writes modes.json, modes.csv and mode_quality.png, .pdf, .npz.

    \b
    Example:
      sparseflows modes runs/quick --samples 20000
    """

    samples: Annotated[int, typer.Option(metavar="N", min=100, help="Samples to draw from every stage.")] = 20_000
    seed: Seed = 0
    protocol: Annotated[
        Literal["paper"] | None, typer.Option(help="paper: add the published distance, labelled as such.")
    ] = None

    def document(self) -> dict[str, Any]:
        """What results depend on."""
        return {"samples": self.samples, "seed": self.seed, "paper": self.protocol == "paper"}


@dataclass(frozen=True)
class FieldSettings(Checked):
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
      sparseflows field runs/quick
      sparseflows field runs/quick --stage best --colour speed
    """

    seed: Seed = 0
    colour: Annotated[
        Literal["divergence", "speed"], typer.Option(help="What the colour below the stream lines shows.")
    ] = "divergence"
    columns: Annotated[
        str | None,
        typer.Option(metavar="I-J[,I-J]", help="Column pairs to show where the data have more than two. [chosen]"),
    ] = None
    frames: Annotated[int, typer.Option(metavar="N", min=2, help="Frames of the animation.")] = 40


@dataclass(frozen=True)
class CostSettings(Checked):
    """What every stage costs: bytes, multiply-adds, evaluations both ways, seconds, beside the dense flow.

    Seconds are medians of interleaved repetitions on this machine, one thread; compare the ratios. Masked flows
    are timed twice where some of their weight matrices have zeros enough: as they are, and with those matrices
    executed as sparse ones (Flow.to_sparse), beside the dense flow and beside themselves.

    Writes cost.json and cost.csv.

    \b
    Example:
      sparseflows cost runs/quick
    """

    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Rows in the batch that is timed.")] = 1024
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Timings a stage, interleaved.")] = 5
    seed: Seed = 0


SETTINGS: dict[str, type[Any]] = {
    "hessian": HessianSettings,
    "modes": ModesSettings,
    "field": FieldSettings,
    "cost": CostSettings,
}
