"""Several processes of `torch.distributed`: sums, copies and objects go between them (gloo; nccl between GPUs).

The gradient is one vector already (`training.flat`), so data-parallel training is one sum a step. PyTorch's wrapper
DistributedDataParallel is of no use here: it hooks a module's forward pass, and these losses go through tangents, the
compiled engine and gradients written out by hand; what it would add, buckets, is the single vector.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparseflows.distributed.processes import Processes, S, T
from sparseflows.errors import InputError, RunError, SparseFlowsError


@contextlib.contextmanager
def _group_calls() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and nccl have no narrower one
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise RunError(
            f"another process of this run has ended or stopped answering ({first[:120]}); "
            "the same command goes on from the last checkpoint"
        ) from error


@dataclass(frozen=True)
class ProcessGroup(Processes):
    """One of several processes, which have joined (`torchrun.joined`)."""

    local_rank: int = 0
    _inside: list[bool] = field(default_factory=list, repr=False, compare=False)  # a `first` is at work

    def device(self, name: str) -> str:
        """`cuda` is the GPU of this process's local rank.

        Raises:
            InputError: one GPU by its number.
        """
        if name == "cuda":
            return f"cuda:{self.local_rank}"
        if name.startswith("cuda:"):
            raise InputError(f"device: {name}: {self.world} processes cannot all have that GPU; set device: cuda")
        return name

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` (…) over all processes. Its gradient is summed too: each has a part of the loss."""
        result: Tensor = _Sum.apply(tensor, self)
        return result

    def add_(self, tensor: Tensor) -> None:
        """Put the sum over all processes into `tensor` (…)."""
        with _group_calls():
            dist.all_reduce(tensor)

    def copy_first_(self, tensor: Tensor) -> None:
        """Put the first process's values into `tensor` (…)."""
        with _group_calls():
            dist.broadcast(tensor, 0)

    def first(self, work: Callable[[], T]) -> T:
        """See `Processes`. Errors that end a command are raised in all processes; within `work`, `first` is a call."""
        if self._inside:
            return work()
        box: list[Any] = [None]
        if self.rank == 0:
            self._inside.append(True)
            try:
                box = [(work(), None)]
            except SparseFlowsError as error:
                box = [(None, error)]
            finally:
                self._inside.clear()
        with _group_calls():
            dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        result: T
        result, problem = box[0]
        if problem is not None:
            raise problem
        return result

    def spread(self, work: Callable[[S], T], items: Sequence[S], failed: Callable[[T], bool]) -> Iterator[T]:
        """See `Processes`: process r does the items r, r + world, …"""
        own: list[T] = []
        for item in items[self.rank :: self.world]:
            own.append(work(item))
            if failed(own[-1]):
                break
        everyone: list[Any] = [None] * self.world
        with _group_calls():
            dist.all_gather_object(everyone, own)
        for number in range(len(items)):
            result: T = everyone[number % self.world][number // self.world]
            yield result
            if failed(result):
                return


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, processes: ProcessGroup) -> Tensor:
        ctx.processes = processes
        total = tensor.detach().clone()
        processes.add_(total)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        total = above.contiguous().clone()
        ctx.processes.add_(total)
        return total, None
