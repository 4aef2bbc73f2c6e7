"""Pruning a flow that lives on a GPU: the same weights and neurons go as on the CPU, and what is left stays there."""

from __future__ import annotations

import copy

import pytest
import torch
from support.naive_pruning import make_flow, points

from sparseflows.flow.model import Flow
from sparseflows.pruning.graph.groups import count_params
from sparseflows.pruning.methods import METHODS, Pruned, prune, unpruned
from sparseflows.pruning.observing.observe import Sample

pytestmark = pytest.mark.gpu

RATIOS = (0.7, 0.4)


def cascade(method: str, dense: Flow, rows: torch.Tensor) -> list[Pruned[Flow]]:
    states = [unpruned(dense)]
    for ratio in RATIOS:
        target = round(ratio * count_params(dense))
        states.append(prune(method, states[-1], dense, target, sample=Sample(rows), seed=2))
    return states[1:]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_goes(method: str, gpu: torch.device) -> None:
    dense, rows = make_flow((16, 16), time="concat"), points(rows=12)
    here, there = cascade(method, dense, rows), cascade(method, copy.deepcopy(dense).to(gpu), rows.to(gpu))
    for one, other in zip(here, there, strict=True):
        assert other.params == one.params
        assert {tensor.device for tensor in other.flow.state_dict().values()} == {gpu}
        for name, tensor in one.flow.state_dict().items():
            torch.testing.assert_close(other.flow.state_dict()[name].cpu(), tensor, rtol=1e-6, atol=1e-9)
        assert one.dense_masks.keys() == other.dense_masks.keys()
        assert all(torch.equal(mask.cpu(), other.dense_masks[name].cpu()) for name, mask in one.dense_masks.items())


@pytest.mark.parametrize("method", ["magnitude", "structured"])
def test_the_dense_flow_is_left_as_it_was(method: str, gpu: torch.device) -> None:
    dense = make_flow((16, 16), time="concat").to(gpu)
    before = copy.deepcopy(dense.state_dict())
    cascade(method, dense, points(rows=12).to(gpu))
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
