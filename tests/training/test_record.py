"""Lines of the history: told when they are written, the values that weights are selected by among them."""

import copy
import io
import math

import pytest
import torch
from support.truths import normal

from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.specs import TrainSpec
from sparseflows.training.loop import RECORDS, Hooks, train
from sparseflows.training.objectives import FlowMatching


def trained(hooks, resume=None, **changes):
    flow = Flow(MLPField(2, [6], "tanh", "concat"))
    seeded_initialise(flow, 0)
    spec = TrainSpec.model_validate({"batch": 16, "lr": 0.01, "steps": 80} | changes)
    rows = normal(40, 2, dtype=torch.float32)
    return train(flow, FlowMatching(), rows, spec, seed=1, purpose="x", hooks=hooks, resume=resume)


@pytest.mark.parametrize("select", ["last", "best_val"])
def test_what_is_told_is_the_history(select):
    told = []
    outcome = trained(Hooks(validate=lambda flow: 1.0, record=lambda line: told.append(dict(line))), select=select)
    assert told == outcome.history
    assert [line["step"] for line in told if "loss" in line] == list(range(2, 81, 80 // RECORDS))


def test_the_values_that_weights_are_selected_by_are_lines_too():
    values = iter([3.0, math.nan, 1.5, math.inf])
    outcome = trained(Hooks(validate=lambda flow: next(values)), select="best_val", selections=4)
    lines = [line for line in outcome.history if "val" in line]
    assert lines == [{"step": 20, "val": 3.0}, {"step": 60, "val": 1.5}]  # none where there is no finite value
    assert outcome.best_val == min(line["val"] for line in lines)


def test_a_resumed_training_tells_the_rest():
    saved, told = [], []

    def save(checkpoint):
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        saved.append(buffer.getvalue())

    options = {"select": "best_val", "selections": 8}
    whole = trained(Hooks(validate=lambda flow: 1.0, save=save), **options)
    checkpoint = torch.load(io.BytesIO(saved[6]), weights_only=True)
    before = copy.deepcopy(checkpoint["history"])
    hooks = Hooks(validate=lambda flow: 1.0, record=lambda line: told.append(dict(line)))
    outcome = trained(hooks, checkpoint, **options)
    assert 0 < len(before) < len(whole.history)
    assert before + told == outcome.history == whole.history
