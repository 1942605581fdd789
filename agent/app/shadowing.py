"""The shadow runs of the box: which go on, how those that ended have ended, and what a restart makes of them.

Rules kept here:
- That a candidate is loaded in this process is on disk before it is. One whose loads killed LOAD_CRASHES_MAX processes,
  or in whose run TRIAL_CRASHES_MAX processes ended other than by a regular stop, is given up: unlike a serving version
  it is never needed, so it gets no benefit of the doubt.
- A run that goes on over a restart counts on from what was saved.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from agent import limits
from agent.app.ports import Clock, ComparisonLog, LoadedModel, SampleOffers, ShadowRecord, Tensor
from agent.app.shadow_runner import ShadowRunner
from agent.app.traffic import Traffic
from agent.domain.artifact import ModelSignature
from agent.domain.errors import AgentError, Reason
from agent.domain.reconcile import HeldShadow, runs_alike, shadow_of, shadow_settled
from agent.domain.result import Result
from agent.domain.shadow import why_not_comparable
from agent.domain.slot import DesiredSlot, ObservedShadow, ShadowRun, ShadowState

_ENDED = frozenset({ShadowState.COMPLETE, ShadowState.STOPPED, ShadowState.FAILED})


class Shadows:
    """`app.ports.ShadowOffers`; `offer` is for any thread, all else for the executor's loop."""

    def __init__(self, *, results: ComparisonLog, samples: SampleOffers, traffic: Traffic, clock: Clock) -> None:
        self._results = results
        self._samples = samples
        self._traffic = traffic
        self._clock = clock
        self._turn = threading.Lock()
        self._records: dict[str, ShadowRecord] = {}
        self._runners: dict[str, ShadowRunner] = {}
        self._listeners: list[Callable[[], None]] = []

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener`, from any thread, when a run has ended by itself."""
        self._listeners.append(listener)

    # --- the serving path ---

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result]) -> None:
        if not self._runners or not results:
            return
        runner = self._runners.get(results[0].slot)
        if runner is not None:
            runner.offer(inputs, results)

    # --- what is known ---

    def held(self) -> tuple[HeldShadow, ...]:
        """Runs that go on in this process, and those that have ended."""
        return tuple(
            HeldShadow(candidate=record.candidate, state=record.state, compared=record.compared)
            for record in self.records()
            if record.state in _ENDED or record.candidate.slot in self._runners
        )

    def records(self) -> tuple[ShadowRecord, ...]:
        """By slot, as they are now."""
        return tuple(self._current(record) for _, record in sorted(self._records.items()))

    def observed(self, wanted: DesiredSlot | None) -> ObservedShadow | None:
        """How the slot's run stands; None where none is wanted."""
        candidate = shadow_of(wanted) if wanted is not None else None
        if wanted is None or candidate is None:
            return None
        record = self._records.get(wanted.slot)
        if record is None or not runs_alike(record.candidate, candidate):
            return ObservedShadow(candidate_version=candidate.version, state=ShadowState.PREPARING, offer=wanted.offer)
        record = self._current(record)
        held = HeldShadow(candidate=record.candidate, state=record.state, compared=record.compared)
        goes_on = record.state in _ENDED or wanted.slot in self._runners
        settled = goes_on and shadow_settled(held, wanted)
        return ObservedShadow(
            candidate_version=candidate.version,
            state=record.state if settled else ShadowState.PREPARING,
            compared=record.compared,
            message=record.message if settled else "",
            offer=wanted.offer,
        )

    def _current(self, record: ShadowRecord) -> ShadowRecord:
        runner = self._runners.get(record.candidate.slot)
        if runner is None:
            return record
        return replace(record, state=runner.state, compared=runner.compared, message=runner.message)

    # --- what the executor does ---

    def restore(self, records: Iterable[ShadowRecord]) -> None:
        """Those of an earlier process, of which some are given up now."""
        self._records = {record.candidate.slot: _judged(record) for record in records}

    def adopt(self, desired: Iterable[DesiredSlot]) -> None:
        """Runs that are wanted still go on under their new offer and bounds; they need no other start for that."""
        for wanted in desired:
            record, candidate = self._records.get(wanted.slot), shadow_of(wanted)
            if record is None or candidate is None or wanted.shadow is None:
                continue
            if runs_alike(record.candidate, candidate) and self._current(record).state in (
                ShadowState.RUNNING,
                ShadowState.COMPLETE,
            ):
                self._records[wanted.slot] = replace(record, candidate=candidate)
                if wanted.slot in self._runners:
                    self._runners[wanted.slot].adopt(wanted.shadow)

    def begin(self, candidate: DesiredSlot) -> None:
        """The candidate is about to be loaded; save this before."""
        self._discard(candidate.slot)
        known = self._records.get(candidate.slot)
        goes_on = (
            known is not None
            and runs_alike(known.candidate, candidate)
            and known.state
            not in (
                ShadowState.STOPPED,
                ShadowState.FAILED,
            )
        )
        record = (
            known if known is not None and goes_on else ShadowRecord(candidate=candidate, state=ShadowState.RUNNING)
        )
        self._records[candidate.slot] = replace(
            record, candidate=candidate, state=ShadowState.PREPARING, loads=record.loads + 1
        )

    def unbegin(self, candidate: DesiredSlot) -> None:
        """The load ended without a model, and the process lives."""
        record = self._records[candidate.slot]
        self._records[candidate.slot] = replace(record, loads=0)

    def run(
        self, wanted: DesiredSlot, candidate: DesiredSlot, loaded: LoadedModel, *, serving_signature: ModelSignature
    ) -> None:
        """Run `loaded` from the next answer on, and own it; a candidate that cannot be compared has failed."""
        assert wanted.shadow is not None
        record = self._records[candidate.slot]
        why_not = why_not_comparable(serving_signature, loaded.signature)
        if why_not:
            loaded.close()
            self._records[candidate.slot] = replace(
                record, state=ShadowState.FAILED, loads=0, message=f"the candidate cannot be compared: {why_not}"
            )
            return
        runner = self._runner(candidate, wanted.shadow, loaded, compared=record.compared)
        self._records[candidate.slot] = replace(
            record, state=ShadowState.RUNNING, loads=0, starts=record.starts + 1, message=""
        )
        self._runners[candidate.slot] = runner
        runner.start()

    def _runner(self, candidate: DesiredSlot, shadow: ShadowRun, loaded: LoadedModel, *, compared: int) -> ShadowRunner:
        return ShadowRunner(
            candidate,
            shadow,
            loaded,
            compared=compared,
            results=self._results,
            samples=self._samples,
            traffic=self._traffic,
            clock=self._clock,
            turn=self._turn,
            on_end=self._ended,
        )

    def fail(self, candidate: DesiredSlot, error: AgentError) -> None:
        """The candidate cannot be run under this offer."""
        known = self._records.get(candidate.slot)
        compared = known.compared if known is not None and runs_alike(known.candidate, candidate) else 0
        self._records[candidate.slot] = ShadowRecord(
            candidate=candidate, state=ShadowState.FAILED, compared=compared, message=f"{error.reason}: {error}"
        )

    async def end(self, slot: str) -> None:
        """Free the slot's candidate and forget its run."""
        runner = self._runners.pop(slot, None)
        self._records.pop(slot, None)
        if runner is not None:
            await asyncio.to_thread(runner.end)

    async def stop(self) -> None:
        """The process ends by a regular stop, which is nobody's fault."""
        self._records = {record.candidate.slot: replace(record, loads=0, starts=0) for record in self.records()}
        runners, self._runners = self._runners, {}
        for runner in runners.values():
            await asyncio.to_thread(runner.end)

    # --- within ---

    def _discard(self, slot: str) -> None:
        """A run that has ended by itself keeps its counts and needs its thread no longer."""
        record = self._records.get(slot)
        if record is not None and slot in self._runners:
            self._records[slot] = self._current(record)
            del self._runners[slot]

    def _ended(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def _judged(record: ShadowRecord) -> ShadowRecord:
    if record.state in _ENDED:
        return record
    if record.loads >= limits.LOAD_CRASHES_MAX:
        what, reason = f"ended {record.loads} times while it loaded", Reason.LOAD_CRASHED
    elif record.starts >= limits.TRIAL_CRASHES_MAX:
        what, reason = f"ended {record.starts} times while it ran", Reason.SERVE_CRASHED
    else:
        return record
    message = (
        f"{reason}: the agent's process {what} this candidate in shadow; look for the crash in the box's journal, "
        "then publish a mended version"
    )
    return replace(record, state=ShadowState.FAILED, message=message)
