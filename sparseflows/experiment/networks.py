"""Settings → network, and stored tensors → network: a flow, or a classifier without an ODE."""

from collections.abc import Mapping

from torch import Tensor, nn

from sparseflows.errors import InputError
from sparseflows.flow.build import build_flow, flow_from_tensors
from sparseflows.networks.build import build_network, network_from_tensors
from sparseflows.specs import Spec


def untrained(spec: Spec, dim: int, classes: int | None, seed: int, whitening: Tensor | None = None) -> nn.Module:
    """The dense network for rows of `dim` columns, its weights drawn from `seed`; `whitening` (D, D) is of flows.

    Raises:
        InputError: a classifier of rows without labels (`classes` is None).
    """
    if spec.network is None:
        return build_flow(spec, dim, seed=seed, whitening=whitening)
    if classes is None:
        raise InputError(f"network: data set '{spec.data.name}' has no labels to classify")
    return build_network(spec.network, dim, classes, seed)


def from_tensors(spec: Spec, tensors: Mapping[str, Tensor], dim: int | None = None) -> nn.Module:
    """The network whose `state_dict` is `tensors`; widths come from the tensors, so shrunk ones load too.

    Raises:
        InputError: the tensors are not those of such a network.
    """
    if spec.network is None:
        return flow_from_tensors(spec.flow, tensors)
    return network_from_tensors(spec.network, tensors, dim)
