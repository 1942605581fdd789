"""Metric windows as wire bytes, computed from exactly the results they stand for, and results as wire messages."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import ddsketch
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.input_histograms import InputHistograms
from agent.domain.result import LabelScore, Outcome, Result

NANOSECONDS_PER_SECOND = 1_000_000_000

_OUTCOMES: Mapping[Outcome, "evidence_pb2.Result.Outcome.ValueType"] = {
    Outcome.OK: evidence_pb2.Result.OUTCOME_OK,
    Outcome.ERROR: evidence_pb2.Result.OUTCOME_ERROR,
}


def version_name(slot: str, version: int) -> str:
    """`models/{model}/versions/{number}`; empty for 0, which means none."""
    return f"models/{slot}/versions/{version}" if version else ""


def result_message(result: Result) -> evidence_pb2.Result:
    return evidence_pb2.Result(
        slot=result.slot,
        model_version=version_name(result.slot, result.version),
        device=result.device,
        infer_time=timestamp(result.infer_time),
        part_id=result.part_id,
        request_id=result.request_id,
        outcome=_OUTCOMES[result.outcome],
        labels=[evidence_pb2.LabelScore(label=label.label, score=label.score) for label in result.labels],
        latency_us=result.latency_us,
        error=result.error,
        batch_index=result.batch_index,
        lot=result.lot,
        application=result.application,
    )


def result_of(message: evidence_pb2.Result) -> Result:
    """What `result_message` was given, its time to the microsecond."""
    return Result(
        slot=message.slot,
        version=int(message.model_version.rpartition("/")[2] or 0),
        device=message.device,
        infer_time=EPOCH
        + timedelta(seconds=message.infer_time.seconds, microseconds=message.infer_time.nanos // 1_000),
        part_id=message.part_id,
        request_id=message.request_id,
        outcome=Outcome.OK if message.outcome == evidence_pb2.Result.OUTCOME_OK else Outcome.ERROR,
        labels=tuple(LabelScore(label=each.label, score=each.score) for each in message.labels),
        latency_us=message.latency_us,
        error=message.error,
        batch_index=message.batch_index,
        lot=message.lot,
        application=message.application,
    )


def timestamp(time: datetime) -> Timestamp:
    """The aware `time` as a protobuf timestamp, exact to the microsecond."""
    since = time - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def micros_since_epoch(time: datetime) -> int:
    """Of the aware `time`."""
    return (time - EPOCH) // _MICROSECOND


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def new_sketch() -> ddsketch.DDSketch:
    return ddsketch.DDSketch(relative_accuracy=limits.LATENCY_RELATIVE_ACCURACY)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowKey:
    """Windows are kept apart by these."""

    slot: str
    model_version: str
    device: str


def key_of(window: evidence_pb2.MetricWindow) -> WindowKey:
    return WindowKey(slot=window.slot, model_version=window.model_version, device=window.device)


def key_of_result(result: Result) -> WindowKey:
    """Of the window that the result counts in."""
    return WindowKey(slot=result.slot, model_version=version_name(result.slot, result.version), device=result.device)


@dataclass(slots=True)
class WindowBuilder:
    """Counts of one slot, version and device. Not thread-safe."""

    key: WindowKey
    inference_count: int = 0
    error_count: int = 0
    refused_count: int = 0
    start_ns: int | None = None
    end_ns: int | None = None
    histogram: list[int] = field(default_factory=lambda: [0] * limits.CONFIDENCE_BINS)
    labels: Counter[str] = field(default_factory=Counter)
    """Of the top label; as many as the model has classes, at most."""
    sketch: ddsketch.DDSketch = field(default_factory=new_sketch)
    inputs: InputHistograms = field(default_factory=InputHistograms)

    def add(self, result: Result) -> None:
        time_ns = micros_since_epoch(result.infer_time) * 1_000
        self.start_ns = time_ns if self.start_ns is None else min(self.start_ns, time_ns)
        self.end_ns = time_ns if self.end_ns is None else max(self.end_ns, time_ns)
        self.inference_count += 1
        if result.outcome is Outcome.ERROR:
            self.error_count += 1
            return
        self.sketch.add(result.latency_us / 1_000)
        if result.labels:
            self.histogram[confidence_bin(result.labels[0].score)] += 1
            self.labels[result.labels[0].label] += 1

    def add_inputs(self, window: evidence_pb2.MetricWindow) -> None:
        """What `app.input_windows` has counted: it dates the window where no result does."""
        self.inputs.add_messages(window.input_statistics)
        start_ns, end_ns = _nanoseconds(window.start_time), _nanoseconds(window.end_time)
        self.start_ns = start_ns if self.start_ns is None else min(self.start_ns, start_ns)
        self.end_ns = end_ns if self.end_ns is None else max(self.end_ns, end_ns)

    def message(self, *, otherwise_ns: int) -> evidence_pb2.MetricWindow:
        """The window; `otherwise_ns` is its time where it holds refusals alone."""
        start_ns = otherwise_ns if self.start_ns is None else self.start_ns
        end_ns = otherwise_ns if self.end_ns is None else self.end_ns
        return evidence_pb2.MetricWindow(
            slot=self.key.slot,
            model_version=self.key.model_version,
            device=self.key.device,
            start_time=_timestamp_ns(start_ns),
            end_time=_timestamp_ns(end_ns),
            inference_count=self.inference_count,
            error_count=self.error_count,
            refused_count=self.refused_count,
            latency=sketch_message(self.sketch),
            confidence_histogram=self.histogram,
            label_counts=bounded_counts(self.labels),
            input_statistics=self.inputs.messages(),
        )


def bounded_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts of the most frequent labels, at most LABELS_COUNTED_MAX, and of all others together under ""."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = dict(ordered[: limits.LABELS_COUNTED_MAX])
    rest = sum(count for _, count in ordered[limits.LABELS_COUNTED_MAX :])
    if rest:
        kept[""] = kept.get("", 0) + rest
    return kept


def confidence_bin(score: float) -> int:
    """Which of the equal bins over [0, 1]; scores outside fall into the nearest."""
    return min(limits.CONFIDENCE_BINS - 1, max(0, int(score * limits.CONFIDENCE_BINS)))


class Windows:
    """Builders by key. Not thread-safe."""

    def __init__(self) -> None:
        self._builders: dict[WindowKey, WindowBuilder] = {}

    def __bool__(self) -> bool:
        return bool(self._builders)

    def add(self, result: Result) -> None:
        self._builder(key_of_result(result)).add(result)

    def add_inputs(self, window: evidence_pb2.MetricWindow) -> None:
        """Statistics of inputs of the slot, version and device that `window` names."""
        self._builder(key_of(window)).add_inputs(window)

    def add_refused(self, slot: str, model_version: str, count: int) -> None:
        """Refusals count for the slot and version; no device took part."""
        self._builder(WindowKey(slot=slot, model_version=model_version, device="")).refused_count += count

    def messages(self, *, otherwise_ns: int) -> tuple[evidence_pb2.MetricWindow, ...]:
        """In the order of their keys."""
        ordered = sorted(self._builders.items(), key=lambda item: (item[0].slot, item[0].model_version, item[0].device))
        return tuple(builder.message(otherwise_ns=otherwise_ns) for _, builder in ordered)

    def _builder(self, key: WindowKey) -> WindowBuilder:
        builder = self._builders.get(key)
        if builder is None:
            builder = self._builders[key] = WindowBuilder(key)
        return builder


def compute_windows(
    results: Iterable[Result],
    refused: Mapping[tuple[str, str], int],
    *,
    inputs: Iterable[bytes] = (),
    otherwise_ns: int,
) -> tuple[bytes, ...]:
    """Serialized windows of exactly these results, refusals by (slot, model version) and statistics of inputs, which
    are serialized windows with nothing else."""
    windows = Windows()
    for result in results:
        windows.add(result)
    for (slot, model_version), count in refused.items():
        windows.add_refused(slot, model_version, count)
    for content in inputs:
        windows.add_inputs(evidence_pb2.MetricWindow.FromString(content))
    return tuple(window.SerializeToString() for window in windows.messages(otherwise_ns=otherwise_ns))


def _nanoseconds(time: Timestamp) -> int:
    return time.seconds * NANOSECONDS_PER_SECOND + time.nanos


def _timestamp_ns(time_ns: int) -> Timestamp:
    seconds, nanos = divmod(time_ns, NANOSECONDS_PER_SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)


def sketch_message(sketch: ddsketch.DDSketch) -> evidence_pb2.LatencySketch:
    message = evidence_pb2.LatencySketch(
        relative_accuracy=limits.LATENCY_RELATIVE_ACCURACY,
        zero_count=round(sketch._zero_count),  # noqa: SLF001 - the library offers no reader of the zero bin
        count=round(sketch.count),
    )
    if sketch.count == 0:
        return message
    message.sum_ms, message.min_ms, message.max_ms = sketch.sum, sketch._min, sketch._max  # noqa: SLF001
    store = sketch._store  # noqa: SLF001
    filled = [index for index, count in enumerate(store.bins) if count > 0]
    if filled:
        first, last = filled[0], filled[-1]
        message.first_bin_key = store.offset + first
        message.bin_counts.extend(round(count) for count in store.bins[first : last + 1])
    return message
