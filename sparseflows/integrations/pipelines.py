"""The density that a scikit-learn pipeline ends in, in the coordinates of what goes into the pipeline.

A pipeline's own `score_samples` is the density of what its last step sees. In the original coordinates log p is more by
log|det| of every step before: log p(x) = log p(T(x)) + log|det ∂T/∂x|.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from sparseflows.errors import InputError
from sparseflows.evaluation.likelihood import standard_error

Array = NDArray[np.float64]


class PipelineNLL(NamedTuple):
    """−mean log p and its standard error over the rows, nats."""

    nll: float
    se: float


def pipeline_score_samples(pipeline: Any, X: ArrayLike) -> Array:
    """log p (N,) of rows X (N, D), in nats, in the coordinates of X.

    A row that a step does not take (Box–Cox's power of a number that is not above 0) has density 0: log p is −inf.

    Args:
        pipeline: fitted; its last step has `score_samples` (`SparseFlowDensity`, `KernelDensity`, `GaussianMixture`).
            Before it may stand StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler (none of them clipping), PCA
            with all components, PowerTransformer, an identity FunctionTransformer, `passthrough`, and pipelines of
            these. A density estimator by itself will do too.
        X: rows as the pipeline takes them.

    Raises:
        InputError: a step whose determinant is not known, or a last step without densities.

    >>> import numpy as np
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sparseflows import pipeline_score_samples
    >>> X = np.random.default_rng(0).normal(3.0, 10.0, size=(500, 2))
    >>> whole = make_pipeline(StandardScaler(), GaussianMixture(random_state=0)).fit(X)
    >>> alone = GaussianMixture(random_state=0).fit(X)  # of one Gaussian: scaling changes nothing
    >>> bool(np.allclose(pipeline_score_samples(whole, X), alone.score_samples(X), atol=1e-3))
    True
    >>> bool(whole.score(X) - alone.score(X) > 4)  # log 10² off: of the scaled rows
    True
    """
    steps, last = _steps(pipeline)
    if not hasattr(last, "score_samples"):
        raise InputError(f"the last step, {type(last).__name__}, has no score_samples; end the pipeline in a density")
    rows: Any = X
    inside, total = np.ones(len(rows), dtype=bool), np.zeros(len(rows))
    for name, step in steps:
        rule = _DETERMINANTS.get(type(step))
        if rule is None:
            known = ", ".join(sorted(kind.__name__ for kind in _DETERMINANTS))
            raise InputError(f"step '{name}': the determinant of a {type(step).__name__} is not known (known: {known})")
        before = np.asarray(rows, dtype=np.float64)
        taken = _taken(step, before)
        if not taken.all():
            inside[inside] = taken
            rows, before = rows.loc[taken] if hasattr(rows, "loc") else np.asarray(rows)[taken], before[taken]
        if not len(before):
            break
        try:
            total[inside] += rule(step, before)
        except InputError as error:
            raise InputError(f"step '{name}': {error}") from None
        rows = step.transform(rows)
    log_prob = np.full(len(inside), -np.inf)
    if inside.any():
        log_prob[inside] = np.asarray(last.score_samples(rows), dtype=np.float64) + total[inside]
    return log_prob


def pipeline_nll(pipeline: Any, X: ArrayLike) -> PipelineNLL:
    """The NLL of rows X (N, D) in the coordinates of X, with its standard error; see `pipeline_score_samples`.

    A row of density 0 makes it infinite, with an error of NaN.
    """
    log_prob = pipeline_score_samples(pipeline, X)
    return PipelineNLL(
        float(-log_prob.mean()), standard_error(log_prob) if np.isfinite(log_prob).all() else float("nan")
    )


def _steps(pipeline: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The transformers in order, pipelines within it unfolded, and the last step."""
    if not isinstance(pipeline, Pipeline):
        return [], pipeline
    steps: list[tuple[str, Any]] = []
    for name, step in pipeline.steps[:-1]:
        if isinstance(step, Pipeline):
            inner, last = _steps(step)
            steps += [*inner, (name, last)]
        else:
            steps.append((name, step))
    inner, last = _steps(pipeline.steps[-1][1])
    return [(name, step) for name, step in steps if step is not None and step != "passthrough"] + inner, last


def _taken(step: Any, rows: Array) -> NDArray[np.bool_]:
    """Which of the rows (N, D) a step has values for."""
    positive = isinstance(step, PowerTransformer) and step.method == "box-cox"
    outside = rows <= 0 if positive else np.zeros_like(rows, dtype=bool)  # what is missing is the step's own affair
    taken: NDArray[np.bool_] = ~np.any(outside, axis=1)
    return taken


def _of_division(step: Any, rows: Array) -> float:
    """The determinant of a division of every column by its `scale_`."""
    return 0.0 if step.scale_ is None else -float(np.log(step.scale_).sum())


def _of_range(step: MinMaxScaler | MaxAbsScaler, rows: Array) -> float:
    if getattr(step, "clip", False):
        raise InputError(f"{type(step).__name__} clips, so it has no density beyond its range; set clip=False")
    # MinMaxScaler multiplies by its scale_.
    return _of_division(step, rows) * (-1 if isinstance(step, MinMaxScaler) else 1)


def _of_pca(step: PCA, rows: Array) -> float:
    if step.n_components_ != rows.shape[1]:
        raise InputError(
            f"PCA keeps {step.n_components_} of {rows.shape[1]} components, so there is no density; keep all"
        )
    # A rotation, and each component divided by its standard deviation where it whitens.
    return -0.5 * float(np.log(step.explained_variance_).sum()) if step.whiten else 0.0


def _of_power(step: PowerTransformer, rows: Array) -> Array:
    slopes = np.zeros(len(rows))
    for column, power in zip(rows.T, step.lambdas_, strict=True):
        if step.method == "box-cox":
            slopes += (power - 1) * np.log(column)
        else:
            slopes += np.sign(column) * (power - 1) * np.log1p(np.abs(column))
    return slopes + (_of_division(step._scaler, rows) if step.standardize else 0.0)


def _of_function(step: FunctionTransformer, rows: Array) -> float:
    if step.func is not None:
        name = getattr(step.func, "__name__", type(step.func).__name__)
        raise InputError(f"the determinant of a FunctionTransformer of '{name}' is not known; only the identity's is")
    return 0.0


_DETERMINANTS: dict[type, Callable[[Any, Array], Array | float]] = {
    StandardScaler: _of_division,
    MinMaxScaler: _of_range,
    MaxAbsScaler: _of_range,
    RobustScaler: _of_division,
    PCA: _of_pca,
    PowerTransformer: _of_power,
    FunctionTransformer: _of_function,
}
