"""The rows of an experiment: read once, known by a digest, the same in every process."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.data.benchmarks.prepared import manifest_digest, verify
from sparseflows.data.images.idx import digest_of
from sparseflows.data.images.labelled import IDX
from sparseflows.data.splits import Splits, fingerprint, prepared_folder, with_labels
from sparseflows.data.tables.mapped import Rows
from sparseflows.errors import InputError
from sparseflows.experiment.plan import check_keep_ratios
from sparseflows.experiment.splitting import splits_of
from sparseflows.specs import DataSpec, Spec


def prepare(spec: Spec) -> tuple[dict[int, Splits], str | None]:
    """Seed → the rows of an experiment, and the digest of the files they come from where there are any.

    Seeds share one object unless `data.split_by_seed` is set.

    Raises:
        InputError: the data are missing or not fit to be trained on, or a keep ratio would empty a layer.
    """
    data = spec.data
    made: dict[int, Splits] = {}
    for seed in spec.seeds:
        own = data.seed_for(seed)
        if own not in made:
            made[own] = splits_of(data, data.path, own)
    any_rows = next(iter(made.values()))
    check_keep_ratios(spec, any_rows.train.shape[1], any_rows.classes)
    return {seed: made[data.seed_for(seed)] for seed in spec.seeds}, _known_by(digest(data), any_rows)


def read_otherwise(stored: str | None, found: str | None) -> str:
    """What to say where a run's file is the same, but another version of the program read it otherwise; else nothing.

    Args:
        stored: what its data were known by when the run began.
        found: what they are known by now.
    """
    before, now = (str(digest).partition(" ") for digest in (stored, found))
    if stored is None or before[0] != now[0] or before == now:
        return ""
    how = " and ".join(filter(None, (before[2].strip("()"), now[2].strip("()")))) or "nothing"
    return f"the version that began this run read it otherwise ({how})"


def _known_by(file_digest: str | None, splits: Splits) -> str | None:
    """The digest of a file and what was decided in reading it; the digest alone where nothing was."""
    return file_digest if not splits.decided else f"{file_digest} ({', '.join(splits.decided)})"


def notes_of(splits: Mapping[int, Splits]) -> list[str]:
    """What the user should know about the rows, each note once."""
    return list(dict.fromkeys(note for one in splits.values() for note in (*one.warnings, *one.notes)))


def digest(data: DataSpec, here: Path = Path(), *, verified: bool = False) -> str | None:
    """What the files of the data are known by; None for sets without files.

    Args:
        data: the section of the settings.
        here: the folder that a relative path starts from.
        verified: a prepared set is known by its manifest; unless its files were verified before, every one of them
            is read and compared with that.

    Raises:
        InputError: a file is missing, cannot be read, or is not the one that was prepared.
    """
    if data.name in BENCHMARKS:
        folder = here / prepared_folder(data.name, data.path)
        if not verified:
            verify(folder)
        return manifest_digest(folder)
    if data.path is None:
        return None
    return digest_of(here / data.path) if data.name == IDX else fingerprint(here / data.path)


def load_splits(spec: Spec, seed: int, here: Path, data_digest: str | None) -> Splits:
    """The rows that `seed` of an experiment trains on, read once a process.

    Args:
        spec: the experiment.
        seed: one of its seeds.
        here: the folder that a relative path of the settings starts from.
        data_digest: what the files were known by when the run began.

    Raises:
        InputError: the files are not there, or not the ones that the run began with.
    """
    data = spec.data.model_copy(update={"seed": spec.data.seed_for(seed)})
    return _load(data.model_dump_json(), here, data_digest)


@functools.lru_cache(maxsize=2)
def _load(document: str, here: Path, data_digest: str | None) -> Splits:
    data = DataSpec.model_validate_json(document)
    path = str(here / prepared_folder(data.name, data.path)) if data.name in BENCHMARKS else None
    if data.path is not None:
        path = str(here / data.path)
    found, known = None, digest(data, here, verified=True)
    if data_digest is not None and known == data_digest.partition(" ")[0]:
        found = splits_of(data, path, data.seed)
        known = _known_by(known, found)
    if known != data_digest:
        otherwise = read_otherwise(data_digest, known)
        why = otherwise or "not the data that this run began with"
        raise InputError(f"{path}: {why}; start the run anew with the same command")
    return found or splits_of(data, path, data.seed)


def describe(splits: Mapping[int, Splits]) -> dict[str, Any]:
    """What data.json says: the statistics of the rows, and of each seed's where they differ."""
    first = next(iter(splits.values()))
    shared = all(one is first for one in splits.values())
    own = {str(seed): one.standardiser.to_dict() for seed, one in splits.items()}
    return (
        {
            "name": first.name,
            "dim": first.train.shape[1],
            **first.standardiser.to_dict(),
            "warnings": first.warnings,
            "sample": first.sample,
            "notes": first.notes,
        }
        | ({} if shared else {"seeds": own})
        | ({} if first.columns is None else {"columns": first.columns})
    )


def training_rows(spec: Spec, splits: Splits) -> Rows:
    """What batches are drawn from: a classifier's rows carry their label as a last column."""
    return with_labels(splits) if spec.train.objective == "cross_entropy" else splits.train
