"""Worker processes of this machine, forked from one that has imported everything once.

A process that forks workers must not have computed yet, since threads do not survive a fork; Python's fork server is
such a one. It imports what workers need while the run itself reads its settings and rows, and each worker, one that
takes the place of a lost one too, is there at once. No CUDA device has been touched in it, so workers may use them.
Where there is no such server that PyTorch can be trusted with (macOS, Windows), workers start each by itself.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import Any

from sparseflows.experiment.scheduling.sharing import read_shared, write_shared

PRELOADED = ["sparseflows.experiment.scheduling.tasks"]
FORKED = sys.platform == "linux"


def warm_up() -> None:
    """Let the fork server begin to import, beside whatever this process does."""
    if FORKED:
        from multiprocessing import forkserver

        _context()
        with _no_main():
            forkserver.ensure_running()


def side_by_side(function: Callable[..., Any], items: Sequence[Any], jobs: int) -> list[Any]:
    """`function` of every item, in `jobs` processes; the results in the order of the items.

    Arrays in the items are in memory that all workers share, copied where it is written to. Workers end with this call,
    however it ends, and with this process.

    Raises:
        concurrent.futures.process.BrokenProcessPool: a worker was killed.
        Exception: what `function` raised first; the others are ended.
    """
    before = set(multiprocessing.active_children())
    with tempfile.TemporaryDirectory(prefix="sparseflows-") as folder:
        write_shared(items, Path(folder))
        executor = ProcessPoolExecutor(min(jobs, len(items)), _context(), _begin, (folder, dict(os.environ)))
        try:
            with _no_main():
                futures = [executor.submit(_call, function, number) for number in range(len(items))]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            for worker in set(multiprocessing.active_children()) - before:
                worker.kill()
            raise
        finally:
            executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Within, processes may be started, and do not begin by running the program that starts them.

    `multiprocessing` runs it again to find functions that are defined in it; ours are not, and a script that calls
    `run` without asking `if __name__ == "__main__"` would start a run in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _context() -> BaseContext:
    if not FORKED:
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    return found


_items: list[Any] = []  # of a worker


def _begin(folder: str, environment: dict[str, str]) -> None:
    """A worker begins: with the environment of the run, not of the fork server, which may be older."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once, without a traceback
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _items[:] = read_shared(Path(folder))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # a killed run must not leave trainings behind


def _call(function: Callable[..., Any], number: int) -> Any:
    try:
        return function(_items[number])
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # it would be lost on its way, and the worker with it
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
