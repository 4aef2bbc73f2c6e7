"""One training step in a process of its own: prints its peak memory above what was held before, and its NFE, as JSON.

    python -m benchmarks.memory_probe WEIGHTS NAME BATCH TOLERANCE [KEY=VALUE …]

NAME is `plain` for torchdiffeq's adjoint, anything else for ours with the settings that follow.

The peak is the kernel's VmHWM, reset before the step: `ru_maxrss` of a child begins at its parent's size on Linux.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from analysis.runs.memory import peak_mib, reset_peak
from benchmarks.context import Context, Settings
from benchmarks.plain_ffjord import PlainFFJORD
from benchmarks.stepping import step_changes
from sparseflows.flow.build import flow_from_tensors
from sparseflows.flow.model import Flow
from sparseflows.flow.solvers.ode import Status
from sparseflows.rng import torch_generator
from sparseflows.specs import Spec
from sparseflows.training.objectives import build_objective

WARM_UP_ROWS = 16  # of the step before, which loads and compiles what is to be there


def main(weights: str, name: str, batch: int, tolerance: float, changes: Sequence[str] = ()) -> dict[str, float]:
    """Peak MiB above the process's size, and NFE of the forward solve."""
    context = Context(Settings())
    spec = context.nll_spec(*step_changes(tolerance, batch, 1), *changes)
    flow = flow_from_tensors(spec.flow, torch.load(Path(weights), weights_only=True))
    step = plain_step(flow, tolerance) if name == "plain" else our_step(spec, flow)
    rows = torch.cat([context.rows, context.rows])[:batch].clone()
    step(rows[:WARM_UP_ROWS])
    for parameter in flow.parameters():
        parameter.grad = None
    give_back()
    reset_peak()
    before = peak_mib()
    nfe = step(rows)
    return {"mib": peak_mib() - before, "nfe": nfe}


def our_step(spec: Spec, flow: Flow) -> Callable[[Tensor], float]:
    """Loss and backward pass of ours; a held grid is chosen anew every time."""

    def step(rows: Tensor) -> float:
        objective = build_objective(spec, spec.train)
        loss = objective(flow, rows, torch_generator(0, "benchmark/memory"))
        if loss.status is not Status.DONE:
            raise RuntimeError(loss.status.value)
        loss.value.backward()
        return loss.nfe

    return step


def plain_step(flow: Flow, tolerance: float) -> Callable[[Tensor], float]:
    """The same with torchdiffeq's adjoint and the exact trace."""
    peer = PlainFFJORD(tolerance=tolerance)
    peer.copy_from(flow)

    def step(rows: Tensor) -> float:
        peer.field.evaluations = 0
        loss = -peer.log_prob(rows).mean()
        forward = peer.field.evaluations
        loss.backward()
        return forward

    return step


def give_back() -> None:
    """Give freed memory back to the system, where the C library can: else the step would hide in it."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])))
