"""Whatever is wrong with the files: status 2, one line that says where, and nothing left behind."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import stat
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest
from support.data import published_files as files
from support.data.prepare_command import made, refused

from sparseflows.data.benchmarks.prepared import open_prepared
from sparseflows.data.files import sources

POWER = files.power_rows(300)
TEXT = files.power_text(POWER, missing={3})
DATA = files.npy(POWER)


# --- the command


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--sha256", "abc"], "64 hexadecimal digits"),
        (["--sha256", "0" * 64], "SHA-256"),
        (["--seed", "3"], "--seed is for the sample of GAS"),
        (["--seed", "-1"], "give a number from 0"),
        (["--dtype", "float16"], "float16"),
    ],
)
def test_options(tmp_path, options, word):
    (tmp_path / "data.npy").write_bytes(DATA)
    refused(tmp_path, tmp_path / "data.npy", word, options=options)


def test_names_and_places(tmp_path):
    (tmp_path / "data.npy").write_bytes(DATA)
    refused(tmp_path, tmp_path / "data.npy", "did you mean 'power'", name="powr")
    refused(tmp_path, tmp_path / "none.npy", "no such file")
    refused(tmp_path, tmp_path, "looked for", "1000_train.csv", name="hepmass")
    refused(tmp_path, tmp_path / "data.npy", "one file of several", "1000_test.csv", name="hepmass")
    refused(tmp_path, tmp_path / "data.npy", "looked for BSDS300/BSDS300.hdf5", name="bsds300")
    (tmp_path / "picture.png").write_bytes(b"1")
    refused(tmp_path, tmp_path / "picture.png", "not a file of this set")
    os.mkfifo(tmp_path / "fifo.npy")
    refused(tmp_path, tmp_path / "fifo.npy", "not a regular file")
    refused(tmp_path, tmp_path / "data.npy", "cannot", target="data.npy/made")
    refused(tmp_path, "a\0b", "null byte")
    refused(tmp_path, tmp_path / "data.npy", "cannot be", target="x" * 300)
    both = tmp_path / "power"
    both.mkdir()
    (both / "data.npy").write_bytes(DATA)
    (both / "household_power_consumption.txt").write_text(TEXT)
    refused(tmp_path, both, "either would do")


def test_an_existing_folder(tmp_path):
    (tmp_path / "data.npy").write_bytes(DATA)
    (tmp_path / "made").mkdir()  # empty: taken
    made(tmp_path, tmp_path / "data.npy")
    before = (tmp_path / "made/train.npy").stat().st_ino
    refused(tmp_path, tmp_path / "data.npy", "--force replaces it", target="made")
    (tmp_path / "bad.npy").write_bytes(DATA[:-1])
    refused(tmp_path, tmp_path / "bad.npy", "cut off", target="made", options=["--force"])
    assert (tmp_path / "made/train.npy").stat().st_ino == before
    made(tmp_path, tmp_path / "data.npy", "--force", "--dtype", "float32")
    assert open_prepared(tmp_path / "made").train.dtype == np.float32
    (tmp_path / "made/thesis.txt").write_text("mine")
    refused(tmp_path, tmp_path / "data.npy", "holds other files", target="made", options=["--force"])
    refused(tmp_path, tmp_path / "data.npy", "is no folder", target="data.npy")


# --- text


def changed(line, text):
    lines = TEXT.split("\n")
    lines[line - 1] = text
    return "\n".join(lines).encode()


GOOD = TEXT.split("\n")[9]
BAD_TEXTS = {
    "empty": (b"", "not one row"),
    "header only": (TEXT.split("\n")[0].encode(), "not one row"),
    "no header": (TEXT.split("\n", 1)[1].encode(), "line 1 should be the header"),
    "another header": (changed(1, "a;b;c"), "line 1 should be the header"),
    "word": (changed(10, ";".join([*GOOD.split(";")[:4], "24x", "1;1;1;1"])), "line 10, column 5: '24x' is no"),
    "nan": (changed(10, ";".join([*GOOD.split(";")[:8], "nan"])), "line 10, column 9: 'nan' is not finite"),
    "too few": (changed(10, GOOD.rsplit(";", 1)[0]), "line 10 has 8 columns, 9"),
    "missing and too many": (changed(10, GOOD + ";?"), "10 columns, 9 are wanted"),
    "no time": (changed(10, GOOD.replace("00:0", "25:0")), "no time of day"),
    "no ASCII": (changed(10, GOOD + "é"), "line 10 is not plain text"),
    "binary": (TEXT.encode()[:500] + os.urandom(3000).replace(b"\n", b"\xff"), "not plain text"),
    "one line": (TEXT.encode()[:500] + b"1" * 10_000_000, "longer than"),
    "constant": (
        "\n".join([TEXT.split("\n")[0], *(f"1/1/2007;00:00:00;{k};1;2;1;3;4;5" for k in range(60))]).encode(),
        "'time' is 0 in every row",
    ),
    "too few rows": ("\n".join(TEXT.split("\n")[:9]).encode(), "too few to split"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_power_text(tmp_path, case):
    content, word = BAD_TEXTS[case]
    (tmp_path / "power.txt").write_bytes(content)
    refused(tmp_path, tmp_path / "power.txt", word, "power.txt")


def test_other_texts(tmp_path):
    gas = files.gas_text(files.gas_rows(400))
    train = files.hepmass_text(files.hepmass_rows(300, 0))
    boone = files.miniboone_text(files.miniboone_rows(120, 50), 120)
    for name, file, content, word in (
        ("gas", "gas.txt", gas.split("\n", 1)[1], "line 1 should be a header"),
        ("gas", "gas.txt", re.sub(r"(?m)^(.*)   \S+  $", r"\1", gas), "18 columns, 19 are wanted"),
        ("gas", "gas.txt", gas.replace("\n", "\n\n").replace(" 10", " ?", 1), "is no number"),
        ("gas", "gas.txt", gas.split("\n")[0] + "\n" + ("1 " * 19 + "\n") * 400, "in every row"),
        ("gas", "gas.txt", re.sub(r"(?m)(\d)  $", r"\1e300", gas), "too large or too small"),
        ("miniboone", "m.txt", boone.split("\n", 1)[1], "line 1 should hold two counts"),
        ("miniboone", "m.txt", "\n".join(boone.split("\n")[:-20]), "its first line says 170"),
        ("miniboone", "m.txt", boone + boone.split("\n")[5], "its first line says 170"),
        ("miniboone", "m.txt", re.sub(r"(?m)^(.*)\s\S+$", r"\1", boone).replace(" 120", " 120 50", 1), "49 columns"),
    ):
        (tmp_path / file).write_text(content)
        refused(tmp_path, tmp_path / file, word, name=name)
    for bad, word in (
        (train.replace("\n1.0", "\n2.0"), "the label, 0 or 1"),
        (re.sub(r"(?m),[^,\n]*$", "", train), "27 columns, 28 are wanted"),
        (re.sub(r"(?m)$", ",1", train.rstrip("\n")), "29 columns, 28 are wanted"),
        (train.replace("\n1.0", "\n0.0"), "not one row"),
    ):
        folder = tmp_path / "hep"
        folder.mkdir(exist_ok=True)
        (folder / "1000_train.csv").write_text(bad)
        (folder / "1000_test.csv").write_text(train)
        refused(tmp_path, folder, word, "1000_train.csv", name="hepmass")
    (folder / "1000_test.csv").unlink()
    refused(tmp_path, folder, "looked for 1000_test.csv", name="hepmass")


# --- .npy


class Boom:
    def __reduce__(self):
        return os.mkdir, ("boom",)


def npy_header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


BAD_ARRAYS = {
    "cut off": (DATA[:-5], "cut off after"),
    "cut off in the header": (DATA[:40], "not in the .npy format"),
    "longer": (DATA + b"1", "goes on after"),
    "objects": (files.npy(np.array([[Boom()] * 8], dtype=object)), "Python objects"),
    "text": (files.npy(np.full((50, 8), "a")), "real numbers"),
    "complex": (files.npy(POWER * 1j), "real numbers"),
    "records": (files.npy(np.zeros(3, dtype=[("a", "f8"), ("b", "O")])), "Python objects"),
    "7 columns": (files.npy(POWER[:, :7]), "(N, 8) is wanted"),
    "1-D": (files.npy(POWER[0]), "(N, 8) is wanted"),
    "no rows": (files.npy(POWER[:0]), "no rows"),
    "nan": (files.npy(np.where(np.arange(300)[:, None] == 17, np.nan, POWER)), "row 18 holds NaN"),
    "inf, Fortran": (
        files.npy(np.asfortranarray(np.where(np.arange(300)[:, None] == 17, np.inf, POWER))), "row 18 holds NaN",
    ),
    "constant": (files.npy(np.where(np.arange(8) == 7, 5.0, POWER)), "'time' is 5 in every row"),
    "not npy": (b"hello", "not in the .npy format"),
    "huge shape": (npy_header(b"{'descr':'<f8','fortran_order':False,'shape':(10000000000,8)}\n"), "at most"),
    "negative shape": (npy_header(b"{'descr':'<f8','fortran_order':False,'shape':(-3,8)}\n"), "fetch it again"),
    "code": (npy_header(b"{'descr':__import__('os').mkdir('boom'),'fortran_order':False,'shape':(1,8)}\n"), ".npy"),
    "extreme": (files.npy(POWER * 1e304), "too large"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_power_npy(tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, word = BAD_ARRAYS[case]
    (tmp_path / "data.npy").write_bytes(content)
    refused(tmp_path, tmp_path / "data.npy", word)


# --- archives


def link(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


BAD_MEMBERS = {
    "absolute": [("/etc/power/data.npy", DATA)],
    "upwards": [("data/../../power/data.npy", DATA)],
    "elsewhere upwards": [("power/data.npy", DATA), ("../x", b"1")],
    "windows": [("C:\\power\\data.npy", DATA)],
    "symbolic link": [link("power/data.npy", tarfile.SYMTYPE, "/etc/passwd")],
    "hard link": [("x", DATA), link("power/data.npy", tarfile.LNKTYPE, "x")],
    "device": [("power/data.npy", DATA), link("null", tarfile.CHRTYPE)],
    "fifo": [link("power/data.npy", tarfile.FIFOTYPE)],
    "twice": [("power/data.npy", DATA), ("power/data.npy", DATA)],
    "twice, in disguise": [("power/data.npy", DATA), ("./power//data.npy", DATA)],
    "two of them": [("a/power/data.npy", DATA), ("b/power/data.npy", DATA)],
    "none": [("power/other.npy", DATA)],
    "nothing": [],
}


@pytest.mark.parametrize(("place", "case"), list(enumerate(BAD_MEMBERS)))
def test_tar_members(tmp_path, place, case):
    suffix = ("tar", "tar.gz", "tgz")[place % 3]  # they differ in what unpacks the stream, not in what is in it
    archive = files.write_tar(tmp_path / f"data.{suffix}", BAD_MEMBERS[case])
    refused(tmp_path, archive, f"data.{suffix}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_members(tmp_path):
    for case, members in BAD_MEMBERS.items():
        plain = [(name, content) for name, content in members if isinstance(content, bytes)]
        if plain != members:
            continue
        refused(tmp_path, files.write_zip(tmp_path / "data.zip", plain), "data.zip")
        assert case
    entry = zipfile.ZipInfo("power/data.npy")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    refused(tmp_path, files.write_zip(tmp_path / "data.zip", [(entry, b"/etc/passwd")]), "a link or device")
    nameless = files.write_zip(tmp_path / "data.zip", [("nameless", b""), ("power/other.npy", DATA)])
    nameless.write_bytes(nameless.read_bytes().replace(b"nameless", b"\0ameless"))  # where it ends, says zipfile
    refused(tmp_path, nameless, "data.npy")
    archive = bytearray(files.write_zip(tmp_path / "data.zip", [("power/data.npy", DATA)]).read_bytes())
    for place in (6, archive.index(b"PK\x01\x02") + 8):  # the flags of the entry, at both places: encrypted
        archive[place] |= 1
    (tmp_path / "data.zip").write_bytes(archive)
    refused(tmp_path, tmp_path / "data.zip", "encrypted")


def test_every_cut_of_an_archive(tmp_path):
    """Cut off anywhere, and one byte flipped anywhere: refused, or (flipped where nothing depends on it) right."""
    rng = np.random.default_rng(0)
    makers = {"t.tar.gz": files.write_tar, "t.tar": files.write_tar, "t.zip": files.write_zip}
    for name, write in makers.items():
        whole = write(tmp_path / name, [("power/data.npy", DATA), ("power/more", b"x" * 2000)]).read_bytes()
        end = len(whole) if name != "t.tar" else whole.rindex(b"x") + 600  # what pads the end may go
        for cut in rng.integers(1, end - 1, 10):
            (tmp_path / name).write_bytes(whole[:cut])
            refused(tmp_path, tmp_path / name, name)
    whole = files.write_gz(tmp_path / "t.txt.gz", TEXT.encode()).read_bytes()
    for cut in [*rng.integers(0, len(whole) - 1, 10), len(whole) - 1]:
        (tmp_path / "t.txt.gz").write_bytes(whole[:cut])
        refused(tmp_path, tmp_path / "t.txt.gz", "t.txt.gz")
    for place in rng.integers(12, len(whole), 20):
        broken = bytearray(whole)
        broken[place] ^= 16
        (tmp_path / "t.txt.gz").write_bytes(broken)
        refused(tmp_path, tmp_path / "t.txt.gz", "t.txt.gz")


def test_no_archives(tmp_path):
    for name in ("a.tar", "a.tar.gz", "a.tgz", "a.zip", "a.txt.gz"):
        for content in (b"", b"hello", os.urandom(5000), bytes(20_000), gzip.compress(b""), gzip.compress(b"hello")):
            (tmp_path / name).write_bytes(content)
            refused(tmp_path, tmp_path / name, name)


def test_a_header_that_asks_for_gigabytes(tmp_path):
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 10 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(20_000))
    refused(tmp_path, tmp_path / "a.tar", "header")
    info = tarfile.TarInfo("power/data.npy")
    info.size = 10 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(20_000))
    refused(tmp_path, tmp_path / "a.tar", "at most")


def test_links_in_a_folder(tmp_path):
    (tmp_path / "secret.npy").write_bytes(DATA)
    folder = tmp_path / "folder/power"
    folder.mkdir(parents=True)
    (folder / "data.npy").symlink_to(tmp_path / "secret.npy")
    refused(tmp_path, tmp_path / "folder", "a link that leads out")
    (folder / "data.npy").unlink()
    (folder / "data.npy").symlink_to(folder / "none")
    refused(tmp_path, tmp_path / "folder", "no such file")
    (folder / "data.npy").unlink()
    os.mkfifo(folder / "data.npy")
    refused(tmp_path, tmp_path / "folder", "not a regular file")
    (folder / "data.npy").unlink()
    (folder / "real.bin").write_bytes(DATA)
    (folder / "data.npy").symlink_to(folder / "real.bin")
    made(tmp_path, tmp_path / "folder")


# --- bombs


def zeros_member(n):
    """A gzipped file of `n` MiB of zeros, without making them all."""
    piece = gzip.compress(bytes(1 << 20), 9)
    return piece * n  # gzip files may follow one another


@pytest.mark.parametrize("file", ["bomb.txt.gz", "bomb.tar.gz", "bomb.npy.gz", "text.txt.gz"])
def test_gz_bombs(tmp_path, file, monkeypatch):
    """10 GiB of zeros, and of text that is right: refused in a moment."""
    monkeypatch.setattr(sources, "RATIO_FROM", 8 << 20)  # as it is, the text takes 4 s
    start = {"bomb.tar.gz": tarfile.TarInfo("x"), "text.txt.gz": TEXT.encode(), "bomb.npy.gz": DATA}.get(file, b"")
    if isinstance(start, tarfile.TarInfo):
        start.size = 10 << 30
        start = start.tobuf()
    bomb = zeros_member(10 << 10)
    if file == "text.txt.gz":
        bomb = gzip.compress((GOOD + "\n").encode() * 20_000, 9) * 8000
    (tmp_path / file).write_bytes(gzip.compress(start) + bomb)
    begun = time.monotonic()
    refused(tmp_path, tmp_path / file, file)
    assert time.monotonic() - begun < 30


def test_zip_bombs(tmp_path):
    """By what the entry says, and by what comes out where that is a lie."""
    path = tmp_path / "bomb.zip"
    entry = zipfile.ZipInfo("power/data.npy")
    entry.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive, archive.open(entry, "w", force_zip64=True) as member:
        member.write(npy_header(b"{'descr':'<f8','fortran_order':False,'shape':(16000000,8)}\n"))
        for _ in range(100):
            member.write(bytes(1 << 20))
    refused(tmp_path, path, "unpacks to more than 100 times")


def test_the_limit_holds_whatever_a_header_says(tmp_path, monkeypatch):
    from sparseflows.data.recipes import power

    wanted = tuple(type(one)(one.key, one.tail, 10_000, one.raw) for one in power.RECIPE.wanted)
    monkeypatch.setattr(power, "RECIPE", type(power.RECIPE)(wanted, power.read, power.make))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    refused(tmp_path, tmp_path / "a.txt.gz", "more than 10,000 bytes")
    archive = files.write_tar(tmp_path / "a.tar.gz", [("household_power_consumption.txt.gz", gzip.compress(DATA))])
    refused(tmp_path, archive, "a.tar.gz")
    refused(tmp_path, files.write_tar(tmp_path / "b.tar.gz", [("power/data.npy", DATA)]), "at most 10,000 are taken")
    refused(tmp_path, files.write_zip(tmp_path / "b.zip", [("power/data.npy", DATA)]), "at most 10,000 are taken")


# --- the pickle


def frame(columns=19, rows=200):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(files.gas_rows(rows)[:, :columns], columns=files.gas_names()[:columns])


def test_a_pickle_needs_leave(tmp_path):
    path = tmp_path / "ethylene_CO.pickle"
    path.write_bytes(pickle.dumps(frame()))
    refused(tmp_path, path, "--allow-pickle", "raw ethylene_CO.txt", name="gas")
    refused(tmp_path, tmp_path, "--allow-pickle", name="gas")
    archive = files.write_tar(tmp_path / "data.tar.gz", [("data/gas/ethylene_CO.pickle", path.read_bytes())])
    path.unlink()
    refused(tmp_path, archive, "--allow-pickle", name="gas")
    refused(tmp_path, archive, "--seed", name="gas", options=["--allow-pickle", "--seed", "1"])
    made(tmp_path, archive, "--allow-pickle", name="gas")


def test_bad_pickles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    holed = frame()
    holed.iloc[5, 7] = np.nan
    path = tmp_path / "ethylene_CO.pickle"
    for content, word in (
        (Boom(), "posix.mkdir, no part of a data frame"),
        ({"frame": eval}, "no part of a data frame"),
        ([1, 2], "holds a list, not a data frame"),
        (frame(18), "has 18 columns"),
        (frame().rename(columns={"Meth": "X"}), "no 'Meth'"),
        (frame().assign(**{"CO.3": "x"}), "no numbers"),
        (holed, "row 6 holds NaN"),
        (frame(rows=8), "too few"),
    ):
        path.write_bytes(pickle.dumps(content))
        refused(tmp_path, path, word, name="gas", options=["--allow-pickle"])
    for content in (b"", b"hello", pickle.dumps(frame())[:3000], b"cos\nsystem\n(S'mkdir boom'\ntR."):
        path.write_bytes(content)
        refused(tmp_path, path, "ethylene_CO", name="gas", options=["--allow-pickle"])


# --- HDF5


def test_bad_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, arrays = tmp_path / "BSDS300.hdf5", files.patches((60, 20, 20))
    files.hdf5(tmp_path / "other.h5", arrays)
    holed = np.where(np.arange(60)[:, None] == 9, np.nan, arrays["train"])
    for change, word in (
        ({"train": None}, "no data set 'train'"),
        ({"train": arrays["train"][:, :62]}, "(N, 63)"),
        ({"test": arrays["test"][0]}, "(N, 63)"),
        ({"test": arrays["test"][:0]}, "(N, 63)"),
        ({"train": holed}, "row 10 holds NaN"),
        ({"validation": h5py.ExternalLink("other.h5", "train")}, "of its own"),
        ({"validation": h5py.SoftLink("/train")}, "of its own"),
    ):
        files.hdf5(path, {part: data for part, data in (arrays | change).items() if data is not None})
        refused(tmp_path, path, word, name="bsds300")
    with h5py.File(path, "w") as file:
        for part in ("validation", "test"):
            file[part] = arrays[part]
        file.create_dataset("train", (10**10, 63), "f4", chunks=(100, 63))  # no byte of it is stored
    refused(tmp_path, path, "at most 4,000,000 rows", name="bsds300")
    with h5py.File(path, "w") as file:
        for part in ("validation", "test"):
            file[part] = arrays[part]
        file.create_dataset("train", (60, 63), "f8", external=[(str(tmp_path / "other.h5"), 0, 60 * 63 * 8)])
    refused(tmp_path, path, "points to another file", name="bsds300")
    whole = (tmp_path / "other.h5").read_bytes()
    for content in (b"", b"hello", whole[:1000], whole[:-3000]):
        path.write_bytes(content)
        refused(tmp_path, path, "not HDF5, cut off or damaged", name="bsds300")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "BSDS300.hdf5").write_bytes(b"1")
    refused(tmp_path, tmp_path / "BSDS300.hdf5", "pip install 'sparseflows[archives]'", name="bsds300")
    (tmp_path / "ethylene_CO.pickle").write_bytes(b"1")
    refused(tmp_path, tmp_path, "sparseflows[archives]", name="gas", options=["--allow-pickle"])
