"""Published files of benchmark sets, mutated inside or out: refused, or prepared as the naive recipes prepare them."""

from __future__ import annotations

import gzip
import io
import math
import re
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from tests.campaign import readers
from tests.campaign.commands import say
from tests.campaign.kinds.damage import damage
from tests.campaign.mutations import mutated_bytes, mutated_text
from tests.campaign.readers import Unreadable
from tests.campaign.verdicts import REFUSED, Found, after, judge, require
from tests.campaign.world import World
from tests.support.data import naive_recipes as naive
from tests.support.data import published_files as files

PARTS = ("train", "validation", "test")
POWER_TEXT, MINIBOONE_TEXT, GAS_TEXT = "household_power_consumption.txt", "MiniBooNE_PID.txt", "ethylene_CO.txt"
SIGNAL = 120
TOLERANCE = 1e-9
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)
PREPARED = """\
name: prepared
data: {name: power, path: FOLDER}
flow: {hidden: [4], time: concat}
train: {objective: flow_matching, steps: 10, batch: 32}
evaluate: {max_rows: 8}
"""


def archive(world: World, random: Random, folder: Path) -> Found:
    """`data prepare` of a mutated file, alone or in an archive whose own bytes may be mutated as well."""
    name = random.choice([*TEXTS, "power.npy"])
    inner, member, recipe = content_of(name), MEMBERS[name], name.partition(".")[0]
    inside = random.random() < 0.6
    if inside:
        inner = mutated_bytes(inner, random)[0] if name == "power.npy" else mutated_text(inner.decode(), random)[0]
    wrapping = random.choice(list(WRAPPINGS))
    suffix, wrap, unwrap = WRAPPINGS[wrapping]
    path = folder / f"{Path(member).name}{suffix}" if wrapping in ("plain", "gz") else folder / f"source{suffix}"
    content = wrap(member, inner)
    if not inside:
        content, _ = mutated_bytes(content, random)
    path.write_bytes(content)
    made = folder / "made"
    ended = say(folder, "data", "prepare", recipe.upper(), "--from", path, "--to", made)
    outcome = judge(ended)
    left = sorted(one.name for one in folder.iterdir() if one != path)
    if outcome == REFUSED:
        require(not left, f"left behind: {left}")
        return Found(outcome, ended.last, inputs=1)
    require(left == ["made"], f"left behind: {left}")
    try:
        expected = STRICT[name](unwrap(path, member))
    except Unreadable as error:
        require(False, f"{name} {wrapping}: took what a strict reader refuses: {error}")
        raise
    for part, rows in zip(PARTS, expected, strict=True):
        found = np.load(made / f"{part}.npy")
        require(found.shape == rows.shape, f"{name}: {part} is {found.shape}, a strict reader has {rows.shape}")
        close = np.allclose(found, rows, rtol=TOLERANCE, atol=TOLERANCE)
        require(close, f"{name} {wrapping}: {part} differs from a strict reader's")
    return Found(outcome, inputs=1)


def prepared(world: World, random: Random, folder: Path) -> Found:
    """A prepared folder is damaged, then trained on: the numbers of the good one, or refused."""
    good, param = _prepared(world)
    there = folder / "data"
    there.mkdir()
    for one in good.iterdir():
        (there / one.name).write_bytes(one.read_bytes())
    said = damage(random.choice(sorted(there.iterdir())), random)
    path = folder / "prepared.yaml"
    path.write_text(PREPARED.replace("FOLDER", str(there)))
    asked = random.choice((("check", path), ("run", path, "--out", folder / "out")))
    ended = say(folder, *asked)
    with after(said):
        outcome = judge(ended)
        if outcome != REFUSED and asked[0] == "run":
            found, expected = (_stage(one / "prepared") for one in (folder / "out", param.parent / "out"))
            require(found == expected, "another run than of the good data")
    return Found(outcome, f"{said}: {ended.last}", inputs=1)


def _prepared(world: World) -> tuple[Path, Path]:
    """The good prepared folder, and the param file of its run; made at first use."""
    folder = world.folder / "prepared"
    if not (folder / "out" / "prepared" / "results.csv").exists():
        folder.mkdir(exist_ok=True)
        source = folder / POWER_TEXT
        source.write_bytes(content_of("power.txt"))
        (folder / "prepared.yaml").write_text(PREPARED.replace("FOLDER", str(folder / "data")))
        for arguments in (
            ("data", "prepare", "POWER", "--from", source, "--to", folder / "data", "--force"),
            ("run", folder / "prepared.yaml", "--out", folder / "out"),
        ):
            ended = say(folder / "said", *arguments)
            if ended.status != 0:
                raise RuntimeError(ended.err)
    return folder / "data", folder / "prepared.yaml"


def _stage(run: Path) -> bytes:
    return (run / "cascades/dense-s0/stages/0/model.safetensors").read_bytes()


@cache
def content_of(name: str) -> bytes:
    """The good file."""
    if name == "power.npy":
        return files.npy(files.power_rows(120))
    return TEXTS[name]().encode()


TEXTS: dict[str, Callable[[], str]] = {
    "power.txt": lambda: files.power_text(files.power_rows(120), missing={0, 7, 8, 70, 119}),
    "miniboone.txt": lambda: files.miniboone_text(files.miniboone_rows(SIGNAL, 30)[:, :], SIGNAL),
    "gas.txt": lambda: files.gas_text(files.gas_rows(600)),
}
MEMBERS = {
    "power.txt": POWER_TEXT,
    "miniboone.txt": MINIBOONE_TEXT,
    "gas.txt": GAS_TEXT,
    "power.npy": "data/power/data.npy",
}


# --- containers: suffix, how to make one, and a plain reading of one


def _tar(member: str, inner: bytes, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in (("readme", b"x"), (member, inner)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _zip(member: str, inner: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme", b"x")
        archive.writestr(member, inner)
    return buffer.getvalue()


def _of_tar(path: Path, member: str) -> bytes:
    try:
        with tarfile.open(path) as archive:
            found = [one for one in archive if one.isfile() and one.name.lower().endswith(_tail(member))]
            (only,) = found
            stream = archive.extractfile(only)
            content = stream.read() if stream else b""
        if len(content) != only.size:
            raise Unreadable("cut off")
        return content
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"no tar: {error}") from None


def _of_zip(path: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            (only,) = [one for one in archive.namelist() if one.lower().endswith(_tail(member))]
            return archive.read(only)
    except Exception as error:
        raise Unreadable(f"no zip: {error}") from None


def _of_gz(path: Path, member: str) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except Exception as error:
        raise Unreadable(f"no gzip: {error}") from None


def _tail(member: str) -> str:
    return member.removeprefix("data/").lower()


WRAPPINGS: dict[str, tuple[str, Callable[[str, bytes], bytes], Callable[[Path, str], bytes]]] = {
    "plain": ("", lambda member, inner: inner, lambda path, member: path.read_bytes()),
    "gz": (".gz", lambda member, inner: gzip.compress(inner, 1, mtime=0), _of_gz),
    "zip": (".zip", _zip, _of_zip),
    "tar": (".tar", lambda member, inner: _tar(member, inner, "w"), _of_tar),
    "tar.gz": (".tar.gz", _tar, _of_tar),
}


# --- a strict reading of what is inside


def _power(content: bytes) -> tuple[np.ndarray, ...]:
    head, *lines = _lines(content)
    if head.strip().lower() != files.HEADER.lower():
        raise Unreadable("no header")
    rows = []
    for line in lines:
        cells = line.split(";")
        if len(cells) != 9:
            raise Unreadable(f"{len(cells)} cells")
        if "" in cells or "?" in line:
            continue
        date, clock, *values = cells
        day, hours = [_numbers(one) for one in (date.split("/"), clock.split(":"))]
        if (
            len(day) != 3
            or len(hours) != 3
            or not (0 <= hours[0] <= 23 and 0 <= hours[1] <= 59 and 0 <= hours[2] <= 59)
        ):
            raise Unreadable("no time")
        rows.append([*_numbers(values), hours[0] * 60 + hours[1] + hours[2] / 60])
    return _made(naive.power, np.array(rows))


def _miniboone(content: bytes) -> tuple[np.ndarray, ...]:
    head, *lines = _lines(content)
    counts = head.split()
    if len(counts) != 2 or not all(re.fullmatch(r"\d+", one, re.ASCII) for one in counts):
        raise Unreadable("no counts")
    rows = np.array([_numbers(line.split(), 50) for line in lines])
    if len(rows) != int(counts[0]) + int(counts[1]):
        raise Unreadable("another number of events")
    return _made(lambda found: naive.miniboone_raw(found, int(counts[0])), rows)


def _gas(content: bytes) -> tuple[np.ndarray, ...]:
    head, *lines = _lines(content)
    if all(NUMBER.fullmatch(cell) for cell in head.split()):
        raise Unreadable("no header")
    return _made(naive.gas_raw, np.array([_numbers(line.split(), 19) for line in lines]))


def _npy(content: bytes) -> tuple[np.ndarray, ...]:
    rows = readers.table(".npy", content)
    if rows.shape[1] != 8:
        raise Unreadable("another width")
    return _made(naive.power, rows)


STRICT = {"power.txt": _power, "miniboone.txt": _miniboone, "gas.txt": _gas, "power.npy": _npy}


def _made(recipe: Callable[[np.ndarray], tuple[np.ndarray, ...]], rows: np.ndarray) -> tuple[np.ndarray, ...]:
    with np.errstate(all="ignore"):
        try:
            return recipe(rows)
        except (ValueError, IndexError) as error:
            raise Unreadable(f"too few rows: {error}") from None


def _lines(content: bytes) -> list[str]:
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("ascii")
    except UnicodeDecodeError:
        raise Unreadable("no text") from None
    head, *lines = [line.removesuffix("\r") for line in text.split("\n")]
    return [head, *(line for line in lines if line.strip())]


def _numbers(cells: list[str], width: int | None = None) -> list[float]:
    if not all(NUMBER.fullmatch(cell.strip()) for cell in cells) or width not in (None, len(cells)):
        raise Unreadable("a cell is no number, or there are too many")
    values = [float(cell.strip()) for cell in cells]
    if not all(map(math.isfinite, values)):
        raise Unreadable("not finite")
    return values
