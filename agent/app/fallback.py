"""What happens when a device dies under a version: the next best measured configuration answers.

Rules kept here:
- A device counts as lost when an inference failed and an example that succeeded at the load fails now as well; an
  input that the model cannot take loses nothing.
- A device counts as lost as well when an inference has not ended after many times what was measured, and the example
  is not answered either. Its request fails and is not repeated, since it may be what hangs; all others wait as below,
  those too that had waited within the runtime for one that hangs.
- Requests that fail on a lost device wait for its successor, within a bound and no longer than until their deadline,
  and are answered by it.
- A lost device is left alone until the next process; the condition DevicesAnswer says which it is and why.
- While all is well a request pays for none of this.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import structlog

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.device_watch import DeviceWatch
from agent.app.ports import LoadedModel, Runtime, Tensor
from agent.app.tensors import NUMPY_TYPES
from agent.domain.artifact import ModelSignature
from agent.domain.device import DeviceChoice
from agent.domain.device_choice import fallback_choice, ranked
from agent.domain.errors import BehindHungError, DeviceHungError, PrepareError, Reason, RequestError
from agent.domain.slot import DesiredSlot

_log = structlog.get_logger()


_Shape = tuple[tuple[int, ...], ...]
"""Of each input."""


class _LostError(Exception):
    """The device is lost, which `error` told; its successor is to answer."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(str(error))
        self.error = error


class FallbackModel:
    """A LoadedModel whose device may die. `close` as for any other; what still answers for a predecessor goes on."""

    def __init__(
        self,
        loaded: LoadedModel,
        choice: DeviceChoice,
        replace_lost: "Callable[[FallbackModel, str], Future[FallbackModel | None]]",
    ) -> None:
        """Owns `loaded`. `replace_lost` begins to load the successor; call it from any thread."""
        self.choice = choice
        self._loaded = loaded
        self._replace_lost = replace_lost
        self._lock = threading.RLock()
        self._checking = threading.Lock()
        self._heir: Future[FallbackModel | None] | None = None
        self._successor: FallbackModel | None = None
        self._guests = 0
        self._closed = False
        self._example = _example(loaded)
        self._failures = 0
        self._hangs: RequestError | None = None
        """How the device was found to hang, while a successor is looked for."""
        self._usual_seconds = _usual_seconds(choice)
        self._familiar: dict[_Shape, float] = {}
        """Shapes of inputs that were answered, and how long an inference of each may take."""
        if self._example is not None:
            self._grow_familiar(_shape(self._example))

    @property
    def device(self) -> str:
        """Of what answers now."""
        return self._loaded.device if self._successor is None else self._successor.device

    @property
    def signature(self) -> ModelSignature:
        return self._loaded.signature

    @property
    def optimal_requests(self) -> int:
        return self._loaded.optimal_requests

    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        begin_seconds: Callable[[], float] | None = None,
        answer_seconds_max: float | None = None,
    ) -> Mapping[str, Tensor]:
        successor = self._successor
        if successor is not None:
            successor.enter()
        else:
            try:
                return self._infer_here(inputs, begin_seconds, answer_seconds_max)
            except _LostError as lost:
                successor = self._wait_for_successor(lost.error, begin_seconds)
        try:
            return successor.infer(inputs, begin_seconds=begin_seconds, answer_seconds_max=answer_seconds_max)
        finally:
            successor.leave()

    def _infer_here(
        self,
        inputs: Mapping[str, Tensor],
        begin_seconds: Callable[[], float] | None,
        answer_seconds_max: float | None,
    ) -> Mapping[str, Tensor]:
        """Raises _LostError where the successor is to answer."""
        if (hangs := self._hangs) is not None:
            raise _LostError(RequestError(hangs.message, remedy=hangs.remedy, reason=hangs.reason))
        shape = _shape(inputs)
        familiar_seconds = self._familiar.get(shape)
        seconds = familiar_seconds if answer_seconds_max is None else answer_seconds_max
        if seconds is None:
            seconds = self._hang_seconds(shape, limits.HANG_FIRST_SECONDS_MIN)
        try:
            outputs = self._loaded.infer(inputs, begin_seconds=begin_seconds, answer_seconds_max=seconds)
        except DeviceHungError as error:
            self._look_whether_it_hangs(error)
            if isinstance(error, BehindHungError) and self._heir is not None:
                raise _LostError(error) from error
            raise
        except RequestError as error:
            if error.reason is not Reason.INFERENCE_FAILED or not self._is_lost():
                raise
            raise _LostError(error) from error
        if self._failures:
            self._failures = 0
        if familiar_seconds is None:
            self._grow_familiar(shape)
        return outputs

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._guests:
                return
        self._loaded.close()

    # --- requests of a predecessor ---

    def enter(self, guests: int = 1) -> None:
        """Requests come that this model's owner does not know of. Raises RequestError once it is closed."""
        with self._lock:
            if self._closed and not self._guests:
                raise RequestError(
                    "the version was replaced meanwhile", remedy="send it again", reason=Reason.MODEL_NOT_READY
                )
            self._guests += guests

    def leave(self) -> None:
        with self._lock:
            self._guests -= 1
            if not self._closed or self._guests:
                return
        self._loaded.close()

    # --- a device that died ---

    def _is_lost(self) -> bool:
        with self._checking:
            if self._heir is not None:
                return True
            self._failures += 1
            if self._example is None:
                return self._failures >= limits.LOST_AFTER_FAILURES
            return all(_fails(self._loaded, self._example, self._check_seconds) for _ in range(limits.LOST_CHECKS))

    def _grow_familiar(self, shape: _Shape) -> None:
        if len(self._familiar) < limits.FAMILIAR_SHAPES_MAX:
            self._familiar[shape] = self._hang_seconds(shape, limits.HANG_SECONDS_MIN)

    def _hang_seconds(self, shape: _Shape, at_least: float) -> float:
        """How long an inference of this shape may take."""
        batched = bool(self.signature.inputs) and self.signature.inputs[0].shape[:1] == (-1,)
        items = shape[0][0] if batched else 1
        if self._usual_seconds is None:
            return limits.HANG_FIRST_SECONDS_MIN * items
        return max(at_least, limits.HANG_LATENCY_FACTOR * self._usual_seconds * items)

    def _look_whether_it_hangs(self, error: RequestError) -> None:
        with self._checking:
            if self._heir is None and not self._answers_example():
                self._hangs = error
                self._look_for_successor(error)

    def _answers_example(self) -> bool:
        if self._example is None:
            return False
        seconds = self._check_seconds
        try:
            self._loaded.infer(self._example, begin_seconds=lambda: seconds, answer_seconds_max=seconds)
        except RequestError:
            return False
        return True

    @property
    def _check_seconds(self) -> float:
        return max(limits.HANG_CHECK_SECONDS_MIN, limits.HANG_LATENCY_FACTOR * (self._usual_seconds or 0.0))

    def _look_for_successor(self, error: RequestError) -> "Future[FallbackModel | None]":
        with self._lock:
            heir = self._heir
            begun = heir is None
            if heir is None:
                _log.error("device_lost", device=self._loaded.device, error=str(error))
                heir = self._heir = self._replace_lost(self, error.message)
        if begun:  # after the lock: what is done already settles here and now
            heir.add_done_callback(self._settle)
        return heir

    def _wait_for_successor(self, error: RequestError, begin_seconds: Callable[[], float] | None) -> "FallbackModel":
        """The successor, entered. Raises `error` where there is none, or none within the bound; RequestError
        (DEADLINE_EXCEEDED) where there is none in time."""
        heir = self._look_for_successor(error)
        bound_seconds = limits.FALLBACK_WAIT_SECONDS_MAX
        left_seconds = begin_seconds() if begin_seconds is not None else bound_seconds
        try:
            successor = heir.result(max(0.0, min(left_seconds, bound_seconds)))
        except (TimeoutError, CancelledError):
            if left_seconds < bound_seconds:
                raise _too_late(self._loaded.device) from error
            raise error from None
        if successor is None:
            raise error
        if left_seconds < 0:
            raise _too_late(self._loaded.device) from error
        successor.enter()
        return successor

    def _settle(self, heir: "Future[FallbackModel | None]") -> None:
        with self._lock:
            successor = None if heir.cancelled() or heir.exception() is not None else heir.result()
            self._successor = successor
            if successor is None:
                self._hangs = None
                self._heir = None  # the next failure looks again: the device may be back


class Fallbacks:
    """One per agent, in its loop: loads configurations in their order, and knows what took over."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        watch: DeviceWatch,
        told: Conditions,
        took_over: Callable[[DesiredSlot, DeviceChoice, FallbackModel], bool],
    ) -> None:
        """`took_over` is given what was loaded, the choice that was lost and what answers now; it returns whether the
        slot still served the first, and owns the last then."""
        self._runtime = runtime
        self._watch = watch
        self._told = told
        self._took_over = took_over
        self._loop = asyncio.get_running_loop()

    async def load(self, wanted: DesiredSlot, choice: DeviceChoice, folder: Path) -> FallbackModel:
        """What was chosen, or the next best that loads. Raises the first PrepareError."""
        try:
            return await self._load(wanted, choice, folder)
        except PrepareError as error:
            # Nothing was lost for good: it is measured again as soon as the devices are known.
            found = await self._next_best(wanted, replace(choice, fingerprint=""), folder, str(error))
            if found is None:
                raise
            return found

    async def _load(self, wanted: DesiredSlot, choice: DeviceChoice, folder: Path) -> FallbackModel:
        loaded = await self._runtime.load(folder, wanted.signature, wanted.runtime_policy, choice.configuration)

        def replace_lost(model: FallbackModel, why: str) -> Future[FallbackModel | None]:
            return asyncio.run_coroutine_threadsafe(self._replace(model, wanted, folder, why), self._loop)

        return await asyncio.to_thread(FallbackModel, loaded, choice, replace_lost)

    async def _next_best(
        self, wanted: DesiredSlot, choice: DeviceChoice, folder: Path, why: str
    ) -> FallbackModel | None:
        hint = wanted.runtime_policy.hint
        for configuration in ranked(choice.measurements, hint):
            gone = any(configuration.uses(device) for device in self._watch.lost)
            if gone or configuration == choice.configuration:
                continue
            try:
                return await self._load(wanted, fallback_choice(choice, hint, configuration, why), folder)
            except PrepareError as error:
                _log.error("fallback_failed", slot=wanted.slot, device=str(configuration), error=str(error))
        return None

    async def _replace(self, model: FallbackModel, wanted: DesiredSlot, folder: Path, why: str) -> FallbackModel | None:
        lost = model.choice
        self._watch.lose(lost.device)
        marked = replace(lost, fingerprint=self._watch.fingerprint)
        successor = await self._next_best(wanted, marked, folder, why)
        device = str(lost.configuration)
        after = str(successor.choice.configuration) if successor is not None else "nothing"
        self._told.set(
            conditions.DEVICES_ANSWER,
            holds=False,
            reason="DeviceLost",
            message=f"{device} fails under {wanted.slot}:{wanted.version}: {why}; {after} answers instead. "
            "Look at the device and its driver, then start the agent again",
        )
        _log.error("fallback", slot=wanted.slot, version=wanted.version, lost=device, answers=after)
        if successor is not None and not self._took_over(wanted, lost, successor):
            # The slot has moved on, and only requests that were under way still need it.
            self._loop.call_later(limits.FALLBACK_WAIT_SECONDS_MAX, successor.close)
        return successor


def _shape(inputs: Mapping[str, Tensor]) -> _Shape:
    return tuple(array.shape for array in inputs.values())


def _usual_seconds(choice: DeviceChoice) -> float | None:
    """Of nearly every inference of one item, as measured; None where that is not known."""
    found = (each for each in choice.measurements if each.ok and each.configuration == choice.configuration)
    measured = next(found, None)
    return max(measured.latency_ms_p50, measured.latency_ms_p99) / 1000 if measured is not None else None


def _too_late(device: str) -> RequestError:
    return RequestError(
        f"{device} was lost, and nothing else could begin in time",
        remedy="send it again, or allow more time",
        reason=Reason.DEADLINE_EXCEEDED,
    )


def _fails(loaded: LoadedModel, example: Mapping[str, Tensor], seconds: float | None = None) -> bool:
    """Also where it is not answered within `seconds`."""
    try:
        loaded.infer(example, answer_seconds_max=seconds)
    except RequestError as error:
        return error.reason is Reason.INFERENCE_FAILED
    except (ValueError, TypeError):
        return True  # a model of no fixed rank, say
    return False


def _example(loaded: LoadedModel) -> Mapping[str, Tensor] | None:
    """An input that the model takes; None where zeros are none. Of the size that it was measured with."""
    if any(spec.datatype not in NUMPY_TYPES for spec in loaded.signature.inputs):
        return None
    shapes = {
        spec.name: [
            size if size >= 0 else 1 if place == 0 else limits.DYNAMIC_DIMENSION_MEASURED
            for place, size in enumerate(spec.shape)
        ]
        for spec in loaded.signature.inputs
    }
    example = {spec.name: np.zeros(shapes[spec.name], NUMPY_TYPES[spec.datatype]) for spec in loaded.signature.inputs}
    return None if _fails(loaded, example) else example
