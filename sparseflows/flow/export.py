"""A flow's vector field in formats that other programs run: PyTorch's exported programs, and ONNX."""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseflows.errors import InputError, RunError
from sparseflows.flow.calls import deep_copy
from sparseflows.flow.fields import MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.sparse import SparseField
from sparseflows.rng import torch_generator

TOLERANCE = 1e-5  # of max |difference| / max(1, max |f|); float32 leaves 1e-6
SHAPES = {"t": None, "z": {0: torch.export.Dim("batch", min=1)}}
BATCHES = (1, 2, 37)  # that an exported field is tried with: the batch is no constant of it

Evaluate = Callable[[Tensor, Tensor], Tensor]
"""f(t, z) for t () and z (B, D): (B, D)."""


def export_program(flow: Flow, path: Path | str, block: int = 0) -> Path:
    """Write the vector field of one block as `torch.export` has it: loads without this package.

    The program takes t () and z (B, D), B any number, in the flow's precision, and gives f(t, z) (B, D). The
    block's solve runs over t from 0 to its end time.

    Args:
        flow: masked weights are written as zeros; `flow.compact()` is smaller.
        path: of the file to write, ending in .pt2.
        block: which one, 0 at the data's end.

    Returns:
        `path`.

    Raises:
        InputError: no such block, a field that cannot be exported, or a folder that is not there.
        RunError: what was written differs from the field by more than `TOLERANCE`.
    """
    field, path = _field(flow, block), _target(path)
    with torch.no_grad(), _quietly():
        program = torch.export.export(field, _example(field, rows=3), dynamic_shapes=SHAPES)
        torch.export.save(program, str(path))
    _check(field, load_program(path), path)
    return path


def load_program(path: Path | str) -> Evaluate:
    """f(t, z) from what `export_program` wrote.

    Raises:
        InputError: no such file, or no exported program.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; give one that export_program wrote")
    try:
        with _quietly():
            return torch.export.load(str(path)).module()
    except Exception as error:
        why = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: not readable as an exported program ({why})") from None


def export_onnx(flow: Flow, path: Path | str, block: int = 0) -> Path:
    """Write the vector field of one block as ONNX; its inputs are `t` () and `z` (B, D), its output `velocity`.

    What was written is run, by onnxruntime or else by ONNX's reference evaluator, and compared with the field.

    Args, Returns, Raises:
        As `export_program`. InputError too where ONNX's packages are missing.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: pip install 'sparseflows[export]'")
    field, path = _field(flow, block), _target(path)
    with torch.no_grad(), _quietly():
        program = torch.onnx.export(
            field,
            _example(field, rows=3),
            dynamo=True,
            input_names=["t", "z"],
            output_names=["velocity"],
            dynamic_shapes=SHAPES,
            verbose=False,
        )
        assert program is not None  # it is None only where a file is named
        program.save(str(path), external_data=False)
    _check(field, _onnx(path), path)
    return path


def _onnx(path: Path) -> Evaluate:
    """f(t, z) by whatever can run ONNX here."""
    session: Any  # both kinds answer to run(names, inputs) → [array]
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda t, z: torch.as_tensor(session.run(None, {"t": t.numpy(), "z": z.numpy()})[0])


def _field(flow: Flow, block: int) -> MLPField:
    """A copy on the CPU, which no caller's flow feels."""
    if not 0 <= block < len(flow.blocks):
        raise InputError(f"block is {block}; this flow has {len(flow.blocks)}, counted from 0")
    field = flow.chain()[block].field
    if isinstance(field, SparseField):
        raise InputError("a sparse flow cannot be exported; export the flow that it was made from, or its compact()")
    if not isinstance(field, MLPField):
        raise InputError(f"block {block} is a {type(field).__name__}; an MLPField can be exported")
    plain = None if field.is_plain() else field.plain_copy()
    return (plain or deep_copy(field)).cpu().eval()


def _target(path: Path | str) -> Path:
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists")
    return path


def _example(field: MLPField, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    like = field.linear_layers()[0].weight
    draws = torch_generator(seed, "export")
    t = torch.rand((), generator=draws, dtype=like.dtype)
    return t, torch.randn(rows, field.dim, generator=draws, dtype=like.dtype)


@torch.no_grad()
def _check(field: MLPField, written: Evaluate, path: Path) -> None:
    for rows in BATCHES:
        t, z = _example(field, rows, seed=rows)
        ours = field(t, z)
        error = float((written(t, z) - ours).abs().max() / ours.abs().max().clamp(min=1))
        if not error <= TOLERANCE:
            raise RunError(f"{path}: the exported field differs by {error:.1e} from the original; not to be used")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' remarks on their own insides and on packages that are not needed."""
    with contextlib.ExitStack() as at_last, warnings.catch_warnings(action="ignore"):
        at_last.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        yield
