"""Loggers: what they are told, that it is told once, and that nothing they do reaches the run."""

from __future__ import annotations

import json
import math
import shutil
import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from sparseflows.experiment.folder.checkpoints import Checkpoints
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.monitoring.loggers import Live, Loggers, StageStart
from sparseflows.experiment.stages import stage as stage_module
from sparseflows.flow.model import Flow

RECORD = Record("spirals", "nll", "cascade", "dense", 0, 0, "done", nll_test=1.5, train_seconds=0.25)


@dataclass
class Spy:
    """Keeps what it is told."""

    run: Any
    calls: list = field(default_factory=list)

    def begin(self, stage):
        self.calls.append(("begin", stage))

    def step(self, values):
        self.calls.append(("step", dict(values)))

    def end(self, record, network):
        self.calls.append(("end", record, network))

    def lines(self):
        """Lines of metrics.jsonl, as this logger knows them: a stage begins again with the lines of its checkpoint."""
        stages, now = {}, None
        for kind, what, *_ in self.calls:
            if kind == "begin":
                now = what.label
                stages[now] = [what.place | dict(line) for line in what.history]
                place = what.place
            elif kind == "step":
                stages[now].append(place | what)
        return [line for label in stages for line in stages[label]]

    def labels(self, kind):
        return [call[1].label for call in self.calls if call[0] == "begin" and kind == "begin"] or [
            f"{call[1].cascade}/{call[1].stage}" for call in self.calls if call[0] == kind
        ]


@pytest.fixture
def spies(monkeypatch):
    """`--log spying:spy`, `--log spying:other`: the loggers made, in their order."""
    made, module = [], ModuleType("spying")

    def spy(run):
        made.append(Spy(run))
        return made[-1]

    module.spy = module.other = spy
    monkeypatch.setitem(sys.modules, "spying", module)
    return made


@pytest.fixture
def selecting(changed):
    """A param file with lines of both kinds, and few stages."""
    return changed({
        "train.select": "best_val", "train.selections": 4, "train.steps": 80, "data.n_train": 100,
        "prune.methods": ["structured"], "prune.keep_ratios": [0.6, 0.3], "prune.retrain.steps": 40,
        "evaluate.max_rows": 20, "train.selection_rows": 20,
    })  # fmt: skip


def steps_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "step" in line]


def test_a_logger_hears_what_the_run_keeps(spies, selecting, tmp_path, call, rows):
    said = call("run", selecting, "--out", tmp_path, "--log", "spying:spy")
    assert said.status == 0, said.err
    (spy,), folder = spies, tmp_path / "tiny"
    assert spy.run == folder
    assert spy.lines() == steps_of(folder)
    assert sum("val" in line for line in spy.lines()) == 3 * 4
    assert spy.labels("begin") == spy.labels("end") == ["dense-s0/0", "structured-s0/1", "structured-s0/2"]
    for (_, start), (_, record, network), row in zip(
        [one for one in spy.calls if one[0] == "begin"],
        [one for one in spy.calls if one[0] == "end"],
        rows(folder),
        strict=True,
    ):
        assert (start.attempt, start.step, start.history) == (0, 0, ())
        assert (start.method, start.seed, start.stage) == (row["method"], int(row["seed"]), int(row["stage"]))
        assert str(start.keep_ratio or "") == row["keep_ratio_target"]
        assert str(start.steps) == row["train_steps"]
        assert start.validation.shape == (50, 2)
        assert str(record.nll_test) == row["nll_test"]
        assert isinstance(network, Flow)
        if start.method == "structured":
            assert sum(p.numel() for p in network.parameters()) == int(row["params"])


def interrupt(monkeypatch, after):
    """Ctrl-C after so many checkpoints, once."""
    save, count = Checkpoints.save, 0

    def save_or_stop(self, checkpoint, attempt):
        nonlocal count
        count += 1
        save(self, checkpoint, attempt)
        if count == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_or_stop)


@pytest.mark.parametrize("after", [13, 20])  # checkpoints, 20 a stage; the 20th is at a training's last step
def test_interrupted_and_taken_up_again(after, spies, selecting, tmp_path, call, monkeypatch):
    interrupt(monkeypatch, after)
    assert call("run", selecting, "--out", tmp_path, "--log", "spying:spy").status == 130
    live = list((tmp_path / "tiny").glob("cascades/*/live.jsonl"))
    lost = spies[0].lines()
    kept = [json.loads(line) for line in live[0].read_text().splitlines()]
    assert len(live) == 1
    assert kept == [line for line in lost if line["method"] == kept[0]["method"]]  # what had been logged till then
    assert call("run", selecting, "--out", tmp_path, "--log", "spying:spy").status == 0
    spies[0].calls += spies[1].calls
    assert spies[0].lines() == steps_of(tmp_path / "tiny")
    again = spies[1].calls[0][1]
    assert len(again.history) == len([line for line in kept if line["step"] <= again.step]) > 0
    assert again.step == max(line["step"] for line in again.history)
    assert not list(tmp_path.rglob("live.jsonl"))


def test_the_lines_of_the_stage_in_progress_can_be_read(spies, selecting, tmp_path, call, monkeypatch):
    seen = []

    def step(self, values):
        Spy_step(self, values)
        place = next(what for kind, what, *_ in reversed(self.calls) if kind == "begin")
        lines = (self.run / "cascades" / place.cascade / "live.jsonl").read_text().splitlines()
        seen.append([json.loads(line) for line in lines])
        assert seen[-1] == [line for line in self.lines() if line["stage"] == place.stage]

    Spy_step = Spy.step
    monkeypatch.setattr(Spy, "step", step)
    said = call("run", selecting, "--out", tmp_path, "--log", "spying:spy")
    assert "raised" not in said.err
    assert len(seen) == 3 * 44
    assert not list(tmp_path.rglob("live.jsonl"))


def test_who_comes_later_is_told_the_same_once(spies, selecting, tmp_path, call, numbers):
    run = ("run", selecting, "--out", tmp_path)
    assert call(*run, "--log", "spying:spy").status == 0
    before = numbers(tmp_path / "tiny")
    assert call(*run, "--log", "spying:spy", "--log", "spying:other").status == 0
    first, again, other = spies
    assert again.calls == []
    assert other.lines() == first.lines()
    records = [[one[1] for one in spy.calls if one[0] == "end"] for spy in (first, other)]
    assert records[0] == records[1]
    x = torch.zeros(1, 2)
    for (_, _, made), (_, _, read) in zip(
        *[[one for one in spy.calls if one[0] == "end"] for spy in (first, other)], strict=True
    ):
        assert torch.equal(made.log_prob(x), read.log_prob(x))  # the same weights
    assert numbers(tmp_path / "tiny") == before


def test_a_stage_that_is_made_again_is_told_again(spies, selecting, tmp_path, call):
    run = ("run", selecting, "--out", tmp_path, "--log", "spying:spy")
    assert call(*run).status == 0
    stage = tmp_path / "tiny/cascades/structured-s0/stages/2"
    (stage / "model.safetensors").write_bytes(b"damaged")
    assert call(*run).status == 0
    assert spies[1].labels("begin") == spies[1].labels("end") == ["structured-s0/2"]


def test_killed_between_a_stage_and_its_logger(spies, selecting, tmp_path, call, monkeypatch):
    run = ("run", selecting, "--out", tmp_path, "--log", "spying:spy")
    end = Loggers.end

    def die(self, record, network):
        raise KeyboardInterrupt

    monkeypatch.setattr(Loggers, "end", die)
    assert call(*run).status == 130
    assert list(tmp_path.rglob("live.jsonl"))
    monkeypatch.setattr(Loggers, "end", end)
    assert call(*run).status == 0
    assert spies[1].lines() == steps_of(tmp_path / "tiny")
    assert len(spies[1].labels("end")) == 3
    assert not list(tmp_path.rglob("live.jsonl"))


@pytest.mark.parametrize("method", ["begin", "step", "end"])
@pytest.mark.parametrize("error", [ValueError("broken\nby design"), SystemExit(3), KeyError()])
def test_one_that_raises_is_dropped(method, error, tmp_path):
    def fail(*arguments):
        raise error

    start = begins(tmp_path, ())
    bad, good, said = Spy(tmp_path), Spy(tmp_path), []
    setattr(bad, method, fail)
    loggers = Loggers(tmp_path, {"bad": bad, "good": good}, said.append)
    for _ in range(2):
        loggers.begin(start)
        loggers.step({"step": 1, "loss": 0.5})
        loggers.end(RECORD, None)
    told = f"{type(error).__name__}: {str(error).splitlines()[0]}" if error.args else type(error).__name__
    assert said == [f"logger bad: {method} raised {told}; it is told nothing more, the run goes on"]
    assert [call[0] for call in good.calls] == ["begin", "step", "end"] * 2
    assert [call[0] for call in bad.calls] == ["begin", "step", "end"][: ["begin", "step", "end"].index(method)]
    said.clear()
    again = {"bad": Spy(tmp_path), "good": Spy(tmp_path)}  # in another process: what raised has not heard
    Loggers(tmp_path, again, said.append).catch_up(RECORD, lambda: (start, [{"step": 1}], None))
    assert [call[0] for call in again["bad"].calls] == ["begin", "step", "end"]
    assert (again["good"].calls, said) == ([], [])


def test_ctrl_c_in_a_logger_is_ctrl_c(tmp_path):
    spy = Spy(tmp_path)
    spy.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        Loggers(tmp_path, {"spy": spy}).step({"step": 1})


def interrupted(values):
    raise KeyboardInterrupt


def test_nothing_a_logger_does_reaches_the_run(param, tmp_path, call, numbers, finished, monkeypatch):
    class Meddler(Spy):
        def begin(self, stage):
            for line in stage.history:
                line.clear()

        def step(self, values):
            values["loss"] = 0.0

        def end(self, record, network):
            for parameter in network.parameters():
                parameter.data.zero_()
            torch.manual_seed(0)

    module = ModuleType("meddling")
    module.Meddler = Meddler
    for method in ("begin", "step", "end"):
        setattr(module, method, type(method, (Spy,), {method: lambda self, *arguments: 1 / 0}))
    monkeypatch.setitem(sys.modules, "meddling", module)
    names = [f"meddling:{name}" for name in ("begin", "step", "end", "Meddler")]
    said = call("run", param, "--out", tmp_path, *(word for name in names for word in ("--log", name)))
    assert said.status == 0
    assert said.err.count("raised ZeroDivisionError: division by zero; it is told nothing more, the run goes on\n") == 3
    assert numbers(tmp_path / "tiny") == numbers(finished)
    assert (tmp_path / "tiny/spec.yaml").read_bytes() == (finished / "spec.yaml").read_bytes()
    identity = [json.loads((folder / "run.json").read_text())["identity"] for folder in (tmp_path / "tiny", finished)]
    assert identity[0] == identity[1]


def test_what_a_logger_prints_is_not_in_the_result(selecting, tmp_path, call, spies, monkeypatch):
    monkeypatch.setattr(Spy, "step", lambda self, values: print("line", values))
    said = call("run", selecting, "--out", tmp_path, "--json", "--log", "spying:spy")
    assert len(json.loads(said.out)["stages"]) == 3
    assert said.err.count("line {") == 3 * 44


def test_a_training_that_diverges_begins_again(spies, selecting, tmp_path, call, monkeypatch):
    train = stage_module.train

    def fake(flow, objective, rows, settings, *, purpose, resume, lr_scale, **options):
        now = resume["step"] if resume else 0

        def loss(flow, rows, generator):
            nonlocal now
            now += 1
            found = objective(flow, rows, generator)
            bad = purpose == "structured/1" and now == 15 and lr_scale > 0.1
            return replace(found, value=found.value * math.nan) if bad else found

        return train(flow, loss, rows, settings, purpose=purpose, resume=resume, lr_scale=lr_scale, **options)

    monkeypatch.setattr(stage_module, "train", fake)
    assert call("run", selecting, "--out", tmp_path, "--log", "spying:spy").status == 0
    starts = [call[1] for call in spies[0].calls if call[0] == "begin" and call[1].label == "structured-s0/1"]
    assert [(start.attempt, start.step) for start in starts] == [(0, 0), (1, 14), (2, 0)]
    assert spies[0].lines() == steps_of(tmp_path / "tiny")  # what the attempts before had logged is void


def test_stages_that_fail_end_without_a_network(spies, selecting, tmp_path, call, monkeypatch, rows):
    objective = stage_module.build_objective

    def never(*given):
        found = objective(*given)
        return lambda *arguments: replace(found(*arguments), value=found(*arguments).value * math.nan)

    monkeypatch.setattr(stage_module, "build_objective", never)
    assert call("run", selecting, "--out", tmp_path, "--log", "spying:spy").status == 1
    ends = [(record.status, network) for kind, record, *network in spies[0].calls if kind == "end"]
    assert ends == [("failed", [None])] * 3
    assert spies[0].labels("begin") == ["dense-s0/0"] * 3  # three attempts; the others had nothing to begin with
    assert {row["status"] for row in rows(tmp_path / "tiny")} == {"failed"}
    assert call("run", selecting, "--out", tmp_path, "--log", "spying:other").status == 1
    assert [(one[1].status, one[2]) for one in spies[1].calls if one[0] == "end"] == [("failed", None)] * 3


def test_other_protocols_and_seeds(spies, changed, tmp_path, call):
    param = changed({
        "seeds": [0, 1], "prune.protocols": ["one_shot", "gradual"], "prune.methods": ["neuron_l1"],
        "prune.keep_ratios": [0.5],
    })  # fmt: skip
    assert call("run", param, "--out", tmp_path, "--log", "spying:spy").status == 0
    assert [spy.labels("begin") for spy in spies] == [  # a seed, a logger: each is told of its own
        [f"dense-s{seed}/0", f"one_shot.neuron_l1-s{seed}/1", f"gradual.neuron_l1-s{seed}/1"] for seed in (0, 1)
    ]
    assert spies[0].lines() + spies[1].lines() == steps_of(tmp_path / "tiny")
    assert [call[1].steps for call in spies[0].calls if call[0] == "begin"][1] == 0  # one_shot trains nothing


@pytest.mark.slow  # processes that import everything
def test_workers_have_loggers_of_their_own(changed, tmp_path, call, monkeypatch):
    (tmp_path / "noting.py").write_text(
        "import json, os\n"
        "class Note:\n"
        "    def __init__(self, run): self.run = run\n"
        "    def begin(self, stage): self.told, self.label = [], stage.place\n"
        "    def step(self, values): self.told.append(self.label | values)\n"
        "    def end(self, record, network):\n"
        "        note = self.run / f'{record.cascade}-{record.stage}.json'\n"
        "        note.write_text(json.dumps([os.getpid(), self.told]))\n"
    )
    monkeypatch.chdir(tmp_path)
    param = changed({"prune.keep_ratios": [0.5]})
    said = call("run", param, "--out", tmp_path, "--jobs", "2", "--log", "noting:Note")
    assert said.status == 0, said.err
    found = [json.loads(path.read_text()) for path in (tmp_path / "tiny").glob("*-s0-*.json")]
    assert __import__("os").getpid() not in {pid for pid, _ in found}
    key = lambda line: (line["method"], line["stage"], line["step"])  # noqa: E731
    assert sorted((line for _, told in found for line in told), key=key) == sorted(steps_of(tmp_path / "tiny"), key=key)


def test_nobody(tmp_path):
    loggers = Loggers()
    loggers.step({"step": 1})
    loggers.end(RECORD, None)
    assert list(tmp_path.iterdir()) == []


def test_notes_that_cannot_be_kept_cost_nothing_but_another_telling(spies, selecting, tmp_path, call):
    run = ("run", selecting, "--out", tmp_path, "--log", "spying:spy")
    assert call("run", selecting, "--out", tmp_path).status == 0
    (tmp_path / "tiny/logged").write_text("in the way")
    for _ in range(2):
        assert call(*run).status == 0
    assert spies[0].lines() == spies[1].lines() == steps_of(tmp_path / "tiny")


def begins(run, history):
    """The start of the dense stage of seed 0."""
    place = {"method": "dense", "seed": 0, "stage": 0}
    return StageStart(**place, run=run, attempt=0, step=0, steps=2, history=history, validation=np.zeros((1, 2)))


DENSE = Record("rings", "nll", "cascade", "dense", 0, 0, "done")


def test_live_gives_up_where_it_cannot_write(tmp_path):
    (tmp_path / "cascades").write_text("in the way")
    live = Live(tmp_path)
    live.begin(begins(tmp_path, ({"step": 1.0},)))
    live.step({"step": 2.0})
    live.end(DENSE)
    assert (tmp_path / "cascades").read_text() == "in the way"


def test_live_begins_anew(tmp_path):
    live, place = Live(tmp_path), {"method": "dense", "seed": 0, "stage": 0}
    path = tmp_path / "cascades/dense-s0/live.jsonl"
    for history in ((), ({"step": 1, "loss": np.float64(0.5)},)):
        live.begin(begins(tmp_path, history))
        live.step({"step": 2, "loss": 0.25})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        place | {"step": 1, "loss": 0.5},
        place | {"step": 2, "loss": 0.25},
    ]
    live.end(DENSE)
    assert not path.exists()
    shutil.rmtree(tmp_path / "cascades")
    live.end(DENSE)
