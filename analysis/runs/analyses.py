"""What the analyses of a run have found so far: RUN/analysis/<name>.json, a stage an object."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError

Values = Mapping[str, Any]
Key = tuple[str, int, int]  # method, seed, stage


def read_stages(run: Path, kind: str) -> dict[Key, Values] | None:
    """The stages of RUN/analysis/<kind>.json by method, seed and stage; None where there is no such file.

    Raises:
        InputError: the file is not what `sparseflows <kind>` writes.
    """
    path = run / "analysis" / f"{kind}.json"
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        # A document about several runs says of each stage which one it belongs to.
        stages = [one for one in document["stages"] if "run" not in one or Path(one["run"]).resolve() == run.resolve()]
        return {(str(stage["method"]), int(stage["seed"]), int(stage["stage"])): stage for stage in stages}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a document of 'sparseflows {kind}' ({type(error).__name__}); "
            f"run 'sparseflows {kind} {run}' again"
        ) from error


def number(values: Values | None, key: str) -> float | None:
    """The finite number under `key`; None where there is none."""
    value = (values or {}).get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def section(values: Values | None, key: str) -> Values:
    """The object under `key`; an empty one where there is none."""
    value = (values or {}).get(key)
    return value if isinstance(value, Mapping) else {}


def called(key: Key) -> str:
    """`<method>-s<seed>/<k>`, as `--stage` takes it."""
    return f"{key[0]}-s{key[1]}/{key[2]}"
