"""Evidence from agents: results and metric windows, each batch stored once; and lists of results.

A batch is taken whole or not at all, so one odd result must not cost the others: what an application or a model can
make odd (long texts, NUL, scores that are no numbers) is brought within bounds. What only the agent makes is checked.
"""

import math
from collections import Counter
from dataclasses import replace
from types import MappingProxyType

from controlplane import limits
from controlplane.app.input_statistics import check_input_statistics
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Clock, Store
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import (
    CONFIDENCE_BINS,
    EvidenceBatch,
    LatencySketch,
    MetricWindow,
    Result,
    ShadowWindow,
)
from controlplane.domain.lake import ResultFilter


class Evidence:
    """Takes and lists evidence."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def report(self, batch: EvidenceBatch) -> bool:
        """Store the batch as received now; return whether it was stored before. The caller has set every
        `agent_id` to the agent that calls. Raises FieldInvalidError for a batch out of bounds."""
        check_batch(batch)
        results = tuple(map(within_bounds, batch.results))
        received = replace(
            batch,
            receive_time=self._clock.now(),
            results=results,
            windows=tuple(map(_storable_window, batch.windows)),
            shadow_windows=tuple(replace(each, device=storable(each.device)) for each in batch.shadow_windows),
        )

        async def attempt() -> bool:
            async with self._store.write() as work:
                return not await work.evidence.add(received)

        return await retry_stale(attempt)

    async def list_results(
        self, wanted: ResultFilter, *, page_size: int = 0, page_token: str = "", newest_first: bool = False
    ) -> Page[Result]:
        """In order of arrival, or against it."""
        size = clamp_page_size(page_size)
        after = decode_page_token(page_token, int)
        async with self._store.read() as work:
            numbered = await work.evidence.list_results(
                wanted, after=int(after[0]) if after else None, limit=size + 1, newest_first=newest_first
            )
        results = [result for _, result in numbered[:size]]
        return Page(results, encode_page_token(numbered[size - 1][0]) if len(numbered) > size else "")


def check_batch(batch: EvidenceBatch) -> None:
    """Raise FieldInvalidError unless the batch is within bounds and its numbers can be of measurements."""
    if batch.batch < 0 or batch.dropped_results < 0:
        raise FieldInvalidError(
            "numbers of batches and of results cannot be negative",
            field="batch" if batch.batch < 0 else "dropped_results",
            remedy="count from 0",
        )
    for field, count, bound in (
        ("results", len(batch.results), limits.EVIDENCE_RESULTS_MAX),
        ("windows", len(batch.windows), limits.EVIDENCE_WINDOWS_MAX),
        ("shadow_windows", len(batch.shadow_windows), limits.EVIDENCE_WINDOWS_MAX),
    ):
        if count > bound:
            raise FieldInvalidError(f"{count} are more than {bound}", field=field, remedy="send smaller batches")
    for window in batch.windows:
        _check_window(window)
    for shadow in batch.shadow_windows:
        _check_shadow(shadow)


def _check_window(window: MetricWindow) -> None:
    counts = (window.error_count, window.refused_count, window.inference_count, *window.confidence_histogram)
    if min(counts) < 0 or window.error_count > window.inference_count:
        raise FieldInvalidError("the counts contradict each other", field="windows", remedy="count each inference once")
    if len(window.confidence_histogram) not in {0, CONFIDENCE_BINS}:
        raise FieldInvalidError(
            f"{len(window.confidence_histogram)} bins", field="windows.confidence_histogram", remedy="send 20 bins"
        )
    labels = len(window.label_counts)
    if labels > limits.LABEL_COUNTS_MAX:
        raise FieldInvalidError(
            f"{labels} labels",
            field="windows.label_counts",
            remedy=f'count the {limits.LABEL_COUNTS_MAX - 1} most frequent, and the rest under ""',
        )
    answered = window.inference_count - window.error_count
    if min(window.label_counts.values(), default=0) < 0 or sum(window.label_counts.values()) > answered:
        raise FieldInvalidError(
            "the labels are more than the answers", field="windows.label_counts", remedy="count each top label once"
        )
    check_input_statistics(window.input_statistics)
    _check_sketch(window.latency, field="windows.latency")


def _check_shadow(window: ShadowWindow) -> None:
    counts = (window.compared, window.agreed, window.errors, window.skipped, *window.score_distance_histogram)
    if min(counts) < 0 or window.agreed + window.errors > window.compared:
        raise FieldInvalidError(
            "the counts contradict each other",
            field="shadow_windows",
            remedy="count each compared input once; one that failed agrees with nothing",
        )
    if len(window.score_distance_histogram) not in {0, CONFIDENCE_BINS}:
        raise FieldInvalidError(
            f"{len(window.score_distance_histogram)} bins",
            field="shadow_windows.score_distance_histogram",
            remedy="send 20 bins",
        )
    _check_sketch(window.candidate_latency, field="shadow_windows.candidate_latency")
    _check_sketch(window.serving_latency, field="shadow_windows.serving_latency")


def _storable_window(window: MetricWindow) -> MetricWindow:
    """With texts as every database takes them; labels that become one are counted together."""
    labels: Counter[str] = Counter()
    for label, count in window.label_counts.items():
        labels[storable(label)] += count
    return replace(window, device=storable(window.device), label_counts=MappingProxyType(dict(labels)))


def _check_sketch(sketch: LatencySketch, *, field: str) -> None:
    last_key = sketch.first_bin_key + len(sketch.bin_counts)
    if sketch.count and sketch.relative_accuracy != limits.LATENCY_RELATIVE_ACCURACY:
        raise FieldInvalidError(
            f"sketches of the accuracy {sketch.relative_accuracy} do not merge with the others",
            field=f"{field}.relative_accuracy",
            remedy=f"use {limits.LATENCY_RELATIVE_ACCURACY}",
        )
    if max(abs(sketch.first_bin_key), abs(last_key)) > limits.LATENCY_BIN_KEY_MAX:
        raise FieldInvalidError(
            f"bins from {sketch.first_bin_key} to {last_key} are of no latency",
            field=f"{field}.first_bin_key",
            remedy=f"keep the keys within {limits.LATENCY_BIN_KEY_MAX}",
        )
    if not all(map(math.isfinite, (sketch.sum_ms, sketch.min_ms, sketch.max_ms))):
        raise FieldInvalidError("a latency is not finite", field=field, remedy="send milliseconds")
    if min(sketch.bin_counts, default=0) < 0 or sum(sketch.bin_counts) + sketch.zero_count != sketch.count:
        raise FieldInvalidError(
            "the bins do not add up to the count", field=f"{field}.count", remedy="count each value once"
        )


def within_bounds(result: Result) -> Result:
    """Return the result with storable texts and without labels whose score is no number."""
    labels = tuple(
        replace(label, label=storable(label.label))
        for label in result.labels[: limits.RESULT_LABELS_MAX]
        if math.isfinite(label.score)
    )
    return replace(
        result,
        device=storable(result.device),
        part_id=storable(result.part_id),
        request_id=storable(result.request_id),
        error=storable(result.error),
        labels=labels,
    )


def storable(text: str) -> str:
    """Return the text as every database takes it: no longer than RESULT_TEXT_CHARS_MAX, and with U+FFFD for NUL."""
    text = text.replace("\0", "\ufffd")
    if len(text) <= limits.RESULT_TEXT_CHARS_MAX:
        return text
    return text[: limits.RESULT_TEXT_CHARS_MAX - 1] + "…"
