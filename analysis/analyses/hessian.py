"""`hessian`: the curvature of the loss at every stage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analysis.analyses.shape import Analysis, Request, first_values, stage_sheet
from analysis.plots.spectrum import spectrum_figure
from analysis.runs.groups import evenly
from analysis.runs.results import Entry, each_stage
from analysis.runs.study import Study
from analysis.tables.numbers import NOTHING, percent
from analysis.tables.sheet import Sheet

KIND = "hessian-1"
PANELS = 12  # of the spectral densities, at most
_COLUMNS = (
    *("method", "seed", "stage", "status", "reason", "prune_ratio", "params", "loss", "loss_value"),
    *("subset", "subset_seed", "lambda_max", "lambda_min", "trace", "trace_se", "kappa", "below_eps", "kappa_lanczos"),
    *("kappa_lanczos_se", "kappa_eps", "negative_share", "negative_share_se", "negative_cut"),
    *("clearly_negative_share", "clearly_negative_share_se", "hvps", "seconds", "peak_mib"),
)


def compute(request: Request) -> list[Entry]:
    """The Hessian report of every stage, from the cache where it is known."""
    from analysis.curvature.stage import hessian_of_stage

    return each_stage(
        request.subjects,
        KIND,
        request.settings.document(),
        lambda subject, report: hessian_of_stage(request.study, subject, request.settings, report),
        request.progress,
    )


def check(request: Request) -> None:
    """Refuse a loss, a subset or a spectrum that this run cannot have; see `curvature.stage.check`."""
    from analysis.curvature.stage import check as check_stages

    check_stages(request.study, list(request.subjects), request.settings)


def sheets(study: Study, entries: Sequence[Entry]) -> list[Sheet]:
    """The extreme eigenvalues, trace and condition of every stage."""
    notes = [line for e in entries if e.result for line in _extras(e.subject.name, e.result.values)]
    legend = "Hessian"
    if (one := first_values(entries)) is not None:
        what = "NLL, exact divergence" if one["loss"] == "nll" else "flow-matching loss"
        legend = (
            f"Hessian of the mean {what}, over {one['subset']:,} training rows (seed {one['subset_seed']}); "
            "surviving params, ± s.e."
        )
        notes += [
            "λ < −.001: share of the eigenvalues below −0.001 max |λ|",
            "another subset moves one flow's λ_max by 10-15 %: repeat with other --seed before believing less",
        ]
    columns = ("λ_max", "λ_min", "trace", "κ", "κ (100 Lanczos steps)", "λ < −.001", "products")
    return [stage_sheet(study, entries, legend, columns, _cells, notes=notes)]


def figures(request: Request, entries: Sequence[Entry]) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The spectral densities of up to 12 stages."""
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
    name = f"{request.study.folder.spec.name}{only}: spectral density of the Hessian"
    figure = spectrum_figure(labels, [entry.result.arrays for entry in shown if entry.result], name)
    yield "", {f"spectral_density.{kind}": content for kind, content in figure.items()}


def _cells(values: dict[str, Any]) -> list[str]:
    kappa = NOTHING if values["kappa"] is None else f"{values['kappa']:.3g} ({values['below_eps']} below ε)"
    return [
        f"{values['lambda_max']:.4g}",
        f"{values['lambda_min']:.4g}",
        _digits(values["trace"], values["trace_se"]),
        kappa,
        _digits(values["kappa_lanczos"], values["kappa_lanczos_se"]),
        percent(values["clearly_negative_share"]),
        f"{values['hvps']:,}",
    ]


def _extras(name: str, values: dict[str, Any]) -> list[str]:
    lines = []
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
        lines.append(f"{name}: the extreme eigenvalues did not converge; residuals {residuals}")
    return lines


def _digits(value: float | None, se: float | None = None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.4g}" if not se else f"{value:.4g} ± {se:.2g}"


ANALYSIS = Analysis("hessian", compute, sheets, figures, check, columns=_COLUMNS)
