"""Accuracy and cross-entropy, against a loop over rows; the network is used at rest and left as it was."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sparseflows.data.splits import Splits, make_splits
from sparseflows.data.tables.tabular import Standardiser
from sparseflows.errors import InputError
from sparseflows.evaluation.classification import Classified, evaluate_classifier, labelled_subset, logits_of
from sparseflows.flow.build import build_flow
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.networks.build import build_network
from sparseflows.rng import numpy_generator
from sparseflows.specs import EvaluateSpec, FlowSpec, NetworkSpec

SETTINGS = EvaluateSpec.model_validate({})


def splits_of(rows=40, dim=5, classes=3, labels=True):
    generator = np.random.default_rng(0)
    parts = {part: generator.standard_normal((rows + i, dim)) for i, part in enumerate(("train", "validation", "test"))}
    known = {f"labels_{part}": generator.integers(0, classes, len(x)) for part, x in parts.items()} if labels else {}
    standardiser = Standardiser(np.zeros(dim), np.ones(dim))
    return Splits("made up", **parts, standardiser=standardiser, classes=classes if labels else None, **known)


def network_of(kind="norm", dtype=torch.float64):
    spec = {"hidden": [7], "activation": "tanh", "batch_norm": kind == "norm"}
    network = build_network(NetworkSpec.model_validate(spec), 5, 3, 0).to(dtype)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.linspace(-0.5, 0.5, len(buffer)))
        if name.endswith("running_var"):
            buffer.copy_(torch.linspace(0.5, 2, len(buffer)))
    return network


def by_loop(network, rows, labels):
    """Accuracy and cross-entropy, row by row, plain floats."""
    network.eval()
    right, losses = 0, []
    for row, label in zip(rows, labels.tolist(), strict=True):
        with torch.no_grad():
            logits = network(torch.from_numpy(row)[None])[0].tolist()
        right += max(range(len(logits)), key=logits.__getitem__) == label
        losses.append(math.log(sum(math.exp(x) for x in logits)) - logits[label])
    return right / len(labels), sum(losses) / len(losses)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["norm", "plain"])
def test_the_numbers_are_those_of_a_loop(kind, training):
    network, splits = network_of(kind).train(training), splits_of()
    found = evaluate_classifier(network, splits, SETTINGS, 0)
    accuracy, loss = by_loop(network_of(kind), splits.test, splits.labels_test)
    _, loss_val = by_loop(network_of(kind), splits.validation, splits.labels_validation)
    assert isinstance(found, Classified)
    assert (found.accuracy_test, found.n_test, found.nfe) == (accuracy, 42, 1)
    assert found.loss_test == pytest.approx(loss, abs=1e-12)
    assert found.loss_val == pytest.approx(loss_val, abs=1e-12)


def test_logits_of_a_flow_are_its_final_state():
    splits = make_splits("moons", n_train=20)
    flow = build_flow(FlowSpec(hidden=[8]), 2, seed=0).double()
    found = evaluate_classifier(flow, splits, SETTINGS, 0)
    with torch.no_grad():
        final = flow.to_noise(torch.from_numpy(splits.test), solver=Solver("rk4", steps=200))
    chances = final.softmax(1)[torch.arange(len(final)), torch.from_numpy(splits.labels_test)]
    assert found.loss_test == pytest.approx(float(-chances.log().mean()), abs=1e-5)  # the reporting solver's tolerance
    assert found.accuracy_test == np.mean(final.argmax(1).numpy() == splits.labels_test)
    assert found.nfe > 1


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    network = network_of("norm").train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    evaluate_classifier(network, splits_of(), SETTINGS, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert {part.training for part in network.modules()} == {training}
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("own", "wanted"), [("float32", "float64"), ("float64", "float32")])
def test_precision_is_the_wanted_one_and_its_own_afterwards(own, wanted):
    network = network_of("norm", getattr(torch, own))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    splits = splits_of()
    found, status, _ = logits_of(network, splits.test, Solver(), wanted)
    assert (found.dtype, status) == (getattr(torch, wanted), Status.DONE)
    for name, tensor in network.state_dict().items():
        assert tensor.dtype == before[name].dtype, name
        assert torch.equal(tensor, before[name]), name


def test_precision_comes_back_when_the_network_fails():
    network = network_of("plain", torch.float32)
    with torch.no_grad():
        next(network.parameters()).fill_(float("inf"))
    network.train()
    assert evaluate_classifier(network, splits_of(), SETTINGS, 0) is Status.NON_FINITE
    assert network.training
    assert next(network.parameters()).dtype == torch.float32


def test_parts_of_a_network_that_were_at_rest_stay_so():
    network = network_of("norm").train()
    norm = next(part for part in network.modules() if isinstance(part, nn.BatchNorm1d)).eval()
    evaluate_classifier(network, splits_of(), SETTINGS, 0)
    assert network.training
    assert not norm.training


def test_chunks_change_nothing(monkeypatch):
    network, splits = network_of("norm"), splits_of()
    whole = evaluate_classifier(network, splits, SETTINGS, 0)
    sizes = []
    network.register_forward_hook(lambda own, given, sent: sizes.append(len(sent)))
    monkeypatch.setattr("sparseflows.evaluation.classification.CHUNK", 16)
    parts = evaluate_classifier(network, splits, SETTINGS, 0)
    assert sizes == [16, 16, 9, 16, 16, 10]
    assert parts.accuracy_test == whole.accuracy_test
    assert parts.loss_test == pytest.approx(whole.loss_test, abs=1e-14)


def test_at_most_so_many_rows_with_their_labels():
    splits = splits_of()
    settings = EvaluateSpec.model_validate({"max_rows": 10})
    found = evaluate_classifier(network_of("plain"), splits, settings, 3)
    chosen = sorted(numpy_generator(3, "evaluate/test").permutation(42)[:10].tolist())
    accuracy, loss = by_loop(network_of("plain"), splits.test[chosen], splits.labels_test[chosen])
    assert (found.accuracy_test, found.n_test) == (accuracy, 10)
    assert found.loss_test == pytest.approx(loss, abs=1e-12)
    other = evaluate_classifier(network_of("plain"), splits, settings, 4)
    assert other.loss_test != found.loss_test


@pytest.mark.parametrize("at_most", [None, 42, 100])
def test_all_rows_where_there_are_few(at_most):
    splits = splits_of()
    rows, labels = labelled_subset(splits.test, splits.labels_test, at_most, 0, "x")
    assert np.array_equal(rows, splits.test)
    assert np.array_equal(labels, splits.labels_test)


def test_rows_without_labels_are_refused():
    with pytest.raises(InputError, match=r"^data set 'made up' has no labels to classify; choose another"):
        evaluate_classifier(network_of(), splits_of(labels=False), SETTINGS, 0)
