"""Random generators that depend on a seed and a purpose, so that no draw disturbs another."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for `purpose` under the experiment's `seed`; equal inputs give equal seeds anywhere.

    Example:
        >>> derived_seed(0, "split") == derived_seed(0, "split"), derived_seed(0, "split") == derived_seed(0, "noise")
        (True, False)
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy generator of its own for one purpose (data sampling, splitting, dequantisation)."""
    return np.random.default_rng(derived_seed(seed, purpose))


def seed_again(generator: torch.Generator, seed: int, purpose: str) -> torch.Generator:
    """`generator` itself, in the state that one from `torch_generator` begins in: half the time of a new one."""
    return generator.manual_seed(derived_seed(seed, purpose))


def torch_generator(seed: int, purpose: str, device: str = "cpu") -> torch.Generator:
    """A PyTorch generator of its own for one purpose (initialisation, batches, noise)."""
    import torch  # late: data and settings are refused before PyTorch is loaded

    return torch.Generator(device=device).manual_seed(derived_seed(seed, purpose))
