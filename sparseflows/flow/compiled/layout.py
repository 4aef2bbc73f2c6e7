"""The structures that Python hands to the engine, held against those that the engine was compiled with.

A member that was added, left out or put elsewhere on one side only would make C read and write where nothing of its
own lies. So a library says where its members are (`layout` in layout.h), and one that disagrees is not used.
"""

import ctypes
import itertools
from collections.abc import Iterator, Mapping

from sparseflows.flow.compiled.structures import (
    BlockStructure,
    ControlStructure,
    CourseStructure,
    TableauStructure,
    UpdateStructure,
)

Structures = Mapping[str, type[ctypes.Structure]]
Entry = tuple[str, int, int]  # Block.step, its place, its size

STRUCTURES: Structures = {
    "Block": BlockStructure,
    "Tableau": TableauStructure,
    "Control": ControlStructure,
    "Update": UpdateStructure,
    "Course": CourseStructure,
}


class LayoutError(Exception):
    """The library and Python do not mean the same structures; the message says where they part."""


def check_layout(library: ctypes.CDLL, real: int, structures: Structures = STRUCTURES) -> None:
    """Refuse a library that was compiled for other structures, or for numbers of other than `real` bytes.

    Raises:
        LayoutError: it was.
    """
    for there, here in itertools.zip_longest(_compiled(library), _expected(real, structures)):
        if there != here:
            raise LayoutError(f"the engine does not fit its Python side: {_said(there)} in C, {_said(here)} in Python")


def _compiled(library: ctypes.CDLL) -> Iterator[Entry]:
    try:
        layout = library.layout
    except AttributeError:
        raise LayoutError("the engine does not say how its structures lie") from None
    layout.restype = ctypes.c_char_p
    place, size = ctypes.c_long(), ctypes.c_long()
    for i in itertools.count():
        name = layout(i, ctypes.byref(place), ctypes.byref(size))
        if name is None:
            return
        yield name.decode(), place.value, size.value


def _expected(real: int, structures: Structures) -> Iterator[Entry]:
    yield "REAL", 0, real
    for name, structure in structures.items():
        yield name, 0, ctypes.sizeof(structure)
        for member, *_ in structure._fields_:
            found = getattr(structure, member)
            yield f"{name}.{member}", found.offset, found.size


def _said(entry: Entry | None) -> str:
    return "nothing more" if entry is None else "{} at {}, {} bytes".format(*entry)
