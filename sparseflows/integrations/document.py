"""An estimator's arguments as the settings of a param file: its bounds and its messages hold for them too."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sparseflows.errors import InputError
from sparseflows.specs import Spec
from sparseflows.specs.yaml import validate

# How the likelihood is solved in training: held steps for the package's own field, error control for any other.
HELD = {"method": "bosh3", "rtol": 1e-3, "atol": 1e-3, "first_tol": 1e-2, "hold_grid": 8, "hold_rows": 128}
ADAPTIVE = {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3}


def settings_of(estimator: BaseEstimator, seed: int) -> Spec:
    """The settings that a fit of `estimator`, a `SparseFlowDensity`, follows.

    Raises:
        InputError: an argument that is out of its bounds.
    """
    given = {name: _plain(value) for name, value in estimator.get_params(deep=False).items()}
    own, objective = given["field"] is not None, given["objective"]
    if objective == "auto":
        objective = "nll" if own else "flow_matching"
    if objective not in ("nll", "flow_matching"):
        raise InputError(f"objective: '{objective}' is not one of auto, flow_matching, nll")
    if not 0 <= given["validation_fraction"] < 1:
        raise InputError(f"validation_fraction: {given['validation_fraction']!r} is not in [0, 1)")
    matching = objective == "flow_matching"
    steps, retrain, ratios = given["steps"], given["retrain_steps"], given["keep_ratio"]
    if retrain is None and isinstance(steps, int):
        retrain = max(1, steps // 2)
    prune = {"methods": [given["prune"]], "keep_ratios": _listed(ratios), "retrain": {"steps": retrain}}
    document = {
        "name": type(estimator).__name__,
        "seeds": [seed],
        "data": {"name": "table", "whiten": given["whiten"]},
        "flow": {
            "hidden": _listed(given["hidden"]),
            "activation": given["activation"],
            "time": "concat",
            "base": "gaussian" if matching and not own else "none",
            "gain": 2.0 if matching else 1.0,
        },
        "solve": ADAPTIVE if own else HELD,
        "train": {
            "objective": objective,
            "steps": steps,
            "batch": given["batch"],
            "lr": given["lr"],
            "clip": 1.0,
            "schedule": "cosine",
            "time_power": 2.0 if matching else 1.0,
            "select": "best_val" if given["validation_fraction"] else "last",
        },
        "prune": {} if ratios is None or ratios == [] else prune,
        "evaluate": {"rtol": given["tolerance"], "atol": given["tolerance"]},
    }
    return validate(document, type(estimator).__name__)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, and tuples, as Python's numbers and lists."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
