"""One shadow run: a thread that gives a candidate the inputs that the serving version has answered.

Rules kept here:
- An answer never waits: `offer` hands over what is there already and never blocks on the candidate, and an input is run
  only while nobody waits for an answer. What finds no room is counted as skipped.
- The run ends by itself with enough comparisons, when the serving version has become too slow beside it, or when the
  candidate hangs.
- The candidate's memory is freed when the run ends, however it ends.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from agent import limits
from agent.app.ports import Clock, ComparisonLog, LoadedModel, SampleOffers, Tensor
from agent.app.readings import labels_of_items
from agent.app.traffic import Traffic
from agent.domain.errors import DeviceHungError, RequestError, StateError
from agent.domain.interpretation import reading_of
from agent.domain.result import LabelScore, Result
from agent.domain.shadow import ShadowPair, compare, p99_exceeds
from agent.domain.slot import DesiredSlot, ShadowRun, ShadowState

_log = structlog.get_logger()

_ALL_LABELS = 1 << 31


@dataclass(frozen=True, slots=True)
class _Input:
    """What the serving version was asked, and what it answered."""

    arrays: Mapping[str, Tensor]
    results: Sequence[Result]


class ShadowRunner:
    """Thread-safe. `start` once; `end` once at the end, whether or not the run has ended by itself."""

    def __init__(
        self,
        candidate: DesiredSlot,
        shadow: ShadowRun,
        loaded: LoadedModel,
        *,
        compared: int,
        results: ComparisonLog,
        samples: SampleOffers,
        traffic: Traffic,
        clock: Clock,
        turn: threading.Lock,
        on_end: Callable[[], None],
    ) -> None:
        """Owns `loaded`. `compared` were counted by earlier processes; `turn` is shared by all runs of the box, of
        which one infers at a time; `on_end` is called from the thread when the run has ended by itself."""
        self._candidate = candidate
        self._loaded = loaded
        self._reading = reading_of(loaded.signature)
        self._results = results
        self._samples = samples
        self._traffic = traffic
        self._clock = clock
        self._turn = turn
        self._on_end = on_end
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._shadow = shadow
        self._inputs: deque[_Input] = deque()
        self._latencies_ms: deque[float] = deque(maxlen=limits.SHADOW_LATENCY_WINDOW)
        self._skipped = 0
        self._last: Result | None = None
        self._compared = compared
        self._state = ShadowState.RUNNING
        self._message = ""
        self._thread = threading.Thread(target=self._work, name=f"shadow-{candidate.slot}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop after the inference under way; the candidate is freed on return, or as soon as its inference ends."""
        self._ending.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(limits.SHADOW_END_SECONDS_MAX)

    def adopt(self, shadow: ShadowRun) -> None:
        """Go on under other bounds."""
        self._shadow = shadow

    @property
    def state(self) -> ShadowState:
        return self._state

    @property
    def message(self) -> str:
        return self._message

    @property
    def compared(self) -> int:
        """Inputs that the candidate was given, those on which it failed included: a run of failures ends too."""
        return self._compared

    # --- the serving path ---

    def offer(self, arrays: Mapping[str, Tensor], results: Sequence[Result]) -> None:
        """Thread-safe, never blocks on the candidate."""
        if not results or self._ending.is_set() or self._state is not ShadowState.RUNNING:
            return
        full = len(self._inputs) >= limits.SHADOW_QUEUE_MAX
        kept = {} if full else {name: _owned(array) for name, array in arrays.items()}
        with self._changed:
            self._latencies_ms.append(results[0].latency_us / 1_000)
            self._last = results[-1]
            if full or len(self._inputs) >= limits.SHADOW_QUEUE_MAX:
                self._skipped += len(results)
            else:
                self._inputs.append(_Input(kept, results))
            self._changed.notify_all()

    # --- the thread ---

    def _work(self) -> None:
        _yield_to_everybody()
        try:
            while (offered := self._next()) is not None:
                self._run(offered)
                if self._compared >= self._shadow.comparisons_max:
                    self._settle(ShadowState.COMPLETE, "")
        except Exception as error:  # noqa: BLE001 - the boundary of a thread: a candidate may fail in any way
            _log.exception("shadow_failed", slot=self._candidate.slot, version=self._candidate.version)
            self._settle(ShadowState.FAILED, f"the candidate could not be run: {error!r}"[: limits.ERROR_CHARS_MAX])
        finally:
            self._count_skipped()
            self._loaded.close()
            if self._state is not ShadowState.RUNNING:
                self._on_end()

    def _next(self) -> _Input | None:
        """The next input once nobody waits for an answer; None when the run is over."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._inputs) or self._is_over())
            if self._is_over() or self._has_slowed_down():
                return None
            if not self._is_quiet():
                continue
            with self._changed:
                return self._inputs.popleft()

    def _is_over(self) -> bool:
        return self._ending.is_set() or self._state is not ShadowState.RUNNING

    def _is_quiet(self) -> bool:
        """Whether nobody waits for an answer, and the last one has had time to leave."""
        if not self._traffic.wait_quiet(limits.SHADOW_LOOK_SECONDS):
            return False
        self._ending.wait(limits.SHADOW_REST_SECONDS)
        return self._traffic.quiet

    def _has_slowed_down(self) -> bool:
        limit_ms = self._shadow.serving_latency_ms_p99_max
        with self._changed:
            latencies_ms = tuple(self._latencies_ms)
        if limit_ms <= 0 or not p99_exceeds(latencies_ms, limit_ms, window=limits.SHADOW_LATENCY_WINDOW):
            return False
        over = sum(latency_ms > limit_ms for latency_ms in latencies_ms)
        self._settle(
            ShadowState.STOPPED,
            f"{over} of the last {len(latencies_ms)} inferences of the serving version took more than {limit_ms:g} ms: "
            "its 99th percentile would exceed the run's bound; offer the candidate again when the box is less busy",
        )
        return True

    def _run(self, offered: _Input) -> None:
        with self._turn:
            if self._ending.is_set():
                return
            begun_seconds = self._clock.monotonic()
            try:
                rows = self._judge(offered)
            except DeviceHungError as error:  # another input would wait as long, and each keeps a thread of the device
                self._settle(ShadowState.FAILED, f"the candidate hangs: {error.message}; publish a mended version")
                return
            latency_us = round((self._clock.monotonic() - begun_seconds) * 1e6)
        comparisons = tuple(
            compare(
                result,
                candidate_version=self._candidate.version,
                device=self._loaded.device,
                labels=labels,
                latency_us=latency_us,
            )
            for result, labels in zip(offered.results, rows, strict=True)
        )
        self._compared += len(comparisons)
        for index, comparison in enumerate(comparisons):
            if not comparison.agreed and not comparison.failed:
                self._samples.offer_disagreement(offered.arrays, offered.results, index, self._candidate.sample_policy)
        try:
            self._results.append_comparisons(comparisons)
        except StateError as error:
            _log.error("comparisons_lost", reason=error.reason, error=str(error))
        self._count_skipped()

    def _judge(self, offered: _Input) -> Sequence[tuple[LabelScore, ...] | None]:
        """The candidate's labels of each item; None for those on which it failed. Raises DeviceHungError."""
        try:
            outputs = self._loaded.infer(
                offered.arrays, answer_seconds_max=limits.HANG_FIRST_SECONDS_MIN * len(offered.results)
            )
        except DeviceHungError:
            raise
        except RequestError as error:
            _log.debug("shadow_inference_failed", slot=self._candidate.slot, error=str(error))
            return [None] * len(offered.results)
        rows = labels_of_items(self._loaded.signature, self._reading, offered.arrays, outputs, labels_max=_ALL_LABELS)
        return rows if len(rows) == len(offered.results) else [None] * len(offered.results)

    def _count_skipped(self) -> None:
        with self._changed:
            skipped, self._skipped, last = self._skipped, 0, self._last
        if not skipped or last is None:
            return
        pair = ShadowPair(
            slot=last.slot,
            serving_version=last.version,
            candidate_version=self._candidate.version,
            device=self._loaded.device,
        )
        try:
            self._results.count_skipped(pair, last.infer_time, skipped)
        except StateError as error:
            _log.error("comparisons_lost", reason=error.reason, error=str(error))

    def _settle(self, state: ShadowState, message: str) -> None:
        self._message = message
        self._state = state
        _log.info("shadow_ended", slot=self._candidate.slot, version=self._candidate.version, state=state, why=message)


def _owned(array: Tensor) -> Tensor:
    """The array itself where it lies in bytes, which nobody can change; else a copy, since the application may use its
    memory again once it is answered."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return array if isinstance(base, bytes) else np.array(array)


def _yield_to_everybody() -> None:
    """Give this thread the lowest priority. The candidate's own threads were made as it was loaded and keep theirs,
    since the device's pool of threads is the serving version's as well."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), limits.SHADOW_NICENESS)
    except OSError as error:
        _log.warning("shadow_priority_kept", error=str(error))
