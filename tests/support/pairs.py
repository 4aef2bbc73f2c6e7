"""Two processes that have joined over 127.0.0.1, and do what they are given at once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun would set, where the first process keeps the store."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


class Pair:
    """Functions of a module run in both processes; their first argument is the process group."""

    def __init__(self) -> None:
        context, port = multiprocessing.get_context("spawn"), free_port()
        self._ends, self.processes = [], []
        for rank in range(2):
            here, there = context.Pipe()
            self._ends.append(here)
            self.processes.append(context.Process(target=_serve, args=(there, rank, port), daemon=True))
            self.processes[-1].start()

    def begin(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Set both to work."""
        for end in self._ends:
            end.send((function, arguments))

    def results(self, seconds: float = 60) -> list[Any]:
        """What both gave; an exception is given back, not raised."""
        for end in self._ends:
            assert end.poll(seconds), "a process does not answer"
        return [end.recv() for end in self._ends]

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """`function(group, *arguments)` of both, or AssertionError with the traceback of the one that failed."""
        self.begin(function, *arguments)
        found = self.results()
        for one in found:
            assert not isinstance(one, Failed), one.text
        return found

    def close(self) -> None:
        """End both."""
        for end in self._ends:
            end.send(None)
        for process in self.processes:
            process.join(10)
            process.kill()


class Failed:
    """An exception, as text."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text


def _serve(pipe: Any, rank: int, port: int) -> None:
    import torch

    from sparseflows.distributed.torchrun import joined, launched

    torch.set_num_threads(1)
    os.environ.update(launch_environment(rank, 2, port))
    place = launched()
    assert place is not None
    with joined(place, "cpu") as group:
        while (task := pipe.recv()) is not None:
            function, arguments = task
            try:
                result = function(group, *arguments)
            except Exception as error:
                result = Failed(type(error).__name__, traceback.format_exc())
            pipe.send(result)
