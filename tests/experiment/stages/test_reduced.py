"""Narrower dense networks: of all that one factor gives, the one whose params are nearest to the target."""

from __future__ import annotations

import pytest

from sparseflows.experiment.networks import untrained
from sparseflows.experiment.stages.reduced import narrowed
from sparseflows.specs import Spec

CLASSIFIER = {"objective": "cross_entropy", "steps": 1}
FLOW = {"objective": "nll", "steps": 1}
CASES = {
    "equal layers": ({"flow": {"hidden": [8, 8]}, "train": FLOW}, 2, None),
    "one layer": ({"flow": {"hidden": [13], "time": "concat_squash"}, "train": FLOW}, 2, None),
    "other layers": ({"flow": {"hidden": [12, 8], "time": "concat", "blocks": 2}, "train": FLOW}, 3, None),
    "a dense classifier": (
        {"network": {"kind": "dense", "hidden": [10, 6], "batch_norm": True}, "train": CLASSIFIER},
        5,
        3,
    ),
    "a conv classifier": (
        {"network": {"kind": "conv", "channels": [4, 8], "hidden": [6]}, "train": CLASSIFIER},
        64,
        10,
    ),
}


def spec_of(sections):
    return Spec.model_validate({"name": "x", "data": {"name": "moons"}, **sections})


def widths_of(spec):
    return spec.flow.hidden if spec.network is None else [*spec.network.channels, *spec.network.hidden]


def params_of(spec, dim, classes):
    """Counted off the network itself."""
    return sum(p.numel() for p in untrained(spec, dim, classes, 0).parameters())


def with_widths(spec, widths):
    if spec.network is None:
        return spec.model_copy(update={"flow": spec.flow.model_copy(update={"hidden": widths})})
    cut = len(spec.network.channels)
    changes = {"channels": widths[:cut], "hidden": widths[cut:]}
    return spec.model_copy(update={"network": spec.network.model_copy(update=changes)})


def all_narrower(spec):
    """Every list of widths that some factor in (0, 1] gives, by trying many."""
    found = {tuple(max(1, round(n / 5000 * width)) for width in widths_of(spec)) for n in range(1, 5001)}
    return [with_widths(spec, list(widths)) for widths in sorted(found)]


@pytest.mark.parametrize("case", CASES)
def test_the_nearest_that_one_factor_gives(case):
    sections, dim, classes = CASES[case]
    spec = spec_of(sections)
    dense = params_of(spec, dim, classes)
    known = [params_of(one, dim, classes) for one in all_narrower(spec)]
    for share in (0.9, 0.75, 0.5, 0.35, 0.2, 0.1, 0.05, 0.001):
        target = round(share * dense)
        found = narrowed(spec, dim, classes, target)
        nearest = min(abs(params - target) for params in known)
        assert abs(params_of(found, dim, classes) - target) == nearest, (share, widths_of(found))


@pytest.mark.parametrize("case", CASES)
def test_nothing_but_the_widths_changes(case):
    sections, dim, classes = CASES[case]
    spec = spec_of(sections)
    before = spec.model_dump()
    found = narrowed(spec, dim, classes, params_of(spec, dim, classes) // 3)
    assert spec.model_dump() == before
    assert len(widths_of(found)) == len(widths_of(spec))
    assert all(1 <= n < whole for n, whole in zip(widths_of(found), widths_of(spec), strict=True))
    assert with_widths(found, widths_of(spec)) == spec


@pytest.mark.parametrize("case", CASES)
def test_its_own_size_is_left_alone_and_none_vanishes(case):
    sections, dim, classes = CASES[case]
    spec = spec_of(sections)
    assert narrowed(spec, dim, classes, params_of(spec, dim, classes)) == spec
    assert widths_of(narrowed(spec, dim, classes, 0)) == [1] * len(widths_of(spec))
