"""Vector fields dz/dt = f(t, z; θ), and their Jacobian-vector products.

A field returns f(t, z) from `forward` and, from `tangents`, f together with (∂f/∂z)v for a block of K
tangents in the same pass: the layers are shared, so D tangents cost D + 1 evaluations and no graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparseflows.errors import InputError, lookup
from sparseflows.flow.activations import ACTIVATIONS, Activation
from sparseflows.flow.calls import deep_copy, has_made_weights_only, is_plain, is_same_function, tangents_of_call
from sparseflows.specs.choices import BASES, TIMES


@runtime_checkable
class Field(Protocol):
    """What a flow needs of a vector field. t is a scalar tensor, or (B, 1) with one time a row."""

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        """f(t, z) (B, D) for t () or (B, 1) and z (B, D)."""
        ...

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f(t, z) (B, D) and its products with the tangents v (K, B, D) or (K, 1, D): (K, B, D)."""
        ...


TENSORS = ("weight", "bias", "gate_weight", "gate_bias", "time_bias")  # of a layer; without time conditioning, two


class Layer(nn.Module):
    """One affine layer with its time conditioning.

    `none`: y = W h + b. `concat`: y = W h + b + w_b t, the layer that sees (h, t).
    `concat_squash`: y = (W h + b) ⊙ sigmoid(w_g t + b_g) + w_b t (FFJORD, Grathwohl et al. 2019).

    The weight on t is a vector of its own (`time_bias`), not a column of W: it leaves with its neuron and
    is never scored as a weight.
    """

    gate_weight: Tensor | None
    gate_bias: Tensor | None
    time_bias: Tensor | None

    def __init__(self, n_in: int, n_out: int, time: str = "none") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))
        for name, used in (
            ("gate_weight", time == "concat_squash"),
            ("gate_bias", time == "concat_squash"),
            ("time_bias", time != "none"),
        ):
            self.register_parameter(name, nn.Parameter(torch.zeros(n_out)) if used else None)

    def tensors(self) -> list[Tensor | None]:
        """The weight (n_out, n_in) and the vectors (n_out,) of `TENSORS`, in that order; None where there is none."""
        own = self._parameters  # where `getattr` finds them in the end: a fifth of the time
        return [own[name] if name in own else getattr(self, name) for name in TENSORS]

    def initialise(self, generator: torch.Generator, gain: float = 1.0) -> None:
        """Uniform in ±1/√fan-in (PyTorch's own rule for a linear layer), the weights times `gain`."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        with torch.no_grad():
            self.weight.uniform_(-bound * gain, bound * gain, generator=generator)
            for parameter in self.tensors()[1:]:
                if parameter is not None:
                    parameter.uniform_(-bound, bound, generator=generator)

    def gate(self, t: Tensor) -> Tensor | None:
        """sigmoid(w_g t + b_g), (n_out,) or (B, n_out); None without gates."""
        if self.gate_weight is None or self.gate_bias is None:
            return None
        return torch.sigmoid(self.gate_weight * t + self.gate_bias)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """y (B, n_out) for t () or (B, 1) and h (B, n_in)."""
        return self._affine(t, h, self.gate(t))

    formula = forward

    def tangents(self, t: Tensor, h: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, n_out) and (∂y/∂h)v (K, B or 1, n_out), for t () or (B, 1), h (B, n_in) and v (K, B or 1, n_in)."""
        gate = self.gate(t)
        pushed = F.linear(v, self.weight)
        return self._affine(t, h, gate), pushed if gate is None else pushed * gate

    def _affine(self, t: Tensor, h: Tensor, gate: Tensor | None) -> Tensor:
        y = F.linear(h, self.weight, self.bias)
        if gate is not None:
            y = y * gate
        return y if self.time_bias is None else y + self.time_bias * t


class MLPField(nn.Module):
    """A multilayer perceptron f(t, z).

    Args:
        dim: D.
        hidden: neurons of each hidden layer.
        activation: sigmoid, tanh, softplus, relu or silu.
        time: none, concat (t joins the first layer's input) or concat_squash (every layer).
        base: `gaussian` adds (2t − 1)/((1 − t)² + t²)·z, the velocity that carries N(0, I) to N(0, I) along
            straight paths; none adds nothing.
    """

    def __init__(
        self, dim: int, hidden: Sequence[int], activation: str = "sigmoid", time: str = "none", base: str = "none"
    ) -> None:
        super().__init__()
        self.dim, self.time, self.base, self.activation = dim, time, base, activation
        lookup("activation", activation, ACTIVATIONS)
        lookup("time conditioning", time, TIMES)
        lookup("base", base, BASES)
        widths = _widths(dim, hidden)
        self.layers = nn.ModuleList(
            Layer(n_in, n_out, "none" if time == "concat" and i else time)
            for i, (n_in, n_out) in enumerate(pairwise(widths))
        )

    @property
    def hidden(self) -> list[int]:
        """Neurons of each hidden layer, as they are now."""
        return [layer.bias.shape[0] for layer in self.linear_layers()[:-1]]

    @property
    def _sigma(self) -> Activation:
        return ACTIVATIONS[self.activation]

    def linear_layers(self) -> list[Layer]:
        """The layers in order, typed.

        Raises:
            InputError: something else was put among them, which the field's formulas do not know.
        """
        found = [layer for layer in self.layers if isinstance(layer, Layer)]
        if len(found) != len(self.layers):
            other = next(layer for layer in self.layers if not isinstance(layer, Layer))
            raise InputError(
                f"a {type(other).__name__} stands among the layers of an MLPField, which takes `Layer`s only; "
                "write a field of your own, f(t, z), with it"
            )
        return found

    def is_plain(self) -> bool:
        """Whether a call of the field runs these formulas on its tensors and nothing else (see `calls.is_plain`)."""
        return is_plain(self, MLPField) and all(is_plain(layer, Layer) for layer in self.layers)

    @torch.no_grad()
    def plain_copy(self) -> MLPField | None:
        """A plain field of its own with the weights that a call uses: masks and parametrizations carried out.

        None where a call may do something else than those weights say, as under a hook that scales an output.
        """
        if not (
            has_made_weights_only(self, MLPField) and all(has_made_weights_only(one, Layer) for one in self.layers)
        ):
            return None
        called = deep_copy(self).eval()
        like = called.linear_layers()[0].bias
        called(like.new_zeros(()), like.new_zeros(1, self.dim))  # hooks that compute a weight now have
        new = called.with_own_tensors()
        same = is_same_function(called, new, like, self.dim)
        return new.train(self.training).requires_grad_(like.requires_grad) if same else None

    @torch.no_grad()
    def with_own_tensors(self) -> MLPField:
        """A new field with the same values, all of them parameters that no two layers share."""
        new = MLPField(self.dim, self.hidden, self.activation, self.time, self.base).to(self.linear_layers()[0].bias)
        for own, given in zip(new.tensors(), self.tensors(), strict=True):
            own.copy_(given)
        return new

    def tensors(self) -> list[Tensor]:
        """The tensors of all layers, in order, in the shapes of `Layer.tensors`: what gradients are by."""
        return [tensor for layer in self.linear_layers() for tensor in layer.tensors() if tensor is not None]

    def initialise(self, generator: torch.Generator, gain: float = 1.0) -> None:
        """Draw all weights; `gain` multiplies those of the hidden layers. With a base the last layer starts at 0."""
        *inner, last = self.linear_layers()
        for layer in inner:
            layer.initialise(generator, gain)
        last.initialise(generator)
        if self.base == "gaussian":
            with torch.no_grad():
                for parameter in (last.weight, last.bias, last.time_bias):
                    if parameter is not None:
                        parameter.zero_()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """f(t, z) (B, D) for t () or (B, 1) and z (B, D)."""
        *inner, last = self.linear_layers()
        h = z
        for layer in inner:
            h = self._sigma.value(layer(t, h))
        f = last(t, h)
        return f if self.base == "none" else f + gaussian_velocity(t) * z

    formula = forward

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f(t, z) (B, D) and (∂f/∂z)v (K, B, D), for t () or (B, 1), z (B, D) and v (K, B or 1, D).

        In one pass where the field is plain; where hooks or parametrizations have a say, by calling it K times.
        """
        if not self.is_plain():
            return tangents_of_call(self, t, z, v)
        *inner, last = self.linear_layers()
        h, u = z, v
        for layer in inner:
            x, u = layer.tangents(t, h, u)
            h = self._sigma.value(x)
            u = u * self._sigma.derivative(x, h)
        f, u = last.tangents(t, h, u)
        u = u.expand(u.shape[0], *f.shape)  # without hidden layers it is still (K, 1, D)
        if self.base == "none":
            return f, u
        rate = gaussian_velocity(t)
        return f + rate * z, u + rate * v


def _widths(dim: object, hidden: object) -> list[int]:
    if isinstance(hidden, str) or not isinstance(hidden, Sequence | np.ndarray):
        raise InputError(f"hidden is {hidden!r}; it is a list of widths, one a hidden layer: [64, 64]")
    widths: list[Any] = [dim, *hidden, dim]
    for width in widths:
        if isinstance(width, bool) or not isinstance(width, Integral) or width < 1:
            raise InputError(f"dim is {dim!r}, hidden is {list(hidden)!r}; both are whole numbers from 1 on")
    return [int(width) for width in widths]


Time = TypeVar("Time", float, Tensor)


def gaussian_velocity(t: Time) -> Time:
    """(2t − 1)/((1 − t)² + t²): E[z₁ − x | (1 − t)x + t z₁] over that point, for independent standard Gaussians."""
    return (2 * t - 1) / ((1 - t) ** 2 + t**2)


class LinearField(nn.Module):
    """dz/dt = A z, whose flow is e^{TA} and whose log-determinant is T·tr A: the closed form tests lean on."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """A z (B, D) for z (B, D); t () is not looked at."""
        return z @ self.matrix.T

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """A z (B, D) and A v (K, B, D), for z (B, D) and v (K, B or 1, D); t () is not looked at."""
        return self(t, z), (v @ self.matrix.T).expand(v.shape[0], *z.shape)


class AutogradField(nn.Module):
    """Any module f(t, z), its tangents by forward-mode differentiation (`calls.tangents_of_call`)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @property
    def dim(self) -> int | None:
        """D, where the module says it by an attribute of that name."""
        dim = getattr(self.module, "dim", None)
        return dim if isinstance(dim, int) else None

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """f(t, z) (B, D) for t () or (B, 1) and z (B, D)."""
        result: Tensor = self.module(t, z)
        if not isinstance(result, Tensor) or result.shape != z.shape:
            given = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            name = type(self.module).__name__
            raise InputError(f"the field {name} gives {given} for points {tuple(z.shape)}; a field gives their shape")
        return result

    def tangents(self, t: Tensor, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """f(t, z) (B, D) and (∂f/∂z)v (K, B, D), for t () or (B, 1), z (B, D) and v (K, B or 1, D), in K passes."""
        return tangents_of_call(self, t, z, v)


def as_field(module: nn.Module) -> nn.Module:
    """`module` itself where it has `tangents`, else wrapped in an `AutogradField`."""
    return module if isinstance(module, Field) else AutogradField(module)
