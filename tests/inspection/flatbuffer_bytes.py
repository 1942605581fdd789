"""A TFLite model written byte by byte: FlatBuffers, parents before children, so that every offset points forward."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_RELU: Final = 19


@dataclass(frozen=True, slots=True)
class Table:
    """Fields by slot: integers as 32 bits, the rest by reference."""

    fields: Mapping[int, "Value"]


Value = int | str | Table | Sequence[int] | Sequence[Table]


def tflite_model() -> bytes:
    """y = Relu(x), float32 [1, 4]."""
    tensors = [Table({0: [1, 4], 2: 0, 3: name}) for name in ("x", "y")]
    relu = Table({0: 0, 1: [0], 2: [1]})
    graph = Table({0: tensors, 1: [0], 2: [1], 3: [relu], 4: "main"})
    # The old and the new place of the operator's code; the old one is a byte, of which this is the low end.
    code = Table({0: _RELU, 2: 1, 3: _RELU})
    model = Table({0: 3, 1: [code], 2: [graph], 3: "relu", 4: [Table({})]})
    out = bytearray(struct.pack("<I4s", 0, b"TFL3"))
    _patch(out, 0, _write(out, model))
    return bytes(out)


def _write(out: bytearray, value: Value) -> int:
    """Append the value; return where it begins."""
    out.extend(bytes(-len(out) % 4))
    match value:
        case int():
            raise TypeError("an integer stands in its table")
        case str():
            start = len(out)
            raw = value.encode()
            out.extend(struct.pack("<I", len(raw)) + raw + b"\0")
            return start
        case Table():
            return _write_table(out, value)
        case _:
            return _write_vector(out, value)


def _write_vector(out: bytearray, items: Sequence[int] | Sequence[Table]) -> int:
    start = len(out)
    out.extend(struct.pack("<I", len(items)))
    tables: list[tuple[int, Table]] = []
    for item in items:
        if isinstance(item, Table):
            tables.append((len(out), item))
        out.extend(struct.pack("<i", 0 if isinstance(item, Table) else item))
    for place, table in tables:
        _patch(out, place, _write(out, table))
    return start


def _write_table(out: bytearray, table: Table) -> int:
    slots = max(table.fields, default=-1) + 1
    present = sorted(table.fields)
    offsets = {slot: 4 + 4 * index for index, slot in enumerate(present)}
    vtable = struct.pack("<HH", 4 + 2 * slots, 4 + 4 * len(present))
    vtable += b"".join(struct.pack("<H", offsets.get(slot, 0)) for slot in range(slots))
    out.extend(vtable + bytes(-len(vtable) % 4))
    start = len(out)
    out.extend(struct.pack("<i", len(vtable) + -len(vtable) % 4))
    for slot in present:
        value = table.fields[slot]
        out.extend(struct.pack("<i", value if isinstance(value, int) else 0))
    for slot in present:
        value = table.fields[slot]
        if not isinstance(value, int):
            _patch(out, start + offsets[slot], _write(out, value))
    return start


def _patch(out: bytearray, place: int, target: int) -> None:
    struct.pack_into("<I", out, place, target - place)
