"""Whatever is wrong with the input: status 2, one line on standard error, nothing else said, nothing written."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import re
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflows.cli.app import app
from sparseflows.cli.console import run_app
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.specs.yaml import load_spec

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [[], ["check"], ["run"], ["sample"], ["score"], ["map"], ["data"], ["data", "list"], ["data", "prepare"]]
LIMIT = 2.0  # seconds; one is the aim, the rest is for slow machines

# Every key of a param file, with a value that is right.
VALID = {
    "format": 1,
    "name": "victim",
    "seeds": [0],
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "data": {"name": "moons", "path": None, "n_train": 8, "val_fraction": 0.1, "test_fraction": 0.1, "seed": 0,
             "split_by_seed": False, "whiten": False, "header": "auto", "index": "auto", "columns": [], "drop": [],
             "missing": "refuse", "copies": "together", "transform": {}},
    "flow": {"hidden": [4], "activation": "tanh", "time": "none", "blocks": 1, "train_end_time": False, "gain": 1.0,
             "base": "none"},
    "solve": {"method": "dopri5", "rtol": 1e-3, "atol": 1e-3, "steps": None, "max_nfe": 500, "divergence": "exact",
              "noise": "rademacher", "gradient": "backprop", "hold_grid": None, "hold_rows": 256, "first_tol": None},
    "train": {"objective": "nll", "epochs": None, "steps": 1, "batch": 8, "optimiser": "adam", "lr": 0.01,
              "weight_decay": 0.0, "beta2": 0.999, "clip": None, "schedule": "constant", "milestones": [],
              "gamma": 0.1, "ema": None,
              "time_power": 1.0, "kinetic": 0.0, "jacobian": 0.0, "select": "last", "selections": 1,
              "selection_rows": 64},
    "network": None,
    "prune": {"methods": ["structured"], "keep_ratios": [0.5], "protocols": ["cascade"], "allocation": "uniform",
              "weight_allocation": "global", "floor": 0.0, "compensate": False, "sample": 4, "gradual_every": 1,
              "retrain": {}},
    "evaluate": {"rtol": 1e-5, "atol": 1e-5, "dtype": "float64", "max_rows": 4, "max_nfe": 500},
}  # fmt: skip


def call(*args):
    """Status, standard output and standard error of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_app(app, "sparseflows", [str(arg) for arg in args])
    return status, out.getvalue(), err.getvalue()


def process(*args):
    """The same in a process of its own, and the processor time it took: this machine may be busy with other things."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = subprocess.Popen(
            [sys.executable, "-m", "sparseflows", *map(str, args)], stdout=out, stderr=err, cwd=ROOT
        )
        # Of this child alone: workers of earlier tests may end at the same moment.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = [stream.seek(0) or stream.read() for stream in (out, err)]
    return child.returncode, *texts, usage.ru_utime + usage.ru_stime


def assert_refused(status, out, err):
    assert status == 2, (status, out, err)
    assert out == ""
    assert re.fullmatch(r"sparseflows: \S[^\n]*\n", err), err
    assert "Traceback" not in err
    assert len(err) < 1000


# --- 300 param files, each broken


def leaf_of(document, path):
    *sections, last = path.split(".")
    for section in sections:
        document = document[section]
    return document, last


def changed(path, value):
    document = copy.deepcopy(VALID)
    section, key = leaf_of(document, path)
    section[key] = value
    return document


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
no_numbers = words.filter(
    lambda text: not any(c.isdigit() for c in text) and text.strip(" .").lower() not in ("inf", "nan")
)
nothing_finite = st.sampled_from([float("nan"), float("inf"), -float("inf")])
containers = st.recursive(
    st.lists(words, min_size=1, max_size=2) | st.dictionaries(words, st.integers(), min_size=1, max_size=2),
    lambda inner: st.lists(inner, min_size=1, max_size=2) | st.dictionaries(words, inner, min_size=1, max_size=2),
    max_leaves=5,
)
dates = st.dates() | st.binary(max_size=5) | st.sets(st.integers(), min_size=1, max_size=2)
huge = st.sampled_from([10**12, -(10**12), 10**40, 10**400, -(10**400)])
no_int = no_numbers | st.booleans() | st.floats().filter(lambda x: x != 1) | nothing_finite | containers | dates | huge
no_float = no_numbers | st.booleans() | nothing_finite | containers | dates | huge
no_word = st.integers() | st.booleans() | st.floats() | containers | dates | huge
no_bool = (
    no_numbers.filter(lambda text: text.lower() not in ("y", "n")) | st.integers() | st.floats() | containers | huge
)
no_section = words | st.integers() | st.booleans() | st.floats() | st.none() | st.lists(words, max_size=2) | dates


def leaves(*top, **sections):
    return [*top, *(f"{section}.{key}" for section, keys in sections.items() for key in keys)]


INTS = leaves(
    "threads",
    data=["n_train", "seed"],
    flow=["blocks"],
    solve=["max_nfe", "steps"],
    train=["steps", "epochs", "batch", "selections", "selection_rows"],
    evaluate=["max_nfe", "max_rows"],
)
FLOATS = leaves(
    data=["val_fraction", "test_fraction"],
    flow=["gain"],
    solve=["rtol", "atol"],
    train=["lr", "weight_decay", "clip", "gamma", "ema", "time_power", "kinetic", "jacobian"],
    evaluate=["rtol", "atol"],
)
CHOICES = leaves(
    "dtype",
    flow=["activation", "time", "base"],
    solve=["method", "divergence", "noise", "gradient"],
    train=["objective", "optimiser", "schedule", "select"],
    prune=["allocation"],
    evaluate=["dtype"],
)
BOOLS = ["data.whiten", "flow.train_end_time"]
LISTS = ["seeds", "flow.hidden", "train.milestones", "prune.methods", "prune.keep_ratios"]
SECTIONS = ["data", "flow", "solve", "train", "prune", "evaluate"]
OUTSIDE = {  # just out of bounds
    "threads": [0, -1, 1025], "data.n_train": [7, 0, -8], "data.seed": [-1, 2**31], "flow.blocks": [0, 65, -1],
    "data.val_fraction": [0, 0.001, 0.85, 1, -0.1], "data.test_fraction": [0, 1.5], "flow.gain": [0, -1, 100.5],
    "flow.hidden": [[], [0], [-3], [8193], [4, 0], [1] * 33], "seeds": [[], [-1], [0, 0], [2**31], [0.5], [None]],
    "solve.rtol": [0, -1e-3, 1.5], "solve.atol": [0, 2], "solve.max_nfe": [9, 0, -5], "train.steps": [0, -1, 10**8],
    "train.batch": [0, -1], "train.lr": [0, -0.1, 1000], "train.weight_decay": [-1e-9, 11], "train.gamma": [0, 1.01],
    "train.clip": [0, -1, 1e7], "train.ema": [0, 1, -0.5, 1.5], "train.time_power": [0, 0.01, 50],
    "train.kinetic": [-1], "train.jacobian": [-0.1], "train.selections": [0],
    "train.selection_rows": [0], "evaluate.rtol": [1e-3, 1e-11, 0],
    "evaluate.atol": [2e-5], "evaluate.max_rows": [0], "evaluate.max_nfe": [1],
    "prune.keep_ratios": [[], [0], [1], [1.5], [-0.5], [0.5, 0.5], [0.2, 0.4], [50], ["0.5"], [None], [[0.5]],
                          [{"linear": [0.2, 0.8, 3]}], [{"geometric": [0.8, 0.2, 1]}], [{"cubic": [0.8, 0.2, 3]}], 0.5],
    "prune.methods": [[], ["magic"], ["structured", "structured"], "structured", [None], [["structured"]]],
    "train.milestones": [[1], [2, 1], [0], "1"], "format": [0, 2, "1", None, True, 1.0, [1], 10**400],
    "name": ["", "a/b", "..", ".a", "a b", "ä", "a\n", "\0", "x" * 65, "a/../../b", "-"],
    "device": ["gpu", "CPU", "", "cuda:", "cuda:abc", "tpu"], "data.name": ["", "moon", "table", "MOONS", "moons "],
    "data.path": ["x.csv", "", "/dev/null", "."],
}  # fmt: skip
CONTRADICTIONS = [
    {"train.epochs": 1},
    {"train.steps": None},
    {"solve.steps": 4},
    {"solve.method": "rk4"},
    {"train.schedule": "multi_step"},
    {"train.objective": "flow_matching"},
    {"train.objective": "flow_matching", "flow.time": "concat", "flow.blocks": 2},
    {"train.objective": "flow_matching", "flow.time": "concat", "flow.train_end_time": True},
    {"train.objective": "flow_matching", "flow.time": "concat", "train.kinetic": 0.1},
    {"flow.base": "gaussian"},
    {"data.val_fraction": 0.5, "data.test_fraction": 0.5},
    {"evaluate.dtype": "float32", "evaluate.rtol": 1e-7},
    {"prune.methods": []},
    {"data.name": "wine", "data.n_train": 10_000},
    {"prune.retrain": {"steps": 1, "epochs": 1}},
    {"prune.retrain": {"lr": "fast"}},
    {"prune.retrain": {"objective": "flow_matching"}},
    {"prune.retrain": {"stps": 1}},
    {"prune.retrain": {"milestones": [1]}},
    {"prune.retrain": {"steps": 10**400}},
]


def yaml_of(draw, document):
    text = yaml.safe_dump(document, allow_unicode=draw(st.booleans()), default_flow_style=draw(st.booleans()))
    return text.encode("utf-8")


@st.composite
def wrong_values(draw):
    kinds = [(INTS, no_int), (FLOATS, no_float), (CHOICES, no_word | words.map(lambda text: f"x{text}")),
             (BOOLS, no_bool), (SECTIONS, no_section), (LISTS, no_numbers | st.booleans() | st.none() | st.integers()),
             (["name", "device", "data.name"], no_word)]  # fmt: skip
    paths, values = draw(st.sampled_from(kinds))
    return yaml_of(draw, changed(draw(st.sampled_from(paths)), draw(values)))


@st.composite
def values_out_of_bounds(draw):
    path = draw(st.sampled_from(sorted(OUTSIDE)))
    return yaml_of(draw, changed(path, draw(st.sampled_from(OUTSIDE[path]))))


@st.composite
def contradictions(draw):
    document = copy.deepcopy(VALID)
    for path, value in draw(st.sampled_from(CONTRADICTIONS)).items():
        section, key = leaf_of(document, path)
        section[key] = value
    return yaml_of(draw, document)


@st.composite
def unknown_keys(draw):
    document = copy.deepcopy(VALID)
    section = draw(st.sampled_from([document, *(document[name] for name in SECTIONS), document["prune"]["retrain"]]))
    known = {key for part in (VALID, *(VALID[name] for name in SECTIONS)) for key in part}
    key = draw(
        (words | st.sampled_from(sorted(known)).map(lambda key: key[:-1] + "_")).filter(lambda k: k not in known)
    )
    section[key] = draw(st.integers() | words | containers)
    return yaml_of(draw, document)


@st.composite
def missing_keys(draw):
    document = copy.deepcopy(VALID)
    section, key = leaf_of(document, draw(st.sampled_from(["name", "data", "data.name", "train", "train.steps"])))
    del section[key]
    return yaml_of(draw, document)


@st.composite
def cut_off(draw):
    text = json.dumps(VALID)  # YAML too; all but the whole of it lacks the last bracket
    return text[: draw(st.integers(0, len(text) - 1))].encode()


@st.composite
def damaged_text(draw):
    """A character that YAML does not allow, or a byte that UTF-8 does not, anywhere."""
    content = yaml.safe_dump(VALID).encode()
    place = draw(st.integers(0, len(content)))
    bad = draw(st.sampled_from([b"\x00", b"\x07", b"\x1b[31m", b"\x7f", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x80"]))
    return content[:place] + bad + content[place:]


@st.composite
def strange_yaml(draw):
    text = yaml.safe_dump(VALID)
    key = draw(st.sampled_from(sorted(VALID)))
    word = draw(st.text(string.ascii_letters, min_size=1, max_size=8))
    return draw(
        st.sampled_from(
            [
                text + f"{key}: 1\n",
                text + "---\n" + text,
                text + "]\n",
                text + f"{word}: *{word}\n",
                text + f"x: &{word} [*{word}]\n",
                text + f"? [{word}]\n: 1\n",
                text + f"\t{word}: 1\n",
                text + f"{word}\n",
                text + "1: 2\n",
                text + "null: 2\n",
                f"[{json.dumps(VALID)}]",
                f"- {word}\n",
                text.replace("name: victim", f"name: !!python/name:os.{word}"),
                text.replace("name: victim", "name: !!python/object/apply:os.system ['exit 1']"),
                text.replace("name: victim", f"name: !{word} x"),
                text.replace("threads: 1", "threads: 2020-13-41"),
                text.replace("threads: 1", "threads: 0x" + "f" * 5000),
                text.replace("threads: 1", "threads: " + "9" * 5000),
                text.replace("threads: 1", "threads: !!int ''"),
                text.replace("steps: 1\n", "steps: 1:30.5\n"),
                *("", "\n", "# nothing\n", "{}", "[]", "null", "3", word, f"'{word}", f"{word}: {word}", "---\n---\n"),
            ]
        )
    ).encode()


@st.composite
def deep_nesting(draw):
    depth = draw(st.integers(25, 5000))
    opening = draw(st.sampled_from(["[", "{a: ", "- ", "[[], ", "? ", "{? ", "!!seq [", "&a ["]))
    inside = opening * depth
    if draw(st.booleans()):
        inside = "x: " + inside
    return inside.encode()


random_bytes = st.binary(max_size=300)  # far from holding name, data and train
random_text = words.map(lambda text: f"name: {text}\n".encode())
broken_files = st.one_of(
    wrong_values(), values_out_of_bounds(), contradictions(), unknown_keys(), missing_keys(), cut_off(), damaged_text(),
    strange_yaml(), deep_nesting(), random_bytes, random_text,
)  # fmt: skip


def test_the_file_that_is_broken_below_is_fine(tmp_path):
    path = tmp_path / "valid.yaml"
    path.write_text(yaml.safe_dump(VALID))
    assert load_spec(path).model_dump() == VALID
    status, out, err = call("check", path, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["stages"] == 2


@given(broken_files)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_three_hundred_broken_param_files(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "broken"
    folder.mkdir(exist_ok=True)
    path = folder / "p.yaml"
    path.write_bytes(content)
    assert_refused(*call("run", path, "--out", folder / "out"))
    assert [file.name for file in folder.iterdir()] == ["p.yaml"]
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\x01\x00\xff",
        b"[" * 100_000,
        yaml.safe_dump(changed("flow.activation", "tahn")).encode(),
        yaml.safe_dump(changed("data.name", "moon")).encode(),
    ],
    ids=["binary", "nested", "choice", "set"],
)
def test_broken_param_files_in_a_process(tmp_path, content):
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    status, out, err, seconds = process("run", path, "--out", tmp_path / "out")
    assert_refused(status, out, err)
    assert seconds < LIMIT
    assert [file.name for file in tmp_path.iterdir()] == ["p.yaml"]


# --- help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_every_command(command):
    status, out, err = call(*command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(" ".join(["Usage: sparseflows", *command]))
    assert "Example" in out or command in ([], ["data"], ["data", "list"])


def test_without_a_command_there_is_help_too():
    for command in ([], ["data"]):
        status, out, err = call(*command)
        assert (status, err) == (0, "")
        assert "Usage:" in out


def test_help_is_quick():
    status, out, err, seconds = process("--help")
    assert (status, err) == (0, "")
    assert "check   Dry run" in out
    assert seconds < LIMIT


# --- check


PLAIN = "name: a\ndata: {name: %s}\nflow: {hidden: [64, 64, 64]}\ntrain: {epochs: 2}\n"


def test_check_gives_one_json_document(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PLAIN % "moons" + "prune: {methods: [structured, unstructured], keep_ratios: [0.5, 0.2]}\n")
    status, out, err = call("check", path, "--json", "--set", "seeds=[0, 1]")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["params_dense"] == 8642
    assert found["stages"] == 10
    assert found["settings"]["seeds"] == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["p.yaml"]


def test_check_prints_settings_that_can_be_run(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PLAIN % "moons")
    status, out, err = call("check", path)
    assert (status, err) == (0, "")
    settings, counts = out.split("\n\n")
    assert "dense params     8,642" in counts
    (tmp_path / "again.yaml").write_text(settings)
    assert load_spec(tmp_path / "again.yaml") == load_spec(path)


def test_check_of_a_table_without_its_file(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(PLAIN % "table")
    found = json.loads(call("check", path, "--json")[1])
    assert (found["params_dense"], found["dim"], found["train_rows"], found["stages"]) == (None, None, None, 1)
    status, out, _ = call("check", path)
    assert status == 0
    assert "depends on your file (data.path)" in out


def test_data_list():
    status, out, err = call("data", "list")
    assert (status, err) == (0, "")
    names = [line.split()[0] for line in out.split("\n\n")[0].splitlines()[1:]]
    assert {"moons", "gaussian_spiral", "wine", "table", "power", "bsds300"} <= set(names)
    assert [one["name"] for one in json.loads(call("data", "list", "--json")[1])] == names


# --- refused without PyTorch


@pytest.fixture
def workplace(tmp_path):
    """Param file, run folder (settings and statistics, no stage), and files of points, good and bad."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "points.npy", rng.normal(size=(5, 2)))
    np.save(tmp_path / "three.npy", rng.normal(size=(5, 3)))
    np.save(tmp_path / "flat.npy", rng.normal(size=5))
    np.save(tmp_path / "nan.npy", np.where(np.arange(80).reshape(40, 2) == 7, np.nan, rng.normal(size=(40, 2))))
    np.save(tmp_path / "table.npy", rng.normal(size=(40, 2)))
    np.save(tmp_path / "wide.npy", rng.normal(size=(3, 40)))
    np.save(tmp_path / "constant.npy", np.column_stack([rng.normal(size=40), np.ones(40)]))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]] * 40))
    (tmp_path / "text.csv").write_text("height,colour\n1,red\n2,blue\n3,red\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n4,5\n")
    (tmp_path / "points.json").write_text("1 2\n")
    (tmp_path / "p.yaml").write_text(PLAIN % "moons")
    (tmp_path / "empty").mkdir()
    folder = RunFolder.claim(tmp_path, load_spec(tmp_path / "p.yaml"), None)
    folder.write_data({"name": "moons", "dim": 2, "shift": [0.0, 0.0], "scale": [1.0, 1.0], "warnings": []})
    return tmp_path


TABLE = "--set data.name=table --set data.path="
WITHOUT_TORCH = [
    ("check", "Missing argument 'PARAM.yaml'"),
    ("check none.yaml", "none.yaml: no such param file"),
    ("check .", ".: not a file"),
    ("check p.yaml p.yaml", "unexpected extra argument"),
    ("check p.yaml --st a=b", "No such option: --st"),
    ("check p.yaml --set", "Option '--set' requires an argument"),
    ("check p.yaml --set threads", "--set threads: give it as key=value"),
    ("check p.yaml --set threads=0", "p.yaml with --set: threads: input should be greater"),
    ("check p.yaml --set data.name=moon", "unknown data set 'moon'; did you mean 'moons'?"),
    ("check p.yaml --set data.path=points.npy", "data set 'moons' takes no file"),
    (f"check p.yaml {TABLE}nan.npy", "nan.npy: has 1 value NaN or infinite"),
    ("run", "Missing argument 'PARAM.yaml'"),
    ("run none.yaml", "none.yaml: no such param file"),
    ("run p.yaml --jobs 0", "--jobs"),
    ("run p.yaml --jobs many", "--jobs"),
    ("run p.yaml --froce", "No such option: --froce"),
    ("run p.yaml --set data.name=moon", "unknown data set 'moon'; did you mean 'moons'?"),
    ("run p.yaml --set data.path=points.npy", "data set 'moons' takes no file"),
    ("run p.yaml --set data.name=table", "needs a file: set data.path"),
    (f"run p.yaml {TABLE}none.npy", "none.npy: no such file"),
    (f"run p.yaml {TABLE}empty", "empty: is a folder"),
    (f"run p.yaml {TABLE}points.json", "the suffix '.json' is not known"),
    (f"run p.yaml {TABLE}nan.npy", "nan.npy: has 1 value NaN or infinite, the first in row 4, column 2"),
    (f"run p.yaml {TABLE}text.csv", "text.csv: column 'colour' holds text ('red')"),
    (f"run p.yaml {TABLE}text.npy", "text.npy: holds text"),
    (f"run p.yaml {TABLE}ragged.csv", "ragged.csv: line 2 has 1 cell, the first line has 2"),
    (f"run p.yaml {TABLE}wide.npy", "wide.npy: has 3 rows and 40 columns, fewer rows than columns"),
    (f"run p.yaml {TABLE}flat.npy", "flat.npy: has 1 dimension"),
    (f"run p.yaml {TABLE}constant.npy", "constant.npy: constant in every row: column 2"),
    (f"run p.yaml {TABLE}points.npy", "5 rows split into 5 to train, 0 to validate"),
    (f"run p.yaml {TABLE}table.npy --set data.n_train=50", "data.n_train is 50, but 'table' has 32 training rows"),
    (f"check p.yaml {TABLE}table.npy --set data.n_train=50", "data.n_train is 50, but 'table' has 32 training rows"),
    ("run p.yaml --set prune.methods=[structured] --set prune.keep_ratios=[0.5,1.5]", "strictly between 0 and 1"),
    ("run p.yaml --set prune.methods=[structured] --set prune.keep_ratios=[0.2,0.5]", "keep_ratios must fall"),
    ("run p.yaml --set name=a/b", "letters, digits"),
    ("run p.yaml --out p.yaml", "p.yaml/a: cannot write"),
    ("score", "Missing argument 'RUN'"),
    ("score a", "Missing argument 'DATA.npy'"),
    ("score none points.npy", "none: no such run folder"),
    ("score empty points.npy", "empty: not a run folder"),
    ("score p.yaml points.npy", "p.yaml: no such run folder"),
    ("score a none.npy", "none.npy: no such file"),
    ("score a nan.npy", "nan.npy: has 1 value NaN or infinite"),
    ("score a three.npy", "three.npy: has 3 columns, the flow was trained on 2"),
    ("score a text.csv", "text.csv: column 'colour' holds text ('red')"),
    ("score a points.npy --tol 1", "--tol 1: give a tolerance between 1e-12 and 1e-2"),
    ("score a points.npy --tol 0", "--tol 0: give a tolerance"),
    ("score a points.npy --tol -1e-3", "--tol -0.001: give a tolerance"),
    ("score a points.npy --tol nan", "--tol nan: give a tolerance"),
    ("score a points.npy --tol tight", "--tol"),
    ("score a points.npy --dtype float16", "--dtype"),
    ("score a points.npy --coordinates polar", "--coordinates"),
    ("score a points.npy -o scores.txt", "scores.txt: results are NumPy arrays or text; give a name that ends in .npy"),
    ("score a points.npy -o empty", "empty: results are NumPy arrays"),
    ("score a points.npy -o none/scores.npy", "none/scores.npy: no such folder to write to"),
    (f"score a points.npy -o {'x' * 300}.npy", "cannot be written (File name too long)"),
    ("sample a -n 3", "Missing option '-o'"),
    ("sample a -o s.npy", "Missing option '-n'"),
    ("sample a -n 0 -o s.npy", "-n"),
    ("sample a -n 3 -o s.txt", "s.txt: results are NumPy arrays"),
    ("sample a -n 3 -o s.npy --seed -1", "--seed"),
    ("sample none -n 3 -o s.npy", "none: no such run folder"),
    ("map a points.npy -o z.npy", "Missing option '--to'"),
    ("map a points.npy --to sideways -o z.npy", "--to"),
    ("map a points.npy --to noise", "Missing option '-o'"),
    ("map a points.npy --to noise -o z.txt", "z.txt: results are NumPy arrays"),
    ("map a points.npy --to noise -o z.npy --tol 5", "--tol 5: give a tolerance"),
    ("map a three.npy --to data -o z.npy", "three.npy: has 3 columns"),
    ("map none points.npy --to data -o z.npy", "none: no such run folder"),
    ("data lst", "No such command 'lst'"),
    ("data list x", "unexpected extra argument"),
    ("trian p.yaml", "No such command 'trian'"),
    ("--version 3", "No such option: --version"),
]


def contents(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


IN_ONE_PROCESS = """
import contextlib, io, json, sys
sys.modules["torch"] = None  # from here on `import torch` fails
from sparseflows.cli.app import app
from sparseflows.cli.console import run_app
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_app(app, "sparseflows", line.split())
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def test_wrong_input_is_refused_without_pytorch(workplace):
    before = contents(workplace)
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps([line for line, _ in WITHOUT_TORCH]),
        capture_output=True,
        text=True,
        cwd=workplace,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for (line, words), answer in zip(WITHOUT_TORCH, answers, strict=True):
        assert_refused(*answer)
        assert words in answer[2], line
    assert contents(workplace) == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "param/quick.yaml", "--set", "data={name: table, path: pyproject.toml}"], "suffix '.toml'"),
        (["score", "none", "none.npy"], "none: no such run folder"),
    ],
)
def test_wrong_input_is_refused_quickly(args, words):
    status, out, err, seconds = process(*args)
    assert_refused(status, out, err)
    assert words in err
    assert seconds < LIMIT


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("score a points.npy", "no stage is finished yet"),
        ("sample a -n 3 -o s.npy --stage structured-s0/7", "no stage is finished yet"),
        ("map a points.npy --to noise -o z.npy", "no stage is finished yet"),
    ],
)
def test_a_run_that_has_no_stage(workplace, monkeypatch, line, words):
    monkeypatch.chdir(workplace)
    before = contents(workplace)
    status, out, err = call(*line.split())
    assert_refused(status, out, err)
    assert words in err
    assert contents(workplace) == before


def test_a_device_that_is_not_there(workplace, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, out, err = call("run", workplace / "p.yaml", "--out", workplace / "out", "--set", "device=cuda")
    assert_refused(status, out, err)
    assert "device: cuda: PyTorch finds no GPU here; set device: cpu" in err
    assert not (workplace / "out").exists()
