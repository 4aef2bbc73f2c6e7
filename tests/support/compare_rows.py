"""What comparisons are made of, by hand: rows of results.csv, and the baselines of tabular runs.

A flow has 1,000 params when dense, and prune ratios of 50 and 80 %.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from analysis.runs.records import Run, Stage
from analysis.tabular.baseline_results import RunBaselines, SplitBaselines
from analysis.tabular.baselines import GAUSSIAN, MIXTURE, Baseline
from analysis.tabular.runs import Choice, choose, read_variants

KEPT = {0: 1.0, 1: 0.5, 2: 0.2, 3: 0.1}


def stage_of(protocol: str | None, method: str, seed: int, stage: int, gap: float | None, **changes: Any) -> Stage:
    """A stage with a KL gap; its NLL is 0.5 above, and moves with the seed as a test draw would."""
    kept = 1.0 if protocol == "control" else KEPT[stage]
    values: dict[str, Any] = dict.fromkeys(field.name for field in fields(Stage))
    values |= {"dataset": "rings", "objective": "nll", "protocol": protocol, "method": method, "seed": seed}
    values |= {"stage": stage, "status": "done", "keep_ratio_target": KEPT[stage] if stage else None}
    values |= {"prune_ratio": 1 - kept, "params": round(1000 * kept), "params_dense": 1000, "kl_gap": gap}
    if gap is not None:
        values |= {"nll_test": 0.5 + gap + 0.01 * seed, "nll_val": 0.5 + gap}
    return Stage(**values | changes)


def failed_of(protocol: str, method: str, seed: int, stage: int, reason: str | None = "underflow in dt") -> Stage:
    """A stage that failed: no numbers."""
    none = {"prune_ratio": None, "params": None, "params_dense": None}
    return stage_of(protocol, method, seed, stage, None, status="failed", reason=reason, **none)


def series(protocol: str | None, method: str, stage: int, gaps: list[float], **changes: Any) -> list[Stage]:
    """One stage of several seeds, 0, 1, 2, …"""
    return [stage_of(protocol, method, seed, stage, gap, **changes) for seed, gap in enumerate(gaps)]


def classifier_of(protocol: str, method: str, seed: int, stage: int, accuracy: float) -> Stage:
    """A classifier's stage: accuracy and loss, no likelihood."""
    changes = {"accuracy_test": accuracy, "loss_test": 1 - accuracy, "loss_val": 1 - accuracy}
    return stage_of(protocol, method, seed, stage, None, **changes)


def run_of(*groups: list[Stage]) -> Run:
    """A run of these stages."""
    stages = tuple(stage for group in groups for stage in group)
    return Run("runs/rings", "rings", tuple(sorted({stage.seed for stage in stages})), stages)


def choices_of(*runs: Path) -> list[Choice]:
    """The variants that a tabular table of these run folders shows."""
    return choose([variant for run in runs for variant in read_variants(run)])


def fitted(
    run: Path, by_seed: dict[int, tuple[float, float]], own_splits: bool = False, n_train: int = 500
) -> dict[str, RunBaselines]:
    """Baselines of a run by seed: the test NLLs of its Gaussian and of its mixture."""
    splits = {
        seed: SplitBaselines(
            (_baseline(GAUSSIAN, gaussian), _baseline(MIXTURE, mixture, choice="2 components")), n_train, 1000, 1000
        )
        for seed, (gaussian, mixture) in by_seed.items()
    }
    return {str(run): RunBaselines(splits, own_splits)}


def _baseline(name: str, nll: float, choice: str = "") -> Baseline:
    return Baseline(name, params=90, nll_val=nll, nll_test=nll, nll_test_se=0.05, n_fit=500, choice=choice)
