"""Images and labels in the idx format of MNIST and Fashion-MNIST (LeCun, Cortes & Burges 1998).

A file is: two zero bytes, the type (8: unsigned bytes), the number of dimensions, each dimension as a big-endian
32-bit integer, then the values, the last dimension running fastest. Plain or gzipped.
"""

import gzip
import hashlib
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from sparseflows.data.files.reading import counted, fingerprint
from sparseflows.data.files.sources import MIB, guarded, opened
from sparseflows.errors import InputError

Bytes = NDArray[np.uint8]

UNSIGNED_BYTE = 8
LARGEST = 1 << 30  # bytes of one file's values; MNIST's have 47 million
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class LabelledImages:
    """A published training and test set.

    Attributes:
        train, test: (N, height, width) uint8.
        labels_train, labels_test: (N,) int64, 0 … classes − 1.
        classes: how many there are.
    """

    train: Bytes
    labels_train: NDArray[np.int64]
    test: Bytes
    labels_test: NDArray[np.int64]
    classes: int


def load_images(folder: Path) -> LabelledImages:
    """The four files of `folder`, checked against each other.

    Raises:
        InputError: a file missing, twice, damaged, or not in the format; images and labels of different number; test
            images of another size; labels that do not count from 0 without gaps, or fewer than two of them.
    """
    files = find_files(folder)
    train, labels_train, test, labels_test = (
        read_idx(file, dimensions) for file, dimensions in zip(files, (3, 1, 3, 1), strict=True)
    )
    for images, labels, at in ((train, labels_train, 0), (test, labels_test, 2)):
        if len(images) != len(labels):
            raise InputError(
                f"{files[at]}: has {counted(len(images), 'image')}, {files[at + 1].name} has "
                f"{counted(len(labels), 'label')}; give files that belong together"
            )
    if test.shape[1:] != train.shape[1:]:
        sizes = " and ".join("{1} × {2}".format(*images.shape) for images in (train, test))
        raise InputError(f"{files[2]}: images to train and to test have different sizes, {sizes} pixels; give one set")
    classes = _classes(labels_train, files[1])
    if labels_test.max() >= classes:
        raise InputError(
            f"{files[3]}: label {labels_test.max()} is not among the {classes} that {files[1].name} has; "
            "give files that belong together"
        )
    return LabelledImages(train, labels_train.astype(np.int64), test, labels_test.astype(np.int64), classes)


def find_files(folder: Path) -> list[Path]:
    """Training images and labels, test images and labels, in this order; each plain or gzipped.

    Raises:
        InputError: no such folder; a file is missing, or there in both forms.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; data.path is the folder that holds {', '.join(NAMES)}, or .gz")
    found = []
    for name in NAMES:
        there = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if len(there) == 2:
            raise InputError(f"{there[0]} and {there[1].name}: either would do; leave one of them there")
        if not there:
            raise InputError(f"{folder}: holds no file {name}, nor {name}.gz; the set has {', '.join(NAMES)}")
        found.append(there[0])
    return found


def digest_of(folder: Path) -> str:
    """What the four files are known by: SHA-256, as 64 hexadecimal digits, over their names and fingerprints.

    Raises:
        InputError: as `find_files`, or a file cannot be read.
    """
    lines = [f"{file.name} {fingerprint(file)}\n" for file in find_files(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def training_shape(folder: Path) -> tuple[int, int, int, int]:
    """Training images, their height and width, and the number of classes; of the images only the header is read.

    Raises:
        InputError: as `find_files` and `read_idx`, or labels that do not count from 0 without gaps.
    """
    images, labels, *_ = find_files(folder)
    with _opened(images) as stream:
        n, height, width = _shape(stream, images, 3)
    return n, height, width, _classes(read_idx(labels, 1), labels)


def read_idx(file: Path, dimensions: int) -> Bytes:
    """The values of an idx file of unsigned bytes: images (N, height, width) or labels (N,), by `dimensions` 3 or 1.

    Raises:
        InputError: another format, type or number of dimensions; empty; too large; cut off; bytes left over.
    """
    with _opened(file) as stream:
        shape = _shape(stream, file, dimensions)
        wanted = math.prod(shape)
        content = bytearray()  # grows with what is there: a header may promise anything
        while len(content) < wanted:
            piece = stream.read(min(wanted - len(content), MIB))
            if not piece:
                raise InputError(
                    f"{file}: cut off: {len(content):,} of {wanted:,} values {_says(shape)} are there; fetch it again"
                )
            content += piece
        if stream.read(1):
            raise InputError(f"{file}: goes on after the {wanted:,} values {_says(shape)}; give the file as published")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _says(shape: tuple[int, ...]) -> str:
    return f"({' × '.join(map(str, shape))}) that its header promises"


def _opened(file: Path) -> BinaryIO:
    """The file's content, unpacked, as a stream that ends where a bomb would go on."""
    plain, spent = opened(file)
    inner = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if file.suffix == ".gz" else plain
    return guarded(inner, str(file), LARGEST + MIB, spent)


def _shape(stream: BinaryIO, file: Path, dimensions: int) -> tuple[int, ...]:
    """The dimensions that the header names."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        hint = "; it is gzipped: its name must end in .gz" if magic[:2] == b"\x1f\x8b" else ""
        raise InputError(f"{file}: not in the idx format (begins with {magic.hex(' ') or 'nothing'}){hint}")
    kind, found = magic[2], magic[3]
    if kind != UNSIGNED_BYTE or found != dimensions:
        raise InputError(
            f"{file}: holds idx type {kind} in {counted(found, 'dimension')}; wanted are unsigned bytes (type 8) in "
            f"{counted(dimensions, 'dimension')}"
        )
    header = stream.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise InputError(f"{file}: cut off within its header; fetch it again")
    shape = struct.unpack(f">{dimensions}I", header)
    if not 0 < math.prod(shape) <= LARGEST:
        raise InputError(
            f"{file}: its header promises {' × '.join(map(str, shape))} values; wanted are 1 to {LARGEST:,}"
        )
    return shape


def _classes(labels: Bytes, file: Path) -> int:
    """How many labels there are: 0 … K − 1, every one of them with an example to learn from."""
    counts = np.bincount(labels)
    missing = np.flatnonzero(counts == 0)
    if len(missing):
        raise InputError(
            f"{file}: labels reach {len(counts) - 1}, but no image has label {missing[0]}; number the classes from 0 "
            "without gaps"
        )
    if len(counts) < 2:
        raise InputError(f"{file}: every label is 0; a classifier needs at least two classes")
    return len(counts)
