"""Ratios, goals, turns; the table and the document; a work that fails among others that do not."""

import json
import math
import time

import pytest

from benchmarks import report, running
from benchmarks.__main__ import chosen_works, main
from benchmarks.context import Context, Settings, Skipped
from benchmarks.measure import OURS_OVER_PEER, Goal, Measurement, Spread, in_turns, ratios
from benchmarks.works.table import WORKS, Work

SETTINGS = Settings(quick=True, seeds=2, repeats=3)


def test_ratios_pair_by_pair_and_one_against_many() -> None:
    assert ratios([8.0, 9.0], [2.0, 3.0]) == [4.0, 3.0]
    assert ratios([12.0], [2.0, 3.0]) == [6.0, 4.0]
    assert ratios([2.0, 3.0], [2.0]) == [1.0, 1.5]
    assert ratios([], [1.0, 2.0]) == []
    with pytest.raises(ValueError, match="in turns"):
        ratios([1.0, 2.0], [1.0, 2.0, 3.0])


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert math.isnan(Spread.of([]).median)


def test_goals_by_ratio_by_limit_and_without_a_peer() -> None:
    faster = Measurement("a", "b", [1.0, 1.0, 2.0], [50.0, 60.0, 50.0], goal=Goal("at least", 40))
    assert faster.ratios == [50.0, 60.0, 25.0]
    assert faster.met is True
    limit = Measurement("a", "b", [3.0], [2.0], ratio=OURS_OVER_PEER, goal=Goal("at most", 1.4))
    assert limit.ratios == [1.5]
    assert limit.met is False
    assert Measurement("a", "b", [0.01], goal=Goal("at most", 0.012)).met is True
    assert Measurement("a", "b", [0.01]).met is None


def test_a_repeat_that_failed_misses_the_goal() -> None:
    found = Measurement("a", "b", [1.0], [100.0], goal=Goal("at least", 40), failures=1)
    assert found.met is False
    assert Measurement("a", "b", [], [100.0], goal=Goal("at least", 40)).met is False


def test_turns_alternate_and_the_first_round_is_dropped() -> None:
    calls: list[str] = []
    shares: list[float] = []
    works = [lambda: calls.append("a"), lambda: (calls.append("b"), time.sleep(0.002))]
    first, second = in_turns(works, 3, shares.append)
    assert "".join(calls) == "baabbaab"
    assert len(first) == len(second) == 3
    assert min(second) >= 0.002 > max(first)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def good(context: Context) -> list[Measurement]:
    context.tell(0.5)
    return [
        Measurement("good", "one", [0.001, 0.002], [0.004, 0.006], "a note", goal=Goal("at least", 2)),
        Measurement("good", "two", [5.0], extra={"gap": math.nan}),
    ]


def bad(context: Context) -> list[Measurement]:
    raise RuntimeError("the training\nstopped")


def absent(context: Context) -> list[Measurement]:
    raise Skipped("param/none.yaml is missing")


def test_a_failing_work_is_reported_and_the_rest_goes_on(tmp_path, capsys, monkeypatch) -> None:
    functions = {"bad": bad, "absent": absent, "good": good}
    monkeypatch.setattr(Work, "__call__", lambda self, context: functions[self.place](context))
    works = {name: Work(name, "", 1.0, 1.0) for name in functions}
    target = tmp_path / "found.json"
    assert running.run_works(works, SETTINGS, target) == 1
    printed = capsys.readouterr().out
    assert "bad: RuntimeError: the training stopped" in printed
    assert "absent: param/none.yaml is missing" in printed
    assert "3.5 (3–4)" in printed
    found = json.loads(target.read_text())
    assert [(one["name"], one["status"]) for one in found["works"]] == [
        ("bad", "failed"),
        ("absent", "skipped"),
        ("good", "done"),
    ]
    del works["bad"]
    assert running.run_works(works, SETTINGS) == 0


def test_the_document_holds_machine_versions_and_every_raw_repeat() -> None:
    found = report.document([report.Outcome("good", "done", 1.5, good(Context(SETTINGS)))], SETTINGS, ["a note"])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"format", "date", "settings", "machine", "versions", "notes", "works"}
    assert found["settings"] == {"quick": True, "seeds": 2, "repeats": 3, "threads": 1}
    assert {"torch", "torchdiffeq", "zuko", "pyhessian", "python"} <= set(found["versions"])
    assert {"processor", "cores", "system"} <= set(found["machine"])
    one, two = found["works"][0]["measurements"]
    assert one["ours"] == [0.001, 0.002]
    assert one["peer"] == [0.004, 0.006]
    assert one["ratios"] == [4.0, 3.0]
    assert one["ratio_spread"] == {"median": 3.5, "low": 3.0, "high": 4.0}
    assert one["goal"] == {"bound": "at least", "value": 2}
    assert one["met"] is True
    assert two["ratio"] is None
    assert two["extra"] == {"gap": None}


def test_amounts_are_read_easily() -> None:
    assert report.amount(0.01234, "s") == "12.3 ms"
    assert report.amount(12.34, "s") == "12.3 s"
    assert report.amount(1234.5, "MiB") == "1234 MiB"


def test_the_command_line_refuses_what_is_wrong(tmp_path, capsys) -> None:
    assert main(["--only", "step-zuk"]) == 2
    assert "unknown work 'step-zuk'" in capsys.readouterr().err
    assert main(["--only", ","]) == 2
    assert main(["--only", "cascade", "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert "names" not in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main(["--repeats", "0"])
    assert left.value.code == 2


def test_the_list_names_every_work(capsys) -> None:
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in WORKS)
    assert chosen_works("sample,train-nll") == ["train-nll", "sample"]
    assert chosen_works(None) == list(WORKS)


def test_without_zuko_one_line_says_which_extra(monkeypatch, capsys) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--only", "sample"]) == 2
    error = capsys.readouterr().err
    assert "'.[bench]'" in error
    assert error.count("\n") == 1
