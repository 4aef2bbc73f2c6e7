"""One network in one file, outside a run: safetensors with a head in JSON that says how to build it; no pickle."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from sparseflows.data.tables.tabular import Standardiser
from sparseflows.data.transforms.transformed import standardiser_from_dict
from sparseflows.errors import InputError
from sparseflows.files import write_whole
from sparseflows.flow.calls import deep_copy
from sparseflows.flow.fields import TENSORS, Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Solver

FORMAT, KEY, DIGEST = 1, "sparseflows", "sha256"
SOLVER = ("method", "rtol", "atol", "steps", "max_nfe", "gradient", "norm", "compiled")
# Of a layer's weight (n_out, n_in, …): what its module calls the two numbers.
WIDTHS: dict[type[nn.Module], tuple[str, str]] = {
    nn.Linear: ("out_features", "in_features"),
    nn.Conv1d: ("out_channels", "in_channels"),
    nn.Conv2d: ("out_channels", "in_channels"),
}


def save(network: nn.Module, file: str | Path) -> Path:
    """Write `network` to one file, whole or not at all.

    A flow of perceptrons (`MLPField`), pruned or not, comes back by `load_file(file)` alone, with its solver and
    standardiser; any other network by `load_file(file, into=…)`.

    Args:
        network: a flow or any module; its tensors are written as they are, in their precision.
        file: to write; it is replaced where it is there.

    Raises:
        InputError: weights that are masked, computed or hooked by PyTorch's own means, or a folder that is not there.

    Example:
        >>> import tempfile, torch, sparseflows as sf
        >>> from sparseflows.flow.fields import MLPField
        >>> flow = sf.Flow(MLPField(dim=2, hidden=[8]))
        >>> small = sf.prune("structured", sf.unpruned(flow), flow, 20).flow
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = sf.load_file(sf.save(small, folder + "/small.safetensors"))
        >>> again.chain()[0].field.hidden == small.chain()[0].field.hidden
        True
    """
    path = Path(file)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists")
    statistics = getattr(network, "standardiser", None)
    if isinstance(network, Flow) and not isinstance(statistics, Standardiser | None):
        raise InputError(
            f"{path}: the flow's standardiser is a {type(statistics).__name__}, which a file cannot hold; set it to a "
            "Standardiser, or to None"
        )
    changed = [name for name, part in network.named_modules() if hasattr(part, "parametrizations")]
    if changed or any(name.endswith(("_orig", "_g", "_v")) for name, _ in network.named_parameters()):
        raise InputError(
            f"{path}: the network has masks or parametrizations of torch.nn.utils; remove them first "
            "(prune.remove, parametrize.remove_parametrizations), or save flow.compact()"
        )
    # Cloned: two names of one tensor are written twice, since the format has no shared ones.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    lost = [name for name in _names_of_fields(network) if name not in tensors]
    if lost:
        raise InputError(
            f"{path}: {lost[0]} is neither a parameter nor a buffer that is kept, so it would be lost; make it a "
            "parameter, or save flow.compact()"
        )
    head = _head(network)
    whole = json.dumps(head | {DIGEST: _digest(head, tensors)})
    write_whole(path, to_bytes(tensors, metadata={KEY: whole}))
    return path


def load_file(file: str | Path, into: nn.Module | None = None) -> Any:
    """The network that `save` wrote, in eval mode.

    Args:
        file: as `save` wrote it.
        into: of networks that are no flow of perceptrons: one of the same architecture, as wide or wider; it is left as
            it is, and the copy that comes back has the file's widths.

    Raises:
        InputError: no such file, not one of `save`, a damaged one, or tensors that do not belong to `into`.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give one that sparseflows.save wrote")
    head, tensors = _read(path)
    if into is not None:
        return _filled(path, into, tensors)
    if "fields" not in head:
        raise InputError(
            f"{path}: holds a {head.get('class', 'network')}, whose code is not in the file; give load_file one of the "
            "same architecture: load_file(FILE, into=network)"
        )
    try:
        flow = Flow(
            [MLPField(**field) for field in head["fields"]],
            train_end_time=bool(head["train_end_time"]),
            whitening=tensors.get("whitening"),
            solver=Solver(**head["solver"]),
        ).to(getattr(torch, head["dtype"]))
        flow.load_state_dict(tensors)
        found = head["standardiser"]
        flow.standardiser = None if found is None else standardiser_from_dict(found)
        flow.columns = None if head.get("columns") is None else tuple(map(str, head["columns"]))
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"{path}: its head and its tensors do not fit ({' '.join(str(error).split())[:150]})"
        ) from None
    return flow.eval()


def _names_of_fields(network: nn.Module) -> list[str]:
    """Names of all tensors that the perceptrons of a flow compute with."""
    fields = enumerate(network.fields() if isinstance(network, Flow) else ())
    return [
        f"blocks.{block}.field.layers.{index}.{name}"
        for block, field in fields
        if isinstance(field, MLPField)
        for index, layer in enumerate(field.linear_layers())
        for name, tensor in zip(TENSORS, layer.tensors(), strict=True)
        if tensor is not None and not any(layer._forward_pre_hooks)
    ]


def _head(network: nn.Module) -> dict[str, Any]:
    head: dict[str, Any] = {"format": FORMAT, "class": type(network).__name__}
    fields = list(network.fields()) if type(network) is Flow else []
    if not isinstance(network, Flow) or not all(type(field) is MLPField and field.is_plain() for field in fields):
        return head
    mlps = [field for field in fields if isinstance(field, MLPField)]
    statistics = network.standardiser
    return head | {
        "fields": [
            {name: getattr(field, name) for name in ("dim", "hidden", "activation", "time", "base")} for field in mlps
        ],
        "train_end_time": network.chain()[0].sqrt_end_time is not None,
        "solver": {name: getattr(network.solver, name) for name in SOLVER},
        "standardiser": statistics.to_dict() if isinstance(statistics, Standardiser) else None,
        "columns": None if getattr(network, "columns", None) is None else list(network.columns or ()),
        "dtype": str(network.like().dtype).removeprefix("torch."),
    }


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as opened:
            head = json.loads((opened.metadata() or {}).get(KEY, "null"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: cannot be read ({why}); give a file that sparseflows.save wrote") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        given = "has no head of sparseflows" if head is None else "is of a format that this version does not know"
        raise InputError(f"{path}: {given}; give a file that sparseflows.save wrote")
    found = head.pop(DIGEST, None)
    if found is not None and found != _digest(head, tensors):
        raise InputError(f"{path}: is damaged: it does not hold what was written; copy it again, or save anew")
    return head, tensors


def _digest(head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that a file holds; `tensors` are of any shapes."""
    whole = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _filled(path: Path, into: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of `into` that has the tensors of the file, and their widths."""
    network = deep_copy(into)
    own = network.state_dict()
    missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or foreign:
        name = (missing or foreign)[0]
        where = "is not in the file" if missing else "is not in the network"
        raise InputError(f"{path}: {name} {where}; give a network of the architecture that was saved")
    shared: dict[int, Tensor] = {}
    for name, part in network.named_modules():
        for kind in (part._parameters, part._buffers):
            for key, tensor in kind.items():
                given = tensors.get(f"{name}.{key}" if name else key)
                if tensor is None or given is None:
                    continue
                if given.ndim != tensor.ndim or math.prod(given.shape) > math.prod(tensor.shape):
                    raise InputError(
                        f"{path}: {name}.{key} has the shape {tuple(given.shape)}, the network's {tuple(tensor.shape)}"
                    )
                new = given.clone().to(tensor.device)
                new = nn.Parameter(new, tensor.requires_grad) if kind is part._parameters else new
                kind[key] = shared.setdefault(id(tensor), new)
        _tell_widths(part)
    return network.eval()


def _tell_widths(part: nn.Module) -> None:
    for kind, names in WIDTHS.items():
        if isinstance(part, kind):
            weight = part.get_parameter("weight")
            for name, size in zip(names, weight.shape[:2], strict=True):
                setattr(part, name, size)
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
        part.num_features = len(part.running_mean) if part.running_mean is not None else part.num_features
    assert not isinstance(part, Layer) or part.weight.shape[0] == len(part.bias)
