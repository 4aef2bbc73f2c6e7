"""A flow and subsets of its data → the curvature of the loss: extreme eigenvalues, trace, figures, density."""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from analysis.curvature.along import loss_along
from analysis.curvature.figures import KAPPA_EPS, NEGATIVE, kappa_exact
from analysis.curvature.journal import Journal, Remembered
from analysis.curvature.lanczos import PUBLISHED_STARTS, PUBLISHED_STEPS, lanczos, published_estimator
from analysis.curvature.losses import NLL, MeanLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.pyhessian_check import compare, require_pyhessian
from analysis.curvature.spectrum import STARTS, Spectrum, computed, density, estimated
from analysis.curvature.subsets import mean_losses, rows_for
from analysis.runs.memory import peak_mib, reset_peak
from analysis.runs.processors import processors
from analysis.runs.results import Result
from analysis.runs.study import Study, Subject
from analysis.settings import HessianSettings as Settings
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.flow.model import Flow
from sparseflows.rng import numpy_generator

EXACT_PARAMS = 500  # up to here the whole spectrum is computed in any case
MOST_EXACT_PARAMS = 10_000  # above, its matrix alone would take 800 MB, and its products days
TIGHT_PARAMS = 500  # up to here the solve may be so exact that only rounding is left
TOL, TIGHT_TOL = 1e-4, 1e-9  # at 1e-4 the largest eigenvalue was within 0.15 % of its value at 1e-8
ALONG = 2  # leading eigenvectors that the loss is drawn along

_NUMBERS = (  # of every subset; the mean is reported, and how far they lie apart
    *("lambda_max", "lambda_min", "trace", "frobenius", "effective_rank", "kappa_80", "kappa_80_low", "kappa_80_high"),
    *("outliers", "negative_ratio", "negative_share", "loss_value", "gradient_norm"),
)


def check(study: Study, subjects: list[Subject], settings: Settings) -> None:
    """Refuse at once what cannot be done.

    Raises:
        InputError: a subset larger than the data, a loss that these flows do not have, a tolerance that is none,
            too many params, or PyHessian is wanted and not installed.
    """
    spec = study.folder.spec
    if settings.tol is not None and not 0 < settings.tol < 1:
        raise InputError(f"--tol is {settings.tol:g}; a tolerance lies between 0 and 1, for example 1e-5")
    if settings.check:
        require_pyhessian()
    rows_for(settings, *study.splits.train.shape)
    matchable = spec.flow.blocks == 1 and not spec.flow.train_end_time and spec.flow.time != "none"
    if settings.loss == "flow_matching" and not matchable:
        raise InputError(
            f"{study.path}: --loss flow_matching needs flows of one block, T = 1 and a time input; use --loss nll"
        )
    for subject in subjects:
        params = subject.record.params or 0
        if settings.exact and params > MOST_EXACT_PARAMS:
            raise InputError(
                f"{study.path}: {subject.name} has {params:,} params, too many for --exact (at most "
                f"{MOST_EXACT_PARAMS:,}); leave --exact out, or choose smaller stages with --stage"
            )


class Work:
    """What one stage takes: its flow in the right precision, survivors, losses, and how many products.

    Raises:
        RunError: the stage's weights cannot be read.
    """

    def __init__(self, study: Study, subject: Subject, settings: Settings) -> None:
        flow = subject.flow().requires_grad_(True)
        size = Survivors(flow, subject.kept(flow)).size
        self.whole = settings.exact or size <= EXACT_PARAMS
        self.dtype = settings.dtype or ("float64" if size <= TIGHT_PARAMS else "float32")
        self.flow = as_dtype(flow, getattr(torch, self.dtype)).requires_grad_(True)
        self.survivors = Survivors(self.flow, subject.kept(self.flow))
        tight = size <= TIGHT_PARAMS and self.dtype == "float64"  # float32 cannot resolve 1e-9
        self.tol = settings.tol or (TIGHT_TOL if tight else TOL)
        self.losses = mean_losses(study, self.flow, settings, self.tol, subject.record.seed)
        each = size if self.whole else STARTS * settings.steps + settings.probes
        paper = PUBLISHED_STEPS * PUBLISHED_STARTS if settings.protocol and not self.whole else 0
        self.products = each * len(self.losses) + paper
        self.settings = settings

    def operator(self, loss: MeanLoss) -> HessianOperator:
        """The Hessian of one loss."""
        threads = self.settings.threads or processors()
        return HessianOperator(self.flow, loss, self.survivors, self.settings.memory, threads)


def hessian_of_stage(
    study: Study,
    subject: Subject,
    settings: Settings,
    report: Callable[[int, int], None],
    journal: Path,
) -> Result:
    """The Hessian report of one stage; every block of products is kept in `journal` until it is done.

    Raises:
        RunError: the likelihood cannot be solved, or the loss has no Hessian there.
    """
    reset_peak()
    started = time.perf_counter()
    work = Work(study, subject, settings)
    rng = numpy_generator(settings.seed, "hessian/probes")
    found: list[tuple[Spectrum, dict[str, Any]]] = []
    arrays: dict[str, np.ndarray] = {}
    extra: dict[str, Any] = {}

    def tell(products: int) -> None:
        report(min(products, work.products), work.products)

    with Journal(journal) as kept:
        tell(kept.known)
        for number, make in enumerate(work.losses):
            loss = make()
            operator = work.operator(loss)
            remembered = Remembered(operator, kept, tell)
            spectrum, own = spectrum_of(
                remembered, settings, work.whole, work.survivors.slices(), rng, first=not number
            )
            found.append((spectrum, own | {"loss_value": operator.value, "gradient_norm": operator.gradient_norm}))
            if number == 0:
                extra = {"chunk": operator.chunk, "threads": operator.threads}
                extra["nfe"] = loss.steps.nfe if isinstance(loss, NLL) else 1
                if settings.top:
                    arrays = loss_along(operator, spectrum.vectors[:, :ALONG], spectrum.values[::-1][:ALONG])
                if settings.check:
                    so_far = {"seconds": time.perf_counter() - started, "trace_se": spectrum.trace.se}
                    so_far["lambda_max"] = spectrum.extremes[1]
                    extra["pyhessian"] = compare(operator, so_far, settings.seed)
    values = {
        **summary(found, settings),
        "hvps": kept.given,
        "seconds": time.perf_counter() - started,
        "peak_mib": peak_mib(),
        "subset": rows_for(settings, *study.splits.train.shape),
        "subset_seed": settings.seed,
        "loss": settings.loss,
        "tol": work.tol if settings.loss == "nll" else None,
        "dtype": work.dtype,
        **extra,
    }
    return Result(values, arrays | arrays_of([spectrum for spectrum, _ in found]))


def spectrum_of(
    operator: LinearOperator,
    settings: Settings,
    whole: bool,
    layers: dict[str, slice],
    rng: np.random.Generator,
    first: bool = True,
) -> tuple[Spectrum, dict[str, Any]]:
    """The spectrum over one subset, and what was asked for beside it.

    The published estimator takes 300 products more: of the `first` subset alone.
    """
    own: dict[str, Any] = {}
    multiplied: LinearOperator = operator
    if whole:
        spectrum, matrix = computed(operator, blocks=layers, top=settings.top)
        multiplied = aslinearoperator(matrix)
        if settings.exact:
            kappa, below = kappa_exact(spectrum.values)
            own |= {"kappa": _known(kappa), "below_eps": below}
    else:
        counts = {"steps": settings.steps, "probes": settings.probes, "top": settings.top}
        spectrum = estimated(operator, rng, blocks=layers, **counts)
    if settings.protocol and first:
        starts = numpy_generator(settings.seed, "hessian/published").standard_normal((spectrum.size, PUBLISHED_STARTS))
        by_paper = published_estimator(lanczos(multiplied, starts, PUBLISHED_STEPS))
        own["paper"] = {name: _known(value) for name, value in by_paper._asdict().items()}
    return spectrum, own


def summary(found: list[tuple[Spectrum, dict[str, Any]]], settings: Settings) -> dict[str, Any]:
    """The values of a stage: means over the subsets, how far these lie apart, and each one's own."""
    spectra = [spectrum for spectrum, _ in found]
    several = [_numbers(spectrum) | own for spectrum, own in found]
    each = {name: [one[name] for one in several] for name in _NUMBERS}
    known = {name: [value for value in values if value is not None] for name, values in each.items()}
    values: dict[str, Any] = {name: statistics.fmean(some) if some else None for name, some in known.items()}
    values |= {
        "trace_se": _joint([spectrum.trace.se for spectrum in spectra]),
        "lambda_max_residual": max(float(spectrum.residuals[-1]) for spectrum in spectra),
        "lambda_min_residual": max(float(spectrum.residuals[0]) for spectrum in spectra),
        "converged": all(spectrum.converged for spectrum in spectra),
        "negative_cut": NEGATIVE,
        "whole_spectrum": spectra[0].whole,
        "subsets": len(spectra),
        "subset_spread": {name: statistics.stdev(some) for name, some in known.items() if len(some) > 1},
        "subset_values": each | {"trace_se": [spectrum.trace.se for spectrum in spectra]},
        "layers": {
            name: {
                "trace": statistics.fmean(spectrum.trace.blocks[name][0] for spectrum in spectra),
                "trace_se": _joint([spectrum.trace.blocks[name][1] for spectrum in spectra]),
            }
            for name in spectra[0].trace.blocks
        },
    }
    if settings.exact:
        kappas = [one["kappa"] for one in several if one["kappa"] is not None]
        values["kappa"] = statistics.fmean(kappas) if kappas else None
        values["below_eps"] = statistics.fmean(one["below_eps"] for one in several)
        values["kappa_eps"] = KAPPA_EPS
    if settings.top:
        most = min(len(spectrum.values) for spectrum in spectra)
        values["top"] = [
            statistics.fmean(float(spectrum.values[-1 - i]) for spectrum in spectra)
            for i in range(min(settings.top, most))
        ]
    return values | ({"paper": several[0]["paper"]} if settings.protocol else {})


def arrays_of(spectra: list[Spectrum]) -> dict[str, np.ndarray]:
    """What figures are drawn from: the mean density, the whole spectrum (else empty), each subset's Ritz values and
    weights, and the leading eigenvectors (P, k) over the first subset.
    """
    grid, height = density(spectra)
    eigenvalues = spectra[0].values if spectra[0].whole else np.empty(0)
    arrays = {"grid": grid, "density": height, "eigenvalues": eigenvalues, "eigenvectors": spectra[0].vectors}
    for number, spectrum in enumerate(spectra):
        arrays |= {f"ritz_{number}": spectrum.values, f"weights_{number}": spectrum.weights}
    return arrays


def seconds_for(study: Study, subjects: list[Subject], settings: Settings) -> dict[str, float]:
    """How long the Hessian of each stage will take about, by its name, from one block of products of the first.

    A product's cost is taken to be that of the multiplications in the hidden layers.

    Raises:
        RunError: as `hessian_of_stage`, of the first.
    """
    began = time.perf_counter()
    first = Work(study, subjects[0], settings)
    operator = first.operator(first.losses[0]())
    ready = time.perf_counter() - began
    block = np.random.default_rng(0).standard_normal((first.survivors.size, STARTS))
    began = time.perf_counter()
    operator.matmat(block)
    unit = (time.perf_counter() - began) / STARTS / _multiplications(first.flow)

    def seconds(work: Work) -> float:
        return work.products * unit * _multiplications(work.flow) + ready * len(work.losses)

    others = {subject.name: seconds(Work(study, subject, settings)) for subject in subjects[1:]}
    return {subjects[0].name: seconds(first)} | others


def _multiplications(flow: Flow) -> int:
    return sum(p.numel() for p in flow.parameters() if p.ndim == 2)


def _numbers(spectrum: Spectrum) -> dict[str, Any]:
    low, high = spectrum.extremes
    return {
        "lambda_max": high,
        "lambda_min": low,
        "trace": spectrum.trace.value,
        "frobenius": spectrum.norm,
        **{name: _known(value) for name, value in vars(spectrum.figures).items()},
    }


def _joint(errors: list[float]) -> float:
    """The standard error of a mean of independent estimates."""
    return math.sqrt(sum(error**2 for error in errors)) / len(errors)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
