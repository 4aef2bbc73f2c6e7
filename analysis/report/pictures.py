"""The pictures of the page: which ones, what they show in words, and how they fit into its size."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.runs.analyses import Key

PNG, GIF = "image/png", "image/gif"
NARROW = 900  # pixels; what a picture is scaled down to before it is left out

# What the name of a file says of its picture: the words that describe it, and how much it matters (0 most).
_KINDS = (
    ("panel", "Flows of one cascade side by side, over the prune ratios", 1),
    ("density", "Density of the flow beside the true one", 2),
    ("samples", "Samples of the flow beside the data", 2),
    ("field", "Vector field at several times", 3),
    ("trajectories", "Paths of samples from noise to data", 3),
)


@dataclass(frozen=True)
class Picture:
    """One picture: its bytes, its size in pixels (0 where unknown), the words about it; 0 matters most."""

    name: str
    data: bytes
    alt: str
    caption: str
    mime: str = PNG
    width: int = 0
    height: int = 0
    importance: int = 0

    @property
    def is_still(self) -> bool:
        """Whether nothing moves in it."""
        return self.mime == PNG

    @property
    def source(self) -> str:
        """Its bytes as an address within the page."""
        return f"data:{self.mime};base64,{b64encode(self.data).decode()}"

    @property
    def size(self) -> int:
        """Bytes that it takes in the page at most: base64 has four characters for three bytes; tags and words."""
        words = 6 * (len(self.alt.encode()) + 2 * len(self.caption.encode())) + len(self.name.encode())
        return -(-len(self.data) // 3) * 4 + words + 500


def picture(name: str, data: bytes, alt: str, caption: str, importance: int = 0) -> Picture:
    """A PNG or a GIF, with the size that its first bytes tell."""
    if data[:3] == b"GIF":
        width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
        return Picture(name, data, alt, caption, GIF, width, height, importance)
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return Picture(name, data, alt, caption, PNG, width, height, importance)


def field_pictures(folder: Path, chosen: Sequence[tuple[Key, str]]) -> tuple[list[Picture], int]:
    """The pictures that `field` wrote to a folder, and how many others lie there.

    Taken are those of all stages together, and those of the chosen stages, each of which comes with what to call it.
    """
    found, others = [], 0
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.gif")]):
        stage = next((label for key, label in chosen if _is_of(path.stem, key)), None)
        words, importance = _words(path)
        if stage is None and not path.stem.startswith("panel"):
            others += 1
            continue
        about = f"{words}; {stage}" if stage else words
        found.append(picture(path.name, path.read_bytes(), f"{about}.", f"{about}.", importance))
    return sorted(found, key=lambda one: (one.importance, one.name)), others


def fit(pictures: Sequence[Picture], room: int) -> tuple[dict[int, Picture], list[str], list[str]]:
    """The pictures that fit into `room` bytes of page, the least important left out first.

    They come by their place in `pictures`, with the names of those that were scaled down, and left out.
    """
    kept: dict[int, Picture] = {}
    scaled, left_out = [], []
    for place in sorted(range(len(pictures)), key=lambda place: pictures[place].importance):
        fitting = one = pictures[place]
        if one.size > room:
            fitting = smaller(one)
            if fitting.size > room:
                left_out.append(one.name)
                continue
            scaled.append(one.name)
        kept[place] = fitting
        room -= fitting.size
    return kept, scaled, left_out


def smaller(one: Picture) -> Picture:
    """A PNG that is wider than 900 pixels, scaled down to that; anything else as it is."""
    if one.mime != PNG or one.width <= NARROW:
        return one
    from PIL import Image  # comes with matplotlib

    with Image.open(io.BytesIO(one.data)) as image:
        reduced = image.convert("RGB").resize((NARROW, round(one.height * NARROW / one.width)))
    stream = io.BytesIO()
    reduced.save(stream, format="PNG", optimize=True)
    return replace(one, data=stream.getvalue(), width=reduced.width, height=reduced.height)


def _is_of(stem: str, key: Key) -> bool:
    # `field` names a stage's files <method>-s<seed>-<stage>_<figure>.png, and its animation without a figure.
    name = f"{key[0]}-s{key[1]}-{key[2]}"
    return stem == name or stem.startswith(f"{name}_")


def _words(path: Path) -> tuple[str, int]:
    if path.suffix == ".gif":
        return "Animation: samples on their way from noise to data", 5
    kind = path.stem if path.stem.startswith("panel") else path.stem.rpartition("_")[2]
    return next(((words, rank) for start, words, rank in _KINDS if kind.startswith(start)), (path.stem, 4))
