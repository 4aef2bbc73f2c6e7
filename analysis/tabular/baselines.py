"""What any flow should beat: a Gaussian with full covariance, and a mixture of Gaussians chosen by BIC.

Pure: rows in, numbers out, randomness from a seed. NLLs are in nats, in the coordinates of the rows.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.runs.results import Report
from sparseflows.rng import derived_seed, numpy_generator

GAUSSIAN, MIXTURE = "Gaussian", "Gaussian mixture"
COMPONENTS = (1, 2, 4, 8, 16, 32)
COVARIANCES = ("full", "diag")
FIT_ROWS = 50_000
REGULARISER = 1e-4  # added to every component's variances: a component may not shrink onto a repeated value
_SINGULAR = 1e-12  # smallest over largest eigenvalue
_CHUNK = 65_536
LogProb = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Baseline:
    """One baseline, fitted to training rows and scored on the others.

    `name` is `GAUSSIAN` or `MIXTURE`; `params` counts the numbers that were fitted, to `n_fit` training rows; NLLs are
    in nats, `nll_test_se` is over the test rows, None where there is one. `choice` says what was chosen, empty for the
    Gaussian; `notes` are what a reader should know, one line each.
    """

    name: str
    params: int
    nll_val: float
    nll_test: float
    nll_test_se: float | None
    n_fit: int
    choice: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gaussian:
    """N(mean, factor factorᵀ); `ridge` is what was added to the variances, 0 where the covariance is regular."""

    mean: np.ndarray
    factor: np.ndarray
    ridge: float

    @property
    def params(self) -> int:
        """Means, variances and covariances."""
        columns = len(self.mean)
        return columns + columns * (columns + 1) // 2

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """(B, D) → log density (B,), nats."""
        from scipy.linalg import solve_triangular

        whitened = solve_triangular(self.factor, (x - self.mean).T, lower=True)
        log_det = np.log(np.diag(self.factor)).sum()
        return np.asarray(-0.5 * (whitened**2).sum(axis=0) - log_det - 0.5 * len(self.mean) * math.log(2 * math.pi))


@dataclass(frozen=True)
class Chosen:
    """The mixture of lowest BIC: the fitted `sklearn.mixture.GaussianMixture`, and how the choice went."""

    model: object
    components: int
    covariance: str
    params: int
    n_fit: int
    notes: tuple[str, ...]

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """(B, D) → log density (B,), nats."""
        return np.asarray(self.model.score_samples(x))  # type: ignore[attr-defined]


def fit_gaussian(train: np.ndarray) -> Gaussian:
    """Maximum likelihood in closed form (divisor N) for rows (N, D).

    Where the covariance is singular, a millionth of the mean variance is added to each variance, which any linearly
    dependent column would otherwise make a division by 0.
    """
    mean = train.mean(axis=0)
    covariance = np.atleast_2d(np.cov(train, rowvar=False, bias=True))
    eigenvalues = np.linalg.eigvalsh(covariance)
    ridge = 0.0
    if eigenvalues[0] <= _SINGULAR * eigenvalues[-1]:
        ridge = 1e-6 * float(np.trace(covariance)) / len(mean)
    return Gaussian(mean, np.linalg.cholesky(covariance + ridge * np.eye(len(mean))), ridge)


def fit_mixture(
    train: np.ndarray,
    seed: int,
    components: Sequence[int] = COMPONENTS,
    at_most: int = FIT_ROWS,
    report: Report = lambda step, total: None,
) -> Chosen:
    """The Gaussian mixture of lowest BIC among `components` × full and diagonal covariances.

    Every candidate is fitted once to the same rows: all of `train` (N, D), or a seeded choice of `at_most` of them.
    A larger mixture was not refitted to all rows: at 50,000 its likelihood has settled, and BIC stays comparable.

    Raises:
        ArithmeticError: not one candidate could be fitted.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rows = train
    if len(train) > at_most:
        rows = train[np.sort(numpy_generator(seed, "mixture/rows").permutation(len(train))[:at_most])]
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    candidates = [(k, covariance) for k in components for covariance in COVARIANCES]
    costs = [k * (rows.shape[1] if covariance == "full" else 4) for k, covariance in candidates]
    best, skipped, unsettled = None, [], []
    for number, (k, covariance) in enumerate(candidates):
        model = GaussianMixture(
            k, covariance_type=covariance, reg_covar=REGULARISER, random_state=derived_seed(seed, "mixture") % 2**32
        )
        try:
            if k >= len(rows):
                raise ValueError("no more rows than components")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # told by converged_, below
                model.fit(rows)
            bic = float(model.bic(rows))
            if not math.isfinite(bic):
                raise ValueError("its likelihood is not finite")
        except (ValueError, np.linalg.LinAlgError):
            skipped.append(f"{covariance} {k}")
            continue
        finally:
            report(sum(costs[: number + 1]), sum(costs))
        if not model.converged_:
            unsettled.append(f"{covariance} {k}")
        if best is None or bic < best[0]:
            best = (bic, model, k, covariance)
    if best is None:
        raise ArithmeticError(f"no Gaussian mixture could be fitted to {len(rows)} rows of {rows.shape[1]} columns")
    _, model, k, covariance = best
    told = {"that could not be fitted": skipped, "stopped at 100 steps, before they settled": unsettled}
    notes = tuple(f"mixtures {what}: {', '.join(some)}" for what, some in told.items() if some)
    columns = rows.shape[1]
    spread = columns * (columns + 1) // 2 if covariance == "full" else columns
    return Chosen(model, k, covariance, k * (columns + spread) + k - 1, len(rows), notes)


def fit_baselines(
    train: np.ndarray,
    validation: np.ndarray,
    test: np.ndarray,
    seed: int,
    report: Report = lambda step, total: None,
    log_slope: LogProb | None = None,
) -> list[Baseline]:
    """Both baselines, fitted to `train` (N, D), scored on `validation` and `test`, all in the NLL's coordinates.

    `seed` is that of the mixture's beginnings, and of the choice of its rows; `report` hears of the mixtures' progress;
    `log_slope`, (B, D) → (B,), is added to log densities: that of the maps which columns are seen through.
    """

    def score(model: Gaussian | Chosen) -> tuple[float, float, float | None]:
        if log_slope is None:
            return _scores(model.log_prob, validation, test)
        return _scores(lambda rows: model.log_prob(rows) + log_slope(rows), validation, test)

    gaussian = fit_gaussian(np.asarray(train, dtype=np.float64))
    note = (f"its covariance is singular: {gaussian.ridge:.1e} added to the variances",) if gaussian.ridge else ()
    mixture = fit_mixture(train, seed, report=report)
    choice = f"{mixture.components} component{'s' * (mixture.components > 1)}, {mixture.covariance} covariance"
    return [
        Baseline(GAUSSIAN, gaussian.params, *score(gaussian), len(train), "", note),
        Baseline(MIXTURE, mixture.params, *score(mixture), mixture.n_fit, choice, mixture.notes),
    ]


def _scores(log_prob: LogProb, *parts: np.ndarray) -> tuple[float, float, float | None]:
    """NLL of the validation rows and of the test rows, and the standard error of the latter."""
    validation, test = (_in_chunks(log_prob, rows) for rows in parts)
    se = float(test.std(ddof=1)) / math.sqrt(len(test)) if len(test) > 1 else None
    return -float(validation.mean()), -float(test.mean()), se


def _in_chunks(log_prob: LogProb, rows: np.ndarray) -> np.ndarray:
    starts = range(0, len(rows), _CHUNK)
    return np.concatenate([log_prob(np.asarray(rows[k : k + _CHUNK], dtype=np.float64)) for k in starts])
