"""Exceptions and their statuses; the lookup that lists what is known."""

import pytest

from sparseflows.errors import InputError, Interrupted, RunError, SparseFlowsError, lookup, suggest

TABLE = {"sigmoid": 1, "tanh": 2, "softplus": 3}


@pytest.mark.parametrize(
    ("kind", "status", "builtin"),
    [(InputError, 2, ValueError), (RunError, 1, RuntimeError), (Interrupted, 130, Exception)],
)
def test_kinds_and_exit_statuses(kind, status, builtin):
    error = kind("what, where")
    assert isinstance(error, SparseFlowsError)
    assert isinstance(error, builtin)
    assert error.exit_code == status
    assert str(error) == "what, where"


def test_lookup_finds():
    assert [lookup("activation", name, TABLE) for name in TABLE] == [1, 2, 3]
    assert lookup("thing", "x", {"x": None}) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tahn", "unknown activation 'tahn'; did you mean 'tanh'? (known: sigmoid, softplus, tanh)"),
        ("relu", "unknown activation 'relu' (known: sigmoid, softplus, tanh)"),
        ("", "unknown activation '' (known: sigmoid, softplus, tanh)"),
    ],
)
def test_lookup_lists_the_known_names(name, message):
    with pytest.raises(InputError) as caught:
        lookup("activation", name, TABLE)
    assert str(caught.value) == message


def test_suggestions():
    assert suggest("epoch", ["steps", "epochs"]) == "; did you mean 'epochs'?"
    assert suggest("zzz", ["steps", "epochs"]) == ""
    assert suggest(3, ["steps"]) == ""
    assert suggest("steps", []) == ""
