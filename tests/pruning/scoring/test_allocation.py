"""Rankings and the cuts that meet a budget, against trying everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseflows.errors import InputError
from sparseflows.pruning.scoring.allocation import (
    largest_prefix,
    nearest_prefix,
    put_first,
    rank,
    rank_globally,
    rank_uniformly,
)
from sparseflows.pruning.scoring.criteria.formulas import magnitude

fast = settings(max_examples=150, deadline=None, derandomize=True)
small_scores = st.lists(
    st.lists(st.integers(0, 4), min_size=1, max_size=6).map(lambda xs: torch.tensor(xs, dtype=torch.float64)),
    min_size=1,
    max_size=4,
)


@given(
    rises=st.lists(st.integers(0, 3), max_size=25),
    start=st.integers(0, 5),
    target=st.integers(-2, 60),
    shortest=st.integers(0, 10),
)
@fast
def test_prefixes_against_trying_all_lengths(rises, start, target, shortest):
    counts = [start]
    for rise in rises:
        counts.append(counts[-1] + rise)
    longest = len(counts) - 1
    shortest = min(shortest, longest)
    lengths = range(shortest, longest + 1)
    allowed = [n for n in lengths if counts[n] <= target] or [shortest]
    assert largest_prefix(shortest, longest, counts.__getitem__, target) == allowed[-1]
    nearest = nearest_prefix(shortest, longest, counts.__getitem__, target)
    assert abs(counts[nearest] - target) == min(abs(counts[n] - target) for n in lengths)


def test_of_two_equally_near_prefixes_the_shorter():
    counts = [0, 10, 20]
    assert nearest_prefix(0, 2, counts.__getitem__, 15) == 1
    assert nearest_prefix(0, 2, counts.__getitem__, 16) == 2
    assert nearest_prefix(0, 2, counts.__getitem__, -5) == 0
    assert nearest_prefix(0, 2, counts.__getitem__, 99) == 2


def test_the_search_counts_few_prefixes():
    calls = []
    assert largest_prefix(0, 1_000_000, lambda n: calls.append(n) or n, 123_456) == 123_456
    assert len(calls) <= 21  # bisection of a million lengths


@given(small_scores)
@fast
def test_a_global_ranking_is_a_stable_sort(scores):
    flat = [x for score in scores for x in score.tolist()]
    expected = sorted(range(len(flat)), key=lambda i: -flat[i])  # Python's sort is stable
    assert rank_globally(scores).tolist() == expected
    assert rank(scores, "global").tolist() == expected


@given(small_scores)
@fast
def test_a_uniform_ranking_goes_by_the_rank_within_the_layer(scores):
    places = []
    for score in scores:
        own = score.tolist()
        for i, x in enumerate(own):
            before = sum(y > x for y in own) + sum(y == x for y in own[:i])  # ties keep their order
            places.append((before + 0.5) / len(own))
    expected = sorted(range(len(places)), key=lambda i: places[i])
    assert rank_uniformly(scores).tolist() == expected
    assert rank(scores, "uniform").tolist() == expected


@given(small_scores, st.data())
@fast
def test_prefixes_of_a_uniform_ranking_keep_equal_shares(scores, data):
    order = rank_uniformly(scores)
    n = data.draw(st.integers(0, len(order)))
    kept = torch.zeros(len(order), dtype=torch.bool)
    kept[order[:n]] = True
    counts = [int(part.sum()) for part in kept.split([len(score) for score in scores])]
    # Some share s explains all layers: |count − s·size| ≤ 1.
    assert max((k - 1) / len(s) for k, s in zip(counts, scores, strict=True)) <= min(
        (k + 1) / len(s) for k, s in zip(counts, scores, strict=True)
    )


def test_matrices_are_ranked_row_by_row():
    assert rank_globally([torch.tensor([[1.0, 4.0], [3.0, 2.0]]), torch.tensor([5.0])]).tolist() == [4, 1, 2, 3, 0]


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)).map(sorted))
@fast
def test_put_first_moves_items_and_leaves_the_rest(order, items):
    moved = put_first(torch.tensor(order), torch.tensor(items, dtype=torch.long)).tolist()
    assert moved == [*items, *(i for i in order if i not in items)]


def test_scores_of_weights_are_their_magnitudes():
    weight = torch.nn.Parameter(torch.tensor([[-2.0, 0.5], [0.0, 1.0]]))
    assert magnitude(weight).tolist() == [[2.0, 0.5], [0.0, 1.0]]
    assert not magnitude(weight).requires_grad


def test_an_unknown_allocation_is_refused():
    with pytest.raises(InputError, match=r"unknown allocation 'equal' \(known: global, uniform\)"):
        rank([torch.ones(3)], "equal")
