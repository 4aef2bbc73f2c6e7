"""An error that pickle cannot bring back, as some libraries raise them."""

from __future__ import annotations


class Unpicklable(Exception):
    """Its arguments are not those that it is made with."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} and {two}")


def fail(item: object) -> None:
    """Raise it."""
    raise Unpicklable(item, 2)
