"""Files in MNIST's format, made here byte by byte: what is read, and what is refused in one line."""

import gzip
import struct

import numpy as np
import pytest

from sparseflows.data.images.idx import LARGEST, NAMES, digest_of, find_files, load_images, read_idx, training_shape
from sparseflows.data.splits import make_splits
from sparseflows.errors import InputError
from sparseflows.experiment.plan import plan
from sparseflows.experiment.rows import digest, load_splits
from sparseflows.rng import numpy_generator
from sparseflows.specs import DataSpec, Spec

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3
TEST_IMAGES = np.random.default_rng(1).integers(0, 256, (7, 4, 4), dtype=np.uint8)
TEST_LABELS = np.array([0, 1, 2, 2, 1, 0, 0], dtype=np.uint8)


def content(array, kind=8, shape=None):
    """An idx file, written out."""
    shape = array.shape if shape is None else shape
    header = bytes([0, 0, kind, len(shape)]) + b"".join(struct.pack(">I", size) for size in shape)
    return header + array.astype(">u1").tobytes()


FILES = dict(zip(NAMES, map(content, (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS)), strict=True))


def write(folder, packed=(), **changes):
    """The set; `changes` by place: train_images, train_labels, test_images, test_labels; None leaves a file out."""
    places = ("train_images", "train_labels", "test_images", "test_labels")
    for name, place in zip(NAMES, places, strict=True):
        data = changes.get(place, FILES[name])
        if data is not None and place in packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        elif data is not None:
            (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("packed", [(), ("train_images", "test_labels"), ("train_labels", "test_images")])
def test_every_value_comes_back(tmp_path, packed):
    found = load_images(write(tmp_path, packed))
    assert np.array_equal(found.train, IMAGES)
    assert np.array_equal(found.test, TEST_IMAGES)
    assert np.array_equal(found.labels_train, LABELS)
    assert np.array_equal(found.labels_test, TEST_LABELS)
    assert (found.train.dtype, found.labels_train.dtype, found.classes) == (np.uint8, np.int64, 3)
    assert training_shape(tmp_path) == (30, 4, 4, 3)


def test_the_published_test_set_stays_and_the_end_of_a_shuffle_validates(tmp_path):
    splits = make_splits("idx", str(write(tmp_path)), val_fraction=0.2, seed=4)
    order = numpy_generator(4, "data/idx/split").permutation(30)
    pixels = IMAGES.reshape(30, 16) / 255
    mean, deviation = pixels[order[:24]].mean(), pixels[order[:24]].std()
    for rows, own in (
        (splits.train, pixels[order[:24]]),
        (splits.validation, pixels[order[24:]]),
        (splits.test, TEST_IMAGES.reshape(7, 16) / 255),
    ):
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, (own - mean) / deviation, atol=3e-7)  # float32's rounding of values below 2
        np.testing.assert_allclose(splits.standardiser.invert(rows), own, atol=1e-7)
    assert np.array_equal(splits.labels_train, LABELS[order[:24]])
    assert np.array_equal(splits.labels_validation, LABELS[order[24:]])
    assert np.array_equal(splits.labels_test, TEST_LABELS)
    assert (splits.classes, splits.name) == (3, "idx")
    few = make_splits("idx", str(tmp_path), n_train=10, val_fraction=0.2, seed=4)
    assert np.array_equal(few.labels_train, LABELS[order[:10]])
    assert np.array_equal(few.labels_validation, splits.labels_validation)


def test_the_digest_is_that_of_the_bytes(tmp_path):
    data = DataSpec(name="idx", path=str(write(tmp_path)))
    known = digest(data)
    assert known == digest_of(tmp_path)
    assert len(known) == 64
    write(tmp_path, test_labels=content(TEST_LABELS[::-1]))
    assert digest(data) != known


def test_a_plan_reads_the_headers(tmp_path):
    spec = Spec.model_validate(
        {
            "name": "x",
            "data": {"name": "idx", "path": str(write(tmp_path)), "val_fraction": 0.2},
            "network": {"kind": "conv", "channels": [2, 3], "hidden": [5]},
            "train": {"objective": "cross_entropy", "epochs": 2, "batch": 10},
        }
    )
    found = plan(spec)
    assert (found["dim"], found["train_rows"], found["steps_dense"]) == (16, 24, 6)
    assert found["params_dense"] == 2 * 10 + 3 * 19 + 5 * (3 + 1) + 3 * 6
    unknown = plan(spec.model_copy(update={"data": DataSpec(name="idx")}))
    assert unknown["params_dense"] is unknown["dim"] is None


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"train_images": None}, ["holds no file train-images-idx3-ubyte, nor train-images-idx3-ubyte.gz"]),
        ({"train_images": b""}, ["train-images-idx3-ubyte: not in the idx format (begins with nothing)"]),
        ({"train_images": gzip.compress(FILES[NAMES[0]])}, ["it is gzipped: its name must end in .gz"]),
        ({"train_images": FILES[NAMES[1]]}, ["train-images", "in 1 dimension; wanted", "in 3 dimensions"]),
        ({"train_labels": content(LABELS, kind=13)}, ["idx type 13 in 1 dimension", "unsigned bytes (type 8)"]),
        ({"train_images": FILES[NAMES[0]][:9]}, ["cut off within its header"]),
        ({"train_images": FILES[NAMES[0]][:-1]}, ["cut off: 479 of 480 values (30 × 4 × 4)", "fetch it again"]),
        ({"test_images": FILES[NAMES[2]] + b"\0"}, ["t10k-images", "goes on after the 112 values (7 × 4 × 4)"]),
        ({"train_labels": content(LABELS[:-1])}, ["has 30 images, train-labels-idx1-ubyte has 29 labels"]),
        ({"test_labels": content(TEST_LABELS[:1])}, ["has 7 images, t10k-labels-idx1-ubyte has 1 label;"]),
        ({"test_images": content(TEST_IMAGES[:, 1:])}, ["different sizes, 4 × 4 and 3 × 4 pixels"]),
        ({"test_labels": content(TEST_LABELS + 1)}, ["label 3 is not among the 3 that train-labels-idx1-ubyte has"]),
        ({"train_labels": content(np.where(LABELS == 2, 255, LABELS))}, ["labels reach 255", "no image has label 2"]),
        ({"train_labels": content(0 * LABELS)}, ["every label is 0; a classifier needs at least two classes"]),
        ({"train_images": content(IMAGES, shape=(0, 4, 4))}, ["promises 0 × 4 × 4 values"]),
        ({"train_images": content(IMAGES, shape=(2**31, 28, 28))}, ["promises 2147483648 × 28 × 28", f"{LARGEST:,}"]),
        ({"train_images": content(0 * IMAGES)}, ["every training pixel is the same"]),
    ],
)
def test_refusals(tmp_path, changes, parts):
    with pytest.raises(InputError) as caught:
        make_splits("idx", str(write(tmp_path, **changes)))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_refusals(tmp_path):
    with pytest.raises(InputError, match=r"needs a folder: set data\.path"):
        make_splits("idx")
    with pytest.raises(InputError, match=r"no such folder; data\.path is the folder that holds train-images"):
        make_splits("idx", str(tmp_path / "nowhere"))
    write(tmp_path)
    with pytest.raises(InputError, match="n_train is 28, but 'idx' has 27 training rows"):
        make_splits("idx", str(tmp_path), n_train=28)
    with pytest.raises(InputError, match=r"30 training images leave 0 to validate \(val_fraction 0\.01\)"):
        make_splits("idx", str(tmp_path), val_fraction=0.01)
    write(tmp_path, packed=("test_images",))
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte and t10k-images-idx3-ubyte\.gz: either would do"):
        find_files(tmp_path)


def test_a_damaged_and_an_exploding_gzip_are_refused(tmp_path):
    file = tmp_path / "x.gz"
    packed = gzip.compress(FILES[NAMES[0]])
    for damaged in (packed[: len(packed) // 2], packed[:-5] + b"\1" + packed[-4:], b"\0" * 40):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or cut off"):
            read_idx(file, 3)
    # 500 MB of zeros in half a megabyte: refused after the first 32 MiB.
    squeezed = gzip.compress(bytes(2**20))
    header = gzip.compress(struct.pack(">BBBBIII", 0, 0, 8, 3, 500, 1024, 1024))
    file.write_bytes(header + 500 * squeezed)
    with pytest.raises(InputError, match="unpacks to more than 100 times its size"):
        read_idx(file, 3)


def test_a_header_that_promises_more_than_there_is_costs_no_memory(tmp_path):
    import tracemalloc

    file = tmp_path / "x"
    file.write_bytes(content(IMAGES, shape=(LARGEST // 16, 4, 4)))
    tracemalloc.start()
    with pytest.raises(InputError, match="cut off: 480 of"):
        read_idx(file, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23  # buffers of a few MiB, not the 2³⁰ bytes that it promises


@pytest.mark.parametrize("place", ["train_images", "test_labels"])
def test_a_worker_refuses_files_that_changed_after_the_run_began(tmp_path, place):
    folder = tmp_path / "set"
    folder.mkdir()
    data = {"name": "idx", "path": "set", "split_by_seed": True}
    settings = {"name": "worker", "data": data, "train": {"steps": 1}}
    spec = Spec.model_validate(settings)
    write(folder)
    known = digest(spec.data, tmp_path)
    assert load_splits(spec, 0, tmp_path, known).train.shape == (27, 16)
    changed = IMAGES[::-1] if place == "train_images" else TEST_LABELS[::-1]
    write(folder, **{place: content(np.ascontiguousarray(changed))})
    with pytest.raises(InputError, match="not the data that this run began with"):
        load_splits(spec, 1, tmp_path, known)
