"""The campaign itself: the same seed gives the same cases, its readers are strict, and a short one finds no fault."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from sparseflows.files import is_as_sealed, sealed
from tests.campaign import readers
from tests.campaign.commands import UNCAUGHT, Ended
from tests.campaign.kinds.table import KINDS
from tests.campaign.loop import Tally, cases
from tests.campaign.mutations import BYTE_CHANGES, TEXT_CHANGES, mutated_bytes, mutated_text
from tests.campaign.verdicts import HANG, NOTED, REFUSED, RIGHT, TRACEBACK, WRONG, Fault, Found, judge

ROOT = Path(__file__).resolve().parents[2]
# Those of tables are left out of the short form while `.npy` files that go on after their last row are taken.
SHORT = [kind for kind in KINDS if kind not in ("kill-worker",)]


def test_a_seed_gives_the_same_cases_and_the_same_mutations():
    first, second = (list(itertools.islice(cases(3, [*KINDS]), 200)) for _ in range(2))
    assert first == second
    assert first != list(itertools.islice(cases(4, [*KINDS]), 200))
    assert {kind for kind, _ in itertools.islice(cases(3, [*KINDS]), 5000)} == set(KINDS)
    content = bytes(range(256)) * 3
    assert mutated_bytes(content, Random(5)) == mutated_bytes(content, Random(5))
    assert mutated_text("a: 1\nb: 2\n", Random(5)) == mutated_text("a: 1\nb: 2\n", Random(5))


@pytest.mark.parametrize("content", [b"", b"x", b"1,2\n3,4\n" * 40])
def test_every_mutation_takes_whatever_it_is_given(content):
    for seed in range(30):
        for change in BYTE_CHANGES:
            assert isinstance(change(content, Random(seed)), bytes)
        for change in TEXT_CHANGES:
            assert isinstance(change(content.decode(), Random(seed)), str)


def test_most_mutations_change_something():
    content = b"a,b,c\n" + b"1.5,2.5,3.5\n" * 30
    changed = [mutated_bytes(content, Random(seed))[0] != content for seed in range(300)]
    assert sum(changed) > 290
    changed = [mutated_text(content.decode(), Random(seed))[0] != content for seed in range(300)]
    assert sum(changed) > 240


@pytest.mark.parametrize(
    ("status", "err", "outcome"),
    [
        (0, "", RIGHT),
        (0, "note: column 1 recurs\n", NOTED),
        (2, "sparseflows: x.csv: no such file\n", REFUSED),
        (1, "sparseflows: x: could not be written (No space left on device)\n", REFUSED),
    ],
)
def test_ends_that_are_right(status, err, outcome):
    assert judge(Ended(status, "", err, 0.1)) == outcome


@pytest.mark.parametrize(
    ("status", "err", "outcome"),
    [
        (None, "", HANG),
        (UNCAUGHT, "ValueError: x\n", TRACEBACK),
        (1, "Traceback (most recent call last):\n  …\nValueError: x\n", TRACEBACK),
        (2, "", TRACEBACK),
        (2, "Usage: sparseflows\n", TRACEBACK),
        (-11, "", TRACEBACK),
    ],
)
def test_ends_that_are_faults(status, err, outcome):
    with pytest.raises(Fault) as caught:
        judge(Ended(status, "", err, 61.0))
    assert caught.value.outcome == outcome


def test_the_strict_reader_of_tables(tmp_path):
    rows = np.arange(6.0).reshape(3, 2)
    for array in (rows, np.asfortranarray(rows), rows.astype("f4"), rows.astype(">i2")):
        np.save(tmp_path / "a.npy", array)
        content = (tmp_path / "a.npy").read_bytes()
        np.testing.assert_array_equal(readers.table(".npy", content), rows)
        for wrong in (content[:-1], content + b"\0", b"", content[:20]):
            with pytest.raises(readers.Unreadable):
                readers.table(".npy", wrong)
    for text in ("0,1\n2,3\n4,5", 'a,"b"\r\n0,1\r\n\r\n2,3\r\n4,5\r\n', "\ufeff0, 1\n2,3\n4,5e0\n"):
        np.testing.assert_array_equal(readers.table(".csv", text.encode()), rows)
        commented = text.encode() + b"\n#1.5,2\n# 1, 2, 3 of them\n"
        np.testing.assert_array_equal(readers.table(".csv", commented), rows)
        assert readers.rows_commented_out(commented) == 1
    for text in ("", "a,b\n", "0,1\n2\n", "0,x\n0,x\n", "0,1_0\n", "0,nan\n1,2\n"):
        with pytest.raises(readers.Unreadable):
            readers.table(".csv", text.encode())


def test_the_plain_reader_of_param_files():
    written = readers.settings(b"name: x\ndata: {n_train: 64, path: null}\nflow: {hidden: [8]}\ntrain: {lr: 1e-2}\n")
    assert written == {"name": "x", "data.n_train": "64", "data.path": "null", "train.lr": "1e-2"}
    assert readers.says_the_same("1e-2", 0.01)
    assert readers.says_the_same("null", None)
    assert readers.says_the_same("yes", True)
    assert not readers.says_the_same("010", 8)
    assert not readers.says_the_same("false", True)


def test_the_table_counts_faults():
    tally = Tally()
    tally.add("kill", Found(RIGHT, kills=3), 1.0)
    tally.add("param", Found(WRONG, "x"), 0.5)
    assert (tally.cases, tally.faults, tally.kills) == (2, 1, 3)
    assert tally.text().endswith("2 cases: 3 kills, 0 damaged inputs, 1 faults")


def test_a_seal_sees_every_change():
    document = sealed({"a": [1.5, float("inf")], "b": {"c": None}})
    assert is_as_sealed(json.loads(json.dumps(document)))
    assert not is_as_sealed(document | {"a": [1.25, float("inf")]})
    assert not is_as_sealed(document | {"d": 1})
    assert is_as_sealed({"a": 1})  # of an older version


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.campaign", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_wrong_options_are_refused():
    for arguments, words in (
        (("--only", "nothing"), "unknown kind 'nothing' (known: kill, "),
        (("--case", "kill"), "give KIND:SEED"),
        (("--case", "nothing:1"), "unknown kind 'nothing'"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert words in done.stderr


@pytest.mark.slow
def test_a_short_campaign_finds_no_fault_and_a_case_of_it_can_be_repeated(tmp_path):
    done = run("--minutes", 1, "--seed", 1, "--out", tmp_path, "--only", ",".join(SHORT))
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()]
    assert len(lines) > 30
    assert not list((tmp_path / "work").iterdir())
    refused = next(line for line in lines if line["case"].startswith("param:") and line["outcome"] == REFUSED)
    again = json.loads(run("--out", tmp_path, "--case", refused["case"]).stdout)
    assert again["outcome"] == REFUSED
    assert again["detail"].partition(":")[0] == refused["detail"].partition(":")[0]
