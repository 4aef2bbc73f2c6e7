"""A pruned flow as a scikit-learn density estimator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.whitening import whitening_matrix
from sparseflows.errors import InputError, RunError
from sparseflows.evaluation.likelihood import likelihood, reporting_solver, subset
from sparseflows.experiment.inference import draw_standardised
from sparseflows.experiment.stages.selection import SELECTION_TOLERANCE
from sparseflows.experiment.stages.stage import LR_SCALES
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample
from sparseflows.rng import numpy_generator
from sparseflows.specs.settings import Spec, TrainSpec
from sparseflows.specs.yaml import validate
from sparseflows.training.loop import Hooks, train
from sparseflows.training.objectives import build_objective

Array = NDArray[np.float64]
MAX_SEED = 2**31 - 1
REDRAWS = 20  # of samples that are lost, before it is given up
# How the likelihood is solved in training: held steps for the package's own field, error control for any other.
HELD = {"method": "bosh3", "rtol": 1e-3, "atol": 1e-3, "first_tol": 1e-2, "hold_grid": 8, "hold_rows": 128}
ADAPTIVE = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3}


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
        tolerance: rtol = atol of the solves for densities and samples, 1e-10 to 1e-5. Rows that are solved together
            share their steps, so the density of a row may move by about as much with the rows beside it: by less than
            scikit-learn's own checks can see at the default. 1e-5 takes a fifth of the time.
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

    def fit(self, X: ArrayLike, y: object = None) -> SparseFlowDensity:
        """Fit the density to rows X (N, D); `y` is ignored.

        Raises:
            ValueError: settings or rows that are refused (a constant column, a single row).
            RunError: every training diverged.
        """
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        seed = int(check_random_state(self.random_state).randint(MAX_SEED))
        spec = self._spec(seed)
        self.standardiser_ = Standardiser.fit_columns(rows, "X")
        rows = self.standardiser_.apply(rows)
        dense = self._untrained(spec, rows, seed)
        self.history_: list[dict[str, Any]] = []
        fit_rows, chosen_by = _split(rows, self.validation_fraction, seed)
        state = self._trained(spec, lambda: unpruned(copy.deepcopy(dense)), fit_rows, chosen_by, 0)
        self.params_dense_ = count_params(dense)
        for stage, ratio in enumerate(spec.prune.keep_ratios, 1):
            before, target = state, round(ratio * self.params_dense_)

            def start(before: Pruned[Flow] = before, target: int = target) -> Pruned[Flow]:
                return prune(
                    self.prune, before, dense, target, sample=_sample(self.prune, spec, fit_rows, seed), seed=seed
                )

            state = self._trained(spec, start, fit_rows, chosen_by, stage)
        self.flow_ = copy.deepcopy(state.flow).eval()
        self.flow_.solver = reporting_solver(spec.evaluate)
        self.flow_.standardiser = self.standardiser_
        self.masks_ = state.masks
        self.params_ = state.params
        self.prune_ratio_ = 1 - self.params_ / self.params_dense_
        return self

    def score_samples(self, X: ArrayLike) -> Array:
        """log p of rows X (N, D), (N,), in nats, in the coordinates of X.

        Raises:
            ValueError: rows that are not those of the fit.
            RunError: a solve failed; the rows lie too far from those of the fit.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        found = likelihood(self.flow_, self.standardiser_.apply(rows), self.flow_.solver)
        if found.status is not Status.DONE:
            raise RunError(f"X: the densities cannot be computed: {found.status.value}")
        return found.log_prob - self.standardiser_.log_scale

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Mean log p of rows X (N, D): −NLL, in nats, in the coordinates of X; higher is better."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Array:
        """Samples (n_samples, D) in the coordinates of X.

        Raises:
            InputError: not a positive number of samples.
            RunError: the solver failed.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise InputError(f"n_samples={n_samples!r}; give a whole number from 1 on")
        draws, dim = check_random_state(random_state), self.n_features_in_
        drawn = draw_standardised(self.flow_, dim, int(n_samples), int(draws.randint(MAX_SEED)))
        for _ in range(REDRAWS):  # paths that ran off to infinity: one in thousands
            lost = np.isnan(drawn).any(1)
            if not lost.any():
                break
            drawn[lost] = draw_standardised(self.flow_, dim, int(lost.sum()), int(draws.randint(MAX_SEED)))
        else:
            raise RunError(f"{int(lost.sum())} of {n_samples} samples run off to infinity each time; fit again")
        return self.standardiser_.invert(drawn)

    # --- what a fit is made of

    def _spec(self, seed: int) -> Spec:
        """The settings as a param file would have them: its bounds and its messages are ours."""
        own = self.field is not None
        objective = self.objective
        if objective == "auto":
            objective = "nll" if own else "flow_matching"
        if objective not in ("nll", "flow_matching"):
            raise InputError(f"objective: '{objective}' is not one of auto, flow_matching, nll")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(f"validation_fraction: {self.validation_fraction!r} is not in [0, 1)")
        matching = objective == "flow_matching"
        steps = _plain(self.steps)
        retrain = _plain(self.retrain_steps)
        if retrain is None and isinstance(steps, int):
            retrain = max(1, steps // 2)
        hidden, ratios = _plain(self.hidden), _plain(self.keep_ratio)
        document = {
            "name": type(self).__name__,
            "seeds": [seed],
            "data": {"name": "table", "whiten": _plain(self.whiten)},
            "flow": {
                "hidden": hidden if isinstance(hidden, list) else [hidden],
                "activation": self.activation,
                "time": "concat",
                "base": "gaussian" if matching and not own else "none",
                "gain": 2.0 if matching else 1.0,
            },
            "solve": ADAPTIVE if own else HELD,
            "train": {
                "objective": objective,
                "steps": steps,
                "batch": _plain(self.batch),
                "lr": _plain(self.lr),
                "clip": 1.0,
                "schedule": "cosine",
                "time_power": 2.0 if matching else 1.0,
                "select": "best_val" if self.validation_fraction else "last",
            },
            "prune": {}
            if ratios is None or ratios == []
            else {
                "methods": [self.prune],
                "keep_ratios": ratios if isinstance(ratios, list) else [ratios],
                "retrain": {"steps": retrain},
            },
            "evaluate": {"rtol": _plain(self.tolerance), "atol": _plain(self.tolerance)},
        }
        return validate(document, type(self).__name__)

    def _untrained(self, spec: Spec, rows: Array, seed: int) -> Flow:
        dim = rows.shape[1]
        whitening = whitening_matrix(rows).float() if spec.data.whiten else None
        if self.field is None:
            return build_flow(spec, dim, seed=seed, whitening=whitening)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = self.field(dim)
        if not isinstance(module, nn.Module):
            raise InputError(f"field gave a {type(module).__name__} for dim={dim}; it must give an nn.Module f(t, z)")
        flow = Flow(module, whitening=whitening).float()
        if not any(parameter.requires_grad for parameter in flow.parameters()):
            raise InputError(f"field gave a {type(module).__name__} without parameters; there is nothing to train")
        return flow

    def _trained(
        self, spec: Spec, start: Callable[[], Pruned[Flow]], rows: Array, chosen_by: Array | None, stage: int
    ) -> Pruned[Flow]:
        """What `start` gives, trained; one that diverges begins again at a lower rate, as in a run."""
        settings = spec.retrain_spec() if stage else spec.train
        points = torch.as_tensor(rows, dtype=torch.float32)
        for scale in LR_SCALES:
            state = start()
            if state.masks is not None:
                state.masks.hold_(state.flow)
            hooks = Hooks(
                after_step=None if state.masks is None else state.masks.keeper(state.flow),
                validate=None if chosen_by is None else _validation(spec, chosen_by),
            )
            state.flow.train()
            outcome = train(
                state.flow,
                build_objective(spec, settings),
                points,
                _with_batch(settings, len(points)),
                seed=spec.seeds[0],
                purpose=f"estimator/{stage}",
                hooks=hooks,
                lr_scale=scale,
            )
            state.flow.eval()
            if outcome.status is Status.DONE:
                self.history_ += [{"stage": stage, **record} for record in outcome.history]
                self._tell(stage, state, outcome.steps, outcome.seconds, outcome.best_val)
                return state
        raise RunError(
            f"training stopped at step {outcome.steps}: {outcome.status.value}; try a lower lr or other settings"
        )

    def _tell(self, stage: int, state: Pruned[Flow], steps: int, seconds: float, best_val: float | None) -> None:
        if not self.verbose:
            return
        chosen = "" if best_val is None else f", validation NLL {best_val:.3f}"
        what = f"pruned by {self.prune}" if stage else "dense"
        print(f"stage {stage} ({what}): {state.params:,} params, {steps:,} steps, {seconds:.1f} s{chosen}")


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and tuples, as Python's numbers and lists."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _split(rows: Array, fraction: float, seed: int) -> tuple[Array, Array | None]:
    """Rows to train on, and those that choose the weights."""
    held = round(fraction * len(rows))
    if held < 2:
        return rows, None
    order = numpy_generator(seed, "estimator/validation").permutation(len(rows))
    return rows[order[held:]], rows[order[:held]]


def _validation(spec: Spec, rows: Array) -> Callable[[nn.Module], float]:
    solver = replace(reporting_solver(spec.evaluate), norm="batch").at(SELECTION_TOLERANCE)
    few = subset(rows, spec.train.selection_rows, spec.seeds[0], "selection")

    def nll(flow: nn.Module) -> float:
        assert isinstance(flow, Flow)
        found = likelihood(flow, few, solver, "float32")
        return found.nll if found.status is Status.DONE else float("nan")

    return nll


def _with_batch(settings: TrainSpec, rows: int) -> TrainSpec:
    return settings if settings.batch <= rows else settings.model_copy(update={"batch": rows})


def _sample(method: str, spec: Spec, rows: Array, seed: int) -> Sample | None:
    if not METHODS[method].needs_data:
        return None
    return Sample(torch.as_tensor(subset(rows, spec.prune.sample, seed, "criteria")))
