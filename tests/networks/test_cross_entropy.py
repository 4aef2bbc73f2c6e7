"""The classifiers' objective: against a loop written out, finite differences, and the ODE's known end."""

import math

import pytest
import torch
from support.truths import generator, normal
from torch import nn

from sparseflows.errors import InputError
from sparseflows.flow.fields import LinearField, MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.flow.solvers.ode import Solver, Status
from sparseflows.networks.build import build_network
from sparseflows.specs import NetworkSpec, Spec, TrainSpec
from sparseflows.training.loop import train
from sparseflows.training.objectives import CrossEntropy, build_objective, logits, split_labels, training_solver

SOLVER = Solver("rk4", steps=4)


def node(hidden=9):
    flow = Flow(MLPField(2, [hidden], "tanh", "none"), solver=SOLVER)
    seeded_initialise(flow, 0, 3.0)
    return flow.double()


def perceptron(**settings):
    spec = NetworkSpec.model_validate({"hidden": [7, 6], "activation": "tanh"} | settings)
    return build_network(spec, 2, 2, 0).double()


def labelled(n=11, classes=2, dim=2):
    labels = torch.arange(n, dtype=torch.float64) % classes
    return torch.cat([normal(n, dim), labels[:, None]], 1)


def naive_cross_entropy(found, labels):
    total = 0.0
    for scores, label in zip(found.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(s) for s in scores)) - scores[int(label)]
    return total / len(found)


@pytest.mark.parametrize("network", [node(), perceptron()])
def test_against_a_loop(network):
    rows = labelled()
    loss = CrossEntropy(SOLVER)(network, rows, generator())
    found = network.to_noise(rows[:, :-1]) if isinstance(network, Flow) else network(rows[:, :-1])
    assert loss.value.item() == pytest.approx(naive_cross_entropy(found, rows[:, -1]), abs=1e-13)  # rounding
    assert (loss.nfe, loss.status) == (16 if isinstance(network, Flow) else 1, Status.DONE)


@pytest.mark.parametrize("network", [node(5), perceptron(hidden=[5]), perceptron(hidden=[4], batch_norm=True)])
def test_gradients_against_finite_differences(network):
    rows, objective = labelled(), CrossEntropy(SOLVER)
    objective(network, rows, generator()).value.backward()
    step = 1e-5
    for parameter in network.parameters():
        flat = parameter.data.view(-1)
        for place in range(0, len(flat), 3):
            kept, values = flat[place].item(), []
            for sign in (1, -1):
                flat[place] = kept + sign * step
                values.append(objective(network, rows, generator()).value.item())
            flat[place] = kept
            slope = (values[0] - values[1]) / (2 * step)
            # Central differences: step² times a third derivative, and rounding 1e-16 / step.
            assert parameter.grad.view(-1)[place].item() == pytest.approx(slope, abs=1e-8)


def test_logits_of_a_flow_are_the_end_of_its_ode():
    matrix = torch.tensor([[0.3, -0.8], [0.5, 0.1]], dtype=torch.float64)
    points = normal(6, 2)
    found, status, nfe = logits(Flow(LinearField(matrix)), points, Solver().at(1e-10))
    torch.testing.assert_close(found, points @ torch.matrix_exp(matrix).T, rtol=0, atol=1e-8)  # 100 × the tolerance
    assert status is Status.DONE
    assert nfe > 6


def test_a_failed_solve_is_a_status():
    loss = CrossEntropy(Solver(max_nfe=5))(node(), labelled(), generator())
    assert (loss.nfe, loss.status) == (5, Status.OUT_OF_STEPS)


def test_a_network_that_gives_nan_is_a_status():
    network = perceptron()
    network[0].bias.data[0] = float("nan")
    assert CrossEntropy(SOLVER)(network, labelled(), generator()).status is Status.NON_FINITE


def test_labels_survive_float32():
    rows = torch.cat([normal(300, 4), torch.arange(300)[:, None]], 1).float()
    points, labels = split_labels(rows)
    assert torch.equal(labels, torch.arange(300))
    assert torch.equal(points, rows[:, :4])


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        (torch.tensor([[0.0, 0.5]]), "label 0.5 in the last column"),
        (torch.tensor([[0.0, 1.0], [0.0, -1.0]]), "label -1 in the last column"),
        (torch.tensor([[0.0, float("nan")]]), "label nan"),
        (torch.tensor([[0.0, float("inf")]]), "label inf"),
        (torch.zeros(3, 1), r"shape \(3, 1\)"),
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(0, 3), r"shape \(0, 3\)"),
    ],
)
def test_wrong_labels(rows, part):
    with pytest.raises(InputError, match=part):
        split_labels(rows)


@pytest.mark.parametrize("network", [node(), perceptron()])
def test_a_label_without_a_logit(network):
    with pytest.raises(InputError, match="label 2 has no logit: there are 2"):
        CrossEntropy(SOLVER)(network, labelled(classes=3), generator())


def test_a_batch_of_one_row_takes_the_running_statistics():
    network, rows = perceptron(batch_norm=True), labelled()
    objective = CrossEntropy(SOLVER)
    objective(network, rows, generator())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loss = objective(network, rows[:1], generator())
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert loss.value.item() == objective(network.eval(), rows[:1], generator()).value.item()
    assert not network.training


def test_settings_become_the_objective():
    spec = Spec.model_validate(
        {"name": "x", "data": {"name": "moons"}, "train": {"objective": "cross_entropy", "steps": 1}}
    )
    assert build_objective(spec, spec.train) == CrossEntropy(training_solver(spec.solve))


@pytest.mark.parametrize("network", [node(16), perceptron(hidden=[16]), perceptron(hidden=[16], batch_norm=True)])
def test_training_finds_a_boundary_that_is_there(network):
    points = normal(300, 2, seed=3)
    labels = (points[:, 0] * 0.6 + points[:, 1] > 0.2).double()
    rows = torch.cat([points, labels[:, None]], 1)
    settings = TrainSpec(objective="cross_entropy", steps=200, batch=100, lr=0.05, optimiser="adam")
    objective = CrossEntropy(Solver("euler", steps=3))
    start = objective(network, rows, generator()).value.item()
    outcome = train(network, objective, rows, settings, seed=0, purpose="test")
    assert outcome.status is Status.DONE
    found, _, _ = logits(network.eval(), points, objective.solver)
    assert objective(network, rows, generator()).value.item() < min(0.2, start / 2)
    assert (found.argmax(1) == labels).double().mean() > 0.95  # separable: what is missed lies at the boundary


def test_a_module_of_any_kind_will_do():
    found, status, nfe = logits(nn.Linear(2, 3), normal(4, 2).float())
    assert (found.shape, status, nfe) == ((4, 3), Status.DONE, 1)
