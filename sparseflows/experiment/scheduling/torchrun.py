"""`sparseflows run` in several processes that train one flow together: all compute, the first one alone writes.

Every process runs the same experiment. What reads or writes the run folder happens in the first and is told to the
others, errors included, so all take the same way through it.
"""

import os
import sys
from pathlib import Path

from sparseflows.distributed.torchrun import Place, joined
from sparseflows.errors import InputError, Interrupted
from sparseflows.experiment.folder.folder import RunFolder
from sparseflows.experiment.folder.records import Record
from sparseflows.experiment.folder.sequences import stages
from sparseflows.experiment.monitoring.progress import Progress
from sparseflows.experiment.rows import notes_of, prepare
from sparseflows.experiment.scheduling.run import run_experiment
from sparseflows.experiment.stages.context import check_device
from sparseflows.specs import Spec


def run_together(
    place: Place, spec: Spec, out: Path, force: bool, log: tuple[str, ...] = ()
) -> tuple[Path, list[Record]] | None:
    """The whole of `sparseflows run` in one of several processes; the run folder and its records in the first.

    Args:
        place, spec: which process this is, and the experiment.
        out: run folders are made below it; all machines must see it.
        force: start over.
        log: names of loggers, of the first process.

    Raises:
        InputError: the settings cannot be trained by several processes, or their data differ; see also `run`.
        Interrupted: Ctrl-C.
    """
    with joined(place, spec.device) as processes:
        try:
            check_device(processes.device(spec.device))
            if spec.network is not None and spec.network.batch_norm:  # refused before a folder is made
                raise InputError(
                    "network.batch_norm takes the statistics of a whole batch, and several processes share each batch; "
                    "run it without torchrun, or set network.batch_norm: false"
                )
            splits, digest = prepare(spec)
            if processes.first(lambda: digest) != digest:
                raise InputError(f"data.path: process {processes.rank} found other data than process 0")
            path = processes.first(lambda: RunFolder.claim(out, spec, digest, force=force).path)
            folder = RunFolder(path, spec, processes)
            with folder.lock():
                if processes.rank > 0:
                    with open(os.devnull, "w") as nowhere:
                        run_experiment(spec, folder, splits, Progress(stream=nowhere, bars=False))
                    return None
                for note in notes_of(splits):
                    print(f"note: {note}", file=sys.stderr)
                print(f"{spec.name}: {processes.world} processes; results go to {path}", file=sys.stderr)
                return path, run_experiment(spec, folder, splits, Progress(len(stages(spec))), log=log)
        except KeyboardInterrupt:
            same = "the same command without --force" if force else "the same command"
            raise Interrupted(f"interrupted; {same} goes on from the last checkpoint") from None
