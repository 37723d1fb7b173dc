"""Damaged copies of good files: small random damage, the same for the same number.

`mutated(seeds, number)` is a pure function, so that a fault found once is found again by its number alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

#: Numbers at which readers stumble, as they stand in text.
NUMBERS = (
    b"0", b"-0", b"-1", b"1", b"2", b"3.5", b"1e-320", b"1e30", b"-1e30", b"1e308", b"1e309", b"nan", b"NaN", b"inf",
    b"-inf", b"0x10", b"1_000", b"1,5", b"255", b"256", b"32768", b"65536", b"2147483647", b"2147483648",
    b"-2147483648", b"4294967296", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"", b"-",
    b".", b"e5", b"\xd9\xa3", b"\xe2\x88\x921",
)  # fmt: skip

#: Pieces that mean something to one format or another; readers add their own words.
TOKENS = (
    b"\x00", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f", b"\x80", b"\xc3\xa4", b"\xe4", b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b"\r", b"\r\n", b"\n\n",
    b"\t", b" ", b",", b";", b":", b"=", b":=", b"#", b'"', b"'", b"[", b"]", b"{", b"}", b"(", b")", b"%s", b"../",
    b"\x1b[2J", b"\x1f\x8b", b"null", b"true", b"e", b"-",
)  # fmt: skip

_WIDTHS = (1, 2, 4, 8)
_LONGEST = 1 << 18


def mutated(seeds: Mapping[str, bytes], number: int, *, tokens: Sequence[bytes] = ()) -> tuple[str, bytes]:
    """The damaged file of a number.

    Args:
        seeds: Good files by name.
        number: Any integer; the same one gives the same file.
        tokens: Words of the format, inserted now and then.

    Returns:
        Name of the file it was made of, and the damaged content: at most 256 KiB more than the original.
    """
    rng = random.Random(number)
    names = sorted(seeds)
    name = rng.choice(names)
    data = seeds[name]
    limit = len(data) + _LONGEST
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        damage = rng.choice(_DAMAGES)
        data = damage(data, rng, [*TOKENS, *tokens], seeds[rng.choice(names)])[:limit]
    return name, data


def _flip_bit(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    at = _position(data, rng)
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :] if data else data


def _set_integer(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    """A binary number becomes one at the edge of its range."""
    width = rng.choice(_WIDTHS)
    bits = 8 * width
    value = rng.choice((0, 1, 2, (1 << bits) - 1, (1 << bits) - 2, 1 << (bits - 1), (1 << (bits - 1)) - 1))
    if rng.random() < 0.3:
        value = rng.getrandbits(bits)
    at = _position(data, rng)
    return data[:at] + value.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def _set_float(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    """A binary number becomes NaN, infinite, or far too large."""
    words = (
        "0000c07f",
        "0000807f",
        "ffff7f7f",
        "000000000000f87f",
        "000000000000f07f",
        "ffffffffffffef7f",
        "7fc00000",
    )
    raw = bytes.fromhex(rng.choice(words))
    at = _position(data, rng)
    return data[:at] + raw + data[at + len(raw) :]


def _set_number(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    """A number in text becomes another, or something that is none."""
    found = list(re.finditer(rb"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?", data[:20_000]))
    if not found:
        return _set_integer(data, rng, tokens, other)
    match = rng.choice(found)
    new = rng.choice(NUMBERS) if rng.random() < 0.9 else b"9" * rng.choice((20, 400, 30_000))
    return data[: match.start()] + new + data[match.end() :]


def _cut_end(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    return data[: _position(data, rng)]


def _delete(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    first, last = _piece(data, rng)
    return data[:first] + data[last:]


def _repeat(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    first, last = _piece(data, rng)
    times = rng.choice((2, 3, 10, 1000, 100_000))
    piece = data[first:last]
    return data[:first] + piece * min(times, _LONGEST // max(len(piece), 1) + 1) + data[last:]


def _insert(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    at = _position(data, rng)
    return data[:at] + rng.choice(tokens) + data[at:]


def _overwrite(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    at, new = _position(data, rng), rng.choice(tokens)
    return data[:at] + new + data[at + len(new) :]


def _noise(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    first, last = _piece(data, rng)
    return data[:first] + rng.randbytes(last - first) + data[last:]


def _exchange(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    """Two pieces change places."""
    a, b, c, d = sorted(rng.randrange(len(data) + 1) for _ in range(4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _splice(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    """A piece of another good file in the place of a piece of this one."""
    first, last = _piece(data, rng)
    begin, end = _piece(other, rng)
    return data[:first] + other[begin:end] + data[last:]


def _exchange_lines(data: bytes, rng: random.Random, tokens: Sequence[bytes], other: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    if rng.random() < 0.5:
        del lines[rng.randrange(len(lines))]
    return b"\n".join(lines)


Damage = Callable[[bytes, random.Random, Sequence[bytes], bytes], bytes]
_DAMAGES: tuple[Damage, ...] = (
    _flip_bit, _flip_bit, _set_integer, _set_integer, _set_float, _set_number, _set_number, _cut_end, _delete, _repeat,
    _insert, _overwrite, _noise, _exchange, _splice, _exchange_lines,
)  # fmt: skip


def _position(data: bytes, rng: random.Random) -> int:
    """A place in the file, more often near its beginning, where headers are."""
    if not data:
        return 0
    return rng.randrange(min(len(data), 600) if rng.random() < 0.5 else len(data))


def _piece(data: bytes, rng: random.Random) -> tuple[int, int]:
    """A piece of the file, mostly a short one."""
    first = _position(data, rng)
    return first, min(len(data), first + rng.choice((1, 2, 4, 8, 16, 64, 512, 1 << 16)))
