"""Processes that `torchrun` has started: found by their environment, joined into a group, ended together."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sparseflows.errors import InputError, RunError, SaidElsewhere, SparseFlowsError

if TYPE_CHECKING:
    from sparseflows.distributed.process_group import ProcessGroup

TIMEOUT = timedelta(minutes=30)  # for a process that lives but does not answer; one that ends is noticed at once
JOIN_TIMEOUT = timedelta(minutes=5)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that were started together.

    Attributes:
        rank, world: which one of how many.
        local_rank, local_world: the same among those on this machine.
        address, port: of the store where they meet.
        agent: the store is kept by torchrun, not by the first process.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    address: str
    port: int
    agent: bool

    @property
    def one_machine(self) -> bool:
        """Whether all of them are on this one."""
        return self.local_world == self.world


def launched() -> Place | None:
    """The place that torchrun's environment variables give; None where WORLD_SIZE is not set, or 1.

    Raises:
        InputError: some of them are missing or make no sense.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    missing = [name for name in NEEDED if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE is set, but {', '.join(missing)} is not; start several processes with torchrun, "
            "or unset WORLD_SIZE for one"
        )
    try:
        rank, world, local_rank, port = (int(os.environ[name]) for name in NEEDED)
        local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    except ValueError as error:
        raise InputError(f"RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT are whole numbers ({error})") from None
    if not 0 <= rank < world:
        raise InputError(f"RANK is {rank}, WORLD_SIZE {world}; ranks count from 0")
    address = os.environ.get("MASTER_ADDR", "127.0.0.1")
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Place(rank, world, local_rank, local_world, address, port, agent)


@contextlib.contextmanager
def said_once(place: Place | None) -> Iterator[None]:
    """Errors that every process meets alike, before they have joined: one of each machine says them."""
    try:
        yield
    except SparseFlowsError as error:
        if place is not None and place.local_rank != 0:
            raise SaidElsewhere(error.exit_code) from None
        raise


@contextlib.contextmanager
def joined(place: Place, device: str) -> Iterator[ProcessGroup]:
    """The group of all processes, until the block ends. Where it ends with an error, one process says it.

    Processes on one machine talk over the loopback interface alone.

    Args:
        place: what `launched` gave.
        device: of the param file.

    Raises:
        InputError: fewer GPUs than processes.
        RunError: the others did not come.
    """
    import torch
    import torch.distributed as dist

    from sparseflows.distributed.process_group import ProcessGroup

    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with(os.getppid())
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()  # where there is none, `run` says so
    if on_gpu and place.local_rank >= torch.cuda.device_count():
        raise InputError(
            f"device: {device}: {place.local_world} processes, but {torch.cuda.device_count()} GPUs on this machine; "
            "start as many processes as there are GPUs"
        )
    if on_gpu:
        torch.cuda.set_device(place.local_rank)
    if place.one_machine:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, loopback)
    try:
        store = _store(place)
        # Objects travel by gloo, also between GPUs.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=dist.PrefixStore(f"sparseflows/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store),
            rank=place.rank,
            world_size=place.world,
            timeout=TIMEOUT,
        )
    except (RuntimeError, OSError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise RunError(f"the {place.world} processes did not meet at {place.address}:{place.port} ({first})") from None
    try:
        yield ProcessGroup(place.rank, place.world, place.local_rank)
        dist.barrier()  # the store may live in the first process
    except SparseFlowsError as error:
        if not _first_to_say(store, place):
            raise SaidElsewhere(error.exit_code) from None
        raise
    finally:
        # After an error it tells the others by closing the connections; nccl might wait for them instead.
        if not on_gpu or sys.exc_info()[0] is None:
            dist.destroy_process_group()


def _store(place: Place) -> Any:
    """The store where the processes meet: torchrun's, or one that the first process keeps."""
    import torch.distributed as dist

    keeps = place.rank == 0 and not place.agent
    own: dict[str, Any] = {}
    if keeps and (place.one_machine or place.address in LOOPBACK):  # PyTorch itself would listen on every interface
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", place.port))
        listening.listen()
        own = {"master_listen_fd": listening.detach()}
    address = "127.0.0.1" if place.one_machine else place.address
    return dist.TCPStore(address, place.port, place.world, keeps, timeout=JOIN_TIMEOUT, **own)


def _first_to_say(store: Any, place: Place) -> bool:
    """Whether no process has said yet why all end."""
    with contextlib.suppress(RuntimeError):  # where the store is gone, so is who kept it
        number = int(store.add("sparseflows/said", 1))
        if place.rank == 0 and not place.agent:  # the store ends with this process: let the others look
            last = time.monotonic() + 2
            while int(store.add("sparseflows/said", 0)) < place.world and time.monotonic() < last:
                time.sleep(0.05)
        return number == 1
    return True


@functools.cache  # one thread a process
def end_with(parent: int) -> None:
    """End this process when its parent is gone: a killed `run` or launcher must not leave trainings behind."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=look, daemon=True).start()
