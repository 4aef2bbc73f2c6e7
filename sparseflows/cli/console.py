"""What both command lines share: one line for an error, and the exit status."""

import contextlib
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from sparseflows.errors import EngineWarning, Interrupted, SaidElsewhere, SparseFlowsError, is_out_of_memory

INTERRUPTED = Interrupted.exit_code


def run_app(app: Any, prog: str, args: list[str] | None = None) -> int:
    """Run a Typer application and return its exit status: 0 done, 1 failed, 2 wrong input, 130 interrupted.

    Errors are one line on standard error. Help and results go to standard output.
    """
    try:
        with no_interrupt_lost(), _warnings_as_lines():
            return _run(app, prog, args)
    except KeyboardInterrupt:
        return _say(prog, "interrupted", INTERRUPTED)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Within, a missing engine is a note of one line, and NumPy says nothing of its own of numbers that are none.

    What such numbers come to is said in a line of ours.
    """
    with warnings.catch_warnings():
        what = r"(invalid value|overflow|underflow|divide by zero) encountered"
        warnings.filterwarnings("ignore", what, RuntimeWarning)
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, EngineWarning):
                print(f"note: {message}", file=sys.stderr)
            else:
                before(message, category, *where, **more)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def no_interrupt_lost() -> Iterator[None]:
    """Within, Ctrl-C that comes while Python is in a callback, whose exceptions it drops, is raised a moment later."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _run(app: Any, prog: str, args: list[str] | None) -> int:
    try:
        status = app(args=args, prog_name=prog, standalone_mode=False)
        sys.stdout.flush()  # a full disk is told now, not while Python ends
        if status == INTERRUPTED:  # Typer's own way to pass Ctrl-C on: without a word
            return _say(prog, "interrupted", INTERRUPTED)
        return int(status) if isinstance(status, int) else 0
    except SaidElsewhere as error:
        return error.exit_code
    except SparseFlowsError as error:
        return _say(prog, str(error), error.exit_code)
    except BrokenPipeError:  # the reader of our output has left, as in `… | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # a disk that fails is no bug: a traceback would explain nothing
        _drop_unwritten()
        return _say(prog, f"{error.filename or 'standard output'}: {error.strerror or error}", 1)
    except Exception as error:
        # Typer's own errors (a missing argument, an unknown option) know their message and status.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            message = str(error.format_message())
            if message.startswith("Usage:"):  # called without a command: that is a request for help
                print(message)
                return 0
            return _say(prog, f"{message} (see '{prog} --help')", int(error.exit_code))
        if is_out_of_memory(error):
            return _say(prog, f"out of memory ({_short(error)}); give it fewer rows, or a smaller network", 1)
        raise


def print_result(result: Any) -> None:
    """Text as it is, anything else as one JSON document, on standard output."""
    print(result if isinstance(result, str) else json.dumps(result, indent=1, allow_nan=False))


def _drop_unwritten() -> None:
    """What standard output does not take is forgotten: Python would try once more while it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__


def _say(prog: str, message: str, status: int) -> int:
    print(f"{prog}: {' '.join(message.split())}", file=sys.stderr)
    return status
