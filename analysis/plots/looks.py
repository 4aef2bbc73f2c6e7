"""Colour, marker and line of a method, the same in every figure: they follow from the table of methods.

Kin share a colour (magnitude and the l1 norm, sipp and pfp). Weights have full markers and solid lines, neurons hollow
markers and dashed lines.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sparseflows.plot.style import COLOURS, MARKERS, key
from sparseflows.specs.methods import METHODS

_RANDOM = "0.55"
_OTHER = COLOURS[4]
_KIN = tuple(dict.fromkeys(method.kin for method in METHODS.values() if method.kin != "random"))
_STROKES = "_|x+"  # markers without an inside


class Look(NamedTuple):
    """How a line is drawn."""

    colour: str
    marker: str
    line: Any = "-"
    hollow: bool = False
    size: float = 5.5

    @property
    def style(self) -> dict[str, Any]:
        """The same as matplotlib's properties of a line."""
        edged = self.hollow or self.marker in _STROKES
        own = edged or self.marker == "*" or self.size < 5
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.line,
            "markersize": self.size,
            "markerfacecolor": "white" if self.hollow else self.colour,
            "markeredgecolor": self.colour if own else "white",
            "markeredgewidth": 1.2 if edged else 0.6,
        }

    def handle(self, label: str) -> Any:
        """Its entry in a legend."""
        # Matplotlib leaves labels with a leading underscore out of the legend.
        return key(f" {label}" if label.startswith("_") else label, **self.style)


DENSE_LOOK = Look("black", "*", "--", size=10)


def look(method: str) -> Look:
    """How a criterion is drawn; one that the table of methods does not know is an orange star."""
    known = METHODS.get(method)
    if known is None:
        return Look(_OTHER, "*", size=8)
    neurons = known.kind == "neurons"
    line = "--" if neurons else "-"
    if known.kin == "random":
        return Look(_RANDOM, "X", line, neurons)
    own = [colour for colour in COLOURS if colour != _OTHER]
    kin = _KIN.index(known.kin)
    relatives = list(dict.fromkeys(one for one in METHODS.values() if (one.kin, one.kind) == (known.kin, known.kind)))
    marker = MARKERS[(kin + len(own) * relatives.index(known)) % len(MARKERS)]
    return Look(own[kin % len(own)], marker, line, neurons)


def looks(methods: Mapping[str, str]) -> dict[str, Look]:
    """How the lines of one figure, label → method, are drawn, no two of them the same.

    Where all are kin, as in the usual run by magnitude, neurons have a colour of their own.
    """
    found: dict[str, Look] = {}
    one_kin = len({look(method).colour for method in methods.values()}) == 1
    free = [(colour, marker) for marker in MARKERS for colour in COLOURS]
    for place, (label, method) in enumerate(methods.items()):
        wanted = look(method)
        if one_kin and wanted.hollow:
            wanted = wanted._replace(colour=COLOURS[1], marker=MARKERS[1])
        taken = {(one.colour, one.marker) for one in found.values()}
        if (wanted.colour, wanted.marker) in taken and wanted in found.values():
            colour, marker = next((one for one in free if one not in taken), free[place % len(free)])
            wanted = wanted._replace(colour=colour, marker=marker, size=5.5)
        found[label] = wanted
    return found
