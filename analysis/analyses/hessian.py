"""`hessian`: the curvature of the loss at every stage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.analyses.shape import Analysis, Request, chosen_name, first_values, stage_sheet
from analysis.plots.along import along_figure
from analysis.plots.spectrum import spectrum_figure
from analysis.runs.groups import evenly
from analysis.runs.results import Entry, Report, Result, each_stage, is_known, place_of
from analysis.runs.study import Study, Subject
from analysis.tables.curvature import measured
from analysis.tables.numbers import NOTHING, Mean, measure, share
from analysis.tables.sheet import Sheet
from sparseflows.errors import SparseFlowsError
from sparseflows.experiment.folder.records import DONE
from sparseflows.experiment.monitoring.meter import duration

KIND = "hessian-2"  # the second: one block Lanczos over several subsets
PANELS = 12  # of the spectral densities, at most
_COLUMNS = (
    *("method", "seed", "stage", "status", "reason", "prune_ratio", "params", "loss", "loss_value"),
    *(
        "subset",
        "subsets",
        "subset_seed",
        "lambda_max",
        "lambda_min",
        "trace",
        "trace_se",
        "effective_rank",
        "kappa_80",
    ),
    *("outliers", "negative_ratio", "negative_share", "negative_cut", "frobenius", "kappa", "below_eps", "kappa_eps"),
    *("converged", "hvps", "seconds", "peak_mib"),
)


def compute(request: Request) -> list[Entry]:
    """The Hessian report of every stage, from the cache where it is known."""
    from analysis.curvature.stage import hessian_of_stage

    study, settings, depends = request.study, request.settings, request.settings.document()
    _foretell(request, depends)

    def of_stage(subject: Subject, report: Report) -> Result:
        journal = place_of(subject, KIND, depends).with_suffix(".products")
        return hessian_of_stage(study, subject, settings, report, journal)

    return each_stage(request.subjects, KIND, depends, of_stage, request.progress)


def _foretell(request: Request, depends: Mapping[str, Any]) -> None:
    """Say how long it will take, before it begins."""
    from analysis.curvature.stage import seconds_for

    wanted = [one for one in request.subjects if one.record.status == DONE and not is_known(one, KIND, depends)]
    if not wanted:
        return
    try:
        seconds = seconds_for(request.study, wanted, request.settings)
    except (SparseFlowsError, ArithmeticError, MemoryError, OSError, RuntimeError):
        return  # the stage itself will say what is wrong
    stages = f"{len(wanted)} stages" if len(wanted) > 1 else wanted[0].name
    request.progress.weigh(seconds)
    whole = duration(max(1.0, sum(seconds.values())))
    request.progress.say(f"{request.study.path}: hessian of {stages}, about {whole}")


def check(request: Request) -> None:
    """Refuse a loss, a subset or a spectrum that this run cannot have; see `curvature.stage.check`."""
    from analysis.curvature.stage import check as check_stages

    check_stages(request.study, list(request.subjects), request.settings)


def sheets(study: Study, entries: Sequence[Entry]) -> list[Sheet]:
    """The extreme eigenvalues, the trace, and the figures of the spectrum of every stage."""
    notes = [line for e in entries if e.result for line in _extras(e.subject.name, e.result.values)]
    legend, exact = "Hessian", False
    if (one := first_values(entries)) is not None:
        exact = "kappa" in one
        what = "NLL, exact divergence" if one["loss"] == "nll" else "flow-matching loss"
        subsets = f"{one['subsets']} disjoint subsets of " if one["subsets"] > 1 else ""
        error = "± the spread (s.d.) over the subsets" if one["subsets"] > 1 else "± s.e. of the trace alone"
        legend = (
            f"Hessian of the mean {what}, over {subsets}{one['subset']:,} training rows (seed {one['subset_seed']}); "
            f"surviving params; {error}"
        )
        notes += [
            "r: trace/λ_max. κ80: λ_max over the eigenvalue where the largest ones reach 80 % of the trace. "
            "above, below: eigenvalues above λ_max/10, and the share (%) below -λ_max/100",
        ]
        if one["subsets"] == 1:
            notes.append("another subset moves one flow's λ_max by 10-30 %: --subsets 3 tells")
    columns = (
        "λ_max",
        "λ_min",
        "trace",
        "r",
        "κ80",
        "above",
        "below",
        *(("κ (cut 1e-6)",) if exact else ()),
        "products",
    )
    return [stage_sheet(study, entries, legend, columns, _cells, notes=notes)]


def figures(request: Request, entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The spectral densities of up to 12 stages; with `--top`, the loss along their leading eigenvectors."""
    done = [entry for entry in entries if entry.result]
    if not done:
        return
    # Of too many stages: the first seed's; of still too many: evenly chosen ones, first and last among them.
    if len(done) > PANELS:
        done = [entry for entry in done if entry.subject.record.seed == done[0].subject.record.seed]
    shown = [done[place] for place in evenly(len(done), PANELS)]
    seeds = {entry.subject.record.seed for entry in shown}
    labels = [e.subject.label + (f", seed {e.subject.record.seed}" if len(seeds) > 1 else "") for e in shown]
    only = "" if len(seeds) > 1 else f", seed {seeds.pop()}"
    name = f"{request.study.folder.spec.name}{only}"
    arrays = [entry.result.arrays for entry in shown if entry.result]
    figure = spectrum_figure(labels, arrays, f"{name}: spectral density of the Hessian")
    yield "", {f"{chosen_name(request, 'spectral_density')}.{kind}": content for kind, content in figure.items()}
    if request.settings.top:
        figure = along_figure(labels, arrays, f"{name}: loss along the leading eigenvectors of the Hessian")
        yield "", {f"{chosen_name(request, 'loss_along')}.{kind}": content for kind, content in figure.items()}


def _cells(values: dict[str, Any]) -> list[str]:
    cells = [measure(measured(values, name)) for name in ("lambda_max", "lambda_min", "trace", "effective_rank")]
    cells += [measure(measured(values, "kappa_80")), _count(measured(values, "outliers"))]
    cells.append(share(measured(values, "negative_share"), 2))
    if "kappa" in values:
        kappa = values["kappa"]
        cells.append(NOTHING if kappa is None else f"{kappa:.3g} ({values['below_eps']:.0f} below)")
    return [*cells, f"{values['hvps']:,}"]


def _count(mean: Mean | None) -> str:
    if mean is None:
        return NOTHING
    return f"{mean.value:.0f}" if mean.value.is_integer() and not mean.se else f"{mean.value:.1f} ± {mean.se or 0:.1f}"


def _extras(name: str, values: dict[str, Any]) -> list[str]:
    lines = []
    if values.get("top"):
        lines.append(f"{name}, leading eigenvalues: {', '.join(f'{value:.4g}' for value in values['top'])}")
    if "paper" in values:
        paper = values["paper"]
        lines.append(
            f"{name}, published estimator (sums of unweighted Ritz values, not a trace): "
            f'λ_max {paper["lambda_max"]:.4g}, "trace" {paper["trace"]:.4g}, κ {_digits(paper["kappa"])}'
        )
    if "pyhessian" in values:
        its = values["pyhessian"]
        longer = "" if its["time_ratio"] is None else f"; at our s.e. {its['time_ratio']:.1f} × our time (by 1/√n)"
        lines.append(
            f"{name}, PyHessian: λ_max {its['lambda_max']:.4g} ({_digits(its['lambda_ratio'])} of ours), "
            f"trace {_digits(its['trace'], its['trace_se'])} from {its['trace_probes']} probes, "
            f"{its['seconds']:.0f} s{longer}"
        )
    if not values["converged"]:
        residuals = f"{values['lambda_max_residual']:.2g} and {values['lambda_min_residual']:.2g}"
        lines.append(f"{name}: the extreme eigenvalues did not converge; residuals {residuals}; raise --steps")
    return lines


def _digits(value: float | None, se: float | None = None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if not se else f"{value:.4g} ± {se:.2g}"


ANALYSIS = Analysis("hessian", compute, sheets, figures, check, columns=_COLUMNS)
