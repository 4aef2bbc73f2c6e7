"""Training steps of flow matching in the C engine: many in one call, on batches and draws that are made already."""

import ctypes
from collections.abc import Sequence

from torch import Tensor

from sparseflows.flow.compiled.engine import NO_MEMORY, TILE, engine_of, require_memory
from sparseflows.flow.compiled.structures import BlockStructure, CourseStructure, Update, UpdateStructure
from sparseflows.flow.fields import MLPField


def take_steps(
    field: MLPField,
    gradients: Sequence[Tensor | None],
    draws: Sequence[tuple[Tensor, Tensor, Tensor]],
    rates: Sequence[float],
    update: Update,
) -> list[float]:
    """One step of `update` for each of `draws`, and the losses; one that is not finite is the last, without its step.

    A step's numbers do not depend on which steps are taken in the same call.

    Args:
        field: that `engine.takes`, its trained tensors views of `update.weights`.
        gradients: those of `field.tensors()`, views of `update.gradient`; None for tensors that are not trained.
        draws: data (B, D), whitened where the flow does so, noise (B, D) and times (B, 1), for each step.
        rates: learning rates.
        update: changed in place.
    """
    block, course = BlockStructure.of(field, into=gradients), CourseStructure.of(draws, rates)
    handed = UpdateStructure.of(update)
    status = engine_of(update.weights.dtype).take_steps(
        ctypes.byref(block), ctypes.byref(course), ctypes.byref(handed), 4 * TILE
    )
    update.steps, update.averaged = update.steps + course.taken, int(handed.averaged)
    require_memory(status == NO_MEMORY)
    return [float(loss) for loss in course.losses[: course.taken + (status != 0)]]
