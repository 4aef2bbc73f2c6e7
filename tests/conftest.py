"""Options and fixtures of all tests: the precision is the caller's choice, global state is nobody's.

Tests that take `like` run on the CPU, and once more on a GPU by `pytest -m gpu`, with those that take `gpu`. The
variable SPARSEFLOWS_GPU_STAND_IN names a device (cpu) that stands for the GPU: it shows the tests right, not the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

STAND_IN = "SPARSEFLOWS_GPU_STAND_IN"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--dtype", choices=["float64", "float32"], default="float64", help="of the tests that take `like`")


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The GPU, or what stands for it."""
    if name := os.environ.get(STAND_IN):
        return torch.device(name)
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU here")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(scope="session", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and in the tests of `pytest -m gpu` the GPU."""
    return torch.device("cpu") if request.param == "cpu" else request.getfixturevalue("gpu")


@pytest.fixture(scope="session")
def like(request: pytest.FixtureRequest, device: torch.device) -> dict[str, Any]:
    """Precision and device, as tensors take them: `torch.randn(3, **like)`."""
    return {"dtype": getattr(torch, request.config.getoption("--dtype")), "device": device}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks this small gain nothing from more threads, and the suite shares its machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def global_state_is_left_alone() -> Iterator[None]:
    """The default precision and the recording of gradients belong to the caller, whatever runs."""
    yield
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
