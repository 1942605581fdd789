"""Seeded ways to spoil bytes, JSON documents and protobuf messages."""

import random
from typing import Any

_MAGIC = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff" * 9 + b"\x01",
    b"\x80" * 10,
    b"\xff\xff\xff\xff\x0f",
    b'"',
    b"{",
    b"[",
)
_NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    5,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    1e300,
)
_VALUES: tuple[Any, ...] = (
    *_NUMBERS,
    0.5,
    float("nan"),
    float("inf"),
    None,
    True,
    False,
    "",
    "x",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    "r",
    "FP64",
)


def bytes_of(rng: random.Random, content: bytes) -> bytes:
    """Between one and four small changes: bits, runs, places, or what the wire format stumbles over."""
    spoiled = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randint(0, len(spoiled))
        match rng.randrange(7):
            case 0 if place < len(spoiled):
                spoiled[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(spoiled):
                spoiled[place] = rng.randrange(256)
            case 2:
                spoiled[place:place] = rng.choice(_MAGIC)
            case 3:
                del spoiled[place : place + rng.randint(1, 9)]
            case 4:
                spoiled[place:place] = spoiled[: rng.randint(0, len(spoiled))]
            case 5:
                del spoiled[place:]
            case _:
                spoiled[place:place] = rng.randbytes(rng.randint(1, 9))
    return bytes(spoiled)


def nested_groups(depth: int) -> bytes:
    """An unknown field of groups within groups, which parsers follow."""
    return b"\xf3\x07" * depth + b"\xf4\x07" * depth


def document_of(rng: random.Random, document: Any) -> Any:
    """The document with one of its values, at any depth, replaced, removed, doubled or renamed."""
    if isinstance(document, dict) and document and rng.random() < 0.85:
        key = rng.choice(list(document))
        match rng.randrange(5):
            case 0:
                return {name: value for name, value in document.items() if name != key}
            case 1:
                return {**document, key: rng.choice(_VALUES)}
            case 2:
                return {**document, rng.choice(["", "x", "shape", "data", "parameters"]): rng.choice(_VALUES)}
            case _:
                return {**document, key: document_of(rng, document[key])}
    if isinstance(document, list) and document and rng.random() < 0.85:
        place = rng.randrange(len(document))
        match rng.randrange(4):
            case 0:
                return document[:place] + document[place + 1 :]
            case 1:
                return document + document[: place + 1]
            case _:
                return [*document[:place], document_of(rng, document[place]), *document[place + 1 :]]
    return rng.choice(_VALUES)


def number_of(rng: random.Random, bits: int, *, signed: bool) -> int:
    """Any number of so many bits, the edges most of all."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    whole = [number for number in _NUMBERS if isinstance(number, int) and low <= number <= high]
    return rng.choice([*whole, rng.randint(low, high), rng.randint(0, 80)])
