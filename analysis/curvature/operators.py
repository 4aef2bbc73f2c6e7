"""Hessian-vector products over the surviving params, as a linear operator.

Where the compiled engine takes flow and loss, it multiplies (`in_engine`). Else double backpropagation does:
H v = ∂(∂L/∂θ · v)/∂θ (Pearlmutter 1994), a chunk of rows at a time: the graph of a gradient is the most that is ever in
memory, and a block of vectors shares it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from analysis.curvature.in_engine import MEMORY_MIB, EngineProducts, takes
from analysis.curvature.losses import MeanLoss
from sparseflows.errors import InputError, RunError
from sparseflows.flow.model import Flow

TRIAL_TERMS = 8  # of the loss, to see what one term's graph takes
BEYOND_SAVED = 2.5  # what a double backward pass took, measured, over the tensors that its graph saves
SMALL = 8192  # entries of a hidden layer's output: below it, an operation's cost is in calling it

T = TypeVar("T")


class Survivors:
    """The surviving params of a flow as one vector of length P, and where each tensor lies in it.

    Frozen params (`requires_grad=False`) are none of them. `kept` says by parameter name where an entry survives, True
    or False; names left out survive whole.

    Raises:
        InputError: no param is left.
    """

    def __init__(self, flow: Flow, kept: Mapping[str, Tensor]) -> None:
        self.parameters = {name: p for name, p in flow.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise InputError("all params of this flow are frozen, so its loss has no Hessian; flow.requires_grad_()")
        survive = [kept.get(name, torch.ones_like(p, dtype=torch.bool)) for name, p in self.parameters.items()]
        self._counts = [int(one.sum()) for one in survive]
        self._index = torch.cat([one.flatten() for one in survive]).nonzero().flatten()  # among all params, in a row

    @property
    def size(self) -> int:
        """P."""
        return len(self._index)

    @property
    def index(self) -> Tensor:
        """Where the entries (P,) of the vector stand among all params, in a row."""
        return self._index

    def slices(self) -> dict[str, slice]:
        """Parameter name → its part of the vector; tensors without survivors are left out."""
        ends = zip(self.parameters, accumulate(self._counts), self._counts, strict=True)
        return {name: slice(end - count, end) for name, end, count in ends if count}

    def scatter(self, vector: Tensor) -> list[Tensor]:
        """A vector (P,) as tensors of the params' shapes, zero where masked."""
        parameters = self.parameters.values()
        full = vector.new_zeros(sum(p.numel() for p in parameters))
        full[self._index] = vector
        parts = full.split([p.numel() for p in parameters])
        return [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]

    def gather(self, tensors: tuple[Tensor | None, ...]) -> Tensor:
        """Tensors of the params' shapes as a vector (P,); None counts as zero."""
        whole = zip(tensors, self.parameters.values(), strict=True)
        return torch.cat([(torch.zeros_like(p) if t is None else t).flatten() for t, p in whole])[self._index]


@dataclass
class _Chunk:
    """Some terms of the loss; the gradient's graph is kept between products where all chunks fit in memory."""

    terms: slice
    gradients: tuple[Tensor, ...] | None = None


class HessianOperator(LinearOperator):
    """The Hessian of a mean loss over the surviving params: symmetric, (P, P), float64 outside.

    Args:
        flow: in the precision that the products are to be computed in.
        loss: deterministic.
        survivors: the params.
        memory_mib: what the graphs may take; the terms go in chunks below it. (The engine is content with 32 a thread.)
        threads: chunks worked on at the same time, each by one thread. (The threads inside PyTorch's own
            operations wait for each other after every small step: slower than one on a busy machine.)
        on_product: called with the number of products after each, by one thread at a time.
        compiled: leave the products to the engine where it takes them; False keeps to double backpropagation.

    `products` counts the vectors multiplied, `chunk` the terms of a chunk; `bytes_a_term` is what one's graph takes, 1
    where the engine multiplies and there is none.

    Raises:
        InputError: batch norm in training mode, or a weight norm.
        RunError: the loss or its gradient is not finite, or not the same twice.
    """

    def __init__(
        self,
        flow: Flow,
        loss: MeanLoss,
        survivors: Survivors,
        memory_mib: int = 1024,
        threads: int = 1,
        on_product: Callable[[int], None] | None = None,
        compiled: bool = True,
    ) -> None:
        super().__init__(np.dtype(np.float64), (survivors.size, survivors.size))
        for name, part in flow.named_modules():
            if part.training and isinstance(part, nn.modules.batchnorm._NormBase):
                raise InputError(
                    f"'{name}' ({type(part).__name__}) is in training mode: what it makes of a row depends on the rows "
                    "beside it, and so would the Hessian; call flow.eval()"
                )
            if _is_weight_normed(part):
                raise InputError(
                    f"'{name}' has a weight norm, whose second derivative PyTorch gets wrong (its Hessian is not even "
                    "symmetric); take the Hessian of flow.compact(), by the weights themselves"
                )
        self.flow, self.loss, self.survivors = flow, loss, survivors
        self._parameters = list(survivors.parameters.values())
        self.on_product = on_product or (lambda products: None)
        self.products = 0
        self.threads = max(1, min(threads, loss.terms))
        self.engine = None
        if compiled and takes(flow, loss):
            each = min(MEMORY_MIB, memory_mib / self.threads)
            self.engine = EngineProducts(flow, loss, survivors.index, self.threads, each)
        self.bytes_a_term = 1 if self.engine else self._measure()
        fitting = memory_mib * 2**20 // self.bytes_a_term  # terms whose graphs fit at a time
        self._keep_graphs = fitting >= loss.terms
        # Chunks of equal size, a multiple of the threads: a small last one would cost as much time as a full one.
        rounds = _ceil(loss.terms, self.threads * max(1, fitting // self.threads))
        self.chunk = _ceil(loss.terms, rounds * self.threads)
        self._together = self._vectors_together(fitting)
        self._chunks = [
            _Chunk(slice(start, min(start + self.chunk, loss.terms))) for start in range(0, loss.terms, self.chunk)
        ]
        self._check()

    def value_and_gradient(self) -> tuple[float, np.ndarray]:
        """The mean loss and its gradient (P,) over the surviving params."""
        if self.engine is not None:
            return self.engine.value_and_gradient()

        def one(chunk: _Chunk) -> tuple[float, Tensor]:
            part = self.loss.total(self.flow, chunk.terms) / self.loss.terms
            found = torch.autograd.grad(part, self._parameters, allow_unused=True)
            return float(part.detach()), self.survivors.gather(found).double().cpu()

        parts = self._map(one)
        return sum(value for value, _ in parts), torch.stack([gradient for _, gradient in parts]).sum(0).numpy()

    def bounds(self) -> list[tuple[int, int]]:
        """First and past-the-last term of every chunk."""
        return [(chunk.terms.start, chunk.terms.stop) for chunk in self._chunks]

    def forget_graphs(self) -> None:
        """Give the memory of kept graphs back."""
        for chunk in self._chunks:
            chunk.gradients = None

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.asarray(x).reshape(-1, 1))[:, 0]

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        if self.engine is not None:
            result = self.engine.multiply(X, lambda done: self.on_product(self.products + done))
            self.products += X.shape[1]
            return result
        done, counting = 0, Lock()

        def one(chunk: _Chunk) -> Tensor:
            nonlocal done
            columns = []
            for product in self._products(chunk, X):
                columns.append(product)
                with counting:
                    done += 1
                    self.on_product(self.products + done // len(self._chunks))
            return torch.stack(columns, dim=1)

        result = torch.stack(self._map(one)).sum(0).numpy()
        self.products += X.shape[1]
        return result

    def _map(self, work: Callable[[_Chunk], T]) -> list[T]:
        """`work` of every chunk, in order; several at a time, each with one thread inside."""
        if self.threads == 1:
            return [work(chunk) for chunk in self._chunks]
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                return list(pool.map(work, self._chunks))
        finally:
            torch.set_num_threads(before)  # the workers' setting would be that of every later thread

    def _adjoint(self) -> HessianOperator:
        return self

    def _products(self, chunk: _Chunk, vectors: np.ndarray) -> Iterator[Tensor]:
        gradients = chunk.gradients or self._gradients(chunk)
        if self._keep_graphs:
            chunk.gradients = gradients
        columns = torch.tensor(vectors.T, dtype=gradients[0].dtype, device=gradients[0].device)
        batched = self._together > 1 and len(columns) > 1
        for block in columns.split(self._together if batched else 1):
            scattered = [self.survivors.scatter(column) for column in block]
            towards = [torch.stack(tensors) for tensors in zip(*scattered, strict=True)] if batched else scattered[0]
            # A gradient that does not depend on the params at all (a linear loss) has no graph to go back through.
            pairs = [(g, v) for g, v in zip(gradients, towards, strict=True) if g.requires_grad]
            found: tuple[Tensor | None, ...] = (None,) * len(gradients)
            if pairs:
                outputs, grads = zip(*pairs, strict=True)
                found = torch.autograd.grad(
                    outputs, self._parameters, grads, retain_graph=True, allow_unused=True, is_grads_batched=batched
                )
            for index in range(len(block)):
                one = tuple(f[index] if batched and f is not None else f for f in found)
                yield self.survivors.gather(one).double().cpu()

    def _vectors_together(self, fitting: int) -> int:
        # How many vectors to push through a chunk's graph at once: several where its operations are so small that
        # calling them takes longer than doing them, and as long as what they take, each as much as the graph, fits.
        widest = max((p.shape[0] for p in self._parameters if p.ndim), default=1)
        return max(1, min(SMALL // (self.chunk * widest), fitting // (self.chunk * self.threads)))

    def _gradients(self, chunk: _Chunk) -> tuple[Tensor, ...]:
        part = self.loss.total(self.flow, chunk.terms) / self.loss.terms
        return torch.autograd.grad(part, self._parameters, create_graph=True, materialize_grads=True)

    def _measure(self) -> int:
        """Bytes that the graph of a gradient holds for each term, from a trial of a few."""
        seen: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            try:
                storage = tensor.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
            except RuntimeError:  # inside `torch.func.jvp` (fields of the user's own) a tensor shows no storage
                seen[-1 - len(seen)] = tensor.nbytes
            return tensor

        if self.loss.terms == 1:
            return 1
        trial, sizes = min(self.loss.terms, 1 + TRIAL_TERMS), []
        for terms in (1, trial):
            seen.clear()
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                gradients = self._gradients(_Chunk(slice(0, terms)))
            del gradients
            sizes.append(sum(seen.values()))
        return max(1, round(BEYOND_SAVED * (sizes[1] - sizes[0]) / (trial - 1)))

    def _check(self) -> None:
        value, gradient = self.value_and_gradient()
        if not np.isfinite(value) or not np.isfinite(gradient).all():
            raise RunError(f"the loss has no Hessian here: its value is {value:g}, or its gradient is not finite")
        again, gradient_again = self.value_and_gradient()
        norm, moved = float(np.linalg.norm(gradient)), np.linalg.norm(gradient_again - gradient)
        # Several threads add up in another order.
        tolerance = 1e-12 if self._parameters[0].dtype is torch.float64 else 1e-5
        if abs(again - value) > tolerance * max(1.0, abs(value)) or moved > tolerance * max(1.0, norm):
            raise RunError("the loss is not deterministic: two evaluations differ; its Hessian would be noise")
        self.value, self.gradient_norm = value, norm


def _is_weight_normed(part: nn.Module) -> bool:
    """By the parametrization of PyTorch or by its older hook."""
    return isinstance(part, _WeightNorm) or any(isinstance(one, WeightNorm) for one in part._forward_pre_hooks.values())


def _ceil(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
