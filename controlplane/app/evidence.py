"""Evidence from agents: metric windows and results, each batch stored once.

A batch is taken whole or not at all, so one odd result must not cost the others: what an application or a model can
make odd (long texts, NUL, scores that are no numbers) is brought within bounds. What only the agent makes is checked.

Windows are rows; results are files in the lake, which the same transaction puts into the index.
"""

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from types import MappingProxyType

from controlplane import limits
from controlplane.app.input_statistics import check_input_statistics
from controlplane.app.ports import Clock, IdSource, Store
from controlplane.app.ports_lake import ObjectStore, ResultCodec, SignedPut
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import FieldInvalidError, Reason, ResourceNotFoundError, StorageError
from controlplane.domain.evidence import (
    CONFIDENCE_BINS,
    EvidenceBatch,
    LatencySketch,
    MetricWindow,
    Result,
    SentResults,
    ShadowWindow,
)
from controlplane.domain.ids import AgentId
from controlplane.domain.lake import Place, ResultFile, ResultObject, batch_key, day_of_batch_key, stored


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultUpload:
    """Where an agent may put a file of results."""

    key: str
    put: SignedPut


class Evidence:
    """Takes evidence."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource, objects: ObjectStore, codec: ResultCodec) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._objects = objects
        self._codec = codec

    async def report(self, batch: EvidenceBatch) -> bool:
        """Store the batch as received now; return whether it was stored before. The caller has set every
        `agent_id` to the agent that calls. Raises FieldInvalidError for a batch out of bounds."""
        check_batch(batch)
        async with self._store.read() as work:
            if await work.evidence.has(batch.agent_id, batch.batch):
                return True
            agent = await work.agents.find(batch.agent_id)
        place = Place.of(agent.agent.labels) if agent is not None else Place()
        received = replace(
            batch,
            receive_time=self._clock.now(),
            results=(),
            files=(),
            windows=tuple(map(_storable_window, batch.windows)),
            shadow_windows=tuple(replace(each, device=storable(each.device)) for each in batch.shadow_windows),
        )
        # The objects first: a row of the index never names an object that is not there. Killed in between, they are
        # waste under keys that nobody will use again.
        objects, own_keys = await self._put_results(batch, place=place, receive_time=received.receive_time)

        async def attempt() -> bool:
            async with self._store.write() as work:
                added = await work.evidence.add(received, objects)
                if added and received.windows:
                    await work.drifts.note(received.agent_id, received.batch)
                return added

        if await retry_stale(attempt):
            return False
        # Somebody else was faster. Only what we have put is ours to remove: an upload may be the other's too.
        await self._objects.remove(own_keys)
        return True

    @property
    def uploads_supported(self) -> bool:
        """Whether agents may put files of results straight into the object store."""
        return self._objects.can_sign

    async def create_uploads(self, agent_id: AgentId, batch: int, days: Sequence[date]) -> Sequence[ResultUpload]:
        """Where the agent may put the files of those days; nothing where the store cannot sign."""
        if batch < 0:
            raise FieldInvalidError("numbers of batches cannot be negative", field="batch", remedy="count from 0")
        if not 0 < len(days) <= limits.LAKE_FILES_A_BATCH_MAX:
            raise FieldInvalidError(
                f"{len(days)} files", field="files", remedy=f"name 1 to {limits.LAKE_FILES_A_BATCH_MAX} files"
            )
        if not self.uploads_supported:
            return ()
        async with self._store.read() as work:
            agent = (await work.agents.get(agent_id)).agent
        place = Place.of(agent.labels)
        keys = [batch_key(place, day, agent_id=agent_id, batch=batch, nonce=self._ids.short_id()) for day in days]
        return [
            ResultUpload(key=key, put=await self._objects.sign_put(key, seconds=limits.LAKE_UPLOAD_SECONDS))
            for key in keys
        ]

    async def _put_results(
        self, batch: EvidenceBatch, *, place: Place, receive_time: datetime
    ) -> tuple[Sequence[ResultObject], Sequence[str]]:
        """Return the objects that hold the batch's results, and the keys of those that we have put."""
        objects, own_keys = [], []
        for file, uploaded in await self._files(batch):
            key = uploaded or batch_key(
                place, file.day, agent_id=batch.agent_id, batch=batch.batch, nonce=self._ids.short_id()
            )
            if not uploaded:
                await self._objects.put(key, file.content)
                own_keys.append(key)
            objects.append(stored(file, key=key, create_time=receive_time))
        return objects, own_keys

    async def _files(self, batch: EvidenceBatch) -> Sequence[tuple[ResultFile, str]]:
        """The batch's results in columns, each file with the key under which it lies already, "" where it does not."""
        if batch.files:
            return [await self._sent(sent, batch=batch) for sent in batch.files]
        results = tuple(map(within_bounds, batch.results))
        return [(file, "") for file in await asyncio.to_thread(self._codec.encode, results)]

    async def _sent(self, sent: SentResults, *, batch: EvidenceBatch) -> tuple[ResultFile, str]:
        if not sent.upload_key:
            return await asyncio.to_thread(_checked, self._codec, sent, sent.content, batch=batch), ""
        # Before anything is looked for under it: it is an agent's word.
        day = day_of_batch_key(sent.upload_key, agent_id=batch.agent_id, batch=batch.batch)
        content = await self._uploaded(sent)
        file = await asyncio.to_thread(_checked, self._codec, sent, content, batch=batch)
        if file.day != day:
            raise FieldInvalidError(
                f"results of {file.day} lie in the folder of {day}",
                field="result_files.upload_key",
                remedy="ask CreateResultUploads with the day of the results",
            )
        # What had to be brought within bounds is not what lies there.
        return file, sent.upload_key if file.digest == sent.digest else ""

    async def _uploaded(self, sent: SentResults) -> bytes:
        """What the agent has put. Raises StorageError, which is tried again, where it is not there or too old."""
        try:
            listed = await self._objects.stat(sent.upload_key)
        except ResourceNotFoundError as error:
            raise _upload_lost(sent.upload_key) from error
        if self._clock.now() - listed.modify_time > timedelta(seconds=2 * limits.LAKE_UPLOAD_SECONDS):
            # So old that the sweep may be about to take it for waste.
            raise _upload_lost(sent.upload_key)
        if listed.size_bytes > limits.LAKE_FILE_BYTES_MAX:
            raise _too_large(listed.size_bytes)
        return await self._objects.get(sent.upload_key)


def _checked(codec: ResultCodec, sent: SentResults, content: bytes, *, batch: EvidenceBatch) -> ResultFile:
    if len(content) > limits.LAKE_FILE_BYTES_MAX:
        raise _too_large(len(content))
    came = "sha256:" + hashlib.sha256(content).hexdigest()
    if (len(content), came) != (sent.size_bytes, sent.digest):
        raise FieldInvalidError(
            f"{len(content)} bytes with the digest {came} came, not {sent.size_bytes} bytes with {sent.digest}",
            field="result_files.digest",
            remedy="send the file again from the spool: nothing was kept",
            reason=Reason.DIGEST_MISMATCH,
        )
    file = codec.check(content, agent_id=batch.agent_id, batch=batch.batch)
    if file.rows != sent.rows:
        raise FieldInvalidError(
            f"{file.rows} rows came, not {sent.rows}", field="result_files.row_count", remedy="count the rows"
        )
    return file


def _too_large(size_bytes: int) -> FieldInvalidError:
    return FieldInvalidError(
        f"{size_bytes} bytes are more than {limits.LAKE_FILE_BYTES_MAX}",
        field="result_files",
        remedy="send smaller batches",
    )


def _upload_lost(key: str) -> StorageError:
    return StorageError(f"{key} is not in the object store, or too old", remedy="put it again, or send the content")


def check_batch(batch: EvidenceBatch) -> None:
    """Raise FieldInvalidError unless the batch is within bounds and its numbers can be of measurements."""
    for field, number in (
        ("batch", batch.batch),
        ("dropped_results", batch.dropped_results),
        ("omitted_results", batch.omitted_results),
    ):
        if number < 0:
            raise FieldInvalidError(
                "numbers of batches and of results cannot be negative", field=field, remedy="count from 0"
            )
    if batch.results and batch.files:
        raise FieldInvalidError("results come in rows and in files", field="result_files", remedy="send either")
    for field, count, bound in (
        ("results", len(batch.results), limits.EVIDENCE_RESULTS_MAX),
        ("result_files", len(batch.files), limits.LAKE_FILES_A_BATCH_MAX),
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
    parts = (window.error_count, window.omitted_count)
    counts = (*parts, window.refused_count, window.inference_count, *window.confidence_histogram)
    if min(counts) < 0 or max(parts) > window.inference_count:
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
        lot=storable(result.lot),
        application=storable(result.application),
        labels=labels,
    )


def storable(text: str) -> str:
    """Return the text as every database takes it: no longer than RESULT_TEXT_CHARS_MAX, and with U+FFFD for NUL."""
    text = text.replace("\0", "\ufffd")
    if len(text) <= limits.RESULT_TEXT_CHARS_MAX:
        return text
    return text[: limits.RESULT_TEXT_CHARS_MAX - 1] + "…"
