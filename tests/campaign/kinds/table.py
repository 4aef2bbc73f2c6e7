"""All kinds of cases by name, and how often each is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.campaign.kinds import archives, damage, disks, inputs, kills, others_killed
from tests.campaign.verdicts import Found
from tests.campaign.world import World

Case = Callable[[World, Random, Path], Found]


@dataclass(frozen=True)
class Kind:
    """A kind of cases: what one does, its share of all cases, and whether it has to mount a file system."""

    case: Case
    weight: float
    mounts: bool = False


KINDS = {
    "kill": Kind(kills.at_a_moment, 3.0),
    "kill-change": Kind(kills.at_a_change, 3.0),
    "kill-worker": Kind(kills.of_workers, 0.15),
    "kill-sweep": Kind(others_killed.sweep, 0.5),
    "kill-prepare": Kind(others_killed.preparation, 1.5),
    "kill-sample": Kind(others_killed.samples, 2.0),
    "disk-fails": Kind(disks.failing, 2.0),
    "disk-full": Kind(disks.small_disk, 1.0, mounts=True),
    "read-only": Kind(disks.not_to_be_written, 1.0),
    "memory": Kind(disks.memory, 0.5),
    "vanishing": Kind(disks.vanishing, 1.0),
    "clock": Kind(disks.clock, 0.5),
    "together": Kind(disks.together, 1.0),
    "damage-read": Kind(damage.read, 12.0),
    "damage-run": Kind(damage.run_again, 6.0),
    "damage-sweep": Kind(damage.swept, 1.0),
    "param": Kind(inputs.param, 30.0),
    "param-run": Kind(inputs.param_run, 3.0),
    "table-score": Kind(inputs.table_score, 14.0),
    "table-check": Kind(inputs.table_check, 8.0),
    "archive": Kind(archives.archive, 12.0),
    "prepared": Kind(archives.prepared, 2.0),
}
