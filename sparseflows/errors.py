"""Exceptions that end a command, and a lookup that lists the known names."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class SparseFlowsError(Exception):
    """Base of every error that a command turns into one line on standard error."""

    exit_code = 1


class InputError(SparseFlowsError, ValueError):
    """What the caller gave is wrong; the message says what, where, and what would be right."""

    exit_code = 2


class DataWarning(UserWarning):
    """Something about the rows that makes their likelihood mean little."""


class EngineWarning(UserWarning):
    """The compiled engine is not there, so that everything takes longer."""


class RunError(SparseFlowsError, RuntimeError):
    """The input was fine, the work failed."""


class DiskError(RunError):
    """A file could not be written: whatever comes next on that disk would fail as well."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left: Python's own, or PyTorch's, which has none for a CPU."""
    told = ("can't allocate memory", "not enough memory", "out of memory", "can't start new thread")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in told)
    )


def suggest(name: object, known: list[str]) -> str:
    """`"; did you mean 'tanh'?"` where a known name is close to `name`, else an empty string."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """The entry of `table` called `name`.

    Raises:
        InputError: no such name; the message lists the known ones.

    Example:
        >>> lookup("solver", "rk5", {"rk4": 4, "euler": 1})
        Traceback (most recent call last):
        ...
        sparseflows.errors.InputError: unknown solver 'rk5'; did you mean 'rk4'? (known: euler, rk4)
    """
    if name not in table:
        known = sorted(table)
        raise InputError(f"unknown {kind} '{name}'{suggest(name, known)} (known: {', '.join(known)})")
    return table[name]


class Interrupted(SparseFlowsError):
    """Ctrl-C while something was going on that can be taken up again."""

    exit_code = 130


class SaidElsewhere(SparseFlowsError):
    """Ends this process without a word: another one of the same run says why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code
