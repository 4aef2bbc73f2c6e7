"""A pruned flow as a scikit-learn density estimator."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sparseflows.data.findings.finding import ESTIMATOR, findings
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import DataWarning, InputError
from sparseflows.evaluation.likelihood import likelihood, reporting_solver
from sparseflows.evaluation.sampling import draw_again
from sparseflows.flow.model import Flow
from sparseflows.integrations.document import settings_of
from sparseflows.integrations.fitting import Fit, Part, split, untrained
from sparseflows.integrations.frames import refuse_what_is_no_number
from sparseflows.integrations.weights import checked, counted_rows
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.methods import Pruned
from sparseflows.training.loop import Outcome

Array = NDArray[np.float64]
MAX_SEED = 2**31 - 1


class SparseFlowDensity(DensityMixin, BaseEstimator):
    """Fits a continuous normalizing flow to rows, prunes it and retrains what is left.

    The columns are standardised inside; densities and samples are in the coordinates of X. A dense flow is trained
    first, then pruned to each keep ratio in turn and retrained: `flow_` is the last of them.

    Args:
        hidden: neurons of each hidden layer of the vector field.
        activation: sigmoid, tanh, softplus, relu or silu.
        field: a vector field of one's own instead: D → a module f(t, z) that gives the rates (B, D) at points z (B, D)
            and the time t, a scalar tensor ((B, 1) with flow matching).
        objective: flow_matching (no solve in training), nll, or auto: nll with a field of one's own, else
            flow_matching.
        steps: of the dense training.
        batch: rows a step.
        lr: top learning rate; it falls along a cosine.
        prune: a pruning method by name, as in a param file's `prune.methods`.
        keep_ratio: share of the dense flow's params to keep, in (0, 1), or several, falling; None leaves it dense.
        retrain_steps: after each pruning; half of `steps` by default.
        validation_fraction: share of the rows on which the weights of the lowest NLL are chosen during each training;
            0 takes the last step's. It is left out where it would be less than two rows.
        whiten: begin with a fixed linear map that whitens the rows.
        tolerance: rtol = atol of the solves for densities and samples, 1e-10 to 1e-5. Where no
            compiled engine is, rows that are solved together share their steps, so the density of a row may move by
            about as much with the rows beside it: by less than scikit-learn's own checks can see at the default.
            1e-5 takes a fifth of the time.
        random_state: of the initial weights, the batches and the pruning.
        verbose: 1 prints a line a training.

    Attributes:
        flow_: the flow, in standardised coordinates; `flow_.distribution(coordinates="data")` is this density.
        standardiser_: shift and scale of the columns.
        masks_: which of `flow_`'s parameters are kept; None where it is dense or neurons were taken out.
        params_, params_dense_: params that are kept, and those of the dense flow.
        prune_ratio_: 1 − params_/params_dense_, the one reached.
        history_: one record for each 1/40 of each training: stage, step, loss, lr, nfe.
        n_features_in_, feature_names_in_: as scikit-learn has them.

    Rows for which a density means little (repeated rows or values, columns that others determine, heavy tails, angles)
    are told of by a `DataWarning`, before any training.

    `score` is the mean log density, in nats, as `sklearn.mixture.GaussianMixture` has it (the total of
    `sklearn.neighbors.KernelDensity` would weigh the folds of a cross-validation by their sizes): −NLL in the
    coordinates of X.

    >>> import numpy as np
    >>> from sparseflows import SparseFlowDensity
    >>> X = np.random.default_rng(0).normal([1.0, 5.0], [0.5, 2.0], size=(400, 2))
    >>> density = SparseFlowDensity(hidden=(16,), steps=200, keep_ratio=0.5, random_state=0).fit(X)
    >>> density.params_, density.params_dense_, f"{density.prune_ratio_:.2f}"
    (49, 98, '0.50')
    >>> density.score_samples(X[:3]).shape, density.sample(5, random_state=0).shape
    ((3,), (5, 2))
    >>> entropy = np.log(0.5 * 2.0) + np.log(2 * np.pi * np.e)  # of the density that X was drawn from
    >>> bool(abs(-density.score(X) - entropy) < 0.2)
    True
    """

    flow_: Flow
    standardiser_: Standardiser

    def __init__(
        self,
        *,
        hidden: int | Sequence[int] = (64, 64),
        activation: str = "silu",
        field: Callable[[int], nn.Module] | None = None,
        objective: str = "auto",
        steps: int = 2000,
        batch: int = 256,
        lr: float = 0.01,
        prune: str = "unstructured",
        keep_ratio: float | Sequence[float] | None = 0.5,
        retrain_steps: int | None = None,
        validation_fraction: float = 0.1,
        whiten: bool = False,
        tolerance: float = 1e-9,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.field = field
        self.objective = objective
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.prune = prune
        self.keep_ratio = keep_ratio
        self.retrain_steps = retrain_steps
        self.validation_fraction = validation_fraction
        self.whiten = whiten
        self.tolerance = tolerance
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> SparseFlowDensity:
        """Fit the density to rows X (N, D); `y` is ignored.

        Args:
            X: rows.
            y: ignored.
            sample_weight: (N,), or one number for all; a weight w is w copies of the row, 0 leaves it out. Whole
                numbers give, to the bit, the fit of `np.repeat(X, sample_weight, axis=0)`, as long as the copies hold
                at most 2²⁴ numbers or four times those of X. Of other weights only the ratios count: every epoch draws
                as many rows as there are, each w/mean(w) times on average, which is the next lower or the next higher
                whole number of times; the standardiser, the whitening and the validation NLL are weighted.

        Raises:
            ValueError: settings, rows or weights that are refused (a constant column, a single row, a weight below 0).
            RunError: every training diverged.
        """
        refuse_what_is_no_number(X)
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        spec = settings_of(self, int(check_random_state(self.random_state).randint(MAX_SEED)))
        names = getattr(self, "feature_names_in_", None)
        given, weights = rows, None
        if sample_weight is not None:
            places, weights = counted_rows(sample_weight, *rows.shape)
            given, rows = rows[np.unique(places)], rows[places]
        self.standardiser_ = Standardiser.fit_columns(rows, "X", names, weights)
        for note in findings(given, None if names is None else list(names), ESTIMATOR):
            warnings.warn(f"X: {note}", DataWarning, stacklevel=2)
        part = Part(self.standardiser_.apply(rows), weights)
        dense = untrained(spec, part, self.field)
        fit = Fit(spec, *split(part, self.validation_fraction, spec.seeds[0]), self._tell)
        state = fit.run(dense)
        self.history_ = fit.history
        self.params_dense_ = count_params(dense)
        self.flow_ = copy.deepcopy(state.flow).eval()
        self.flow_.solver = reporting_solver(spec.evaluate)
        self.flow_.standardiser = self.standardiser_
        self.flow_.columns = None if names is None else tuple(map(str, names))
        self.masks_ = state.masks
        self.params_ = state.params
        self.prune_ratio_ = 1 - self.params_ / self.params_dense_
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """log p of rows X (N, D), (N,), in nats, in the coordinates of X.

        −inf for a row beyond all numbers; NaN, with a warning, for one that cannot be solved.

        Raises:
            ValueError: rows that are not those of the fit.
        """
        check_is_fitted(self)
        refuse_what_is_no_number(X)
        return self._log_density(validate_data(self, X, dtype=np.float64, reset=False))

    def score(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean log p of rows X (N, D): −NLL, in nats, in the coordinates of X; higher is better.

        Args:
            X: rows.
            y: ignored.
            sample_weight: (N,), or one number for all, of a weighted mean; 0 leaves the row out.

        Raises:
            ValueError: rows that are not those of the fit, or weights that are refused.
        """
        check_is_fitted(self)
        refuse_what_is_no_number(X)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        if sample_weight is None:
            return float(self._log_density(rows).mean())
        weights = checked(sample_weight, len(rows))
        shares = weights / weights.max()
        return float(np.average(self._log_density(rows[shares > 0]), weights=shares[shares > 0]))

    def _log_density(self, rows: Array) -> Array:
        """log p (N,) of rows (N, D), both in the coordinates of X; a warning counts those that are not solved."""
        found = likelihood(self.flow_, self.standardiser_.apply(rows), self.flow_.solver)
        if found.rows_unsolved:
            warnings.warn(
                f"log p of {found.rows_unsolved} of {len(rows)} rows cannot be computed ({found.status.value}); "
                "it is NaN there",
                stacklevel=3,
            )
        return found.log_prob - self.standardiser_.log_scale

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Array:
        """Samples (n_samples, D) in the coordinates of X.

        Raises:
            InputError: not a positive number of samples.
            RunError: the solver failed.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise InputError(f"n_samples={n_samples!r}; give a whole number from 1 on")
        draws = check_random_state(random_state)
        drawn, lost = draw_again(self.flow_, self.n_features_in_, int(n_samples), lambda: int(draws.randint(MAX_SEED)))
        if lost:
            warnings.warn(
                f"{lost} draws ran off on their way to {n_samples} samples and were drawn again", stacklevel=2
            )
        return self.standardiser_.invert(drawn)

    def _tell(self, stage: int, state: Pruned[Flow], outcome: Outcome) -> None:
        if not self.verbose:
            return
        chosen = "" if outcome.best_val is None else f", validation NLL {outcome.best_val:.3f}"
        what = f"pruned by {self.prune}" if stage else "dense"
        cost = f"{outcome.steps:,} steps, {outcome.seconds:.1f} s"
        print(f"stage {stage} ({what}): {state.params:,} params, {cost}{chosen}")
