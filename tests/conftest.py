"""Options and fixtures of all tests: precision and device are the caller's choice, global state is nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--dtype", choices=["float64", "float32"], default="float64", help="of the tests that take `like`")
    parser.addoption("--device", default="cpu", help="of the tests that take `like`: cpu or cuda")


@pytest.fixture(scope="session")
def like(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Precision and device, as tensors take them: `torch.randn(3, **like)`."""
    return {
        "dtype": getattr(torch, request.config.getoption("--dtype")),
        "device": torch.device(request.config.getoption("--device")),
    }


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
