"""Evidence from agents: results and metric windows, each batch stored once; and lists of results.

A batch is taken whole or not at all, so one odd result must not cost the others: what an application or a model can
make odd (long texts, NUL, scores that are no numbers) is brought within bounds. What only the agent makes is checked.
"""

import math
from dataclasses import replace

from controlplane import limits
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Clock, ResultFilter, Store
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import CONFIDENCE_BINS, EvidenceBatch, LatencySketch, MetricWindow, Result


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
        windows = tuple(replace(window, device=storable(window.device)) for window in batch.windows)
        received = replace(batch, receive_time=self._clock.now(), results=results, windows=windows)

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
    ):
        if count > bound:
            raise FieldInvalidError(f"{count} are more than {bound}", field=field, remedy="send smaller batches")
    for window in batch.windows:
        _check_window(window)


def _check_window(window: MetricWindow) -> None:
    counts = (window.error_count, window.refused_count, window.inference_count, *window.confidence_histogram)
    if min(counts) < 0 or window.error_count > window.inference_count:
        raise FieldInvalidError("the counts contradict each other", field="windows", remedy="count each inference once")
    if len(window.confidence_histogram) not in {0, CONFIDENCE_BINS}:
        raise FieldInvalidError(
            f"{len(window.confidence_histogram)} bins", field="windows.confidence_histogram", remedy="send 20 bins"
        )
    _check_sketch(window.latency)


def _check_sketch(sketch: LatencySketch) -> None:
    last_key = sketch.first_bin_key + len(sketch.bin_counts)
    if sketch.count and sketch.relative_accuracy != limits.LATENCY_RELATIVE_ACCURACY:
        raise FieldInvalidError(
            f"sketches of the accuracy {sketch.relative_accuracy} do not merge with the others",
            field="windows.latency.relative_accuracy",
            remedy=f"use {limits.LATENCY_RELATIVE_ACCURACY}",
        )
    if max(abs(sketch.first_bin_key), abs(last_key)) > limits.LATENCY_BIN_KEY_MAX:
        raise FieldInvalidError(
            f"bins from {sketch.first_bin_key} to {last_key} are of no latency",
            field="windows.latency.first_bin_key",
            remedy=f"keep the keys within {limits.LATENCY_BIN_KEY_MAX}",
        )
    if not all(map(math.isfinite, (sketch.sum_ms, sketch.min_ms, sketch.max_ms))):
        raise FieldInvalidError("a latency is not finite", field="windows.latency", remedy="send milliseconds")
    if min(sketch.bin_counts, default=0) < 0 or sum(sketch.bin_counts) + sketch.zero_count != sketch.count:
        raise FieldInvalidError(
            "the bins do not add up to the count", field="windows.latency.count", remedy="count each value once"
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
