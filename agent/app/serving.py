"""The slots that applications call, and the versions that answer for them.

Rules kept here:
- A swap is one pointer: a request is answered by the version that served when it began, and says which one that was.
- The version before is closed when its last request is done, never under a request.
- A result is in the result log before its answer is returned; inputs are offered as samples and to shadow runs after
  that, which take no time worth naming and cannot fail.
- No lock is held while inferring; a full disk or a lost result log never stops an answer.
- A request takes its turn among the applications' and begins before its deadline, or is refused.
- A version that was replaced still answers requests that name it, until its last request is done, but only for a
  while: then it takes no more of them and is freed.
- A staged version answers from the first lot that nobody has begun; lots that the version before began are its own for
  as long as the swap may wait.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog

from agent import limits
from agent.app import tensors
from agent.app.ports import Clock, LoadedModel, ResultLog, SampleOffers, ShadowOffers, Tensor
from agent.app.served import (
    Counted,
    Request,
    Served,
    ServedModel,
    Staged,
    Statistics,
    result_of,
    results_of,
    statistics_of,
    tally_key,
)
from agent.app.tallies import Tallies, TallyBook
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.app.turns import Places, Turns
from agent.domain.errors import Reason, RequestError, StateError
from agent.domain.interpretation import reading_of
from agent.domain.result import Outcome, Result
from agent.domain.result_policy import ResultPolicy
from agent.domain.slot import DesiredSlot

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceAnswer:
    """Outputs in the requested order, of the version that `model` names; one result a batch item."""

    model: ServedModel
    request_id: str
    outputs: Mapping[str, Tensor]
    results: tuple[Result, ...]


class Serving:
    """Thread-safe. `close` once at the end."""

    def __init__(
        self,
        *,
        clock: Clock,
        results: ResultLog,
        samples: SampleOffers,
        shadows: ShadowOffers,
        traffic: Traffic,
        places: Places | None = None,
    ) -> None:
        """`traffic` is told of every request; `shadows` is shown what was answered; `places` bounds what runs and waits
        at once."""
        self._clock = clock
        self._results = results
        self._samples = samples
        self._shadows = shadows
        self._traffic = traffic
        self._places = places or Places()
        self._lock = threading.Lock()
        self._slots: dict[str, Served] = {}
        self._staged: dict[str, Staged] = {}
        self._draining: list[Served] = []
        """Replaced or unloaded, with requests under way."""
        self._announced: frozenset[str] = frozenset()
        self._listeners: list[Callable[[], None]] = []
        self._tallies = Tallies()

    # --- what the executor calls ---

    def announce(self, slots: Collection[str]) -> None:
        """Say which slots are to come, so that a request for one is told to wait instead of NOT_FOUND."""
        with self._lock:
            self._announced = frozenset(slots)

    def swap(self, slot: DesiredSlot, loaded: LoadedModel) -> None:
        """Let `loaded` answer for the slot from the next request on. Owns `loaded` from here on. What was staged waits
        no longer, unless this is the same version on another device; nothing happens where a lot has brought it in
        meanwhile."""
        with self._lock:
            current = self._slots.get(slot.slot)
            if current is not None and current.loaded is loaded:
                return
            served = self._new_served(slot, loaded)
            staged = self._staged.get(slot.slot)
            if current is not None and current.model.version == slot.version:
                served.lots.update(current.lots)
                staged = staged if staged is not None and staged.served.loaded is loaded else None
            if staged is not None:
                del self._staged[slot.slot]
            before = self._put(served)
        if staged is not None and staged.served.loaded is not loaded:
            staged.served.loaded.close()
        self._retire(before)
        self._notify()

    def stage(
        self, slot: DesiredSlot, loaded: LoadedModel, *, wait_seconds: float, on_swap: Callable[[], None]
    ) -> bool:
        """Let `loaded` answer from the first lot that nobody has begun, and then call `on_swap` from the thread of that
        request; `swap` ends the wait. False, and nothing is staged, where the version that serves knows of no lots."""
        with self._lock:
            current = self._slots.get(slot.slot)
            if current is None or not current.lots:
                return False
            until = self._clock.monotonic() + wait_seconds
            replaced = self._staged.get(slot.slot)
            self._staged[slot.slot] = Staged(served=self._new_served(slot, loaded), until=until, on_swap=on_swap)
        if replaced is not None:
            replaced.served.loaded.close()
        return True

    def withdraw(self, slot: str, loaded: LoadedModel) -> bool:
        """Free `loaded` if it is staged for the slot; False where it is not, since it serves already."""
        with self._lock:
            staged = self._staged.get(slot)
            if staged is None or staged.served.loaded is not loaded:
                return False
            del self._staged[slot]
        loaded.close()
        return True

    def _new_served(self, slot: DesiredSlot, loaded: LoadedModel) -> Served:
        """Call with the lock held."""
        model = ServedModel(slot=slot.slot, version=slot.version, device=loaded.device, signature=loaded.signature)
        serving = {tally_key(each.model) for each in self._slots.values()}
        return Served(
            desired=slot,
            loaded=loaded,
            model=model,
            reading=reading_of(loaded.signature),
            turns=Turns(loaded.optimal_requests),
            counted=Counted(),
            tally=self._tallies.begin(tally_key(model), serving=serving),
        )

    def _put(self, served: Served) -> Served | None:
        """What answered before. Call with the lock held."""
        before = self._slots.get(served.model.slot)
        self._slots[served.model.slot] = served
        if before is not None:
            self._tallies.swap(served.model.slot)
        return before

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
            staged = self._staged.pop(slot, None)
        if staged is not None:
            staged.served.loaded.close()
        self._retire(before)
        self._notify()

    def close(self) -> None:
        """Unload every slot."""
        for model in self.models():
            self.unload(model.slot)
        with self._lock:
            kept = [each for each in self._draining if not each.users]
            self._draining = [each for each in self._draining if each.users]
        for each in kept:
            each.loaded.close()

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

    def result_policy(self, slot: str) -> ResultPolicy:
        """Which of the slot's results are reported; all of them of one that does not serve."""
        with self._lock:
            served = self._slots.get(slot)
            return served.desired.result_policy if served is not None else ResultPolicy()

    def model(self, slot: str, version: int | None = None) -> ServedModel:
        """What answers for the slot. Raises RequestError (MODEL_NOT_FOUND, MODEL_NOT_READY, VERSION_NOT_LOADED)."""
        with self._lock:
            return self._find(slot, version).model

    def statistics(self, slot: str | None = None, version: int | None = None) -> tuple[Statistics, ...]:
        """Counts of one slot, or of every slot. Raises RequestError as `model` does."""
        with self._lock:
            if slot is not None:
                return (statistics_of(self._find(slot, version)),)
            return tuple(statistics_of(served) for _, served in sorted(self._slots.items()))

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
        application: str = "",
        lot: str = "",
        deadline_seconds: float | None = None,
    ) -> InferenceAnswer:
        """Answer a request; blocks. Requests of one `application` wait behind each other; one that cannot begin within
        `deadline_seconds` from now is refused (DEADLINE_EXCEEDED). Raises RequestError: the request is refused and
        counted, or the inference failed (INFERENCE_FAILED) and its results say so."""
        begun = self._clock.monotonic()
        bound_seconds = limits.INFERENCE_WAIT_SECONDS_MAX
        request = Request(
            part_id=part_id,
            request_id=request_id,
            application=application,
            lot=lot,
            begin_until=begun + (bound_seconds if deadline_seconds is None else min(bound_seconds, deadline_seconds)),
            has_deadline=deadline_seconds is not None and deadline_seconds <= bound_seconds,
            deadline=None if deadline_seconds is None else begun + deadline_seconds,
            infer_time=self._clock.now(),
            begun=begun,
        )
        with self._traffic.request():
            served = self._borrow(slot, version, request)
            try:
                return self._answered(served, request, inputs, requested_outputs)
            finally:
                self._give_back(served)

    # --- the parts of an answer ---

    def _answered(
        self, served: Served, request: Request, inputs: Sequence[InputTensor], requested_outputs: Sequence[str]
    ) -> InferenceAnswer:
        names, arrays = self._checked(served, inputs, requested_outputs)
        request.checked = self._clock.monotonic()
        outputs = self._inferred(served, request, arrays)
        request.inferred = self._clock.monotonic()
        results = results_of(served, request, arrays, outputs)
        self._append(results)
        request.done = self._clock.monotonic()
        self._count(served, request, len(results))
        self._samples.offer(arrays, results, served.desired.sample_policy)
        self._shadows.offer(arrays, results)
        return InferenceAnswer(
            model=served.model,
            request_id=request.request_id,
            outputs={name: outputs[name] for name in names},
            results=results,
        )

    def _checked(
        self, served: Served, inputs: Sequence[InputTensor], requested_outputs: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, Tensor]]:
        try:
            names = tensors.check_outputs(served.model.signature, requested_outputs)
            return names, tensors.check_inputs(served.model.signature, inputs)
        except RequestError as error:
            self._count_refused(served, error.reason)
            raise

    def _inferred(self, served: Served, request: Request, arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        try:
            return self._in_turn(served, request, arrays)
        except RequestError as error:
            if error.reason is not Reason.INFERENCE_FAILED:
                self._count_refused(served, error.reason)
                raise
            request.inferred = request.done = self._clock.monotonic()
            items = tensors.batch_items(served.model.signature, arrays)
            self._append(
                tuple(
                    result_of(served, request, index, outcome=Outcome.ERROR, error=str(error)) for index in range(items)
                )
            )
            self._count_failed(served, request, items)
            raise

    def _in_turn(self, served: Served, request: Request, arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self._places.enter(request.application)
        try:
            if not served.turns.take(request.application, lambda: request.begin_until - self._clock.monotonic()):
                raise _too_late(request)
            try:
                request.started = self._clock.monotonic()
                if request.has_deadline and request.started > request.begin_until:
                    raise _too_late(request)
                deadline = request.deadline
                left = None if deadline is None else lambda: deadline - self._clock.monotonic()
                return served.loaded.infer(arrays, begin_seconds=left)
            finally:
                served.turns.give()
        finally:
            self._places.leave(request.application)

    def _append(self, results: tuple[Result, ...]) -> None:
        try:
            self._results.append(results)
        except StateError as error:
            # The line goes on without its records: losing the disk must not stop inference.
            _log.error("result_append_failed", results=len(results), reason=error.reason, error=str(error))

    def _count(self, served: Served, request: Request, items: int) -> None:
        with self._lock:
            tally = served.tally
            tally.answered += items
            tally.request_times.add(request.done - request.begun)
            tally.infer_times.add(request.inferred - request.checked)
            counted = served.counted
            counted.requests += 1
            counted.inferences += items
            counted.total_seconds += request.done - request.begun
            counted.input_seconds += request.checked - request.begun
            counted.queue_seconds += request.started - request.checked
            counted.infer_seconds += request.inferred - request.started
            counted.output_seconds += request.done - request.inferred
            counted.last_time = request.infer_time

    def _count_refused(self, served: Served, reason: Reason) -> None:
        self._results.count_refused(served.model.slot, served.model.version)
        with self._lock:
            self._tallies.refuse(served.model.slot, reason)

    def _count_failed(self, served: Served, request: Request, items: int) -> None:
        with self._lock:
            served.tally.failed += items
            counted = served.counted
            counted.failed += 1
            counted.failed_seconds += request.done - request.begun
            counted.last_time = request.infer_time

    # --- who uses which version ---

    def _borrow(self, slot: str, version: int | None, request: Request) -> Served:
        lot = (request.application, request.lot) if request.lot else None
        staged = None
        try:
            _check_identifier(request.part_id, "parameters[part_id]")
            _check_identifier(request.request_id, "id")
            _check_identifier(request.application, "parameters[application]")
            _check_identifier(request.lot, "parameters[lot]")
            with self._lock:
                served = self._find(slot, version)
                if lot is not None and version is None:
                    served, staged = self._of_lot(served, lot)
                served.users += 1
        except RequestError as error:
            self.count_refused(slot, error.reason)
            raise
        if staged is not None:
            staged.on_swap()
            self._notify()
        return served

    def _of_lot(self, serving: Served, lot: tuple[str, str]) -> tuple[Served, Staged | None]:
        """The version that began the lot, else the newest, which begins it, and the staged one where that is how it
        came to serve. Call with the lock held."""
        slot = serving.model.slot
        if lot in serving.lots:
            return serving, None
        for each in self._draining:
            if each.model.slot == slot and lot in each.lots and self._clock.monotonic() < each.keep_until:
                return each, None
        staged = self._staged.pop(slot, None)
        if staged is not None:
            self._put(staged.served)
            self._drain(serving, keep_until=staged.until)
            serving = staged.served
        serving.lots[lot] = None
        if len(serving.lots) > limits.LOTS_REMEMBERED_MAX:
            serving.lots.popitem(last=False)
        return serving, staged

    def _give_back(self, served: Served) -> None:
        drained: list[Served] = []
        with self._lock:
            served.users -= 1
            if self._draining:
                now = self._clock.monotonic()
                drained = [each for each in self._draining if each.users == 0 and each.keep_until <= now]
                self._draining = [each for each in self._draining if each not in drained]
        for each in drained:
            each.loaded.close()

    def _retire(self, served: Served | None) -> None:
        if served is None:
            return
        with self._lock:
            drained = served.users == 0
            if not drained:
                self._drain(served)
        if drained:
            served.loaded.close()

    def _drain(self, served: Served, *, keep_until: float = 0.0) -> None:
        """Call with the lock held."""
        served.keep_until = keep_until
        served.named_until = max(keep_until, self._clock.monotonic() + limits.REPLACED_VERSION_SECONDS_MAX)
        self._draining.append(served)

    def _find(self, slot: str, version: int | None) -> Served:
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
            draining = [each for each in self._draining if (each.model.slot, each.model.version) == (slot, version)]
            for each in draining:
                if self._clock.monotonic() < each.named_until:
                    return each
            raise RequestError(
                f"version {version} of {slot!r} " + ("was replaced" if draining else "is not loaded"),
                field="model_version",
                remedy=f"leave it empty, or ask for {served.model.version}",
                reason=Reason.VERSION_NOT_LOADED,
            )
        return served

    def _notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _too_late(request: Request) -> RequestError:
    waited_ms = (request.begin_until - request.begun) * 1e3
    return RequestError(
        f"could not begin within {waited_ms:.0f} ms",
        remedy="send fewer requests at once" + (", or allow more time" if request.has_deadline else ""),
        reason=Reason.DEADLINE_EXCEEDED if request.has_deadline else Reason.QUEUE_FULL,
    )


def _check_identifier(text: str, where: str) -> None:
    if len(text) > limits.IDENTIFIER_CHARS_MAX:
        raise RequestError(f"{len(text)} characters", field=where, remedy=f"send at most {limits.IDENTIFIER_CHARS_MAX}")
    # It goes into records and databases, of which some hold no NUL and none holds half a surrogate pair.
    if "\0" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
        raise RequestError("no storable text", field=where, remedy="send Unicode text without NUL")
