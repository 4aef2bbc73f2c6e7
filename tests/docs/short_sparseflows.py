"""`sparseflows` for the documentation's commands: `run` on fewer rows, steps, seeds and stages, all else as it is.

The tests put a script on the PATH that calls `main`, so that a page's block is executed to the letter, and only the
work that it asks for is made shorter. Settings that a command sets itself stay, but for the lengths.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import yaml

RUN_SETTINGS = {
    "data.n_train": "256",
    "train.epochs": "null",
    "train.steps": "4",
    "train.schedule": "constant",
    "train.milestones": "[]",
    "train.select": "last",
    "prune.retrain": "{}",
    "evaluate.max_rows": "24",
}
BUNDLED = ("wine", "diabetes", "breast_cancer", "digits", "digits_labelled", "table")  # take all their rows
MOST_SEEDS, MOST_METHODS, MOST_RATIOS = 1, 2, 2


def shorter(args: list[str]) -> list[str]:
    """The arguments of `sparseflows` with those of a shorter run behind them; others than `run` as they are."""
    if args[:1] != ["run"]:
        return args
    given = dict(word.split("=", 1) for before, word in pairwise(args) if before == "--set")
    param = next(word for word in args[1:] if word.endswith((".yaml", ".yml")))
    settings = yaml.safe_load(Path(param).read_text(encoding="utf-8"))
    changes = dict(RUN_SETTINGS)
    if settings["data"]["name"] in BUNDLED:
        del changes["data.n_train"]
    for key, most in (("seeds", MOST_SEEDS), ("prune.keep_ratios", MOST_RATIOS)):
        changes[key] = str(_value(settings, given, key)[:most])
    methods = _value(settings, given, "prune.methods")
    if len(methods) > MOST_METHODS:  # the last is the random one, where there is one
        changes["prune.methods"] = str([methods[0], methods[-1]])
    return [*args, *(word for key, value in changes.items() for word in ("--set", f"{key}={value}"))]


def _value(settings: dict, given: dict[str, str], key: str) -> list:
    if key in given:
        return list(yaml.safe_load(given[key]))
    *path, last = key.split(".")
    for name in path:
        settings = settings.get(name, {})
    found = settings.get(last, [0] if last == "seeds" else [])
    if found and isinstance(found[0], dict):  # a run of ratios, written short
        from sparseflows.pruning.schedule import expand_keep_ratios

        found = expand_keep_ratios(found)
    return list(found)


def main() -> None:
    """Run the command line with the shorter arguments."""
    from sparseflows.__main__ import main as program

    sys.argv[1:] = shorter(sys.argv[1:])
    program()


if __name__ == "__main__":
    main()
