"""Tables in files that keep types: Parquet and Feather through pyarrow, the first sheet of a workbook by openpyxl."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import one_line
from sparseflows.data.tables.choosing import Sheet, called
from sparseflows.data.text.cells import BOOLEAN, DATE, NUMBER, TEXT, is_missing, plain
from sparseflows.data.text.layout import find_layout, split_lines, unique
from sparseflows.errors import InputError

FRAME_SUFFIXES = (".parquet", ".feather", ".xlsx")
_NEEDS = {".parquet": "pyarrow", ".feather": "pyarrow", ".xlsx": "openpyxl"}
_DAMAGE = (ValueError, OSError, LookupError, TypeError, AttributeError, SyntaxError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Frame:
    """The columns of a typed file.

    Attributes:
        source: the file, for messages.
        sheet: their names and kinds.
        columns: a pandas Series each.
        notes: what was decided in reading it, one line each.
    """

    source: str
    sheet: Sheet
    columns: tuple[Any, ...]
    notes: tuple[str, ...] = ()

    def numbers(self, places: Sequence[int]) -> NDArray[np.float64]:
        """The numbers (N, D) of the columns at D places, NaN where one is missing.

        Raises:
            InputError: a cell that is no number.
        """
        return np.column_stack([self._column(place) for place in places]) if places else np.empty((0, 0))

    def _column(self, place: int) -> NDArray[np.float64]:
        import pandas

        column = self.columns[place]
        found = pandas.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = np.isnan(found) & column.notna().to_numpy()
        bad &= np.array([not is_missing(str(cell)) for cell in column.to_numpy()]) if bad.any() else bad
        if bad.any():
            row = int(bad.argmax())
            cell = column.iloc[row]
            where = f"row {row + 1}, {called(place, self.sheet.names)}"
            raise InputError(f"{self.source}: {where}: {str(cell)[:40]!r} is not a number")
        return found


def read_frame(file: Path, header: str | bool, index: str | bool) -> Frame:
    """The columns of a .parquet, .feather or .xlsx file.

    Args:
        file: of one of `FRAME_SUFFIXES`.
        header, index: as for text; the first is asked of workbooks alone, the others know their names.

    Raises:
        InputError: the library that reads it is not installed, or the file is damaged.
    """
    suffix = file.suffix.lower()
    if importlib.util.find_spec(_NEEDS[suffix]) is None:
        raise InputError(f'{file}: reading {suffix} takes {_NEEDS[suffix]}: pip install "sparseflows[tables]"')
    import pandas

    try:
        if suffix == ".xlsx":
            return _workbook(file, header, index)
        frame = pandas.read_parquet(file) if suffix == ".parquet" else pandas.read_feather(file)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{file}: cannot be read, perhaps damaged ({one_line(error)})") from error
    notes = []
    if index is True and isinstance(frame.index, pandas.RangeIndex):
        frame = frame.iloc[:, 1:]
    elif not isinstance(frame.index, pandas.RangeIndex):
        if index is False:
            frame = frame.reset_index()
        else:
            kept = ", ".join(str(name) for name in frame.index.names if name is not None) or "without a name"
            notes = [f"left out the index ({kept}) that the file keeps beside its columns (data.index: no keeps it)"]
    names = tuple(unique(_flat(name) for name in frame.columns))
    columns = tuple(frame.iloc[:, place] for place in range(frame.shape[1]))
    return Frame(str(file), Sheet(names, tuple(_kind(column) for column in columns)), columns, tuple(notes))


def _flat(name: Any) -> str:
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _kind(column: Any) -> tuple[str, str]:
    """What a Series holds, and its first value."""
    from pandas.api import types

    first = next((str(value) for value in column.head(100) if value is not None), "")
    dtype = column.dtype
    if types.is_bool_dtype(dtype):
        return BOOLEAN, first
    if types.is_datetime64_any_dtype(dtype) or types.is_timedelta64_dtype(dtype) or "period" in str(dtype):
        return DATE, first
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return NUMBER, first
    values = [
        value for value in column.head(200) if hasattr(value, "__len__") or (value is not None and value == value)
    ]
    if values and all(type(value).__name__ in ("int", "float", "Decimal") for value in values):
        return NUMBER, first
    return (DATE if values and all(hasattr(value, "isoformat") for value in values) else TEXT), first


def _workbook(file: Path, header: str | bool, index: str | bool) -> Frame:
    """The first sheet of a workbook, its cells taken as those of a text table would be."""
    import pandas

    with pandas.ExcelFile(file, engine="openpyxl") as book:
        names = [str(name) for name in book.sheet_names]
        cells = pandas.read_excel(book, header=None, dtype=object, keep_default_na=False, na_values=[""])
    cells = cells.dropna(how="all").dropna(how="all", axis=1)
    written = io.StringIO()
    csv.writer(written).writerows(
        [["" if _is_nothing(cell) else " ".join(str(cell).split()) for cell in row] for row in cells.to_numpy()]
    )
    text = written.getvalue()
    layout = find_layout(text, str(file), header, index)
    rows = list(split_lines(text.splitlines(), layout.separator))[layout.skip :]
    columns = tuple(
        pandas.Series([plain(row[place].strip(), layout.decimal) for row in rows], dtype=object)
        for place in layout.places
    )
    notes = [f"read the first of {len(names)} sheets, '{names[0]}'"] if len(names) > 1 else []
    return Frame(str(file), Sheet(layout.names, layout.kinds), columns, (*notes, *layout.notes))


def _is_nothing(cell: Any) -> bool:
    return cell is None or cell != cell
