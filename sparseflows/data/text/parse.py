"""The numbers of a text table, read by pandas in blocks, once its layout is known."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.text.cells import MISSING_MARKS
from sparseflows.data.text.layout import BLANKS, Layout, lines_of
from sparseflows.data.text.opened import HEAD, opened_text
from sparseflows.data.text.scan import Scan, holds_rows, numbers, scan
from sparseflows.errors import InputError

BLOCK_CELLS = 1 << 19  # cells read at once
REMEDIES = {"refuse": " (data.missing: drop leaves such rows out)", "never": ""}


def head_of(file: Path) -> str:
    """The first lines of a text file, whole: of a small file all of them.

    Raises:
        InputError: as `opened_text`.
    """
    with opened_text(file) as stream:
        text = stream.read(HEAD)
        if len(text) < HEAD:
            return text
        lines, _, rest = text.rpartition("\n")
        return f"{lines}\n" if lines else rest + stream.readline()


def parse(
    file: Path, head: str, layout: Layout, chosen: Sequence[int], missing: str
) -> tuple[NDArray[np.float64], list[str]]:
    """The numbers (N, D) at the D `chosen` places of every row, NaN where a cell is missing; and what is to be said.

    Args:
        file: of text.
        head: what `head_of` gave.
        layout: of the file.
        chosen: which cells of a row.
        missing: `drop` and `keep` let missing cells through, as NaN; `refuse` and `never` refuse them, with that remedy
            or without.

    Raises:
        InputError: the first line or cell that does not fit, by its place.
    """
    known = _refuse_faults(file, lines_of(head), layout, chosen, missing)
    try:
        found = _quick(file, layout, chosen)
        gone = int(np.isnan(found).any(axis=1).sum())
    except InputError:
        raise
    except (ValueError, OverflowError):  # pandas's own errors are ValueErrors
        found, gone = None, 0
    if found is not None and gone == 0:
        return found, _said_of_commented(known)
    # A missing cell, a short line, a bad cell, or what pandas does not know: a comment between rows.
    with opened_text(file) as stream:
        known = _refuse_faults(file, stream, layout, chosen, missing)
    if found is None or known.missing != gone:
        with opened_text(file) as stream:
            found = numbers(stream, layout, chosen)
    return found, _said_of_commented(known)


def _said_of_commented(known: Scan) -> list[str]:
    if not known.commented:
        return []
    several = known.commented > 1
    return [
        f"left out {known.commented:,} {'lines that are comments' if several else 'line that is a comment'} and would "
        f"otherwise be {'rows, the first' if several else 'a row'} in line {known.first_commented}"
    ]


def _quick(file: Path, layout: Layout, chosen: Sequence[int]) -> NDArray[np.float64]:
    """All rows by pandas; a missing cell is NaN, and so are those that a short line lacks."""
    import pandas

    found = np.empty((0, len(chosen)))
    types: dict[int, Any] = {place: str for place in range(layout.width)}
    types |= dict.fromkeys(chosen, np.float64)
    marks = sorted({*MISSING_MARKS, *map(str.upper, MISSING_MARKS), *map(str.capitalize, MISSING_MARKS), "NaN", "NaT"})
    with opened_text(file) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lines = itertools.islice(stream, layout.skip)
        for _ in lines:
            pass
        watched: Any = _Watched(stream)
        try:
            blocks = pandas.read_csv(
                watched,
                sep=r"\s+" if layout.separator == BLANKS else layout.separator,
                decimal=layout.decimal,
                header=None,
                dtype=types,
                na_values=marks,
                keep_default_na=False,
                skipinitialspace=True,
                float_precision="round_trip",
                chunksize=max(1, BLOCK_CELLS // layout.width),
            )
            with blocks:
                for block in blocks:
                    if watched.marks:
                        others = [place for place in range(layout.width) if place not in chosen]
                        _leave_to_the_slow(block, others, layout)
                    # In place: joining the blocks at the end would hold them twice.
                    found.resize((len(found) + len(block), len(chosen)), refcheck=False)
                    found[-len(block) :] = block[list(chosen)].to_numpy(np.float64)
        except pandas.errors.EmptyDataError:
            pass
    return found


class _Watched:
    """A stream of text, and whether it has had marks of comments or quotations in it so far: without these, cells that
    are not taken need not be looked at."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self.marks = stream, False

    def read(self, size: int = -1) -> str:
        """The next characters, `size` at most."""
        found = self._stream.read(size)
        self.marks = self.marks or "#" in found or '"' in found
        return found

    def __iter__(self) -> Iterator[str]:
        self.marks = True
        return iter(self._stream)


def _leave_to_the_slow(block: Any, others: Sequence[int], layout: Layout) -> None:
    """Raise ValueError where a cell that is not taken, in a DataFrame of cells, begins a comment, or has rows in it,
    behind a quotation mark that nobody has closed."""
    for place in others:
        text = "\0".join(cell for cell in block[place].to_numpy(object) if isinstance(cell, str))
        comment = place == 0 and (text[:1] == "#" or "\0#" in text)
        if comment or ("\n" in text and any(holds_rows(cell, layout) for cell in text.split("\0"))):
            raise ValueError(f"column {place + 1}")


def _refuse_faults(file: Path, lines: Iterable[str], layout: Layout, chosen: Sequence[int], missing: str) -> Scan:
    found = scan(lines, layout, chosen)
    if found.missing and missing in REMEDIES:
        raise InputError(f"{file}: {found.first_missing}; drop the row or fill it in{REMEDIES[missing]}")
    if found.fault:
        raise InputError(f"{file}: {found.fault}")
    return found
