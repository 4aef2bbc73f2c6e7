"""Batches from disk are batches: every row once an epoch, in an order that depends on seed, purpose and epoch only."""

import numpy as np
import pytest
import torch

from sparseflows.data.tables import mapped
from sparseflows.data.tables.mapped import MappedRows
from sparseflows.rng import torch_generator
from sparseflows.training import batches
from sparseflows.training.batches import InMemory, OnDisk, batches_of

N, SIZE = 1000, 64
CPU = torch.device("cpu")


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 8 * 2 * 30)  # blocks of 30 rows, the last one of 10
    monkeypatch.setattr(batches, "BUFFER_BYTES", 4 * 2 * 30 * 7)  # seven blocks in a buffer, the last buffer has six
    np.save(tmp_path / "rows.npy", np.stack([np.arange(N), -np.arange(N)], axis=1).astype(float))
    return lambda: OnDisk(MappedRows(tmp_path / "rows.npy"), torch.float32, CPU)


def in_memory():
    return InMemory(torch.stack([torch.arange(N), -torch.arange(N)], dim=1).float())


def epoch(source, number, seed=0, purpose="p"):
    return [source.batch(seed, purpose, number, first, SIZE) for first in range(0, N, SIZE)]


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_every_epoch_has_every_row_once(on_disk, kind):
    source = on_disk() if kind == "disk" else in_memory()
    assert (len(source), source.dim, source.dtype, source.device) == (N, 2, torch.float32, CPU)
    for number in range(3):
        rows = epoch(source, number)
        assert [len(part) for part in rows] == [SIZE] * (N // SIZE) + [N % SIZE]
        joined = torch.cat(rows)
        assert torch.equal(joined[:, 0].sort().values, torch.arange(N).float())
        assert torch.equal(joined[:, 1], -joined[:, 0])


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_an_order_is_a_function_of_seed_purpose_and_epoch(on_disk, kind):
    make = on_disk if kind == "disk" else in_memory
    first = torch.cat(epoch(make(), 1))
    assert torch.equal(first, torch.cat(epoch(make(), 1)))
    for other in (epoch(make(), 2), epoch(make(), 1, seed=1), epoch(make(), 1, purpose="q")):
        assert not torch.equal(first, torch.cat(other))
    resumed = make()  # in the middle of an epoch, and then an earlier one
    assert torch.equal(resumed.batch(0, "p", 1, 5 * SIZE, SIZE), first[5 * SIZE : 6 * SIZE])
    assert torch.equal(resumed.batch(0, "p", 1, 0, SIZE), first[:SIZE])


def test_a_buffer_mixes_blocks_from_everywhere(on_disk):
    # A sorted file: were blocks taken in order, the first batch would hold rows below 210 only.
    rows = torch.cat([on_disk().batch(seed, "p", 0, 0, SIZE)[:, 0] for seed in range(5)])
    assert rows.max() > 800
    assert rows.min() < 200


def test_a_buffer_is_bounded(on_disk):
    source = on_disk()
    sizes = set()
    for number in range(2):
        for first in range(0, N, SIZE):
            source.batch(0, "p", number, first, SIZE)
            sizes.add(len(source._buffer))
    assert max(sizes) == 210


def test_a_batch_may_be_larger_than_a_buffer(on_disk):
    assert torch.equal(on_disk().batch(0, "p", 0, 0, 10 * N)[:, 0].sort().values, torch.arange(N).float())


def test_batches_of_chooses_by_where_the_rows_are(on_disk, tmp_path):
    assert isinstance(batches_of(np.zeros((5, 2)), torch.float32, CPU), InMemory)
    assert isinstance(batches_of(MappedRows(tmp_path / "rows.npy"), torch.float32, CPU), OnDisk)


@pytest.mark.parametrize("ahead", [1, 8 * 2 * SIZE * 3, 2**20])
def test_batches_that_are_gathered_ahead_are_those_of_the_order(monkeypatch, ahead):
    monkeypatch.setattr(batches, "AHEAD_BYTES", ahead)
    source = in_memory()
    order = [torch.randperm(N, generator=torch_generator(0, f"p/epoch/{number}")) for number in range(3)]
    # Within an epoch, on to another, back, and where one begins in the middle as a resumed training does.
    asked = [(0, 0, 64), (0, 64, 64), (2, 0, 64), (0, 960, 64), (0, 0, 10)]
    asked += [(1, 500, 64), (1, 436, 64), (1, 500, 300), (1, 0, N), (1, 900, 500)]
    for number, first, size in asked:
        found = source.batch(0, "p", number, first, size)
        assert torch.equal(found, source.rows[order[number][first : first + size]])
        assert found.is_contiguous()
