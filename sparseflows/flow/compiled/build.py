"""Compile the C engine at first use, and find it again: one shared library a precision, in the user's cache folder.

Where no compiler is found, or SPARSEFLOWS_COMPILED=0 is set, there is no library and everything takes its plain path.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCE = Path(__file__).parent / "solve.c"
PARTS = (
    "solve.c", "adaptive.h", "curvature.h", "second.h", "training.h", "matching.h", "updates.h", "field.h", "product.h",
    "vector.h",
)  # fmt: skip
FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread")
PRECISIONS = {torch.float32: (), torch.float64: ("-DDOUBLE",)}
SWITCH = "SPARSEFLOWS_COMPILED"


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The engine of a precision; None where it cannot be had (`why_not` says why)."""
    return _load(dtype)[0]


def why_not(dtype: torch.dtype = torch.float32) -> str | None:
    """Why there is no engine of that precision here; None where there is one."""
    return _load(dtype)[1]


@functools.cache
def _load(dtype: torch.dtype) -> tuple[ctypes.CDLL | None, str | None]:
    if os.environ.get(SWITCH, "1") == "0":
        return None, f"{SWITCH}=0"
    if dtype not in PRECISIONS:
        return None, f"no engine for {dtype}"
    compiler = find_compiler()
    if compiler is None:
        return None, "no C compiler (cc, gcc or clang) was found"
    try:
        return ctypes.CDLL(str(compile_to(cache_folder(), compiler, PRECISIONS[dtype]))), None
    except subprocess.CalledProcessError as failure:
        first = (failure.stderr or "").strip().splitlines()[:1]
        return None, f"{compiler} failed: {first[0] if first else failure.returncode}"
    except (OSError, subprocess.TimeoutExpired) as failure:
        return None, " ".join(str(failure).split())


def find_compiler() -> str | None:
    """$CC, or the first of cc, gcc, clang on the path."""
    named = os.environ.get("CC")
    return next((found for name in (named, "cc", "gcc", "clang") if name and (found := shutil.which(name))), None)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/sparseflows, or ~/.cache/sparseflows."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sparseflows"


def compile_to(folder: Path, compiler: str, defines: tuple[str, ...]) -> Path:
    """The library in `folder`, compiled unless it is there: its name holds the source, the compiler and the processor.

    It is written beside and renamed, so processes that compile at once do not harm one another. A folder that cannot be
    written to is replaced by a temporary one, gone with the process.

    Raises:
        subprocess.CalledProcessError: the compiler refused.
    """
    digest = hashlib.sha256(b"".join((SOURCE.parent / part).read_bytes() for part in PARTS))
    digest.update(repr((compiler, FLAGS, defines, sys.platform, platform.machine(), _processor())).encode())
    name = f"engine-{digest.hexdigest()[:20]}.so"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / name).exists():
            return folder / name
        beside = tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False)  # noqa: SIM115
    except OSError:
        folder = Path(_private_folder().name)
        beside = tempfile.NamedTemporaryFile(dir=folder, suffix=".so", delete=False)  # noqa: SIM115
    beside.close()
    try:
        command = [compiler, *FLAGS, *defines, str(SOURCE), "-o", beside.name, "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        os.replace(beside.name, folder / name)
    finally:
        Path(beside.name).unlink(missing_ok=True)
    return folder / name


@functools.cache
def _private_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sparseflows-")


def _processor() -> str:
    """What -march=native depends on: the processor's own list of features, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
