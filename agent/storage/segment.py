"""The format of one file of the result log: records one after another, each whole or not there.

    record   length (u32) checksum (u32, CRC-32 of kind and payload) kind (u8) payload
    kinds    RESULT         a result, as agent.storage.result_record writes it
             RESULT_MESSAGE a serialized lineside.v1.Result, as earlier agents wrote it
             REFUSED        count (u32) and "{slot}\\0{model version}" in UTF-8
             WINDOW         a serialized lineside.v1.MetricWindow, in a file whose results were dropped
             DROPPED        count (u64) of the results that such a file no longer has
             COMPARISON     one input of a shadow run, as agent.app.shadow_evidence writes it
             SKIPPED        inputs that a shadow run was not given, likewise
             SHADOW_WINDOW  a serialized lineside.v1.ShadowWindow, in a file whose results were dropped
             INPUTS         statistics of inputs, a serialized lineside.v1.MetricWindow with nothing else
All numbers are little-endian. Whatever follows the last whole record was torn by a kill or a power cut.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.evidence import compute_windows, result_of
from agent.app.ports import EvidenceBatch
from agent.app.shadow_evidence import compute_shadow_windows
from agent.domain.result import Result
from agent.storage import result_record

_HEADER = struct.Struct("<IIB")
_COUNT = struct.Struct("<I")
_LONG_COUNT = struct.Struct("<Q")


class Kind(IntEnum):
    RESULT_MESSAGE = 1
    REFUSED = 2
    WINDOW = 3
    DROPPED = 4
    COMPARISON = 5
    SKIPPED = 6
    SHADOW_WINDOW = 7
    INPUTS = 8
    RESULT = 9


def frame(kind: Kind, payload: bytes) -> bytes:
    assert len(payload) <= limits.RECORD_BYTES_MAX
    checksum = zlib.crc32(payload, kind)
    return _HEADER.pack(len(payload), checksum, kind) + payload


def frame_refused(slot: str, model_version: str, count: int) -> bytes:
    return frame(Kind.REFUSED, _COUNT.pack(count) + f"{slot}\0{model_version}".encode())


def records(content: bytes) -> Iterator[tuple[Kind, bytes, int]]:
    """Each whole record with the offset at which it ends; stops at the first that is not whole."""
    view = memoryview(content)
    offset = 0
    while offset + _HEADER.size <= len(view):
        length, checksum, kind = _HEADER.unpack_from(view, offset)
        end = offset + _HEADER.size + length
        if length > limits.RECORD_BYTES_MAX or end > len(view) or kind not in _KINDS:
            return
        payload = bytes(view[offset + _HEADER.size : end])
        if zlib.crc32(payload, kind) != checksum:
            return
        yield Kind(kind), payload, end
        offset = end


_KINDS = frozenset(Kind)


def whole_bytes(content: bytes) -> int:
    """How many bytes are whole records; the rest is torn."""
    end = 0
    for _, _, end in records(content):  # noqa: B007 - the last one counts
        pass
    return end


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """The contents of one file."""

    results: tuple[Result, ...]
    refused: dict[tuple[str, str], int]
    windows: tuple[bytes, ...]
    dropped_results: int
    comparisons: tuple[bytes, ...]
    skipped: tuple[bytes, ...]
    shadow_windows: tuple[bytes, ...]
    inputs: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, content: bytes) -> "Segment":
        held: dict[Kind, list[bytes]] = {kind: [] for kind in Kind}
        results: list[Result] = []
        for kind, payload, _ in records(content):
            if kind is Kind.RESULT:
                results.append(result_record.decode(payload))
            elif kind is Kind.RESULT_MESSAGE:
                results.append(result_of(evidence_pb2.Result.FromString(payload)))
            else:
                held[kind].append(payload)
        refused: dict[tuple[str, str], int] = {}
        for payload in held[Kind.REFUSED]:
            slot, _, model_version = payload[_COUNT.size :].decode().partition("\0")
            key = (slot, model_version)
            refused[key] = refused.get(key, 0) + _COUNT.unpack_from(payload)[0]
        return cls(
            results=tuple(results),
            refused=refused,
            windows=tuple(held[Kind.WINDOW]),
            dropped_results=sum(_LONG_COUNT.unpack(payload)[0] for payload in held[Kind.DROPPED]),
            comparisons=tuple(held[Kind.COMPARISON]),
            skipped=tuple(held[Kind.SKIPPED]),
            shadow_windows=tuple(held[Kind.SHADOW_WINDOW]),
            inputs=tuple(held[Kind.INPUTS]),
        )

    def batch(self, number: int, *, otherwise_ns: int) -> EvidenceBatch:
        """The batch that this segment is; `otherwise_ns` dates windows that hold refusals alone."""
        computed = compute_windows(self.results, self.refused, inputs=self.inputs, otherwise_ns=otherwise_ns)
        return EvidenceBatch(
            number=number,
            windows=(*self.windows, *computed),
            results=self.results,
            dropped_results=self.dropped_results,
            shadow_windows=(*self.shadow_windows, *compute_shadow_windows(self.comparisons, self.skipped)),
        )


def encode_without_results(batch: EvidenceBatch) -> bytes:
    """A file that keeps the batch's windows and only counts its results."""
    dropped = _LONG_COUNT.pack(batch.dropped_results + len(batch.results))
    frames = [frame(Kind.DROPPED, dropped)]
    frames.extend(frame(Kind.WINDOW, window) for window in batch.windows)
    frames.extend(frame(Kind.SHADOW_WINDOW, window) for window in batch.shadow_windows)
    return b"".join(frames)
