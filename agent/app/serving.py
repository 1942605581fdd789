"""The slots that applications call, and the versions that answer for them.

Rules kept here:
- A swap is one pointer: a request is answered by the version that served when it began, and says which one that was.
- The version before is closed when its last request is done, never under a request.
- A result is in the result log before its answer is returned; inputs are offered as samples and to shadow runs after
  that, which take no time worth naming and cannot fail.
- No lock is held while inferring; a full disk or a lost result log never stops an answer.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from agent import limits
from agent.app import tensors
from agent.app.ports import Clock, LoadedModel, ResultLog, SampleOffers, ShadowOffers, Tensor
from agent.app.readings import labels_of_items
from agent.app.tallies import Tallies, Tally, TallyBook, TallyKey
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.domain.artifact import ModelSignature
from agent.domain.errors import Reason, RequestError, StateError
from agent.domain.interpretation import Reading, reading_of
from agent.domain.result import LabelScore, Outcome, Result
from agent.domain.slot import DesiredSlot

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What answers for a slot now."""

    slot: str
    version: int
    device: str
    signature: ModelSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceAnswer:
    """Outputs in the requested order, of the version that `model` names; one result a batch item."""

    model: ServedModel
    request_id: str
    outputs: Mapping[str, Tensor]
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts of a slot's serving version since it began to serve; they only grow. `inferences` counts batch items,
    `requests` whole requests. Waiting for a free InferRequest is part of `infer_seconds`."""

    model: ServedModel
    requests: int = 0
    inferences: int = 0
    failed: int = 0
    total_seconds: float = 0.0
    failed_seconds: float = 0.0
    input_seconds: float = 0.0
    infer_seconds: float = 0.0
    output_seconds: float = 0.0
    last_time: datetime | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Served:
    """A loaded version; the counters are guarded by Serving's lock."""

    desired: DesiredSlot
    loaded: LoadedModel
    model: ServedModel
    reading: Reading | None
    statistics: Statistics
    tally: Tally
    users: int = 0
    retired: bool = False


@dataclass(slots=True, kw_only=True)
class _Request:
    """What goes into a request's results, and the monotonic seconds at which its stages ended."""

    part_id: str
    request_id: str
    infer_time: datetime
    begun: float
    checked: float = 0.0
    inferred: float = 0.0
    done: float = 0.0


class Serving:
    """Thread-safe. `close` once at the end."""

    def __init__(
        self, *, clock: Clock, results: ResultLog, samples: SampleOffers, shadows: ShadowOffers, traffic: Traffic
    ) -> None:
        """`traffic` is told of every request; `shadows` is shown what was answered."""
        self._clock = clock
        self._results = results
        self._samples = samples
        self._shadows = shadows
        self._traffic = traffic
        self._lock = threading.Lock()
        self._slots: dict[str, _Served] = {}
        self._announced: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._tallies = Tallies()

    # --- what the executor calls ---

    def announce(self, slots: Collection[str]) -> None:
        """Say which slots are to come, so that a request for one is told to wait instead of NOT_FOUND."""
        with self._lock:
            self._announced = frozenset(slots)

    def swap(self, slot: DesiredSlot, loaded: LoadedModel) -> None:
        """Let `loaded` answer for the slot from the next request on. Owns `loaded` from here on."""
        model = ServedModel(slot=slot.slot, version=slot.version, device=loaded.device, signature=loaded.signature)
        reading = reading_of(loaded.signature)
        with self._lock:
            serving = {_tally_key(each.model) for each in self._slots.values()}
            served = _Served(
                desired=slot,
                loaded=loaded,
                model=model,
                reading=reading,
                statistics=Statistics(model=model),
                tally=self._tallies.begin(_tally_key(model), serving=serving),
            )
            before = self._slots.get(slot.slot)
            self._slots[slot.slot] = served
            if before is not None:
                self._tallies.swap(slot.slot)
        self._retire(before)
        self._notify()

    def adopt(self, slot: DesiredSlot) -> None:
        """Take over what surrounds the serving version (sample policy, deployment), which must be the slot's."""
        with self._lock:
            served = self._slots[slot.slot]
            assert served.model.version == slot.version, "adopt never changes the version"
            served.desired = slot

    def unload(self, slot: str) -> None:
        """Answer no longer for the slot; requests under way finish. Nothing happens when it is not loaded."""
        with self._lock:
            before = self._slots.pop(slot, None)
        self._retire(before)
        self._notify()

    def close(self) -> None:
        """Unload every slot."""
        for model in self.models():
            self.unload(model.slot)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every swap and unload, from the thread that made it."""
        self._listeners.append(listener)

    # --- what the servers call ---

    @property
    def ready(self) -> bool:
        """Whether at least one slot answers."""
        return bool(self._slots)

    def models(self) -> tuple[ServedModel, ...]:
        """What answers now, by slot name."""
        with self._lock:
            return tuple(served.model for _, served in sorted(self._slots.items()))

    def pending(self) -> tuple[str, ...]:
        """Announced slots that do not answer yet."""
        with self._lock:
            return tuple(sorted(self._announced - self._slots.keys()))

    def model(self, slot: str, version: int | None = None) -> ServedModel:
        """What answers for the slot. Raises RequestError (MODEL_NOT_FOUND, MODEL_NOT_READY, VERSION_NOT_LOADED)."""
        with self._lock:
            return self._find(slot, version).model

    def statistics(self, slot: str | None = None, version: int | None = None) -> tuple[Statistics, ...]:
        """Counts of one slot, or of every slot. Raises RequestError as `model` does."""
        with self._lock:
            if slot is not None:
                return (self._find(slot, version).statistics,)
            return tuple(served.statistics for _, served in sorted(self._slots.items()))

    def tallies(self) -> TallyBook:
        """What was answered and refused since the process started, also by versions that serve no more."""
        with self._lock:
            return self._tallies.snapshot()

    def count_refused(self, slot: str, reason: Reason = Reason.INPUT_INVALID) -> None:
        """Count a request that was refused before it came to `infer`. Results of a slot that does not serve have no
        count."""
        with self._lock:
            served = self._slots.get(slot)
            self._tallies.refuse(slot if served is not None or slot in self._announced else "", reason)
        if served is not None:
            self._results.count_refused(slot, served.model.version)

    def infer(
        self,
        slot: str,
        version: int | None,
        inputs: Sequence[InputTensor],
        *,
        part_id: str = "",
        request_id: str = "",
        requested_outputs: Sequence[str] = (),
    ) -> InferenceAnswer:
        """Answer a request; blocks. Raises RequestError: the request is refused and counted, or the inference failed
        (INFERENCE_FAILED) and its results say so."""
        request = _Request(
            part_id=part_id, request_id=request_id, infer_time=self._clock.now(), begun=self._clock.monotonic()
        )
        with self._traffic.request(), self._borrowed(slot, version) as served:
            names, arrays = self._checked(served, request, inputs, requested_outputs)
            request.checked = self._clock.monotonic()
            outputs = self._inferred(served, request, arrays)
            request.inferred = self._clock.monotonic()
            results = _results(served, request, arrays, outputs)
            self._append(results)
            request.done = self._clock.monotonic()
            self._count(served, request, len(results))
            self._samples.offer(arrays, results, served.desired.sample_policy)
            self._shadows.offer(arrays, results)
            return InferenceAnswer(
                model=served.model,
                request_id=request_id,
                outputs={name: outputs[name] for name in names},
                results=results,
            )

    # --- the parts of an answer ---

    def _checked(
        self, served: _Served, request: _Request, inputs: Sequence[InputTensor], requested_outputs: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, Tensor]]:
        try:
            _check_identifier(request.part_id, "parameters[part_id]")
            _check_identifier(request.request_id, "id")
            names = tensors.check_outputs(served.model.signature, requested_outputs)
            return names, tensors.check_inputs(served.model.signature, inputs)
        except RequestError as error:
            self._count_refused(served, error.reason)
            raise

    def _inferred(self, served: _Served, request: _Request, arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        try:
            return served.loaded.infer(arrays)
        except RequestError as error:
            if error.reason is not Reason.INFERENCE_FAILED:
                self._count_refused(served, error.reason)
                raise
            request.inferred = request.done = self._clock.monotonic()
            items = tensors.batch_items(served.model.signature, arrays)
            self._append(
                tuple(
                    _result(served, request, index, outcome=Outcome.ERROR, error=str(error)) for index in range(items)
                )
            )
            self._count_failed(served, request, items)
            raise

    def _append(self, results: tuple[Result, ...]) -> None:
        try:
            self._results.append(results)
        except StateError as error:
            # The line goes on without its records: losing the disk must not stop inference.
            _log.error("result_append_failed", results=len(results), reason=error.reason, error=str(error))

    def _count(self, served: _Served, request: _Request, items: int) -> None:
        with self._lock:
            tally = served.tally
            tally.answered += items
            tally.request_times.add(request.done - request.begun)
            tally.infer_times.add(request.inferred - request.checked)
            before = served.statistics
            served.statistics = replace(
                before,
                requests=before.requests + 1,
                inferences=before.inferences + items,
                total_seconds=before.total_seconds + request.done - request.begun,
                input_seconds=before.input_seconds + request.checked - request.begun,
                infer_seconds=before.infer_seconds + request.inferred - request.checked,
                output_seconds=before.output_seconds + request.done - request.inferred,
                last_time=request.infer_time,
            )

    def _count_refused(self, served: _Served, reason: Reason) -> None:
        self._results.count_refused(served.model.slot, served.model.version)
        with self._lock:
            self._tallies.refuse(served.model.slot, reason)

    def _count_failed(self, served: _Served, request: _Request, items: int) -> None:
        with self._lock:
            served.tally.failed += items
            before = served.statistics
            served.statistics = replace(
                before,
                failed=before.failed + 1,
                failed_seconds=before.failed_seconds + request.done - request.begun,
                last_time=request.infer_time,
            )

    # --- who uses which version ---

    @contextmanager
    def _borrowed(self, slot: str, version: int | None) -> Iterator[_Served]:
        try:
            with self._lock:
                served = self._find(slot, version)
                served.users += 1
        except RequestError as error:
            self.count_refused(slot, error.reason)
            raise
        try:
            yield served
        finally:
            with self._lock:
                served.users -= 1
                drained = served.retired and served.users == 0
            if drained:
                served.loaded.close()

    def _retire(self, served: _Served | None) -> None:
        if served is None:
            return
        with self._lock:
            served.retired = True
            drained = served.users == 0
        if drained:
            served.loaded.close()

    def _find(self, slot: str, version: int | None) -> _Served:
        """Call with the lock held."""
        served = self._slots.get(slot)
        if served is None and slot in self._announced:
            raise RequestError(
                f"{slot!r} has no version loaded yet",
                field="model_name",
                remedy="wait until ModelReady says so",
                reason=Reason.MODEL_NOT_READY,
            )
        if served is None:
            known = ", ".join(sorted(self._slots)) or "none yet"
            raise RequestError(
                f"{slot[: limits.IDENTIFIER_CHARS_MAX]!r} is not served here",
                field="model_name",
                remedy=f"use one of: {known}",
                reason=Reason.MODEL_NOT_FOUND,
            )
        if version is not None and version != served.model.version:
            raise RequestError(
                f"version {version} of {slot!r} is not loaded",
                field="model_version",
                remedy=f"leave it empty, or ask for {served.model.version}",
                reason=Reason.VERSION_NOT_LOADED,
            )
        return served

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _tally_key(model: ServedModel) -> TallyKey:
    return model.slot, model.version, model.device


def _check_identifier(text: str, where: str) -> None:
    if len(text) > limits.IDENTIFIER_CHARS_MAX:
        raise RequestError(f"{len(text)} characters", field=where, remedy=f"send at most {limits.IDENTIFIER_CHARS_MAX}")
    # It goes into records and databases, of which some hold no NUL and none holds half a surrogate pair.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise RequestError("no storable text", field=where, remedy="send Unicode text without NUL")


def _results(
    served: _Served, request: _Request, arrays: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> tuple[Result, ...]:
    rows = labels_of_items(served.model.signature, served.reading, arrays, outputs)
    return tuple(_result(served, request, index, labels=labels) for index, labels in enumerate(rows))


def _result(
    served: _Served,
    request: _Request,
    index: int,
    *,
    labels: tuple[LabelScore, ...] = (),
    outcome: Outcome = Outcome.OK,
    error: str = "",
) -> Result:
    return Result(
        slot=served.model.slot,
        version=served.model.version,
        device=served.model.device,
        infer_time=request.infer_time,
        part_id=request.part_id,
        request_id=request.request_id,
        outcome=outcome,
        labels=labels,
        latency_us=round((request.inferred - request.begun) * 1e6),
        error=error[: limits.ERROR_CHARS_MAX],
        batch_index=index,
    )
