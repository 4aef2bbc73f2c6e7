"""A pickled pandas frame, read with the few names that such a frame is made of and no others."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from sparseflows.data.files.reading import counted, one_line
from sparseflows.errors import InputError

# What frames of floats pickle to, in pandas 0.20 to 3: modules, their sub-modules included, and names in them.
FRAME = {"DataFrame", "BlockManager", "new_block", "_unpickle_block"}
INDEX = {"Index", "_new_Index", "RangeIndex", "Int64Index", "Float64Index", "NumericIndex"}
STRINGS = {"StringArray", "StringDtype", "StringArrayNumpySemantics", "ArrowStringArray", "NDArrayBacked",
           "__pyx_unpickle_NDArrayBacked"}  # fmt: skip
ALLOWED: tuple[tuple[tuple[str, ...], set[str]], ...] = (
    (("pandas.core", "pandas._libs", "pandas.arrays", "pandas.indexes"), FRAME | INDEX | STRINGS),
    (("numpy.core", "numpy._core"), {"_reconstruct", "_frombuffer", "scalar"}),
    (("numpy",), {"dtype", "ndarray"}),
    (("builtins", "__builtin__"), {"slice", "set", "frozenset", "bytearray", "object"}),
    (("copyreg", "copy_reg"), {"_reconstructor"}),
    (("_codecs",), {"encode"}),
)


def read_frame(stream: BinaryIO, name: str, dropped: Sequence[str], columns: int) -> tuple[np.ndarray, list[str]]:
    """Values (N, D) float64 and names of the columns of a pickled frame, `dropped` ones left out.

    Args:
        stream: the pickle.
        name: of the file, for messages.
        dropped: names of columns that must be there, and are not wanted.
        columns: how many there must be, dropped ones included.

    Raises:
        InputError: not a pickled frame, one of another kind, or a pickle that names anything else.
    """
    frame = _load(stream, name)
    names = [str(column) for column in frame.columns]
    missing = [column for column in dropped if column not in names]
    if missing or len(names) != columns or len(set(names)) != columns:
        raise InputError(
            f"{name}: has {counted(len(names), 'column')}{f' and no {missing[0]!r}' if missing else ''}; "
            f"{columns}, {', '.join(dropped)} among them, are wanted"
        )
    kept = [column for column in names if column not in dropped]
    try:
        return np.column_stack([np.asarray(frame.iloc[:, names.index(c)], dtype=np.float64) for c in kept]), kept
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: holds entries that are no numbers ({one_line(error)})") from None


def allowed(module: str, name: str) -> bool:
    """Whether a pickled frame may name this; an exact name, so no attribute of it either."""
    if module == "pandas":
        return name in FRAME | INDEX | STRINGS
    return any(
        name in names and any(f"{module}.".startswith(f"{one}.") for one in modules) for modules, names in ALLOWED
    )


def current(module: str, name: str) -> tuple[str, str]:
    """Where a name of pandas before 0.20, as the published pickle has them, is today."""
    if module.startswith("pandas.indexes"):
        module = module.replace("pandas.indexes", "pandas.core.indexes", 1)
    if module == "pandas.core.index" or name in {"Int64Index", "Float64Index", "NumericIndex"}:
        return "pandas.core.indexes.base", "Index" if name.endswith("Index") and name != "_new_Index" else name
    return module, name


def _load(stream: BinaryIO, name: str) -> Any:
    import pandas
    from pandas.compat.pickle_compat import Unpickler  # knows where pandas 1 and 2 kept things

    class Restricted(Unpickler):
        def find_class(self, module: str, called: str) -> Any:
            if allowed(module, called):
                return super().find_class(*current(module, called))
            raise InputError(f"{name}: the pickle asks for {module}.{called}, no part of a data frame; not read")

    try:
        frame = Restricted(stream, encoding="latin1").load()
    except InputError:
        raise
    except (Exception, MemoryError) as error:  # a pickle may raise anything
        raise InputError(
            f"{name}: cannot be read by pandas {pandas.__version__} ({one_line(error)}); use the raw ethylene_CO.txt"
        ) from None
    if not isinstance(frame, pandas.DataFrame):
        raise InputError(f"{name}: holds a {type(frame).__name__}, not a data frame")
    return frame
