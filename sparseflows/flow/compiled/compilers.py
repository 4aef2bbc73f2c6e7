"""The C compilers of this machine, and what each is asked for."""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec

Command = tuple[str, ...]  # the words that call a compiler

NAMES = ("cc", "gcc", "clang")
REMEDY = 'pip install "sparseflows[engine]" brings a compiler'
WINDOWS = sys.platform == "win32"
SUFFIX = ".dll" if WINDOWS else ".so"
FLAGS = (
    "-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-pthread",
    *(() if WINDOWS else ("-fPIC",)),
)  # fmt: skip
# The first that a compiler takes: clang on Apple's processors has long known the second only, others know none.
PROCESSOR_FLAGS: tuple[Command, ...] = (("-march=native",), ("-mcpu=native",), ())


def find_compilers() -> list[Command]:
    """$CC, then cc, gcc and clang where they are on the path, then that of the package `ziglang`."""
    named = shlex.split(os.environ.get("CC", ""), posix=not WINDOWS)
    wanted = [tuple(named), *((name,) for name in NAMES)]
    found = [(place, *words[1:]) for words in wanted if words and (place := shutil.which(words[0]))]
    if find_spec("ziglang") is not None:
        found.append((sys.executable, "-m", "ziglang", "cc"))
    return list(dict.fromkeys(found))
