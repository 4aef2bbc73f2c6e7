"""A second, naive and strict reading of tables and param files, from the bytes alone, without the package."""

from __future__ import annotations

import ast
import re
import struct
from typing import Any

import numpy as np
import yaml

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+)?|[-+]?(inf|infinity|nan)", re.IGNORECASE)


class Unreadable(Exception):
    """A strict reader does not take these bytes."""


def table(suffix: str, content: bytes, infinite: bool = False) -> np.ndarray:
    """The finite numbers (N, D) float64 of a .csv or .npy file, or `infinite` ones too.

    Raises:
        Unreadable: anything else than such a table, whole.
    """
    found = {".csv": _csv, ".npy": _npy}[suffix](content)
    if found.ndim != 2 or found.size == 0:
        raise Unreadable(f"shape {found.shape}")
    if np.isnan(found).any() or not (infinite or np.isfinite(found).all()):
        raise Unreadable("not finite")
    return found


def _csv(content: bytes) -> np.ndarray:
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise Unreadable("no text") from None
    rows = [_cells(line) for line in _lines(text) if not line.lstrip().startswith("#")]
    if rows and any(not _NUMBER.fullmatch(cell) and not _is_missing(cell) for cell in rows[0]):
        head = rows.pop(0)
        if rows and len(rows[0]) != len(head):
            raise Unreadable("the header has another width")
    if not rows or len({len(row) for row in rows}) != 1:
        raise Unreadable("ragged or empty")
    if not all(_NUMBER.fullmatch(cell) for row in rows for cell in row):
        raise Unreadable("a cell is no number")
    return np.array([[_float(cell) for cell in row] for row in rows])


def rows_commented_out(content: bytes) -> int:
    """How many lines of a .csv file begin with # and would be rows of numbers without it."""
    lines = [line.strip() for line in _lines(content.decode("utf-8", "replace"))]
    commented = [_cells(line[1:]) for line in lines if line.startswith("#")]
    return sum(all(_NUMBER.fullmatch(cell) for cell in row) for row in commented if len(row) > 1)


def _lines(text: str) -> list[str]:
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _cells(line: str) -> list[str]:
    return [_cell(one) for one in line.split(",")]


def _float(cell: str) -> float:
    """A number; Fortran writes its exponent with a D."""
    return float(cell if not any(digit.isdigit() for digit in cell) else cell.lower().replace("d", "e"))


def _cell(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def _is_missing(cell: str) -> bool:
    return cell.lower() in ("", "na", "n/a", "null", "none", "?", "-", ".")


def _npy(content: bytes) -> np.ndarray:
    if content[:6] != b"\x93NUMPY" or content[6:8] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise Unreadable("no .npy file")
    kind = "<H" if content[6] == 1 else "<I"
    begin = 8 + struct.calcsize(kind)
    try:
        (length,) = struct.unpack(kind, content[8:begin])
        header = ast.literal_eval(
            content[begin : begin + length].decode("utf-8" if content[6] == 3 else "latin1").strip()
        )
        descr, order, shape = header["descr"], header["fortran_order"], header["shape"]
        dtype = np.dtype(descr)
    except Exception:
        raise Unreadable("no header") from None
    if set(header) != {"descr", "fortran_order", "shape"} or type(order) is not bool or not isinstance(shape, tuple):
        raise Unreadable("another header")
    if dtype.kind not in "biuf" or not all(type(n) is int and n >= 0 for n in shape):
        raise Unreadable("no real numbers")
    count = int(np.prod([int(n) for n in shape], dtype=object)) if shape else 1
    data = content[begin + length :]
    if len(data) != count * dtype.itemsize:
        raise Unreadable("cut off, or longer than the header says")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order else "C").astype(np.float64)


def settings(content: bytes) -> dict[str, str]:
    """Dotted key → the text of every plain value of a param file; lists are left out.

    Raises:
        Unreadable: no mapping in YAML.
    """
    try:
        document = yaml.load(content.decode("utf-8"), Loader=yaml.BaseLoader)  # all values stay text
    except Exception:
        raise Unreadable("no YAML") from None
    if not isinstance(document, dict):
        raise Unreadable("no mapping")
    return dict(_leaves(document, ""))


def _leaves(node: Any, place: str) -> list[tuple[str, str]]:
    found = []
    for key, value in node.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{place}{key}.")
        elif isinstance(value, str):
            found.append((f"{place}{key}", value))
    return found


def says_the_same(text: str, value: Any) -> bool:
    """Whether the text of a plain value means `value`."""
    if value is None:
        return text.lower() in ("", "~", "null")
    if isinstance(value, bool):
        return (text.lower() in ("true", "yes", "on")) is value
    if isinstance(value, int | float):
        try:
            return float(text.replace("_", "")) == value
        except ValueError:
            return False
    return bool(text == value)
