"""Settings → `Flow`, and stored tensors → `Flow`: the only places that know a flow's architecture by name."""

import re
from collections.abc import Mapping

from torch import Tensor

from sparseflows.errors import InputError
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow, seeded_initialise
from sparseflows.specs import FlowSpec, Spec


def build_flow(spec: Spec | FlowSpec, dim: int = 2, *, seed: int = 0, whitening: Tensor | None = None) -> Flow:
    """A dense flow as the settings describe it, its weights drawn from `seed`.

    Args:
        spec: a whole `Spec` or its `flow` section.
        dim, whitening: D, and (D, D), see `Flow`.

    Example:
        >>> from sparseflows.specs import FlowSpec
        >>> flow = build_flow(FlowSpec(hidden=[16, 16], activation="tanh"), dim=2, seed=0)
        >>> sum(p.numel() for p in flow.parameters())  # 2-16-16-2
        354
    """
    settings = spec.flow if isinstance(spec, Spec) else spec
    flow = _empty(settings, dim, [settings.hidden] * settings.blocks, whitening)
    seeded_initialise(flow, seed, settings.gain)
    return flow


def flow_from_tensors(settings: FlowSpec, tensors: Mapping[str, Tensor]) -> Flow:
    """The flow whose `state_dict` is `tensors`: widths come from the tensors, so shrunk flows load too.

    Raises:
        InputError: the tensors are not those of such a flow.
    """
    biases: dict[int, dict[int, int]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"blocks\.(\d+)\.field\.layers\.(\d+)\.bias", name)
        if match:
            biases.setdefault(int(match[1]), {})[int(match[2])] = tensor.shape[0]
    widths = [[biases[block][layer] for layer in sorted(biases[block])] for block in sorted(biases)]
    if len(widths) != settings.blocks or any(len(w) != len(settings.hidden) + 1 for w in widths):
        raise InputError("these tensors do not belong to a flow of these settings (other blocks or layers)")
    flow = _empty(settings, widths[0][-1], [w[:-1] for w in widths], tensors.get("whitening"))
    flow.to(next(iter(tensors.values())).dtype)
    try:
        flow.load_state_dict(dict(tensors))
    except RuntimeError as error:
        what = " ".join(str(error).split())  # several lines otherwise
        raise InputError(f"these tensors do not belong to a flow of these settings ({what})") from None
    return flow


def _empty(settings: FlowSpec, dim: int, hidden: list[list[int]], whitening: Tensor | None) -> Flow:
    fields = [MLPField(dim, widths, settings.activation, settings.time, settings.base) for widths in hidden]
    return Flow(fields, train_end_time=settings.train_end_time, whitening=whitening)
