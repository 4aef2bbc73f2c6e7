"""Hessians of flows whose weights PyTorch computes: right, or refused where PyTorch's own second derivative is not."""

import numpy as np
import pytest
import torch
from support.truths import normal
from torch.nn.utils import parametrizations, prune, weight_norm

from analysis.curvature.losses import NLL
from analysis.curvature.operators import HessianOperator, Survivors
from sparseflows.errors import InputError
from sparseflows.flow.base import seeded_initialise
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow


def changed_flow(change):
    flow = Flow(MLPField(2, [4, 3], "tanh", "concat")).double()
    seeded_initialise(flow, 0, gain=2.0)
    change(flow.chain()[0].field.layers[1])
    return flow.eval()


@pytest.mark.parametrize(
    "change",
    [
        parametrizations.spectral_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 4),
        lambda layer: layer.register_forward_hook(lambda module, given, out: 1.2 * out),
    ],
    ids=["spectral norm", "mask", "hook"],
)
def test_the_hessian_is_the_slope_of_the_gradient(change):
    flow = changed_flow(change)
    loss, parameters = NLL.of(flow, normal(5, 2), 1e-2), list(flow.parameters())
    operator = HessianOperator(flow, loss, Survivors(flow, {}))
    direction = np.random.default_rng(0).standard_normal(operator.shape[0])
    steps = torch.as_tensor(direction).split([parameter.numel() for parameter in parameters])

    def gradient_at(step):
        with torch.no_grad():
            for parameter, along in zip(parameters, steps, strict=True):
                parameter += step * along.view_as(parameter)
        found = torch.autograd.grad(loss.total(flow, slice(None)) / loss.terms, parameters)
        return torch.cat([one.flatten() for one in found]).numpy()

    product = operator @ direction
    ahead, behind = gradient_at(1e-5), gradient_at(-2e-5)
    np.testing.assert_allclose(product, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("change", [parametrizations.weight_norm, weight_norm], ids=["new", "older"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_norm_is_refused_and_the_compact_flow_is_not(change):
    flow = changed_flow(change)
    loss = NLL.of(flow, normal(5, 2), 1e-2)
    with pytest.raises(InputError, match="weight norm"):
        HessianOperator(flow, loss, Survivors(flow, {}))
    small = flow.compact()
    whole = HessianOperator(small, loss, Survivors(small, {}))
    found = whole @ np.eye(whole.shape[0])
    np.testing.assert_allclose(found, found.T, atol=1e-10)
