"""Rows of results.csv for comparisons, made by hand: 1,000 params when dense, prune ratios 50 and 80 %."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from analysis.runs.records import Run, Stage

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
