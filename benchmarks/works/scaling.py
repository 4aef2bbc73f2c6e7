"""scaling: how a training step by likelihood grows with batch, width, dimension and prune ratio. Ours alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.context import Context
from benchmarks.measure import Measurement
from benchmarks.stepping import blocks_of_steps, step_changes
from sparseflows.flow.build import build_flow
from sparseflows.flow.model import Flow
from sparseflows.pruning.methods import prune, unpruned
from sparseflows.rng import torch_generator
from sparseflows.specs import FlowSpec

BATCHES, WIDTHS, DIMENSIONS, PRUNED = (64, 256, 1024, 4096), (16, 32, 64, 128, 256), (2, 6, 16, 43), (0, 50, 80, 90)
BATCH, TOLERANCE, GAIN = 256, 1e-3, 4.0
EXACT_UP_TO = 8  # dimensions; above, Hutchinson's estimate
BLOCK_QUICK = 2  # steps: eight would take minutes


def run(context: Context) -> list[Measurement]:
    """One row for every size; widths and dimensions on fresh fields of gain 4, which are not trivially smooth."""
    works = [
        *((f"batch {batch}", lambda batch=batch: (context.trained_flow, context.rows, batch)) for batch in BATCHES),
        *((f"width {width}", lambda width=width: (_fresh(2, width), _rows(2), BATCH)) for width in WIDTHS),
        *((f"D {dim}", lambda dim=dim: (_fresh(dim, 64), _rows(dim), BATCH)) for dim in DIMENSIONS),
        *(
            (f"pruned {share} %", lambda share=share: (_pruned(context, share), context.rows, BATCH))
            for share in PRUNED
        ),
    ]
    found = []
    for number, (case, make) in enumerate(works):
        found.append(_measure(context, case, *make()))
        context.tell((number + 1) / len(works))
    return found


def _measure(context: Context, case: str, flow: Flow, rows: Tensor, batch: int) -> Measurement:
    exact = rows.shape[1] <= EXACT_UP_TO
    block = BLOCK_QUICK if context.settings.quick else 8
    changes = step_changes(TOLERANCE, batch, context.settings.repeats, block)
    spec = context.nll_spec(*changes, f"solve.divergence={'exact' if exact else 'hutchinson'}")
    blocks = blocks_of_steps(spec, flow, rows, block=block)
    each = sorted(blocks.seconds)[len(blocks.seconds) // 2] / blocks.nfe
    params = sum(p.numel() for p in flow.parameters())
    how = "exact divergence" if exact else "hutchinson"
    note = f"NFE {blocks.nfe:.0f}, {1e3 * each:.2f} ms an evaluation both ways, {params:,} params, {how}"
    return Measurement("scaling", case, blocks.seconds, note=note, extra={"nfe": blocks.nfe, "params": params})


def _fresh(dim: int, width: int) -> Flow:
    return build_flow(FlowSpec.model_validate({"hidden": [width] * 3, "gain": GAIN}), dim, seed=0)


def _rows(dim: int) -> Tensor:
    """Standardised rows (4096, D) of ten Gaussians."""
    generator = torch_generator(0, f"benchmark/rows/{dim}")
    centres = 3 * torch.randn(10, dim, generator=generator) / math.sqrt(2)
    rows = centres[torch.randint(10, (4096,), generator=generator)] + torch.randn(4096, dim, generator=generator)
    return (rows - rows.mean(0)) / rows.std(0)


def _pruned(context: Context, share: int) -> Flow:
    """The trained flow without that share of its params, by whole neurons."""
    flow = context.trained_flow
    if not share:
        return flow
    params = sum(p.numel() for p in flow.parameters())
    return prune("structured", unpruned(flow), flow, round((1 - share / 100) * params)).flow
