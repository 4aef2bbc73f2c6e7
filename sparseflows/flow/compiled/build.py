"""Compile the C engine at first use, and find it again: one shared library a precision, in the user's cache folder.

Where nothing compiles it, or SPARSEFLOWS_COMPILED=0 is set, there is no library and everything takes its plain path.
"""

import ctypes
import functools
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import torch

from sparseflows.errors import EngineWarning
from sparseflows.flow.compiled.compilers import (
    FLAGS,
    NAMES,
    PROCESSOR_FLAGS,
    REMEDY,
    SUFFIX,
    Command,
    find_compilers,
)
from sparseflows.flow.compiled.layout import LayoutError, check_layout

SOURCE = Path(__file__).parent / "solve.c"
PARTS = (
    "solve.c", "adaptive.h", "curvature.h", "second.h", "training.h", "matching.h", "updates.h", "field.h", "layout.h",
    "product.h", "vector.h",
)  # fmt: skip
PRECISIONS = {torch.float32: (), torch.float64: ("-DDOUBLE",)}
SWITCH = "SPARSEFLOWS_COMPILED"
COMPILE_WITHIN = 120  # seconds
PLAIN_PATH = "small flows take the plain path, which is slower; the numbers agree to the tolerance"
_said = threading.Event()  # that there is no engine: once is enough


@functools.cache
def library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The engine of a precision; None where it cannot be had (`why_not` says why, and one warning a process)."""
    found, reason = _load(dtype)
    if reason is not None and dtype in PRECISIONS and not switched_off():
        _warn(reason)
    return found


def why_not(dtype: torch.dtype = torch.float32) -> str | None:
    """Why there is no engine of that precision here; None where there is one."""
    return _load(dtype)[1]


def switched_off() -> bool:
    """Whether the user wants no engine: SPARSEFLOWS_COMPILED=0."""
    return os.environ.get(SWITCH, "1") == "0"


def say_no_more() -> None:
    """From here on this process does not warn of a missing engine: somebody has said it."""
    _said.set()


def _warn(reason: str) -> None:
    if not _said.is_set():
        _said.set()
        warnings.warn(f"{reason}: {PLAIN_PATH}", EngineWarning, stacklevel=3)


@functools.cache
def _load(dtype: torch.dtype) -> tuple[ctypes.CDLL | None, str | None]:
    if switched_off():
        return None, f"{SWITCH}=0"
    if dtype not in PRECISIONS:
        return None, f"no engine for {dtype}"
    compilers = find_compilers()
    if not compilers:
        return None, f"no C compiler was found ({', '.join(NAMES)}); {REMEDY}"
    reasons = []
    for compiler in compilers:
        try:
            found = ctypes.CDLL(str(compile_to(cache_folder(), compiler, PRECISIONS[dtype])))
            check_layout(found, dtype.itemsize)
        except subprocess.CalledProcessError as failure:
            first = (failure.stderr or "").strip().splitlines()[:1]
            reasons.append(f"{shown(compiler)} failed: {first[0] if first else failure.returncode}")
        except (OSError, subprocess.TimeoutExpired, LayoutError) as failure:
            reasons.append(" ".join(str(failure).split()))
        else:
            return found, None
    return None, reasons[0]


def shown(compiler: Command) -> str:
    """A compiler as its user would call it."""
    return " ".join(compiler)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/sparseflows, or ~/.cache/sparseflows."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sparseflows"


def compile_to(folder: Path, compiler: Command, defines: tuple[str, ...]) -> Path:
    """The library in `folder`, compiled unless it is there: its name holds the source, the compiler and the processor.

    It is written beside and renamed, so processes that compile at once do not harm one another. A folder that cannot be
    written to is replaced by a temporary one, gone with the process.

    Raises:
        subprocess.CalledProcessError: the compiler refused, with each of the flags for this processor.
    """
    digest = hashlib.sha256(b"".join((SOURCE.parent / part).read_bytes() for part in PARTS))
    flags = (FLAGS, PROCESSOR_FLAGS, defines)
    digest.update(repr((compiler, flags, sys.platform, platform.machine(), _processor())).encode())
    name = f"engine-{digest.hexdigest()[:20]}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / name).exists():
            return folder / name
        beside = tempfile.TemporaryDirectory(dir=folder, prefix="building-")
    except OSError:
        folder = Path(_private_folder().name)
        beside = tempfile.TemporaryDirectory(dir=folder, prefix="building-")
    with beside:
        made = Path(beside.name) / name
        _compile(compiler, defines, made)
        try:
            os.replace(made, folder / name)
        except PermissionError:  # Windows: another process was first, and has it loaded
            if not (folder / name).exists():
                raise
    return folder / name


def _compile(compiler: Command, defines: tuple[str, ...], to: Path) -> None:
    # zig keeps what it makes on the way (libc's headers as objects): beside, to be gone with the rest.
    kept = {name: str(to.parent / "zig") for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
    refused: subprocess.CalledProcessError | None = None
    for for_processor in PROCESSOR_FLAGS:
        command = [*compiler, *FLAGS, *for_processor, *defines, str(SOURCE), "-o", str(to), "-lm"]
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=COMPILE_WITHIN, env=os.environ | kept
            )
            return
        except subprocess.CalledProcessError as failure:
            refused = refused or failure
    assert refused is not None
    raise refused


@functools.cache
def _private_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="sparseflows-", ignore_cleanup_errors=True)


def _processor() -> str:
    """What -march=native depends on: the processor's own list of features, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
