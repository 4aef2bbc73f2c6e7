"""What a flow costs: bytes, multiply-adds, evaluations of the field, seconds.

Bytes and multiply-adds are counted from the layers; they are the same on every machine. Seconds are
measured in rounds: every flow once a round, so that a machine that slows down slows them all.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparseflows.errors import SparseFlowsError
from sparseflows.evaluation.likelihood import likelihood, rows_per_chunk
from sparseflows.flow.fields import Layer, MLPField
from sparseflows.flow.model import Flow
from sparseflows.flow.smaller.sparse import SparseField
from sparseflows.flow.solvers.ode import SolveFailed, Status

Array = NDArray[np.float64]
Kept = Mapping[str, Tensor]  # parameter name → bool, True where the entry survives

INDEX_BYTES = 4  # of a column or row index in CSR: int32, as scipy and the vendors' libraries have it


def stored_bytes(flow: Flow) -> int:
    """Bytes of the parameters as they are in memory: masked entries are zeros, and take as much as any other."""
    return sum(p.numel() * p.element_size() for p in flow.parameters())


def sparse_bytes(flow: Flow, kept: Kept) -> int:
    """Bytes of the parameters were masked entries left out.

    A matrix with masked entries is stored as compressed sparse rows where that is smaller: the kept values,
    a column index each, and rows + 1 offsets. Of all else the kept values are stored.
    """
    total = 0
    for name, parameter in flow.named_parameters():
        size, survivors = parameter.element_size(), int(kept[name].sum())
        if parameter.ndim == 2 and survivors < parameter.numel():
            rows = survivors * (size + INDEX_BYTES) + (parameter.shape[0] + 1) * INDEX_BYTES
            total += min(rows, parameter.numel() * size)
        else:
            total += survivors * size
    return total


def macs(flow: Flow) -> int:
    """Multiply-adds of the matrix products in one evaluation of f, a row of the batch; blocks are added up.

    What is done by element (biases, time, gates, activations) is not counted. Masked weights are zeros
    that are multiplied all the same.
    """
    return sum(layer.weight.numel() for layers in _layers(flow) for layer in layers)


def macs_kept(flow: Flow, kept: Kept) -> int:
    """The same, of surviving weights only: what a perfect sparse product would do."""
    return sum(int(kept[name].sum()) for name, parameter in flow.named_parameters() if parameter.ndim == 2)


def macs_divergence(flow: Flow) -> int:
    """Multiply-adds of one evaluation of f with its exact divergence by D tangents, a row of the batch.

    (With at most two hidden layers and more dimensions than the compiled engine takes, the solves have the trace for
    one product more than f; see `flow.divergence`.)

    D tangents go through every layer but the first with each row. Through the first they go once a batch,
    for they are the same for all rows; that is not counted.
    """
    return sum(
        layer.weight.numel() * (1 + (layers[0].weight.shape[1] if number else 0))
        for layers in _layers(flow)
        for number, layer in enumerate(layers)
    )


def sparse_execution(flow: Flow) -> Flow | None:
    """`flow.to_sparse()`, or None where none of its matrices has zeros enough for that to pay."""
    sparse = flow.to_sparse()
    return sparse if any(isinstance(field, SparseField) for field in sparse.fields()) else None


def _layers(flow: Flow) -> Iterator[list[Layer]]:
    for field in flow.fields():
        if not isinstance(field, MLPField):
            raise TypeError(f"multiply-adds are counted for MLPField only, not for {type(field).__name__}")
        yield field.linear_layers()


@dataclass(frozen=True)
class Job:
    """A flow to be timed both ways, with its own solver; `precise` is the same flow in the precision of its log p.

    `points` (B, D) are the rows whose log p is computed, `noise` (B, D) is what the samples start from.
    """

    flow: Flow
    precise: Flow
    points: Array
    noise: Array

    def log_prob(self) -> int:
        """log p of the rows, as reported numbers are computed; NFE. Raises SolveFailed."""
        dtype = str(next(self.precise.parameters()).dtype).removeprefix("torch.")
        found = likelihood(self.precise, self.points, self.precise.solver, dtype)
        if found.status is not Status.DONE:
            raise SolveFailed(found.status, found.nfe)
        return found.nfe

    @torch.no_grad()
    def sample(self) -> int:
        """Samples from the noise, in chunks as large as those of log p; NFE. Raises SolveFailed."""
        like = next(self.flow.parameters())
        noise = torch.as_tensor(self.noise, dtype=like.dtype, device=like.device)
        nfe = 0
        for part in noise.split(rows_per_chunk(self.flow, noise.shape[1])):
            result = self.flow.transform(part, reverse=True, divergence=None)
            nfe = max(nfe, result.nfe)
            if result.status is not Status.DONE:
                raise SolveFailed(result.status, result.nfe)
        return nfe


@dataclass(frozen=True)
class Timing:
    """The seconds of every round (R,), and the evaluations of the field in one solve, the most of any chunk."""

    seconds: Array
    nfe: int


def in_turns(
    works: Mapping[tuple[str, str], Callable[[], int]],
    rounds: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[tuple[str, str], Timing | str]:
    """Time all works once a round, every other round backwards, after one round that does not count.

    Backwards, so that whoever comes after a heavy one does not always do; a steady drift cancels too.

    `works` are functions by (flow, what) that return their NFE; `report` is told how many of (rounds + 1) × works are
    done. Each has its timing, or the reason why there is none; what fails is not tried again.
    """
    seconds: dict[tuple[str, str], list[float]] = {name: [] for name in works}
    nfe: dict[tuple[str, str], int] = {}
    failures: dict[tuple[str, str], str] = {}
    done, total = 0, (rounds + 1) * len(works)
    for number in range(rounds + 1):
        for name in reversed(list(works)) if number % 2 else list(works):
            if name not in failures:
                started = clock()
                try:
                    nfe[name] = works[name]()
                except SparseFlowsError as error:
                    failures[name] = str(error)
                seconds[name].append(clock() - started)
            done += 1
            report(done, total)
    return {name: failures.get(name) or Timing(np.array(seconds[name][1:]), nfe[name]) for name in works}


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on so many threads; the number there was before comes back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processor() -> str:
    """The processor's name, as Linux tells it; the architecture elsewhere."""
    import platform

    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
