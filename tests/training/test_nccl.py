"""Two processes and one GPU: they train as one, where nccl lets them; a run says beforehand that it wants two."""

from __future__ import annotations

import pytest
import torch
from support.pairs import launch_environment
from support.processes.one_card import Refused, trained, trained_by_two

from sparseflows.distributed.torchrun import joined, launched
from sparseflows.errors import InputError

pytestmark = pytest.mark.gpu


def test_two_processes_on_one_card_end_with_the_parameters_of_one(gpu: torch.device) -> None:
    try:
        first, second = trained_by_two(str(gpu))
    except Refused as refused:
        pytest.skip(str(refused))
    alone = trained(str(gpu))
    for one, other, wanted in zip(first, second, alone, strict=True):
        assert one == other
        assert one == pytest.approx(wanted, abs=1e-9)


def test_more_processes_than_cards_is_one_line(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = torch.cuda.device_count() if gpu.type == "cuda" else 1
    if gpu.type != "cuda":
        monkeypatch.setattr("torch.cuda.is_available", lambda: True)
        monkeypatch.setattr("torch.cuda.device_count", lambda: cards)
    for name, value in launch_environment(cards, cards + 1, 1).items():
        monkeypatch.setenv(name, value)
    place = launched()
    assert place is not None
    with (
        pytest.raises(InputError, match=f"device: cuda: {cards + 1} processes, but {cards} GPUs"),
        joined(place, "cuda"),
    ):
        pass
