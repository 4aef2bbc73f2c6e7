"""memory: what one training step by likelihood takes at its peak, each case in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.context import Context
from benchmarks.measure import OURS_OVER_PEER, Goal, Measurement
from benchmarks.stepping import step_changes
from sparseflows.errors import InputError

# Settings of param files, by the name in the table; those that this version refuses are left out.
VARIANTS: dict[str, tuple[str, ...]] = {
    "nll.yaml": (),
    "backprop": ("solve.hold_grid=null",),
    "adjoint": ("solve.hold_grid=null", "solve.gradient=adjoint"),
}
WITH_GOAL = ("nll.yaml", "adjoint")  # whose memory is not to grow with the evaluations
TOLERANCES = (1e-3, 1e-4, 1e-5)  # of bosh3's evaluations about once, twice, four times; each row says how many
BATCHES = (4096, 16_384)
PLAIN = "plain"  # the peer: torchdiffeq's adjoint


def run(context: Context) -> list[Measurement]:
    """Peak MiB above what the process held before the step."""
    quick = context.settings.quick
    wanted = WITH_GOAL if quick else VARIANTS
    variants = {name: VARIANTS[name] for name in wanted if _known(context, VARIANTS[name])}
    # With --quick, one of the larger batch, and one of the smaller tolerance.
    cases = [(batch, tolerance) for batch in BATCHES for tolerance in TOLERANCES]
    cases = [(BATCHES[0], TOLERANCES[0]), (BATCHES[0], TOLERANCES[2]), (BATCHES[1], TOLERANCES[0])] if quick else cases
    repeats = 1 if quick else context.settings.repeats
    total, done, found = len(cases) * (len(variants) + 1) * repeats, 0, []
    with tempfile.TemporaryDirectory(prefix="sparseflows-benchmark-") as folder:
        weights = Path(folder) / "weights.pt"
        torch.save(context.trained_flow.state_dict(), weights)
        for batch, tolerance in cases:
            taken: dict[str, list[dict[str, Any]]] = {}
            for _ in range(repeats):
                for name, changes in ({PLAIN: ()} | variants).items():
                    taken.setdefault(name, []).append(_probe(context, weights, name, changes, batch, tolerance))
                    done += 1
                    context.tell(done / total)
            found += [_row(batch, tolerance, name, taken[name], taken[PLAIN]) for name in variants]
    return found


def _row(
    batch: int, tolerance: float, name: str, ours: list[dict[str, Any]], peer: list[dict[str, Any]]
) -> Measurement:
    note = f"NFE {ours[0]['nfe']:.0f} against {peer[0]['nfe']:.0f} of the plain adjoint; {len(ours)} process(es) each"
    return Measurement(
        "memory",
        f"{name}, batch {batch:,}, tol {tolerance:g}",
        [one["mib"] for one in ours],
        [one["mib"] for one in peer],
        note,
        unit="MiB",
        ratio=OURS_OVER_PEER,
        goal=Goal("at most", 1.3) if name in WITH_GOAL else None,
        extra={"nfe_ours": ours[0]["nfe"], "nfe_peer": peer[0]["nfe"], "variant": name},
    )


def _known(context: Context, changes: tuple[str, ...]) -> bool:
    try:
        context.nll_spec(*step_changes(TOLERANCES[0], BATCHES[0], 1), *changes)
    except InputError:
        return False
    return True


def _probe(
    context: Context, weights: Path, name: str, changes: tuple[str, ...], batch: int, tolerance: float
) -> dict[str, Any]:
    """One step in a fresh process: its peak and its NFE.

    Raises:
        RuntimeError: it failed.
    """
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": str(context.settings.threads), "PYTHONPATH": str(root)}
    arguments = [str(weights), name, str(batch), repr(tolerance), *changes]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory_probe", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}, batch {batch}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
