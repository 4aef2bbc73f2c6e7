"""A .npy file is what its header says, to the last byte, or is refused in one line."""

import numpy as np
import pytest

from sparseflows.data.files.reading import mapped_array, read_npy
from sparseflows.errors import InputError

CHANGES = {
    "fewer rows in the head": lambda content: content.replace(b"(10, 2)", b"( 9, 2)"),
    "a byte more": lambda content: content + b"x",
    "cut off": lambda content: content[:-3],
    "a broken head": lambda content: content.replace(b"'descr'", b"'descr("),
    "an open bracket": lambda content: content.replace(b"(10, 2)", b"(10, 2,"),
    "arrays in an array": lambda content: content.replace(b"<f8", b"8f4")[:-80],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("read", [read_npy, mapped_array])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_was_saved_is_read(tmp_path, read, order):
    rows = np.asarray(np.arange(20.0).reshape(10, 2), order=order)
    np.save(tmp_path / "rows.npy", rows)
    np.testing.assert_array_equal(read(tmp_path / "rows.npy"), rows)


@pytest.mark.parametrize("read", [read_npy, mapped_array])
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_is_not_what_its_header_says_is_refused(tmp_path, read, change):
    file = tmp_path / "rows.npy"
    np.save(file, np.arange(20.0).reshape(10, 2))
    file.write_bytes(CHANGES[change](file.read_bytes()))
    with pytest.raises(InputError) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
