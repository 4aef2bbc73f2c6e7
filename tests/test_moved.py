"""Modules under the names they had in 0.1."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib import import_module

import pytest

from sparseflows.moved import MOVED

# The modules that 0.1 documented, as its reference listed them.
DOCUMENTED = [
    *(f"analysis.{name}" for name in ("baselines", "compare", "compare_types", "cost", "coverage", "frozen", "grids")),
    *(f"analysis.{name}" for name in ("hessian", "lanczos", "losses", "modes", "operators", "progress", "records")),
    *(f"analysis.{name}" for name in ("results", "spectrum", "study", "tables", "trace")),
    *(f"sparseflows.data.{name}" for name in ("benchmarks", "bundled", "known", "mapped", "splits")),
    *(f"sparseflows.experiment.{name}" for name in ("loading", "params", "records", "store", "sweep", "use")),
    *(f"sparseflows.flow.{name}" for name in ("build", "compact", "distribution", "divergence", "export", "fields")),
    *(f"sparseflows.flow.{name}" for name in ("model", "ode", "sparse", "sparse_layer", "transform")),
    *(f"sparseflows.pruning.{name}" for name in ("allocation", "chains", "criteria", "groups", "masks", "methods")),
    *(f"sparseflows.pruning.{name}" for name in ("observe", "promises", "removal", "schedule", "scores")),
    *(f"sparseflows.pruning.{name}" for name in ("statistics", "structured", "unstructured")),
    *(f"sparseflows.training.{name}" for name in ("batches", "held_grid", "loop", "objectives", "optim")),
    *(
        f"sparseflows.{name}"
        for name in ("errors", "estimator", "evaluation", "pipelines", "processes", "rng", "specs")
    ),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_module_is_still_found(name):
    assert import_module(name).__doc__


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_the_old_name_gives_the_module_itself_and_says_where_it_is(old, new):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=new):
        found = import_module(old)
    assert found is import_module(new)
    assert found.__spec__.name == found.__name__ == new
    sys.modules.pop(old)


def test_a_pickle_that_names_an_old_module_is_read():
    new = pickle.dumps(import_module("sparseflows.flow.solvers.ode").Solver(rtol=1e-7), protocol=0)  # names as text
    old = new.replace(b"sparseflows.flow.solvers.ode", b"sparseflows.flow.ode")
    assert old != new
    program = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).rtol)"
    found = subprocess.run([sys.executable, "-c", program], input=old, capture_output=True, check=True)
    assert found.stdout == b"1e-07\n"


def test_a_name_that_never_was_is_an_import_error():
    with pytest.raises(ModuleNotFoundError, match=r"sparseflows\.flow\.nonsense"):
        import_module("sparseflows.flow.nonsense")
