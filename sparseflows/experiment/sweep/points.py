"""`sweep:` in a param file → the settings of every point: lists that are crossed, or go side by side in a `zip`.

    sweep:
      flow.activation: [sigmoid, tanh]          # crossed with everything else
      solve:                                    # the same as solve.rtol
        rtol: [1e-5, 1e-4]
      zip:                                      # side by side: the first with the first, the second with the second, …
        train.lr: [0.05, 0.01]
        train.weight_decay: [1e-2, 1e-5]

is 2 × 2 × 2 points. `zip` may be a list of such groups, each crossed with the others.
"""

import contextlib
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError
from sparseflows.specs import Spec
from sparseflows.specs.section import known_by
from sparseflows.specs.yaml import load_document, put, validate

SWEEP, ZIP = "sweep", "zip"
MOST_POINTS = 20_000
LONGEST_LABEL = 64  # the longest name of a run
_WIDTHS = ("hidden", "channels")
_SECTIONS = ("data", "flow", "network", "solve", "train", "prune", "evaluate")
_NOT_SWEPT = ("name", "format", SWEEP)

Changes = dict[str, Any]  # dotted key → value


@dataclass(frozen=True)
class Point:
    """One experiment of a sweep.

    Attributes:
        label: its name in the sweep, and that of its run folder.
        changes: dotted key → its value at this point.
        spec: the resolved settings.
    """

    label: str
    changes: Changes
    spec: Spec

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Errors that are raised within say which point they are of."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{SWEEP} point {self.label}: {error}") from None


@dataclass(frozen=True)
class Sweep:
    """All points of a sweep, in the order of its lists, the last key fastest."""

    name: str
    keys: tuple[str, ...]
    points: tuple[Point, ...]

    @property
    def identity(self) -> str:
        """What sweeps have in common that differ in their lists of values only: all settings that are not swept."""
        settings = known_by(self.points[0].spec)
        settings["name"] = self.name
        for key in self.keys:
            *sections, last = key.split(".")
            node = settings
            for section in sections:
                node = node.get(section) or {}
            node.pop(last, None)
        text = json.dumps([settings, sorted(self.keys)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Spec | Sweep:
    """What a param file holds: one experiment, or the points of a sweep; arguments and errors as `load_spec`."""
    document, changed = load_document(path, overrides)
    if SWEEP in document:
        return expand(document, str(path), changed)
    return validate(document, str(path), changed)


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """The points of a param file with a `sweep:`; arguments as `load_spec`.

    Raises:
        InputError: there is no `sweep:`, or something in the file is wrong.
    """
    found = load_experiment(path, overrides)
    if isinstance(found, Spec):
        raise InputError(f"{path}: one experiment, no sweep; sparseflows.load_spec gives its settings")
    return found


def expand(document: Mapping[str, Any], source: str, changed: Sequence[tuple[str, ...]] = ()) -> Sweep:
    """The points of a document with a `sweep:`.

    Args:
        document: as YAML has it.
        source, changed: the file's name, and the keys that `--set` has changed, for messages.

    Raises:
        InputError: a key that does not exist, a value that is refused, lists that do not fit, too many points.
    """
    axes = _axes(document[SWEEP], f"{source}: {SWEEP}")
    total = math.prod(map(len, axes))
    if total > MOST_POINTS:
        raise InputError(f"{source}: {SWEEP}: {total:,} points; give at most {MOST_POINTS:,}")
    base = {key: value for key, value in document.items() if key != SWEEP}
    combinations = [dict(itertools.chain(*(one.items() for one in chosen))) for chosen in itertools.product(*axes)]
    labels = [label_of(changes) for changes in combinations]
    names = Counter(labels)
    points: dict[str, Point] = {}
    for changes, label in zip(combinations, labels, strict=True):
        if names[label] > 1:
            label = _cut(label, changes)
        if label in points:
            values = ", ".join(f"{key}: {value}" for key, value in changes.items())
            raise InputError(f"{source}: {SWEEP}: the point {values} comes twice; give each value of a list once")
        settings = _changed(base, changes, source) | {"name": label}
        # A first look with the sweep's own name: it may be the one that is wrong.
        points[label] = Point(label, changes, validate(settings, f"{source}, {SWEEP} point {label}", changed))
    name = validate(_changed(base, combinations[0], source), source, changed).name
    return Sweep(name, tuple(combinations[0]), tuple(points.values()))


def label_of(changes: Mapping[str, Any]) -> str:
    """`activation-tanh_hidden-3x64`: the last words of the keys, whole keys where two share one; at most 64 letters."""
    last = {key: key.rsplit(".", 1)[-1] for key in changes}
    shared = Counter(last.values())
    parts = [f"{last[key] if shared[last[key]] == 1 else key}-{_word(value, key)}" for key, value in changes.items()]
    label = "_".join(parts).lstrip("._-")
    return label if len(label) <= LONGEST_LABEL else _cut(label, changes)


def _word(value: Any, key: str = "") -> str:
    if isinstance(value, list):
        if value and key.endswith(_WIDTHS) and all(one == value[0] for one in value):
            return f"{len(value)}x{value[0]}"
        return "-".join(map(_word, value)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, (int, float)):
        text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
        return text.replace("+", "")
    return re.sub("[^A-Za-z0-9.-]+", "-", str(value)).strip("-.") or "x"


def _cut(label: str, changes: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(changes, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{label[: LONGEST_LABEL - 9]}-{digest}"


def _axes(given: Any, where: str) -> list[list[Changes]]:
    """Lists of changes, to be crossed."""
    if not isinstance(given, dict) or not given:
        raise InputError(f"{where}: give a mapping of keys to lists, as flow.activation: [tanh, silu]")
    groups = given.get(ZIP, [])
    zipped = [_zipped(group, f"{where}.{ZIP}") for group in (groups if isinstance(groups, list) else [groups])]
    crossed = [
        [{key: value} for value in values]
        for key, values in _lists({key: value for key, value in given.items() if key != ZIP}, where).items()
    ]
    axes = [*zipped, *crossed]
    keys = Counter(key for axis in axes for key in axis[0])
    twice = next((key for key, count in keys.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{where}: {twice} is swept twice; give it one list")
    return axes


def _zipped(group: Any, where: str) -> list[Changes]:
    if not isinstance(group, dict) or not group:
        raise InputError(f"{where}: give a mapping of keys to lists of one length, or a list of such mappings")
    lists = _lists(group, where)
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InputError(f"{where}: lists that go side by side are of one length, not {counted}")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _lists(given: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, list[Any]]:
    """Dotted key → list; mappings in mappings are keys below keys."""
    found: dict[str, list[Any]] = {}
    for key, value in given.items():
        whole = f"{prefix}{key}"
        if whole.split(".", 1)[0] in _NOT_SWEPT:
            raise InputError(f"{where}: {whole} cannot be swept")
        if isinstance(value, dict):
            found |= _lists(value, where, f"{whole}.")
        elif whole in _SECTIONS:
            raise InputError(f"{where}: {whole} is a section; name the key in it that is to be swept")
        elif isinstance(value, list) and value:
            found[whole] = value
        else:
            given_was = "an empty list" if value == [] else "one value" if value is not None else "nothing"
            raise InputError(f"{where}.{whole}: give a list of values to try, not {given_was}")
    return found


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any], source: str) -> dict[str, Any]:
    document = deepcopy(dict(base))
    for key, value in changes.items():
        put(document, key.split("."), deepcopy(value), f"{source}: {SWEEP}: {key}")
    return document
