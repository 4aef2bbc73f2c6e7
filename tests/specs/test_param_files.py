"""Param files: what is read, and what is refused in one line that names the file, the key and the choices."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflows.errors import InputError
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.plan import plan, plan_text
from sparseflows.experiment.rows import prepare
from sparseflows.experiment.sweep.points import Sweep, load_experiment
from sparseflows.specs import Spec
from sparseflows.specs.yaml import MAX_BYTES, MAX_DEPTH, dump_spec, load_spec, parse_yaml, validate

ROOT = Path(__file__).resolve().parents[2]
PARAM_FILES = sorted((ROOT / "param").rglob("*.yaml"))

BASE = """\
name: a
data: {name: moons}
train: {epochs: 2}
"""
PRUNED = BASE + "prune: {methods: [structured], keep_ratios: [0.5], retrain: {%s}}\n"
KEYS = "data, device, dtype, evaluate, flow, format, name, network, prune, seeds, solve, threads, train"
DATA_KEYS = (
    "columns, copies, drop, header, index, missing, n_train, name, path, seed, split_by_seed, test_fraction, "
    "transform, val_fraction, whiten"
)
FLOW_KEYS = "activation, base, blocks, gain, hidden, time, train_end_time"
TRAIN_KEYS = (
    "batch, beta2, clip, ema, epochs, gamma, jacobian, kinetic, lr, milestones, objective, optimiser, schedule, "
    "select, selection_rows, selections, steps, time_power, weight_decay"
)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "p.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return path

    return write


def refusal(call, *args):
    """The message of the InputError that `call` raises; always a single line of a sensible length."""
    with pytest.raises(InputError) as caught:
        call(*args)
    message = str(caught.value)
    assert message.isprintable()
    assert "\n" not in message
    return message


def said_of(path, *args):
    """The message about a file, without the file's name, which it must begin with."""
    message = refusal(load_spec, path, *args)
    assert message.startswith(str(path))
    rest = message.removeprefix(str(path))
    assert len(rest) < 400
    return rest


# --- what is read


def test_a_minimal_file(write):
    spec = load_spec(write(BASE))
    assert (spec.name, spec.data.name, spec.train.epochs) == ("a", "moons", 2)
    assert spec == Spec.model_validate({"name": "a", "data": {"name": "moons"}, "train": {"epochs": 2}})
    assert load_spec(str(write(BASE))) == spec


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-5", 1e-5), ("1E-5", 1e-5), ("1.5e-3", 1.5e-3), ("+1e-2", 0.01), (".5e-1", 0.05), ("1.e-2", 0.01)),
        *(("2e+0", 2.0), ("0.00001", 1e-5), ("1", 1.0), ("1_0.0", 10.0)),
    ],
)
def test_numbers(write, text, value):
    assert load_spec(write(BASE.replace("epochs: 2", f"epochs: 2, lr: {text}"))).train.lr == value


def test_what_only_looks_like_a_number_is_a_word():
    for text in ["e5", "1e", "1e5x", "v1e5", "'1e-5'"]:
        assert isinstance(parse_yaml(text, "x"), str)


def test_encodings_and_line_ends(write):
    spec = load_spec(write(BASE))
    assert load_spec(write(BASE.replace("\n", "\r\n"))) == spec
    assert load_spec(write(b"\xef\xbb\xbf" + BASE.encode())) == spec
    assert load_spec(write("# ä € 漢 🙂\n" + BASE)) == spec
    assert load_spec(write("---\n" + BASE + "...\n")) == spec
    assert load_spec(write(json.dumps(yaml.safe_load(BASE)))) == spec


def test_anchors_that_nobody_refers_to_do_no_harm(write):
    assert load_spec(write(BASE.replace("{name: moons}", "&here {name: moons}"))) == load_spec(write(BASE))


# --- files that are no param files


def test_files_that_cannot_be_read(tmp_path, write):
    assert said_of(tmp_path / "none.yaml") == ": no such param file"
    assert said_of(tmp_path) == ": not a file; give the YAML file itself"
    assert said_of(Path("/dev/null")) == ": not a file; give the YAML file itself"
    assert said_of(write(BASE + "#" * MAX_BYTES)) == ": larger than 100 kB; that is no param file"
    long = Path("x" * 300)
    assert "cannot be read (File name too long)" in refusal(load_spec, long)


def test_a_file_of_someone_else(tmp_path, write, monkeypatch):
    path = write(BASE)

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    assert said_of(path) == ": cannot be read (Permission denied)"


def test_empty_files(write):
    for content in ["", "\n \n", "# only a remark\n", "---\n", "null\n", "~"]:
        assert said_of(write(content)) == ": the file is empty; a param file needs at least name, data and train"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("- name: a\n- data\n", "a list"),
        ("[]", "a list"),
        ("hello", "a single value ('hello')"),
        ("3", "a single value (3)"),
        ("no", "a single value (false)"),
        ("x" * 500, "a single value ('" + "x" * 58 + "…)"),
    ],
)
def test_documents_that_are_no_mappings(write, content, kind):
    expected = f": a param file is a mapping of keys (name, data, train, …), not {kind}"
    assert said_of(write(content)) == expected


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe" + BASE.encode("utf-16-le"), BASE.encode() + b"\xff", b"\x89PNG\r\n\x1a\n\xff", "ä".encode("latin-1")],
)
def test_bytes_that_are_no_utf8(write, content):
    assert said_of(write(content)) == ": not text in UTF-8; a param file is YAML"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name: [1, 2\n", ", line 2, column 1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (
            "flow:\n\thidden: 1\n",
            ", line 2, column 1: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("name: a: b\n", ", line 1, column 8: not valid YAML: mapping values are not allowed here"),
        ("name: 'a\n", ": not valid YAML: found unexpected end of stream"),
        (BASE + "---\n" + BASE, ", line 4, column 1: not valid YAML: expected a single document in the stream, but"),
        ("a: !!python/object/apply:os.system [ls]", "column 4: not valid YAML: could not determine a constructor"),
        ("a: !mine 1", "not valid YAML: could not determine a constructor for the tag '!mine'"),
        ("a: 2020-13-41", ": not valid YAML: month must be in 1..12"),
        ("a: !!float ''", ": not valid YAML: "),
        ("a: !!int ''", ": not valid YAML: "),
        ("a: !!bool maybe", ": not valid YAML: "),
        ("a: !!timestamp maybe", ": not valid YAML: "),
        ("a: !!binary ä", ": not valid YAML: "),
        ("a: " + "9" * 6000, ": not valid YAML: Exceeds the limit (4300 digits)"),
        ("a: b\0c", ": not valid YAML: unacceptable character #x0000"),
        ("a: \x1b[31m", ": not valid YAML: unacceptable character #x001b"),
        ("<<: 3", "not valid YAML: expected a mapping or list of mappings for merging"),
        ("{", "not valid YAML: expected the node content, but found '<stream end>'"),
        ("%\n", "not valid YAML: "),
        ("@", "not valid YAML: found character '@' that cannot start any token"),
    ],
)
def test_yaml_that_is_none(write, content, words):
    assert words in said_of(write(content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BASE + "name: b\n", ", line 4, column 1: the key 'name' is given twice"),
        (BASE.replace("epochs: 2", "epochs: 2, epochs: 3"), ", line 3, column 20: the key 'epochs' is given twice"),
        ("k" * 500 + ": 1\n" + "k" * 500 + ": 1\n", f"the key '{'k' * 59}…' is given twice"),
        (BASE + "x: &y 1\nz: *y\n", ", line 5, column 4: YAML aliases (*name) are not used in param files; write the"),
        ("a: &a [*a]", "YAML aliases (*name) are not used"),
        ("? [a]\n: 1\n", ", line 1, column 3: a key must be a plain word, not ['a']"),
        ("? {a: b}\n: 1\n", "a key must be a plain word, not {'a': 'b'}"),
        (BASE + "1: 1\n", ", line 4, column 1: a key must be a plain word, not 1"),
        (BASE + "no: 1\n", "a key must be a plain word, not false"),
        (BASE + "null: 1\n", "a key must be a plain word, not null"),
        (BASE + "flow: {2: 3}\n", ", line 4, column 8: a key must be a plain word, not 2"),
        (PRUNED % "1: 3", "a key must be a plain word, not 1"),
        ("2020-01-01: 1\n", "a key must be a plain word, not datetime.date(2020, 1, 1)"),
        ('"a\\nb": 1\n', "a key must be a plain word, not 'a\\nb'"),
        ('"\\e[31m": 1\n', "a key must be a plain word, not '\\x1b[31m'"),
        ('"\\ud800": 1\n', "a key must be a plain word, not '\\ud800'"),
    ],
)
def test_yaml_that_has_no_place_here(write, content, words):
    message = said_of(write(content))
    assert words in message
    assert "not valid YAML" not in message


@pytest.mark.parametrize(
    "content",
    [
        *("[" * 5000, "a: " + "{b: " * 3000, "[" * 50 + "]" * 50, "- " * 3000 + "a", "[\n" * 40_000, "[ " * 45_000),
        "\n".join(" " * depth + "a:" for depth in range(400)),
        "".join(f"&a{i} [" for i in range(3000)),
    ],
)
def test_deep_nesting_is_refused_at_once(write, content):
    spent = []
    for _ in range(2):  # the better of two: the first pays for what is loaded late
        begun = time.process_time()
        message = said_of(write(content))
        spent.append(time.process_time() - begun)
        assert f"nested more than {MAX_DEPTH} levels deep" in message
    assert min(spent) < 1.0  # reading to the end took a minute


def test_aliases_that_would_explode_are_refused_at_once(write):
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    begun = time.process_time()
    assert "YAML aliases" in said_of(write(laughs))
    assert time.process_time() - begun < 1.0


def test_settings_are_less_deep_than_that(write):
    text = BASE + "prune: {methods: [structured], keep_ratios: [{linear: [0.8, 0.2, 3]}], retrain: {milestones: [1]}}"
    text = text.replace("epochs: 2", "epochs: 2, schedule: multi_step, milestones: [1]")
    assert load_spec(write(text)).prune.retrain == {"milestones": [1]}


# --- keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE + "flw: {}\n", f"unknown key 'flw'; did you mean 'flow'? (known here: {KEYS})"),
        (BASE + "zzz: 1\n", f"unknown key 'zzz' (known here: {KEYS})"),
        (BASE + "ключ: 1\n", f"unknown key 'ключ' (known here: {KEYS})"),
        (BASE + "k" * 500 + ": 1\n", f"unknown key '{'k' * 59}…' (known here: {KEYS})"),
        (BASE + "flow: {hiden: [3]}\n", f"unknown key 'flow.hiden'; did you mean 'hidden'? (known here: {FLOW_KEYS})"),
        (
            BASE.replace("epochs: 2", "epochs: 2, learning_rate: 1"),
            f"unknown key 'train.learning_rate' (known here: {TRAIN_KEYS})",
        ),
        (
            BASE.replace("epochs", "epoch"),
            f"unknown key 'train.epoch'; did you mean 'epochs'? (known here: {TRAIN_KEYS})",
        ),
        (
            BASE.replace("train", "trian"),
            f"unknown key 'trian'; did you mean 'train'? (known here: {KEYS}) (and 1 more)",
        ),
        (
            BASE.replace("name: a", "nmae: a"),
            f"unknown key 'nmae'; did you mean 'name'? (known here: {KEYS}) (and 1 more)",
        ),
        (BASE.replace("name: a\n", ""), "the key 'name' is missing"),
        (BASE.replace("data: {name: moons}\n", ""), "the key 'data' is missing"),
        (BASE.replace("train: {epochs: 2}\n", ""), "the key 'train' is missing"),
        (BASE.replace("{name: moons}", "{seed: 3}"), "the key 'data.name' is missing"),
        ("{}", "the key 'name' is missing (and 2 more)"),
    ],
)
def test_keys(write, text, message):
    assert said_of(write(text)) == f": {message}"


# --- values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: a/b",
            "name is the run folder's: at most 64 letters, digits, '.', '_' or '-', the first a letter or digit, "
            "not 'a/b'",
        ),
        ("name: 2020-01-01", "name: input should be a valid string, not datetime.date(2020, 1, 1)"),
        ("name: no", "name: input should be a valid string, not false"),
        ("name:", "name: input should be a valid string, not null"),
        ("train: {epochs: 2, lr: .nan}", "train.lr: input should be a finite number, not nan"),
        (
            "prune: {methods: [structured], keep_ratios: [0.5, 0.6]}",
            "prune.keep_ratios must fall (the share that is kept): 0.6 follows 0.5",
        ),
        ("name: 3", "name: input should be a valid string, not 3"),
        ("dtype: float16", "dtype: 'float16' is not one of 'float32', 'float64'"),
        ("seeds: [0, one]", "seeds.1: input should be a valid integer, not 'one'"),
        ("seeds: []", "seeds: give at least 1, not 0"),
        ("data: moons", f"data: give a mapping of keys ({DATA_KEYS}), not 'moons'"),
        ("data: {name: moons, n_train: 1e4}", "data.n_train: input should be a valid integer, not 10000.0"),
        ("data: {name: moons, whiten: 1}", "data.whiten: input should be a valid boolean, not 1"),
        ("flow: {hidden: []}", "flow.hidden: give at least 1, not 0"),
        (f"flow: {{hidden: {[3] * 33}}}", "flow.hidden: give at most 32, not 33"),
        ("flow: {hidden: [64, 0]}", "flow.hidden.1: input should be greater than or equal to 1, not 0"),
        (
            "flow: {activation: tahn}",
            "flow.activation: 'tahn' is not one of 'sigmoid', 'tanh', 'softplus', 'relu', 'silu'",
        ),
        ("flow: {time: null}", "flow.time: null is not one of 'none', 'concat', 'concat_squash'"),
        ("flow: !!set {a}", f"flow: give a mapping of keys ({FLOW_KEYS}), not {{'a'}}"),
        (
            "solve: {method: rk5}",
            "solve.method: 'rk5' is not one of 'dopri5', 'bosh3', 'dopri8', 'adaptive_heun', "
            "'fehlberg2', 'euler', 'midpoint', 'rk4'",
        ),
        ("train: {epochs: 2, steps: 2}", "train: give the length once: either epochs or steps"),
        ("train: {epochs: 2, lr: -.inf}", "train.lr: input should be a finite number, not -inf"),
        ("train: {epochs: '2'}", "train.epochs: input should be a valid integer, not '2'"),
        (
            f"train: {{epochs: 1{'0' * 400}}}",
            f"train.epochs: input should be less than or equal to 1000000, not 1{'0' * 58}…",
        ),
        (
            "prune: {methods: [structurd], keep_ratios: [0.5]}",
            "prune.methods.0: 'structurd' is not one of 'unstructured', 'magnitude', 'snip', 'sipp', "
            "'sipp_randomised', 'sipp_hybrid', 'fisher_weights', 'random_weights', 'structured', 'neuron_l1', "
            "'neuron_l2', 'pfp', 'pfp_randomised', 'pfp_top_random', 'fisher_neurons', 'taylor', 'random_neurons'",
        ),
        (
            "prune: {methods: structured, keep_ratios: [0.5]}",
            "prune.methods: input should be a valid list, not 'structured'",
        ),
        (
            f"prune: {{methods: [structured], keep_ratios: [1{'0' * 400}]}}",
            "prune.keep_ratios lie strictly between 0 and 1 (the share that is kept), not inf",
        ),
        (
            "train: {epochs: 0, lr: 0, batch: 0}",
            "train.epochs: input should be greater than or equal to 1, not 0 (and 2 more)",
        ),
    ],
)
def test_values(write, text, message):
    given = {line.split(":")[0] for line in text.split("\n")}
    base = "".join(line + "\n" for line in BASE.splitlines() if line.split(":")[0] not in given)
    assert said_of(write(base + text + "\n")) == f": {message}"


@pytest.mark.parametrize(
    ("retrain", "message"),
    [
        ("lr: fast", ".lr: input should be a valid number, not 'fast'"),
        ("lr: -1", ".lr: input should be greater than 0, not -1"),
        ("optimiser: adm", ".optimiser: 'adm' is not one of 'adamw', 'adam', 'sgd'"),
        ("milestones: [[3]]", ".milestones.0: input should be a valid integer, not [3]"),
        ("epochs: 2, steps: 3", ": give the length once: either epochs or steps"),
        ("schedule: multi_step", ": milestones goes with schedule: multi_step, and multi_step needs them"),
        ("lr: 0, batch: 0", ".batch: input should be greater than or equal to 1, not 0 (and 1 more)"),
        ("stps: 3", f": unknown key 'stps'; did you mean 'steps'? (known: {TRAIN_KEYS})"),
        ("k: 3", f": unknown key 'k' (known: {TRAIN_KEYS})"),
        ("objective: flow_matching", ".objective: a cascade keeps the objective it was trained with"),
        (f"steps: {'9' * 100}", ".steps: input should be less than or equal to 10000000, not " + "9" * 59 + "…"),
    ],
)
def test_what_is_wrong_in_retrain(write, retrain, message):
    assert said_of(write(PRUNED % retrain)) == f": prune.retrain{message}"


def test_retrain_of_the_wrong_kind(write):
    message = said_of(write((PRUNED % "").replace("retrain: {}", "retrain: [1]")))
    assert message == ": prune.retrain: give a mapping of keys (those of train), not [1]"


def test_another_format(write):
    for version in ["2", "0", "null", "true", "1.0", "'1'", "[1]", ".nan", "9" * 100]:
        message = said_of(write(BASE + f"format: {version}\n"))
        assert message.endswith("was written by another version of Sparse Flows; this one reads format 1")
        assert message.startswith(": format ")
        assert load_spec(write(BASE + "format: 1\n")).format == 1


def test_a_newer_format_is_said_before_its_new_keys(write):
    assert "format 2 was written by another version" in said_of(write(BASE + "format: 2\nnews: 3\n"))


# --- overrides


def test_overrides_in_their_order(write):
    path = write(BASE)
    found = load_spec(
        path,
        ["train.lr=1e-5", "seeds=[0, 1]", "flow.hidden=[8,8]", "prune.methods=[structured]", "prune.keep_ratios=[0.5]",
         "prune.retrain.lr=0.1", "name=b", "name=c", "train.steps=7", "train.epochs="],
    )  # fmt: skip
    assert (found.train.lr, found.seeds, found.flow.hidden, found.name) == (1e-5, [0, 1], [8, 8], "c")
    assert (found.train.steps, found.train.epochs) == (7, None)
    assert found.prune.retrain == {"lr": 0.1}
    assert load_spec(path, ["data.path=a=b.csv", "data.name=table"]).data.path == "a=b.csv"
    assert load_spec(path, [" train.lr =0.5"]).train.lr == 0.5
    assert load_spec(path, ["data={name: spirals, seed: 3}"]).data.seed == 3


@pytest.mark.parametrize("item", ["train.lr", "", "=3", "train..lr=3", ".lr=3", "train.=3"])
def test_overrides_without_a_key_or_value(write, item):
    message = refusal(load_spec, write(BASE), [item])
    assert message == f"--set {item}: give it as key=value, for example --set train.lr=0.01"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("train.lr=fast", "with --set: train.lr: input should be a valid number, not 'fast'"),
        ("train.lr=", "with --set: train.lr: input should be a valid number, not null"),
        ("trian.lr=1", f"with --set: unknown key 'trian'; did you mean 'train'? (known here: {KEYS})"),
        ("train.zz=1", f"with --set: unknown key 'train.zz' (known here: {TRAIN_KEYS})"),
        ("train=3", f"with --set: train: give a mapping of keys ({TRAIN_KEYS}), not 3"),
        ("flow.hidden=[8, x]", "with --set: flow.hidden.1: input should be a valid integer, not 'x'"),
    ],
)
def test_overrides_that_are_wrong_name_the_file_and_the_option(write, item, message):
    assert said_of(write(BASE), [item]) == f" {message}"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("train.lr=[1", "--set train.lr, line 1, column 3: not valid YAML: expected ',' or ']'"),
        ("train.lr=*x", "--set train.lr, line 1, column 1: YAML aliases (*name) are not used"),
        ("train={epochs: 2, epochs: 3}", "--set train, line 1, column 13: the key 'epochs' is given twice"),
        ("name.x=3", "--set name.x=3: 'name' is a single value ('a') and has no keys below it"),
        ("seeds.0=3", "--set seeds.0=3: 'seeds' is a list and has no keys below it"),
        ("train.lr=\0", "--set train.lr: not valid YAML: unacceptable character #x0000"),
        ("a\nb", "--set a b: give it as key=value"),
        ("x" * 500, "--set " + "x" * 59 + "…: give it as key=value"),
    ],
)
def test_overrides_that_cannot_be_read_are_named(write, item, message):
    assert refusal(load_spec, write(BASE + "seeds: [0]\n"), [item]).startswith(message)


def test_an_error_elsewhere_is_not_blamed_on_the_override(write):
    message = said_of(write(BASE + "threads: 0\n"), ["train.lr=0.1"])
    assert message == ": threads: input should be greater than or equal to 1, not 0"


# --- there and back


def round_trip(spec, folder):
    path = folder / "spec.yaml"
    path.write_text(dump_spec(spec), encoding="utf-8")
    return load_spec(path)


@pytest.mark.parametrize(
    "name", ["1e5", "2e10", "12e3", "1.5e2", "2020", "on", "null", "0x1f", "1_000", "True", "a-b.c"]
)
def test_names_that_look_like_something_else_come_back(tmp_path, name):
    spec = Spec.model_validate({"name": name, "data": {"name": "moons"}, "train": {"epochs": 2}})
    assert round_trip(spec, tmp_path) == spec


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
specs = st.builds(
    lambda path, lr, epochs, hidden, seeds, ratios, tolerance, clip, retrain: Spec.model_validate(
        {
            "name": "a",
            "seeds": seeds,
            "data": {"name": "table", "path": path},
            "flow": {"hidden": hidden},
            "train": {"epochs": epochs, "lr": lr, "clip": clip},
            "prune": {"methods": ["structured"], "keep_ratios": ratios, "retrain": retrain},
            "evaluate": {"rtol": tolerance},
        }
    ),
    path=words | st.from_regex(r"[-+]?[0-9]{1,3}\.?[0-9]{0,2}([eE][-+]?[0-9]{1,2})?", fullmatch=True),
    lr=st.floats(1e-300, 100),
    epochs=st.integers(1, 1_000_000),
    hidden=st.lists(st.integers(1, 8192), min_size=1, max_size=32),
    seeds=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=30, unique=True),
    ratios=st.lists(st.floats(1e-6, 1, exclude_max=True), min_size=1, unique=True, max_size=20).map(
        lambda ratios: sorted(ratios, reverse=True)
    ),
    tolerance=st.floats(1e-10, 1e-5),
    clip=st.none() | st.floats(1e-3, 100),
    retrain=st.fixed_dictionaries({}, optional={"steps": st.integers(1, 100), "lr": st.floats(1e-9, 1)}),
)


@given(specs)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_dump_and_load_give_an_equal_spec(tmp_path_factory, spec):
    assert round_trip(spec, tmp_path_factory.getbasetemp()) == spec
    assert validate(parse_yaml(dump_spec(spec), "x"), "x") == spec


# --- what a run would do


@pytest.mark.parametrize("path", PARAM_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_param_file_that_comes_along_is_fine(path, tmp_path):
    assert path.read_text().startswith("# ")  # it says what it is
    found = load_experiment(path)
    for spec in [point.spec for point in found.points] if isinstance(found, Sweep) else [found]:
        check_comes_along(spec, tmp_path)


def check_comes_along(spec, tmp_path):
    found = plan(spec)
    prune = spec.prune
    of_dense = [protocol for protocol in prune.protocols if protocol in ("reduced", "control")]
    sequences = len(prune.methods) * (len(prune.protocols) - len(of_dense)) + len(of_dense)
    assert found["stages"] == len(stages(spec)) == len(spec.seeds) * (1 + sequences * len(prune.keep_ratios))
    assert found["params_dense"] is None or found["params_dense"] > 0
    assert (found["params_dense"] is None) == (spec.data.name == "table")
    assert round_trip(spec, tmp_path) == spec


def test_param_files_come_along():
    assert ROOT / "param" / "quick.yaml" in PARAM_FILES
    names = [load_experiment(path).name for path in PARAM_FILES]
    assert len(set(names)) == len(names)  # each its own run folder


def test_a_plan_of_a_toy_set(write):
    spec = load_spec(write(PRUNED % "epochs: 1"), ["seeds=[0, 1, 2]", "data.n_train=1000", "train.batch=64"])
    assert plan(spec) == {
        **{"name": "a", "dataset": "moons", "dim": 2, "train_rows": 1000, "params_dense": 8642},
        **{"stages": 6, "steps_dense": 32, "steps_retrain": 16, "notes": []},
    }
    assert plan_text(plan(spec)).splitlines() == [
        "dense params     8,642",
        "training rows    1,000, 2 columns",
        "stages           6",
        "steps, dense     32",
        "steps, a retrain 16",
    ]


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "digits", "gaussians"])
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.15, 0.25)])
def test_a_plan_says_the_rows_that_a_run_trains_on(write, name, fractions):
    changes = [f"data.name={name}", f"data.val_fraction={fractions[0]}", f"data.test_fraction={fractions[1]}"]
    spec = load_spec(write(BASE), changes)
    rows = prepare(spec)[0][0].train
    found = plan(spec)
    assert (found["train_rows"], found["dim"]) == rows.shape
    assert found["params_dense"] == spec.flow.dense_params(rows.shape[1])


def test_a_plan_tells_of_a_gpu_that_is_not_here(write, monkeypatch):
    spec = load_spec(write(BASE), ["device=cuda:1"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (note,) = plan(spec)["notes"]
    assert note.startswith("device: cuda:1: ")
    assert f"note: {note}" in plan_text(plan(spec))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert plan(spec)["notes"] == plan(load_spec(write(BASE)))["notes"] == []


def test_a_plan_of_the_users_own_file(write, tmp_path):
    spec = load_spec(write(BASE), ["data.name=table"])
    found = plan(spec)
    assert [found[key] for key in ("dim", "train_rows", "params_dense", "steps_dense")] == [None] * 4
    assert "dense params     depends on your file (data.path)" in plan_text(found)
    assert plan(load_spec(write(BASE), ["data.name=table", "train.steps=9", "train.epochs="]))["steps_dense"] == 9
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(135, 3)))
    spec = load_spec(write(BASE), ["data.name=table", f"data.path={tmp_path / 'mine.npy'}"])
    splits, digest = prepare(spec)
    assert len(digest) == 64
    assert plan(spec)["train_rows"] == len(splits[0].train) == 107  # 13.5 is rounded to 14, for both other parts
    assert prepare(load_spec(write(BASE)))[1] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["data.name=moon"], "unknown data set 'moon'; did you mean 'moons'? (known: breast_cancer, "),
        (["data.path=x.csv"], "data set 'moons' takes no file"),
        (["data.name=wine", "data.n_train=150"], "data.n_train is 150, but 'wine' has 142"),
        (["data.name=table", "data.path=none.csv"], "none.csv: no such file"),
    ],
)
def test_check_refuses_the_data_that_run_refuses(write, changes, words):
    spec = load_spec(write(BASE), changes)
    assert words in refusal(plan, spec)
    assert words in refusal(prepare, spec)


def test_a_table_needs_its_file_to_be_run(write):
    message = refusal(prepare, load_spec(write(BASE), ["data.name=table"]))
    assert "needs a file: set data.path in the param file or pass --set data.path=FILE" in message


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("-3", -3), ("1_000", 1000), ("0", 0), ("1e-5", 1e-5), ("1.5", 1.5), (".5", 0.5), ("2.", 2.0)],
)
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    read = parse_yaml(text, "here")
    assert read == value
    assert type(read) is type(value)


def test_numbers_of_older_yaml_are_text_and_so_refused_as_settings() -> None:
    for text in ["010", "1:30", "0x1f", "0b1"]:
        assert parse_yaml(text, "here") == text
