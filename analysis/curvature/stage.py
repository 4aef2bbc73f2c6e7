"""A flow and a subset of its data -> the curvature of the loss: extreme eigenvalues, trace, condition, spectrum."""

import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import aslinearoperator

from analysis.curvature import spectrum
from analysis.curvature.lanczos import PROBE_STEPS, Extremes, Products, Tridiagonal, extreme_eigenvalues, lanczos
from analysis.curvature.losses import NLL, FlowMatchingLoss, MeanLoss
from analysis.curvature.operators import HessianOperator, Survivors
from analysis.curvature.pyhessian_check import compare, require_pyhessian
from analysis.curvature.trace import TraceEstimate, hutch_plus_plus
from analysis.runs.memory import peak_mib, reset_peak
from analysis.runs.results import Result
from analysis.runs.study import Study, Subject
from analysis.settings import HessianSettings as Settings
from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import as_dtype
from sparseflows.flow.model import Flow
from sparseflows.rng import numpy_generator, torch_generator

EXACT_PARAMS = 1500  # up to here the whole spectrum is computed in any case
MOST_EXACT_PARAMS = 10_000  # above, its matrix alone would take 800 MB, and its products days
TIGHT_PARAMS = 500  # up to here the solve may be so exact that only rounding is left
TOL, TIGHT_TOL = 1e-4, 1e-9  # at 1e-4 the largest eigenvalue was within 0.15 % of its value at 1e-8
ROWS = 512  # the published analysis took a tenth of the training points, 1,638: three times the time
DRAWS = 4  # of noise and time, for every row of the flow-matching loss
STEPS, STARTS = 100, 3  # of Lanczos
COLUMNS = 32  # of the identity, multiplied together where the whole matrix is wanted


def rows_for(settings: Settings, rows: int, dim: int) -> int:
    """How many of `rows` training rows the loss is over.

    By default 512, fewer in many dimensions: the exact divergence costs D tangents a row, and the
    default keeps rows · (D + 1) at what it is in two dimensions.

    Raises:
        InputError: more are asked for than there are.
    """
    if settings.subset is not None:
        if settings.subset > rows:
            raise InputError(f"--subset is {settings.subset}, but there are {rows} training rows; ask for fewer")
        return settings.subset
    wanted = ROWS if settings.loss == "flow_matching" else max(64, ROWS * 3 // (dim + 1))
    return min(rows, wanted)


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


def subset_rows(study: Study, settings: Settings, run_seed: int | None = None) -> np.ndarray:
    """The rows (N, D) of the loss, standardised, in the order of the training set of `run_seed` (None: the first)."""
    splits = study.splits if run_seed is None else study.splits_of(run_seed)
    train = np.asarray(splits.train)
    n = rows_for(settings, *train.shape)
    return train[np.sort(numpy_generator(settings.seed, "hessian/subset").permutation(len(train))[:n])]


def mean_loss(study: Study, flow: Flow, settings: Settings, tol: float, run_seed: int | None = None) -> MeanLoss:
    """The loss whose Hessian is taken, in the precision of `flow`, over the rows of `run_seed` (None: the first)."""
    like = next(flow.parameters())
    rows = torch.as_tensor(subset_rows(study, settings, run_seed), dtype=like.dtype, device=like.device)
    if settings.loss == "nll":
        return NLL.of(flow, rows, tol)
    generator = torch_generator(settings.seed, "hessian/draws")
    return FlowMatchingLoss.of(rows, study.folder.spec.train.time_power, generator, DRAWS)


def hessian_of_stage(study: Study, subject: Subject, settings: Settings, report: Callable[[int, int], None]) -> Result:
    """The Hessian report of one stage.

    Raises:
        RunError: the likelihood cannot be solved, or the loss has no Hessian there.
    """
    reset_peak()
    started = time.perf_counter()
    flow = as_dtype(subject.flow(), getattr(torch, settings.dtype)).requires_grad_(True)
    survivors = Survivors(flow, subject.kept(flow))
    tight = survivors.size <= TIGHT_PARAMS and settings.dtype == "float64"  # float32 cannot resolve 1e-9
    tol = settings.tol or (TIGHT_TOL if tight else TOL)
    loss = mean_loss(study, flow, settings, tol, subject.record.seed)
    whole = settings.exact or survivors.size <= EXACT_PARAMS
    expected = survivors.size if whole else STEPS * STARTS + settings.products + PROBE_STEPS + 4
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    operator = HessianOperator(
        flow,
        loss,
        survivors,
        settings.memory,
        settings.threads or processors,
        lambda done: report(min(done, expected), expected),
    )
    found = curvature(operator, settings, whole, survivors.slices())
    values = {
        **found.values,
        "hvps": operator.products,
        "seconds": time.perf_counter() - started,
        "peak_mib": peak_mib(),
        "subset": len(subset_rows(study, settings, subject.record.seed)),
        "subset_seed": settings.seed,
        "loss": settings.loss,
        "loss_value": operator.value,
        "gradient_norm": operator.gradient_norm,
        "tol": tol if settings.loss == "nll" else None,
        "nfe": loss.steps.nfe if isinstance(loss, NLL) else 1,
        "dtype": settings.dtype,
        "chunk": operator.chunk,
        "threads": operator.threads,
    }
    if settings.check:
        values["pyhessian"] = compare(operator, values, settings.seed)
    return Result(values, found.arrays)


def curvature(operator: HessianOperator, settings: Settings, whole: bool, layers: dict[str, slice]) -> Result:
    """Everything that products with `operator` tell: values and the spectral density's arrays."""
    rng = numpy_generator(settings.seed, "hessian/probes")
    starts = rng.standard_normal((operator.shape[0], STARTS))
    if whole:
        matrix = whole_matrix(operator)
        eigenvalues = np.linalg.eigvalsh(matrix)
        runs = lanczos(aslinearoperator(matrix), starts, STEPS)
        extremes = Extremes(float(eigenvalues[-1]), float(eigenvalues[0]), 0.0, 0.0, 0, True)
        diagonal = np.diagonal(matrix)
        parts = {name: (float(diagonal[part].sum()), 0.0) for name, part in layers.items()}
        trace = TraceEstimate(float(diagonal.sum()), 0.0, 0, operator.products, parts)
        kappa, below = spectrum.kappa_exact(eigenvalues)
        share, share_se, cut = spectrum.negative_share_exact(eigenvalues), 0.0, spectrum.NEGATIVE_EPS
        clear, clear_se = spectrum.negative_share_exact(eigenvalues, spectrum.NEGATIVE_CUT), 0.0
    else:
        eigenvalues = np.empty(0)
        runs = lanczos(operator, starts, STEPS, keep_basis=True)
        extremes = extreme_eigenvalues(operator, start=_outermost(runs))
        trace = hutch_plus_plus(operator, settings.products, rng, layers)
        kappa, below = math.nan, None
        clear, clear_se = spectrum.negative_share(runs)
        share, share_se, cut = clear, clear_se, spectrum.NEGATIVE_CUT
    kappa_lanczos, kappa_lanczos_se = spectrum.kappa_lanczos(runs)
    values: dict[str, Any] = {
        "lambda_max": extremes.lambda_max,
        "lambda_min": extremes.lambda_min,
        "lambda_max_residual": extremes.residual_max,
        "lambda_min_residual": extremes.residual_min,
        "converged": extremes.converged,
        "trace": trace.value,
        "trace_se": trace.se,
        "trace_99": list(trace.interval(0.99)),
        "trace_products": trace.products,
        "kappa": _known(kappa),
        "below_eps": below,
        "kappa_lanczos": _known(kappa_lanczos),
        "kappa_lanczos_se": _known(kappa_lanczos_se),
        "kappa_eps": spectrum.KAPPA_EPS,
        "negative_share": share,
        "negative_share_se": _known(share_se),
        "negative_cut": cut,
        "clearly_negative_share": clear,
        "clearly_negative_share_se": _known(clear_se),
        "whole_spectrum": whole,
        "layers": {name: {"trace": value, "trace_se": se} for name, (value, se) in trace.blocks.items()},
    }
    if settings.protocol:
        values["paper"] = {name: _known(value) for name, value in spectrum.published_estimator(runs)._asdict().items()}
    grid = spectrum.density_grid(runs)
    arrays = {"grid": grid, "density": spectrum.spectral_density(runs, grid), "eigenvalues": eigenvalues}
    arrays |= {f"alpha_{i}": run.alpha for i, run in enumerate(runs)}
    arrays |= {f"beta_{i}": run.beta for i, run in enumerate(runs)}
    return Result(values, arrays)


def whole_matrix(operator: HessianOperator) -> np.ndarray:
    """The Hessian (P, P), symmetrised, from P products."""
    size = operator.shape[0]
    multiply, matrix = Products(operator), np.empty((size, size))  # Products refuses what is not finite
    for start in range(0, size, COLUMNS):
        columns = np.eye(size, min(COLUMNS, size - start), -start)
        matrix[:, start : start + columns.shape[1]] = multiply(columns)
    return (matrix + matrix.T) / 2


def _outermost(runs: list[Tridiagonal]) -> np.ndarray:
    # The run that reaches farthest at each end knows that end best.
    ends = [run.ritz_vectors() for run in runs]
    top = max(ends, key=lambda pair: pair[0][-1])[1][:, -1]
    bottom = min(ends, key=lambda pair: pair[0][0])[1][:, 0]
    return np.asarray(top + bottom)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
