"""Products that outlive the process."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from support.matrices import MATRICES

from analysis.curvature.journal import Journal
from analysis.curvature.spectrum import estimated
from sparseflows.errors import RunError


class Counted:
    """Multiplies, and stops when told to."""

    def __init__(self, matrix, most=10**9, error=KeyboardInterrupt):
        self.matrix, self.most, self.error, self.count = matrix, most, error, 0

    def __call__(self, block):
        if self.count + block.shape[1] > self.most:
            raise self.error("enough")
        self.count += block.shape[1]
        return self.matrix @ block


def blocks(count=5, width=3, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 100, width))


def interrupted(path, asked, multiply):
    """The products with the blocks `asked`, before Ctrl-C."""
    found = []
    with contextlib.suppress(KeyboardInterrupt), Journal(path) as journal:
        found += [journal.product(block, multiply) for block in asked]
        raise KeyboardInterrupt
    return found


def test_it_goes_on_where_it_was_stopped(tmp_path):
    path, matrix = tmp_path / "deep" / "stage.products", MATRICES["indefinite"]
    work = Counted(matrix, most=7)
    with pytest.raises(KeyboardInterrupt), Journal(path) as journal:
        [journal.product(block, work) for block in blocks()]
    assert path.exists()
    work = Counted(matrix)
    with Journal(path) as journal:
        assert journal.known == 6
        first = [journal.product(block, work) for block in blocks()]
        assert journal.given == 15
    assert work.count == 9
    np.testing.assert_array_equal(first, [matrix @ block for block in blocks()])
    assert not path.exists()


def test_it_goes_on_to_the_last_bit(tmp_path):
    matrix = MATRICES["Hessian-like"]

    def spectrum(multiply, journal):
        from scipy.sparse.linalg import LinearOperator

        operator = LinearOperator(
            matrix.shape, dtype=float, matvec=multiply, matmat=lambda b: journal.product(b, multiply)
        )
        return estimated(operator, np.random.default_rng(0), steps=8)

    with Journal(tmp_path / "a") as journal:
        undisturbed = spectrum(Counted(matrix), journal)
    for most in (0, 5, 17, 40):
        path = tmp_path / "b"
        with pytest.raises(KeyboardInterrupt), Journal(path) as journal:
            spectrum(Counted(matrix, most), journal)
        with Journal(path) as journal:
            resumed = spectrum(Counted(matrix), journal)
        np.testing.assert_array_equal(resumed.values, undisturbed.values)
        assert resumed.trace == undisturbed.trace


@pytest.mark.parametrize("damage", ["cut off", "head cut off", "one bit", "garbage behind", "empty", "no mark"])
def test_what_is_damaged_is_multiplied_again(tmp_path, damage):
    path, matrix = tmp_path / "stage.products", MATRICES["indefinite"]
    interrupted(path, blocks(), Counted(matrix))
    content = path.read_bytes()
    length = len(content) // 5
    damaged, left = {
        "cut off": (content[:-10], 12),
        "head cut off": (content[: 4 * length + 11], 12),
        "one bit": (content[: 2 * length + 500] + b"\x00\x01" + content[2 * length + 502 :], 6),
        "garbage behind": (content + b"products\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff", 15),
        "empty": (b"", 0),
        "no mark": (b"Products" + content[8:], 0),
    }[damage]
    path.write_bytes(damaged)
    work = Counted(matrix)
    with Journal(path) as journal:
        assert journal.known == left
        found = [journal.product(block, work) for block in blocks()]
    np.testing.assert_array_equal(found, [matrix @ block for block in blocks()])
    assert work.count == 15 - left


def test_another_calculation_is_not_taken_for_this_one(tmp_path):
    path, matrix = tmp_path / "stage.products", MATRICES["indefinite"]
    interrupted(path, blocks(), Counted(matrix))
    asked = [*blocks()[:2], *blocks(3, seed=1)]
    work = Counted(matrix)
    found = interrupted(path, asked, work)
    np.testing.assert_array_equal(found, [matrix @ block for block in asked])
    assert work.count == 9
    with Journal(path) as journal:
        assert journal.known == 15  # of the second, all of them


def test_two_at_the_same_stage(tmp_path):
    path, matrix = tmp_path / "stage.products", MATRICES["indefinite"]
    with Journal(path) as journal:
        journal.product(blocks()[0], Counted(matrix))
        with Journal(path) as other:
            work = Counted(matrix)
            assert other.known == 0
            other.product(blocks()[0], work)
            assert work.count == 3
        assert path.exists()  # it is the first one's
    assert not path.exists()


def test_a_stage_that_fails_of_itself_keeps_nothing(tmp_path):
    path = tmp_path / "stage.products"
    failing = Counted(MATRICES["indefinite"], most=6, error=RunError)
    with pytest.raises(RunError), Journal(path) as journal:
        [journal.product(block, failing) for block in blocks()]
    assert not path.exists()
