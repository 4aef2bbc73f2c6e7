"""The looks of methods follow from the table of methods."""

import pytest

from analysis.plots.looks import look, looks
from sparseflows.specs.methods import METHODS


def test_neurons_are_hollow_and_dashed():
    for name, method in METHODS.items():
        assert look(name).hollow == (method.kind == "neurons")
        assert look(name).line == ("--" if method.kind == "neurons" else "-")


def test_kin_share_a_colour_and_no_others_do():
    assert len({look(name).colour for name in METHODS}) == len({method.kin for method in METHODS.values()})
    for one in METHODS:
        for other in METHODS:
            assert (look(one).colour == look(other).colour) == (METHODS[one].kin == METHODS[other].kin)


def test_a_method_that_is_not_known_has_a_look():
    assert look("mine").marker == "*"
    assert look("mine").colour not in {look(name).colour for name in METHODS}


@pytest.mark.parametrize(
    "methods",
    [
        ["unstructured", "structured"],
        ["magnitude"] * 9,
        ["mine", "yours", "theirs"],
        [*METHODS],
        ["snip", "snip", "pfp", "mine", "pfp"],
    ],
)
def test_no_two_lines_of_a_figure_look_the_same(methods):
    found = looks({str(number): method for number, method in enumerate(methods)})
    assert len(set(found.values())) == len(methods)
    if methods == ["unstructured", "structured"]:
        assert found["0"].colour != found["1"].colour


def test_a_label_that_begins_with_an_underscore_is_in_the_legend():
    assert look("magnitude").handle("_mine").get_label() == " _mine"
