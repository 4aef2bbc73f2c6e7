"""Two processes that train one flow together on the same device: by nccl on a GPU, by gloo on the CPU."""

from __future__ import annotations

import datetime
import multiprocessing
from typing import Any

from support.pairs import free_port

STEPS, BATCH = 10, 32
PATIENCE = 180.0  # seconds


class Refused(Exception):
    """The processes cannot share the device; the message is the library's own sentence."""


def trained(device: str, processes: Any = None) -> list[list[float]]:
    """The parameters after a short flow matching, by `processes` (None: this one alone); each as a list."""
    import torch
    from support.truths import normal

    from sparseflows.distributed.processes import ALONE
    from sparseflows.flow.build import build_flow
    from sparseflows.flow.solvers.ode import Solver
    from sparseflows.specs import FlowSpec, TrainSpec
    from sparseflows.training.loop import train
    from sparseflows.training.objectives import NegativeLogLikelihood

    flow = build_flow(FlowSpec(hidden=[8, 8], activation="tanh", time="concat"), 2, seed=0).double().to(device)
    objective = NegativeLogLikelihood(Solver("rk4", steps=4, norm="batch"), processes=processes or ALONE)
    settings = TrainSpec.model_validate({"objective": "nll", "steps": STEPS, "batch": BATCH, "lr": 0.01})
    train(flow, objective, normal(2 * BATCH, 2).to(device), settings, seed=0, purpose="card")
    assert torch.isfinite(next(flow.parameters())).all()
    return [parameter.detach().cpu().flatten().tolist() for parameter in flow.parameters()]


def trained_by_two(device: str) -> list[list[list[float]]]:
    """The same by two processes on `device`; what each ends with.

    Raises:
        Refused: nccl does not let them share it.
        AssertionError: something else went wrong, or nothing is heard of them.
    """
    context, port = multiprocessing.get_context("spawn"), free_port()
    pipes = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=_work, args=(there, rank, port, device), daemon=True)
        for rank, (_, there) in enumerate(pipes)
    ]
    try:
        for process in processes:
            process.start()
        found = []
        for here, _ in pipes:
            assert here.poll(PATIENCE), "a process does not answer"
            found.append(here.recv())
    finally:
        for process in processes:
            process.kill()
            process.join()
    refusal = next((one for one in found if isinstance(one, str)), None)
    if refusal is not None and device != "cpu" and "nccl" in refusal.lower():
        raise Refused(refusal)
    assert refusal is None, refusal
    return found


def _work(pipe: Any, rank: int, port: int, device: str) -> None:
    import torch
    import torch.distributed as dist

    from sparseflows.distributed.process_group import ProcessGroup

    torch.set_num_threads(1)
    try:
        if device != "cpu":
            torch.cuda.set_device(device)
        dist.init_process_group(
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=2,
            timeout=datetime.timedelta(seconds=60),
        )
        pipe.send(trained(device, ProcessGroup(rank, 2, 0)))
        pipe.recv()  # until this process is ended: the other may still be at it
    except Exception as error:
        pipe.send(_sentence(error))


def _sentence(error: BaseException) -> str:
    """What an error comes to: of several causes and lines, that which names the duplicate, or else the first."""
    texts, one = [], error
    while one is not None:
        texts += [line.strip() for line in str(one).splitlines() if line.strip()]
        one = one.__cause__
    chosen = next((line for line in texts if "duplicate" in line.lower()), texts[0] if texts else "")
    kind = "nccl" if any("nccl" in line.lower() for line in texts) else type(error).__name__
    return f"{kind}: {chosen[:300]}"
