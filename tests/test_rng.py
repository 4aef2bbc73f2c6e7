"""Generators by seed and purpose: fixed for ever, and apart from one another."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from sparseflows.rng import derived_seed, numpy_generator, seed_again, torch_generator

PURPOSES = ["data/moons/train", "data/moons/test", "initialise/0", "initialise/1", "dense/0/step/1", "dense/0/step/11"]


def test_derived_seeds_never_change():
    # A run that is taken up by a later version must draw what it drew before.
    assert derived_seed(0, "initialise/0") == 2899905015419547561
    assert derived_seed(1, "initialise/0") == 179414087103250861
    assert derived_seed(0, "") == 4312713675196038031


def test_seeds_and_purposes_are_apart():
    seeds = [derived_seed(seed, purpose) for seed in range(50) for purpose in PURPOSES]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(1, "2/x") != derived_seed(12, "/x")


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed, purpose: numpy_generator(seed, purpose).standard_normal(100),
        lambda seed, purpose: torch.randn(100, generator=torch_generator(seed, purpose), dtype=torch.float64).numpy(),
    ],
)
def test_equal_inputs_draw_equal_numbers_and_others_others(draw):
    assert np.array_equal(draw(3, "noise"), draw(3, "noise"))
    draws = np.array([draw(seed, purpose) for seed in (0, 1) for purpose in PURPOSES])
    correlations = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlations).max() < 0.45  # 66 pairs of 100 draws: 4.5 standard errors


def test_global_generators_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.randn(3, generator=torch_generator(0, "x"))
    numpy_generator(0, "x").random(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@pytest.mark.parametrize("drawn", [0, 1, 7, 1000])
def test_a_generator_that_is_seeded_again_draws_what_a_new_one_does(drawn):
    used = torch_generator(5, "before")
    torch.randn(drawn, generator=used)  # an odd number leaves half of a pair of normals behind
    again = seed_again(used, 3, "noise")
    assert again is used
    new = torch_generator(3, "noise")
    for _ in range(3):
        assert torch.equal(torch.randn(5, generator=again), torch.randn(5, generator=new))
        assert torch.equal(torch.rand(2, generator=again), torch.rand(2, generator=new))


def test_the_device_is_asked_for():
    assert torch_generator(0, "x").device == torch.device("cpu")
    assert torch_generator(0, "x", "cpu").initial_seed() == derived_seed(0, "x")


def test_numpy_draws_need_no_pytorch():
    code = "import sys, sparseflows.rng as r; r.numpy_generator(0, 'x').random(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
