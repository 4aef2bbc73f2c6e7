"""`sparseflows` and `python -m analysis` for the documentation's commands: less work, all else as it is.

The tests put scripts on the PATH that call `main`, so that a page's block is executed to the letter, and only the work
that it asks for is made shorter: fewer rows, steps, seeds, methods and stages.
"""

from __future__ import annotations

import os
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
SWEEP_SETTINGS = {
    "solve.rtol": "1e-2",
    "solve.atol": "1e-2",
    "data.n_train": "64",
    "train.steps": "2",
    "prune.methods": "[structured]",
    "prune.keep_ratios": "[0.5]",
}
BUNDLED = ("wine", "diabetes", "breast_cancer", "digits", "digits_labelled", "table")  # take all their rows
MOST_SEEDS, MOST_METHODS, MOST_RATIOS = 1, 2, 2
ANALYSES = {
    "hessian": "--stage best --subset 4 --subsets 1 --steps 2 --probes 2 --tol 1e-2",
    "modes": "--samples 200",
    "field": "--stage best --frames 2",
    "cost": "--rows 64 --repeats 1",
}


def shorter(program: str, args: list[str]) -> list[str]:
    """The arguments of `sparseflows` or `python` with those of less work behind them."""
    if program == "sparseflows" and args[:1] == ["run"]:
        return [*args, *_run_options(args)]
    if program == "torchrun" and "run" in args:
        return [*args, *_run_options(args[args.index("run") :], jobs=False)]
    analysis = args[2:] if program == "python" and args[:2] == ["-m", "analysis"] else args
    if program in ("sparseflows", "python") and analysis:
        return [*args, *ANALYSES.get(analysis[0], "").split()]
    return args


def _run_options(args: list[str], jobs: bool = True) -> list[str]:
    given = dict(word.split("=", 1) for before, word in pairwise(args) if before == "--set")
    param = next(word for word in args[1:] if word.endswith((".yaml", ".yml")))
    settings = yaml.safe_load(Path(param).read_text(encoding="utf-8"))
    changes = dict(RUN_SETTINGS)
    if settings["data"]["name"] in BUNDLED:
        del changes["data.n_train"]
    for key, most in (("seeds", MOST_SEEDS), ("prune.keep_ratios", MOST_RATIOS)):
        changes[key] = str(_value(settings, given, key)[:most])
    methods = _value(settings, given, "prune.methods")
    if "sweep" in settings:  # so many times the work of one
        changes |= SWEEP_SETTINGS
    elif len(methods) > MOST_METHODS:  # the last is the random one, where there is one
        changes["prune.methods"] = str([methods[0], methods[-1]])
    settings_ = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    # Two more processes take longer than the work.
    alone = jobs and Path(param).name != "quick.yaml" and "--backend" not in args
    return [*settings_, "--jobs", "1"] if alone else settings_


def _value(settings: dict, given: dict[str, str], key: str) -> list:
    if key in given:
        return list(yaml.safe_load(given[key]))
    *path, last = key.split(".")
    for name in path:
        settings = settings.get(name, {})
    found = settings.get(last, [0] if last == "seeds" else [])
    if found and isinstance(found[0], dict):  # a run of ratios, written short
        from sparseflows.specs.keep_ratios import expand_keep_ratios

        found = expand_keep_ratios(found)
    return list(found)


def main() -> None:
    """Become the program named by the first argument, with the others, of less work."""
    program, *args = sys.argv[1:]
    words = shorter(program, args)
    if program == "sparseflows":
        words = ["-m", "sparseflows", *words]
    if program == "torchrun":
        words = ["-m", "torch.distributed.run", *words]
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main()
