"""Who carries the tasks of a run out: this process, processes of this machine, or by joblib a Dask or Ray cluster."""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

from sparseflows.errors import InputError
from sparseflows.experiment.scheduling import pool

CONNECT_WITHIN = 10.0  # seconds
DASK_REMEDY = "give what `dask scheduler` prints, as tcp://HOST:8786"
LOOPBACK = ("127.", "localhost")

Errors = tuple[type[BaseException], ...]


class Workers:
    """Those who carry tasks out, as `dispatch.run_tasks` needs to know them.

    Attributes:
        share_memory: they are of this machine, so large arrays need not be read again.
    """

    share_memory: ClassVar[bool] = False

    def warm_up(self) -> None:
        """There will be work soon: they may get ready for it."""

    def connected(self) -> contextlib.AbstractContextManager[Errors]:
        """Within, `each` may be called; gives the errors that say that one of them was lost.

        Raises:
            InputError: they cannot be reached, or what they need is not installed.
        """
        raise NotImplementedError

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`function` of every item, by the workers; the results in the order of the items."""
        from joblib import Parallel, delayed

        return list(Parallel()(delayed(function)(item) for item in items))


@dataclass(frozen=True)
class LocalWorkers(Workers):
    """Processes of this machine; with one job, this process itself."""

    jobs: int = 1
    share_memory: ClassVar[bool] = True

    def warm_up(self) -> None:
        """What the processes are forked from begins to import."""
        if self.jobs > 1:
            pool.warm_up()

    @contextlib.contextmanager
    def connected(self) -> Iterator[Errors]:
        """Nobody need be reached."""
        yield (BrokenProcessPool,)

    def each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """`function` of every item, by processes that Ctrl-C ends, all of them."""
        return pool.side_by_side(function, items, self.jobs)


HERE = LocalWorkers()


@dataclass(frozen=True)
class DaskWorkers(Workers):
    """The workers of a Dask cluster that is there already.

    Attributes:
        address: of its scheduler, as tcp://host:8786.
        gpus: share of a worker's resource "GPU" that a task takes.
    """

    address: str | None
    gpus: float | None = None

    @contextlib.contextmanager
    def connected(self) -> Iterator[Errors]:
        """A client of the scheduler."""
        if self.address is None:
            raise InputError("--backend dask: give the scheduler's address: --address tcp://HOST:8786")
        _require("distributed", "dask")
        _knock("Dask scheduler", self.address, DASK_REMEDY)
        import distributed
        from joblib import parallel_config

        _ask_dask(distributed, self.address)
        client = distributed.Client(self.address, timeout=CONNECT_WITHIN, set_as_default=False)
        with client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            if not workers:
                raise InputError(f"--address {self.address}: the scheduler has no worker; start some: dask worker …")
            if self.gpus and not any(one["resources"].get("GPU", 0) >= self.gpus for one in workers.values()):
                raise InputError(
                    f"--gpus-per-task {self.gpus:g}: no worker has that much of the resource GPU; start them with "
                    "--resources GPU=1"
                )
            options: dict[str, Any] = {"resources": {"GPU": self.gpus}} if self.gpus else {}
            with parallel_config("dask", n_jobs=-1, client=client, pure=False, **options):
                yield (distributed.scheduler.KilledWorker, distributed.client.FutureCancelledError)


@dataclass(frozen=True)
class RayWorkers(Workers):
    """The processors of a Ray cluster that is there already.

    Attributes:
        address: host:port of its head, or `auto`: the one that runs on this machine.
        gpus: share of a GPU that a task takes.
    """

    address: str | None = None
    gpus: float | None = None

    @contextlib.contextmanager
    def connected(self) -> Iterator[Errors]:
        """A driver of the cluster."""
        _require("ray", "ray")
        address = self.address or "auto"
        if address != "auto":
            _knock("Ray cluster", address, "give the HOST:PORT that `ray start --head` prints, or auto")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address.startswith(LOOPBACK):
            # Ray's name for: listen on the loopback interface only. Read when it is imported.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        import ray
        from joblib import parallel_config
        from ray.util.joblib import register_ray

        with contextlib.redirect_stdout(sys.stderr):  # what Ray tells of lost workers is no result
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            except (ConnectionError, ValueError, RuntimeError, TypeError) as error:
                raise InputError(
                    f"--address {address}: no Ray cluster answers there ({_first_line(error)}); start one with "
                    "`ray start --head`, or give its host:port"
                ) from None
            try:
                register_ray()
                resources: dict[str, Any] = {"num_cpus": 1}
                slots = int(ray.cluster_resources().get("CPU", 0))
                if self.gpus:
                    there = ray.cluster_resources().get("GPU", 0.0)
                    slots = min(slots, int(there / self.gpus))
                    resources["num_gpus"] = self.gpus
                if slots < 1:
                    raise InputError(f"--gpus-per-task {self.gpus or 0:g}: the Ray cluster has no room for such a task")
                with parallel_config("ray", n_jobs=slots, ray_remote_args=resources):
                    yield (
                        ray.exceptions.RayActorError,
                        ray.exceptions.WorkerCrashedError,
                        ray.exceptions.NodeDiedError,
                    )
            finally:
                ray.shutdown()


def _require(module: str, backend: str) -> None:
    if find_spec(module) is None:
        raise InputError(f"--backend {backend}: {module} is not installed: pip install 'sparseflows[{backend}]'")


def _knock(kind: str, address: str, remedy: str) -> None:
    """Whether anything listens there: both libraries would try for half a minute first."""
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("", "tcp", "tls", "ray"):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_WITHIN).close()
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
        raise InputError(f"--address {address}: no {kind} answers there ({reason}); {remedy}") from None


def _ask_dask(distributed: Any, address: str) -> None:
    """Ask the scheduler who it is: a client that finds none would go on trying, and complain while it ends."""
    import asyncio

    async def ask() -> None:
        async with distributed.rpc(address, timeout=CONNECT_WITHIN) as scheduler:
            found = await scheduler.identity()
            if found.get("type") != "Scheduler":
                raise ValueError(f"a {found.get('type')} does")

    try:
        asyncio.run(asyncio.wait_for(ask(), CONNECT_WITHIN))
    except (OSError, ValueError, TypeError, AttributeError, TimeoutError) as error:
        raise InputError(
            f"--address {address}: no Dask scheduler answers there ({_first_line(error)}); {DASK_REMEDY}"
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
