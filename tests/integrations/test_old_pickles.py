"""Pickles that version 0.1 wrote: every class stands in them under the module it had then."""

import pickle
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from sparseflows import Flow, SparseFlowDensity
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.distributed.processes import Processes
from sparseflows.flow.base import Block
from sparseflows.flow.smaller.sparse import SparseField, SparseLayer
from sparseflows.flow.solvers.ode import Solver
from sparseflows.pruning.graph.masks import Masks

# As `pickletools.genops` lists them for an estimator, and for `flow.to_sparse(0)`, that 0.1 pickled.
OLD = {
    SparseFlowDensity: "sparseflows.estimator",
    Standardiser: "sparseflows.data.tabular",
    Block: "sparseflows.flow.model",
    Flow: "sparseflows.flow.model",
    Solver: "sparseflows.flow.ode",
    Processes: "sparseflows.processes",
    Masks: "sparseflows.pruning.masks",
    SparseField: "sparseflows.flow.sparse",
    SparseLayer: "sparseflows.flow.sparse_layer",
}


@contextmanager
def as_in_0_1(monkeypatch):
    """Classes say that they live where they lived, so that pickles name those modules."""
    with monkeypatch.context() as patch:
        for kind, module in OLD.items():
            patch.setattr(kind, "__module__", module)
        yield
    for module in set(OLD.values()) - {"sparseflows.flow.model"}:
        sys.modules.pop(module, None)  # to be found anew


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal([1.0, 5.0], [0.5, 2.0], size=(60, 2))


@pytest.fixture(scope="module")
def density(rows):
    return SparseFlowDensity(hidden=(8,), steps=5, random_state=0).fit(rows)


@pytest.mark.filterwarnings("ignore:sparseflows:DeprecationWarning")
def test_an_estimator_of_0_1_loads(density, rows, monkeypatch):
    with as_in_0_1(monkeypatch):
        written = pickle.dumps(density)
    assert b"sparseflows.estimator" in written
    assert b"integrations" not in written
    back = pickle.loads(written)
    assert type(back) is SparseFlowDensity
    np.testing.assert_array_equal(back.score_samples(rows), density.score_samples(rows))
    np.testing.assert_array_equal(back.sample(3, random_state=1), density.sample(3, random_state=1))
    assert type(back.flow_.compact()) is Flow


@pytest.mark.filterwarnings("ignore:sparseflows:DeprecationWarning")
def test_a_sparse_flow_of_0_1_loads(density, monkeypatch):
    sparse = density.flow_.to_sparse(0.0)
    assert isinstance(next(sparse.fields()), SparseField)
    with as_in_0_1(monkeypatch):
        written = pickle.dumps(sparse)
    assert b"sparse_layer" in written
    back, points = pickle.loads(written), torch.zeros(4, 2)
    assert torch.equal(back.log_prob(points), sparse.log_prob(points))
