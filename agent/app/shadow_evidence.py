"""Comparisons of shadow runs as records, and shadow windows computed from exactly the records they stand for."""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import ddsketch
from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.evidence import EPOCH, confidence_bin, new_sketch, sketch_message, timestamp, version_name
from agent.domain.shadow import Comparison, ShadowPair

_COMPARISON = struct.Struct("<qBdqqQQ")
"""Microseconds since 1970, flags, distance (NaN for none), both latencies, both versions; slot and device follow."""
_SKIPPED = struct.Struct("<qQQQ")
"""Microseconds since 1970, count, both versions; slot and device follow."""
_AGREED, _FAILED = 1, 2


def encode_comparison(comparison: Comparison) -> bytes:
    pair, distance = comparison.pair, comparison.score_distance
    head = _COMPARISON.pack(
        _microseconds(comparison.time),
        _AGREED * comparison.agreed | _FAILED * comparison.failed,
        math.nan if distance is None else distance,
        comparison.candidate_latency_us,
        comparison.serving_latency_us,
        pair.serving_version,
        pair.candidate_version,
    )
    return head + _names(pair)


def decode_comparison(content: bytes) -> Comparison:
    time, flags, distance, candidate_us, serving_us, serving, candidate = _COMPARISON.unpack_from(content)
    return Comparison(
        pair=_pair(content[_COMPARISON.size :], serving, candidate),
        time=_time(time),
        agreed=bool(flags & _AGREED),
        failed=bool(flags & _FAILED),
        score_distance=None if math.isnan(distance) else distance,
        candidate_latency_us=candidate_us,
        serving_latency_us=serving_us,
    )


def encode_skipped(pair: ShadowPair, time: datetime, count: int) -> bytes:
    return _SKIPPED.pack(_microseconds(time), count, pair.serving_version, pair.candidate_version) + _names(pair)


def decode_skipped(content: bytes) -> tuple[ShadowPair, datetime, int]:
    time, count, serving, candidate = _SKIPPED.unpack_from(content)
    return _pair(content[_SKIPPED.size :], serving, candidate), _time(time), count


def _names(pair: ShadowPair) -> bytes:
    return f"{pair.slot}\0{pair.device}".encode()


def _pair(names: bytes, serving: int, candidate: int) -> ShadowPair:
    slot, _, device = names.decode().partition("\0")
    return ShadowPair(slot=slot, serving_version=serving, candidate_version=candidate, device=device)


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _time(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


@dataclass(slots=True)
class _Builder:
    """Counts of one pair. The latencies of an input on which the candidate failed count for neither side, so that the
    two sketches are of the same inputs."""

    compared: int = 0
    agreed: int = 0
    errors: int = 0
    skipped: int = 0
    start: datetime | None = None
    end: datetime | None = None
    candidate: ddsketch.DDSketch = field(default_factory=new_sketch)
    serving: ddsketch.DDSketch = field(default_factory=new_sketch)
    histogram: list[int] = field(default_factory=lambda: [0] * limits.CONFIDENCE_BINS)

    def seen(self, time: datetime) -> None:
        self.start = time if self.start is None else min(self.start, time)
        self.end = time if self.end is None else max(self.end, time)

    def add(self, comparison: Comparison) -> None:
        self.seen(comparison.time)
        self.compared += 1
        if comparison.failed:
            self.errors += 1
            return
        self.agreed += comparison.agreed
        self.candidate.add(comparison.candidate_latency_us / 1_000)
        self.serving.add(comparison.serving_latency_us / 1_000)
        if comparison.score_distance is not None:
            self.histogram[confidence_bin(comparison.score_distance)] += 1

    def message(self, pair: ShadowPair) -> evidence_pb2.ShadowWindow:
        assert self.start is not None
        assert self.end is not None
        return evidence_pb2.ShadowWindow(
            slot=pair.slot,
            serving_version=version_name(pair.slot, pair.serving_version),
            candidate_version=version_name(pair.slot, pair.candidate_version),
            device=pair.device,
            start_time=timestamp(self.start),
            end_time=timestamp(self.end),
            compared_count=self.compared,
            agreed_count=self.agreed,
            error_count=self.errors,
            skipped_count=self.skipped,
            candidate_latency=sketch_message(self.candidate),
            serving_latency=sketch_message(self.serving),
            score_distance_histogram=self.histogram,
        )


class ShadowWindows:
    """Builders by pair. Not thread-safe."""

    def __init__(self) -> None:
        self._builders: dict[ShadowPair, _Builder] = {}

    def __bool__(self) -> bool:
        return bool(self._builders)

    def add(self, comparison: Comparison) -> None:
        self._builder(comparison.pair).add(comparison)

    def add_skipped(self, pair: ShadowPair, time: datetime, count: int) -> None:
        builder = self._builder(pair)
        builder.seen(time)
        builder.skipped += count

    def serialized(self) -> tuple[bytes, ...]:
        """In the order of their pairs."""
        ordered = sorted(self._builders.items(), key=lambda item: _order(item[0]))
        return tuple(builder.message(pair).SerializeToString() for pair, builder in ordered)

    def _builder(self, pair: ShadowPair) -> _Builder:
        return self._builders.setdefault(pair, _Builder())


def _order(pair: ShadowPair) -> tuple[str, int, int, str]:
    return (pair.slot, pair.serving_version, pair.candidate_version, pair.device)


def compute_shadow_windows(comparisons: Iterable[bytes], skipped: Iterable[bytes]) -> tuple[bytes, ...]:
    """Serialized windows of exactly these records."""
    windows = ShadowWindows()
    for content in comparisons:
        windows.add(decode_comparison(content))
    for content in skipped:
        windows.add_skipped(*decode_skipped(content))
    return windows.serialized()
