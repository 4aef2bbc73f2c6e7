"""Good bytes and good text made bad, in ways that a seed repeats."""

from __future__ import annotations

import string
from collections.abc import Callable
from random import Random

TOKENS = (
    "nan", "NaN", ".nan", "inf", "-.inf", "-inf", "1e400", "-1e999", "0", "-0", "-1", "1", "2", "0.5", "1.5",
    "99999999999999999999", "1_000", "010", "0x10", "0o7", "1:30", "1e5", "+3", "true", "no", "null", "~", "''", '"',
    "'", "1e-400", "[]", "{}", "[[[[]]]]", "{a: {b: {c: 1}}}", "- ", "? ", ": ", ":", "|", ">", "&a", "*a",
    "!!python/name:os.system", "!!int x", "!!binary aGk=", "%YAML 1.1", "---", "...", "#", ",", ";", "\t", "\n", "\r",
    "\r\n", "\0", "\x0b", "\x1c", "\x85", "\u2028", "\ufeff", "ä", "日本", "１２", "٣", "é", "🙂", "\ud83d", "name",
    "seeds", "tanh", "2020-01-01", "<<: {}", "a" * 300, "9" * 400, "[" * 50, "0" * 60, "1e308", "1e309", "4.9e-324",
    "NA", "?", "1,2", "1.0.0", "--1",
)  # fmt: skip


def mutated_bytes(content: bytes, random: Random) -> tuple[bytes, str]:
    """`content` with one to three changes, and their names; different from it wherever that is possible."""
    names = []
    changed = content
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = random.choice(BYTE_CHANGES)
        changed = change(changed, random)
        names.append(change.__name__)
    return changed, "+".join(names)


def mutated_text(content: str, random: Random) -> tuple[bytes, str]:
    """Text with one to three changes of lines, tokens or characters (sometimes bytes), and their names."""
    names = []
    changed = content
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = random.choice(TEXT_CHANGES)
        changed = change(changed, random)
        names.append(change.__name__)
    data = changed.encode("utf-8", errors="surrogatepass")
    if random.random() < 0.15:
        data, more = mutated_bytes(data, random)
        names.append(more)
    return data, "+".join(names)


def flip(content: bytes, random: Random) -> bytes:
    """One bit, or up to eight."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 8)) if changed else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def flip_early(content: bytes, random: Random) -> bytes:
    """One bit of the first 128 bytes, where the headers are."""
    head = flip(content[:128], random)
    return head + content[128:]


def truncate(content: bytes, random: Random) -> bytes:
    """The beginning only; often nearly all."""
    if not content:
        return content
    return (
        content[: -random.randint(1, min(64, len(content)))]
        if random.random() < 0.4
        else content[: _at(content, random)]
    )


def empty(content: bytes, random: Random) -> bytes:
    """Nothing."""
    return b""


def zeroed(content: bytes, random: Random) -> bytes:
    """A stretch of zeros, as a disk leaves it that lost a block."""
    start = _at(content, random)
    length = min(len(content) - start, random.choice((1, 16, 512, 4096)))
    return content[:start] + bytes(length) + content[start + length :]


def noise(content: bytes, random: Random) -> bytes:
    """A few random bytes, put in or written over."""
    start, made = _at(content, random), random.randbytes(random.choice((1, 4, 64)))
    return content[:start] + made + content[start + random.choice((0, len(made))) :]


def doubled(content: bytes, random: Random) -> bytes:
    """A stretch twice."""
    start = _at(content, random)
    stretch = content[start : start + random.choice((1, 8, 200))]
    return content[:start] + stretch + content[start:]


def removed(content: bytes, random: Random) -> bytes:
    """A stretch left out."""
    start = _at(content, random)
    return content[:start] + content[start + random.choice((1, 1, 8, 200)) :]


def goes_on(content: bytes, random: Random) -> bytes:
    """More at the end."""
    return content + random.choice((b"\0", b"\n", b"1", random.randbytes(16), content[-40:]))


BYTE_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip, flip, flip, flip_early, flip_early, truncate, truncate, empty, zeroed, noise, doubled, removed, goes_on,
)  # fmt: skip


def token(content: str, random: Random) -> str:
    """A token put in, at a place or in place of a word."""
    made = random.choice(TOKENS)
    if random.random() < 0.5:
        return _at_word(content, random, lambda word: made)
    start = random.randint(0, len(content))
    return content[:start] + made + content[start:]


def number(content: str, random: Random) -> str:
    """A digit changed, a sign or an exponent added, somewhere in a number."""
    places = [k for k, letter in enumerate(content) if letter in string.digits]
    if not places:
        return content
    at = random.choice(places)
    made = random.choice([*string.digits, "-", "e", "e9", "e300", "e-300", "00000000", ".", "..", ",", " ", ""])
    return content[:at] + made + content[at + random.randint(0, 1) :]


def swap_lines(content: str, random: Random) -> str:
    """Two lines change places."""
    lines = content.split("\n")
    first, second = random.randrange(len(lines)), random.randrange(len(lines))
    lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)


def double_line(content: str, random: Random) -> str:
    """A line twice, the second time anywhere."""
    lines = content.split("\n")
    lines.insert(random.randint(0, len(lines)), random.choice(lines))
    return "\n".join(lines)


def drop_line(content: str, random: Random) -> str:
    """A line left out."""
    lines = content.split("\n")
    lines.pop(random.randrange(len(lines)))
    return "\n".join(lines)


def indent(content: str, random: Random) -> str:
    """A line moved to the right or to the left."""
    lines = content.split("\n")
    at = random.randrange(len(lines))
    lines[at] = random.choice(("  ", " ", "\t", "- ")) + lines[at] if random.random() < 0.6 else lines[at].strip()
    return "\n".join(lines)


def swap_words(content: str, random: Random) -> str:
    """A word in the place of another."""
    words = content.split()
    return _at_word(content, random, lambda word: random.choice(words)) if words else content


def letter(content: str, random: Random) -> str:
    """A character changed or left out."""
    if not content:
        return content
    at = random.randrange(len(content))
    return content[:at] + random.choice(["", *string.printable]) + content[at + 1 :]


def cut(content: str, random: Random) -> str:
    """The beginning only."""
    return content[: random.randint(0, len(content))]


def other_ends(content: str, random: Random) -> str:
    """Other ends of lines, or another encoding's mark ahead."""
    return random.choice((content.replace("\n", "\r\n"), content.replace("\n", "\r"), "\ufeff" + content))


TEXT_CHANGES: tuple[Callable[[str, Random], str], ...] = (
    token, token, token, number, number, number, swap_lines, double_line, drop_line, indent, swap_words, swap_words,
    letter, letter, cut, other_ends,
)  # fmt: skip


def _at(content: bytes, random: Random) -> int:
    return random.randrange(len(content)) if content else 0


def _at_word(content: str, random: Random, change: Callable[[str], str]) -> str:
    import re

    words = list(re.finditer(r"[^\s,:\[\]{}]+", content))
    if not words:
        return content
    word = random.choice(words)
    return content[: word.start()] + change(word[0]) + content[word.end() :]
