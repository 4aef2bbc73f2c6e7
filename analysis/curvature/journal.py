"""Products that outlive the process: each block is written down, so that a stage goes on where it was stopped.

What a product was of need not be kept. The algorithms are deterministic, so they ask for the same blocks in the same
order again; a checksum says whether this one is what stands next in the journal. The algebra between the products is
done anew, in a fraction of their time.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from scipy.sparse.linalg import LinearOperator

from analysis.curvature.operators import HessianOperator
from sparseflows.errors import RunError
from sparseflows.files import FileLock, output_folder

HEAD = struct.Struct("<8sIIII")  # the mark, columns, checksums of what was multiplied and of the product, rows
MARK = b"products"


@dataclass(frozen=True)
class _Record:
    """One block in the journal: where its product (P, K) begins, and the checksum of what was multiplied."""

    asked: int
    place: int
    shape: tuple[int, int]

    @property
    def end(self) -> int:
        return self.place + 8 * self.shape[0] * self.shape[1]


class Journal:
    """The products of one stage, in the order in which they were asked for.

    As a context it closes the file in the end, and deletes it unless the work was interrupted. Where another process
    is at the same stage, nothing is kept.

    `known` is how many products it held when it was opened, `given` how many have been asked for since.

    Raises:
        InputError: its folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        output_folder(path.parent, remedy="analyses keep their results in the run folder; make it writable")
        self.path, self._place, self.given = path, 0, 0
        self._lock = FileLock(path)
        self._own = self._lock.take() and self._lock.is_still_there()
        self._file = os.fdopen(os.dup(self._lock.file), "r+b")
        self._records = list(_read(self._file)) if self._own else []
        self.known = sum(record.shape[1] for record in self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Delete it where all went well, and where the stage failed of itself and would fail again."""
        self._file.close()
        if self._own and (kind is None or issubclass(kind, RunError)):
            self.path.unlink(missing_ok=True)
        self._lock.close()

    def product(self, block: np.ndarray, multiply: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The product (P, K) with a block (P, K): the one that stands next, or a new one, which is written down."""
        asked = zlib.crc32(np.ascontiguousarray(block, dtype=np.float64).tobytes())
        self.given += block.shape[1]
        if self._place < len(self._records):
            record = self._records[self._place]
            if (record.asked, record.shape) == (asked, block.shape):
                self._place += 1
                self._file.seek(record.place)
                return np.frombuffer(self._file.read(record.end - record.place)).reshape(record.shape)
            del self._records[self._place :]  # another calculation's
        product = np.ascontiguousarray(multiply(block), dtype=np.float64)
        if self._own:
            self._write(asked, product)
        return product

    def _write(self, asked: int, product: np.ndarray) -> None:
        begin, content = self._records[-1].end if self._records else 0, product.tobytes()
        rows, columns = product.shape
        self._file.seek(begin)
        self._file.truncate()
        self._file.write(HEAD.pack(MARK, columns, asked, zlib.crc32(content), rows) + content)
        self._file.flush()
        self._records.append(_Record(asked, begin + HEAD.size, (rows, columns)))
        self._place += 1


class Remembered(LinearOperator):
    """A Hessian whose products a journal remembers; `report` is told how many products of all it has given."""

    def __init__(self, operator: HessianOperator, journal: Journal, report: Callable[[int], None]) -> None:
        super().__init__(np.dtype(np.float64), operator.shape)
        self.operator, self.journal, self.report = operator, journal, report

    def _matmat(self, X: np.ndarray) -> np.ndarray:
        given, before = self.journal.given, self.operator.products
        self.operator.on_product = lambda products: self.report(given + products - before)
        return self.journal.product(X, self.operator.matmat)

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(np.asarray(x).reshape(-1, 1))[:, 0]


def _read(stream: BinaryIO) -> Iterator[_Record]:
    """The whole records, up to the first that was cut off or damaged."""
    while len(head := stream.read(HEAD.size)) == HEAD.size:
        mark, columns, asked, check, rows = HEAD.unpack(head)
        place, length = stream.tell(), 8 * rows * columns
        if mark != MARK or length > os.fstat(stream.fileno()).st_size - place:
            return
        if zlib.crc32(stream.read(length)) != check:
            return
        yield _Record(asked, place, (rows, columns))
