"""Brings the box to what is desired, one action at a time, and knows what every slot is doing.

Rules kept here:
- Level-triggered: after each action the diff is taken anew from what is desired and held; a wake only hurries it.
- What serves goes on serving until its replacement answers, whatever fails before that.
- A controller out of reach is no failure of a version: a download waits and goes on. Wrong bytes are tried once more.
- A download or preparation that is no longer wanted is given up when the wish changes.
- What kills the process is not tried for ever: `trials` says when a version is given up.
- What serves is saved when it changes.
- A device choice holds as long as the devices are those that it was made with; else it is made again while the old one
  serves on.
- Candidates get what serving leaves: work on one is given up when serving has something to do, waits while serving
  waits, and makes room on the disk. Whatever becomes of a candidate changes nothing about what serves.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import structlog

from agent import limits
from agent.app import slot_states
from agent.app.candidates import Candidates
from agent.app.conditions import Conditions
from agent.app.device_watch import DeviceWatch
from agent.app.fallback import FallbackModel, Fallbacks
from agent.app.ports import (
    ArtifactCache,
    Clock,
    Controller,
    Runtime,
    SavedState,
    ServingPath,
    ServingRecord,
    StateFile,
)
from agent.app.postponements import PRUNING, Lane, Postponements, lane_of
from agent.app.prefetching import Preparations
from agent.app.shadowing import Shadows
from agent.app.state_saver import StateSaver
from agent.app.swap_point import WaitingSwaps
from agent.app.trials import Trials, settle
from agent.app.wakeup import Wakeup, first_of
from agent.domain.device import DeviceChoice
from agent.domain.device_choice import choose
from agent.domain.errors import AgentError, ArtifactError, ControllerError, PrepareError, Reason, StateError
from agent.domain.reconcile import (
    Action,
    Adopt,
    EndShadow,
    Fetch,
    Holding,
    Prepare,
    Prune,
    Purpose,
    StartShadow,
    Swap,
    Unload,
    candidates_of,
    diff,
    digests_of,
    runs_alike,
    same_work,
    shadow_of,
)
from agent.domain.slot import DesiredSlot, DesiredState, ObservedSlot, SlotState

_log = structlog.get_logger()

_LOST = frozenset({Reason.CONTROLLER_UNAVAILABLE, Reason.AGENT_REVOKED})
"""The controller is out of reach, which says nothing about a version."""


class Executor:
    """One per agent, in one event loop. `start` once, then `run` until cancelled."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        serving: ServingPath,
        cache: ArtifactCache,
        controller: Controller,
        state_file: StateFile,
        shadows: Shadows,
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._runtime = runtime
        self._serving = serving
        self._cache = cache
        self._controller = controller
        self._shadows = shadows
        self._clock = clock
        self._wakeup = Wakeup()
        self._watch = DeviceWatch(runtime=runtime, clock=clock, on_change=self._wakeup.wake)
        self._fallbacks = Fallbacks(runtime=runtime, watch=self._watch, told=conditions, took_over=self._took_over)
        self._listeners: list[Callable[[], None]] = []
        self._desired = DesiredState()
        self._slots: dict[str, ObservedSlot] = {}
        self._preparations = Preparations(lambda slot: cache.folder(slot.artifact) is not None)
        self._waits = Postponements(clock, rng)
        self._background = Candidates(
            runtime=runtime, preparations=self._preparations, shadows=shadows, waits=self._waits
        )
        self._mismatched: set[tuple[Lane, str]] = set()
        """Lanes and artifacts that came with wrong bytes once already."""
        self._trials = Trials()
        self._swaps = WaitingSwaps(serving=serving, clock=clock, on_lot=self._wakeup.wake)
        self._starting: SavedState | None = None
        """What this start is made from, as long as it lasts: slots that are still to be restored are saved from it."""
        self._saver = StateSaver(state_file, conditions, self._saved_state)
        self.boot_count = 0
        shadows.subscribe(self._shadow_changed)

    # --- what the sync loop uses ---

    @property
    def generation(self) -> int:
        """Of the desired state that was taken up last."""
        return self._desired.generation

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` in the loop whenever a slot's state has changed."""
        self._listeners.append(listener)

    def observed(self) -> tuple[ObservedSlot, ...]:
        """Every slot as it is now, by name."""
        wanted = {slot.slot: slot for slot in self._desired.slots}
        return tuple(self._reported(slot, wanted.get(name)) for name, slot in sorted(self._slots.items()))

    async def desire(self, desired: DesiredState) -> None:
        """Take up `desired`, whatever its generation: the caller knows which of two is the newer."""
        if desired == self._desired:
            return
        _log.info("desired_state_taken", generation=desired.generation, slots=len(desired.slots))
        before = self._candidates()
        self._take(desired)
        self._background.wait_on(before, self._candidates())
        self._mismatched = set()
        await self._saver.save()
        self._changed()
        self._wakeup.wake()

    def hurry(self) -> None:
        """The controller is back: downloads that wait for it go on now."""
        self._waits.hurry(Reason.CONTROLLER_UNAVAILABLE)
        self._wakeup.wake()

    def confirm(self) -> None:
        """The controller has been heard: what serves and is desired is no longer a guess from disk."""
        for wanted in self._desired.slots:
            self._slots[wanted.slot] = slot_states.confirmed(self._slot(wanted.slot), wanted)

    # --- start ---

    async def recall(self) -> SavedState:
        """Read what the last run left and announce its slots. Called before anybody can ask for one, so that whoever
        asks before `start` is done is told to wait rather than that there is no such model."""
        saved = self._starting = settle(await self._saver.load())
        self._serving.announce(
            sorted({record.desired.slot for record in saved.serving} | {slot.slot for slot in saved.desired.slots})
        )
        return saved

    async def start(self) -> None:
        """Serve what served last, with the device that was chosen then, before any controller is asked."""
        saved = self._starting or await self.recall()
        self.boot_count = saved.boot_count + 1
        self._trials.restore(saved.trials)
        self._shadows.restore(saved.shadows)
        self._preparations.restore(saved.prepared)
        for record in saved.serving:
            await self._restore(record)
        for failure in saved.failures:
            self._slots[failure.slot] = slot_states.failed_slot(self._slot(failure.slot), failure)
        self._take(saved.desired)
        self._starting = None
        await self._saver.save()

    async def _restore(self, record: ServingRecord) -> None:
        wanted, choice = record.desired, record.choice
        if self._cache.folder(wanted.artifact) is None:
            _log.warning("last_known_good_missing", slot=wanted.slot, version=wanted.version)
            return
        try:
            loaded = await self._load(wanted, choice)
        except PrepareError as error:
            _log.error("last_known_good_failed", slot=wanted.slot, version=wanted.version, error=str(error))
            self._preparations.drop(wanted)  # no device that was measured loads it: measure what the box has now
            return
        choice = loaded.choice
        self._swap_in(wanted, loaded)
        self._preparations.put(wanted, choice)
        served = slot_states.serving_slot(wanted, choice, serving_time=self._clock.now(), last_known_good=True)
        self._slots[wanted.slot] = served
        _log.info("last_known_good_serves", slot=wanted.slot, version=wanted.version, device=choice.device)

    # --- the loop ---

    async def run(self) -> None:
        try:
            await first_of(self._run(), self._watch.run())
        except asyncio.CancelledError:
            self._trials.stop()
            await self._shadows.stop()
            await self._saver.save()
            raise

    async def _run(self) -> None:
        while True:
            await self._tend()
            action = self._next_action()
            if action is not None:
                await self._apply_while_wanted(action)
            else:
                await self._wakeup.wait(self._clock, self._idle_seconds())

    async def _tend(self) -> None:
        """What time and lots bring, whether or not there is something to do."""
        self._end_waiting_swaps()
        if self._trials.prove(now_seconds=self._clock.monotonic()) or self._saver.unsaved:
            await self._saver.save()

    def _end_waiting_swaps(self) -> None:
        for due in self._swaps.take_due():
            self._serve(due.wanted, due.loaded)

    def _next_action(self) -> Action | None:
        """The first action of the diff that is not waiting. While a serving version waits nothing is pruned, since its
        slot may still need what it serves from, and nothing is done for candidates; while it waits for a lot, those of
        other slots go on."""
        waiting, for_lots = self._waits.waiting(), self._swaps.slots
        serving_waits = any(purpose is Purpose.SERVE for _, purpose in waiting - {PRUNING})
        for action in diff(self._desired, self._holding()):
            lane = lane_of(action)
            if isinstance(action, EndShadow):
                return action
            if lane[0] in for_lots or (for_lots and lane == PRUNING):
                continue
            if lane in waiting or (serving_waits and (lane == PRUNING or lane[1] is not Purpose.SERVE)):
                continue
            return action
        return None

    def _idle_seconds(self) -> float:
        proof_seconds = self._trials.proof_seconds(now_seconds=self._clock.monotonic())
        return min(limits.BACKOFF_MAX_SECONDS, proof_seconds, self._waits.next_seconds(), self._swaps.next_seconds())

    async def _apply_while_wanted(self, action: Action) -> None:
        """Apply the action; give it up when it is no longer wanted and giving up is safe."""
        task = asyncio.create_task(self._apply(action))
        try:
            while not task.done():
                await first_of(asyncio.wait({task}), self._wakeup.wait(self._clock, self._idle_seconds()))
                if not task.done() and self._stale(action):
                    _log.info("action_given_up", action=type(action).__name__, slot=lane_of(action)[0])
                    break
                if not task.done():
                    await self._tend()
        finally:
            given_up = not task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if given_up:
            self._take(self._desired)

    def _stale(self, action: Action) -> bool:
        match action:
            case Fetch(slot=wanted, purpose=Purpose.SERVE) | Prepare(slot=wanted, purpose=Purpose.SERVE):
                return not any(same_work(slot, wanted) for slot in self._desired.slots)
            case Fetch(slot=candidate) | Prepare(slot=candidate):
                # Also when serving has something to do, unless that is the very same.
                match self._next_action():
                    case Fetch(slot=following) | Prepare(slot=following):
                        return not same_work(following, candidate)
                    case _:
                        return True
            case _:
                return False

    async def _apply(self, action: Action) -> None:
        match action:
            case Fetch(slot=wanted, purpose=purpose):
                await self._attempt(wanted, purpose, lambda: self._fetch(wanted, purpose))
            case Prepare(slot=wanted, purpose=purpose):
                await self._attempt(wanted, purpose, lambda: self._prepare(wanted, purpose))
            case Swap(slot=wanted):
                await self._attempt(wanted, Purpose.SERVE, lambda: self._swap(wanted))
            case StartShadow(slot=wanted):
                candidate = shadow_of(wanted)
                assert candidate is not None
                await self._attempt(candidate, Purpose.SHADOW, lambda: self._start_shadow(wanted, candidate))
            case EndShadow(slot=name):
                await self._shadows.end(name)
                await self._saver.save()
            case Adopt(slot=wanted):
                await self._adopt(wanted)
            case Unload(slot=name):
                await self._unload(name)
            case Prune(keep=keep):
                await self._prune(keep)
            case _:
                assert_never(action)

    async def _attempt(
        self, slot: DesiredSlot, purpose: Purpose, step: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        """Run the step and settle how it failed."""
        try:
            await step()
        except (ControllerError, ArtifactError, PrepareError, StateError) as error:
            if isinstance(error, PrepareError | StateError):
                self._preparations.drop(slot)
            match purpose:
                case Purpose.SERVE:
                    await self._settle_serving(slot, error)
                case Purpose.PREFETCH | Purpose.SHADOW | Purpose.REMEASURE:
                    await self._settle_candidate(slot, purpose, error)
                case _:
                    assert_never(purpose)

    # --- the steps ---

    async def _fetch(self, wanted: DesiredSlot, purpose: Purpose) -> None:
        if purpose is Purpose.SERVE:
            self._set_progress(wanted, SlotState.DOWNLOADING)
        begun_seconds = self._clock.monotonic()
        await self._cache.fetch(
            wanted.artifact, self._controller, bytes_per_second_max=wanted.fetch_bytes_per_second_max
        )
        self._waits.drop((wanted.slot, purpose))
        seconds = self._clock.monotonic() - begun_seconds
        _log.info(
            "artifact_fetched", slot=wanted.slot, version=wanted.version, purpose=purpose, seconds=round(seconds, 3)
        )

    async def _prepare(self, wanted: DesiredSlot, purpose: Purpose) -> None:
        if purpose is Purpose.SERVE:
            self._set_progress(wanted, SlotState.PREPARING)
        await self._watch.look()
        measurements = await self._runtime.measure(
            self._folder(wanted), wanted.signature, wanted.runtime_policy, without=self._watch.lost
        )
        choice = choose(measurements, wanted.runtime_policy.hint)
        choice = replace(choice, fingerprint=self._watch.fingerprint)
        self._preparations.put(wanted, choice)
        self._waits.drop((wanted.slot, purpose))
        _log.info(
            "device_chosen",
            slot=wanted.slot,
            version=wanted.version,
            device=str(choice.configuration),
            why=choice.reason,
        )
        if purpose is Purpose.REMEASURE:
            await self._rechoose(wanted, choice)
        if purpose is not Purpose.SERVE:
            self._changed()
            await self._saver.save()

    async def _rechoose(self, wanted: DesiredSlot, choice: DeviceChoice) -> None:
        """What serves goes to the configuration that is the best now."""
        before = self._slot(wanted.slot).device_choice
        if before is None or before.configuration != choice.configuration:
            loaded = await self._load(wanted, choice)
            choice = loaded.choice
            self._swap_in(wanted, loaded)
        self._slots[wanted.slot] = replace(self._slot(wanted.slot), device_choice=choice)

    def _took_over(self, wanted: DesiredSlot, lost: DeviceChoice, successor: FallbackModel) -> bool:
        """A device died under what was loaded; whether its slot still served that."""
        self._end_waiting_swaps()
        slot = self._slot(wanted.slot)
        if slot.serving is None or slot.device_choice is None or not runs_alike(slot.serving, wanted):
            return False
        if slot.device_choice.configuration != lost.configuration:
            return False
        self._serving.swap(slot.serving, successor)
        self._preparations.put(slot.serving, successor.choice)
        self._slots[slot.slot] = replace(slot, device_choice=successor.choice)
        self._saver.unsaved = True
        self._wakeup.wake()
        self._changed()
        return True

    async def _start_shadow(self, wanted: DesiredSlot, candidate: DesiredSlot) -> None:
        serving = self._slot(wanted.slot).serving
        if serving is None:
            return  # unloaded in between: the next diff says so
        self._shadows.begin(candidate)
        # It may end this process: that it begins is on disk first.
        await self._saver.save()
        await self._background.start_shadow(wanted, candidate, self._folder(candidate), serving.signature)
        self._changed()
        await self._saver.save()

    async def _swap(self, wanted: DesiredSlot) -> None:
        self._set_progress(wanted, SlotState.PREPARING)
        loaded = await self._load(wanted, self._preparations.choice(wanted))
        if not self._swaps.wait_for_lot(wanted, loaded):
            self._serve(wanted, loaded)
            await self._saver.save()

    def _serve(self, wanted: DesiredSlot, loaded: FallbackModel) -> None:
        """To be saved."""
        self._swap_in(wanted, loaded)
        self._trials.supersede(wanted)
        self._slots[wanted.slot] = slot_states.serving_slot(wanted, loaded.choice, serving_time=self._clock.now())
        self._saver.unsaved = True
        self._changed()
        _log.info("version_serves", slot=wanted.slot, version=wanted.version, device=loaded.choice.device)

    async def _load(self, wanted: DesiredSlot, choice: DeviceChoice) -> FallbackModel:
        """Load in this process, which a bad version may end: that it begins is saved first."""
        self._trials.begin(wanted, before=slot_states.serving_record(self._slot(wanted.slot)))
        await self._saver.save()
        try:
            return await self._fallbacks.load(wanted, choice, self._folder(wanted))
        except BaseException:
            self._trials.end(wanted)
            raise

    def _swap_in(self, wanted: DesiredSlot, loaded: FallbackModel) -> None:
        self._serving.swap(wanted, loaded)
        self._trials.serve(wanted, now_seconds=self._clock.monotonic())

    async def _adopt(self, wanted: DesiredSlot) -> None:
        self._serving.adopt(wanted)
        self._trials.adopt(wanted)
        self._slots[wanted.slot] = slot_states.adopted(self._slot(wanted.slot), wanted)
        self._changed()
        await self._saver.save()

    async def _unload(self, name: str) -> None:
        if any(slot.slot == name for slot in self._desired.slots):
            return  # it was asked for again in between
        self._serving.unload(name)
        self._trials.forget(name)
        self._slots.pop(name, None)
        self._waits.keep(lambda lane: lane[0] != name)
        self._changed()
        _log.info("slot_unloaded", slot=name)
        await self._saver.save()

    async def _prune(self, keep: frozenset[str]) -> None:
        await self._drop_bytes(self._cache.digests() - keep)
        if self._cache.digests() - keep:
            self._waits.hold(PRUNING, Reason.STATE_UNWRITABLE, seconds=limits.BACKOFF_MAX_SECONDS)
        serving = [slot.serving for slot in self._slots.values() if slot.serving is not None]
        self._preparations.keep_only((*self._desired.slots, *serving, *self._candidates()))

    async def _drop_bytes(self, digests: frozenset[str]) -> None:
        try:
            await asyncio.to_thread(self._cache.prune, self._cache.digests() - digests)
            await self._runtime.prune()
        except OSError as error:
            _log.warning("prune_failed", error=str(error))

    # --- what is known ---

    def _holding(self) -> Holding:
        slots = (*self._desired.slots, *self._candidates())
        return Holding(
            slots=tuple(self._slots.values()),
            complete=frozenset(slot.artifact.digest for slot in slots if self._cache.folder(slot.artifact) is not None),
            stored=self._cache.digests(),
            prepared=self._preparations.keys(self._watch.is_stale),
            stale=frozenset(slot.slot for slot in self._slots.values() if self._watch.is_stale(slot.device_choice)),
            fallbacks=self._trials.fallbacks(),
            shadows=self._shadows.held(),
            on_trial=self._trials.on_trial,
        )

    def _candidates(self) -> Sequence[DesiredSlot]:
        return [candidate for slot in self._desired.slots for candidate in candidates_of(slot)]

    def _take(self, desired: DesiredState) -> None:
        """Make `desired` the wish, and say of each slot what it is now heading for."""
        self._desired = desired
        self._serving.announce([slot.slot for slot in desired.slots])
        self._shadows.adopt(desired.slots)
        for withdrawn in self._swaps.withdraw_unwanted(desired.slots):
            self._trials.end(withdrawn)
        for wanted in desired.slots:
            waits = wanted.slot in self._swaps.slots
            self._slots[wanted.slot] = slot_states.taken(self._slot(wanted.slot), wanted, is_prepared=waits)

    def _set_progress(self, wanted: DesiredSlot, state: SlotState) -> None:
        slot = self._slot(wanted.slot)
        if slot.state is not state or slot.target_version != wanted.version or slot.offer != wanted.offer:
            self._slots[wanted.slot] = slot_states.heading(slot, wanted, state)
            self._changed()

    def _slot(self, name: str) -> ObservedSlot:
        return self._slots.get(name, ObservedSlot(slot=name))

    def _reported(self, slot: ObservedSlot, wanted: DesiredSlot | None) -> ObservedSlot:
        if wanted is not None and slot.state in (SlotState.DOWNLOADING, SlotState.PENDING):
            slot = replace(slot, downloaded_bytes=self._cache.received_bytes(wanted.artifact))
        return replace(self._preparations.report(slot, wanted), shadow=self._shadows.observed(wanted))

    def _folder(self, wanted: DesiredSlot) -> Path:
        folder = self._cache.folder(wanted.artifact)
        assert folder is not None, "the diff asks for a fetch first"
        return folder

    # --- failures ---

    async def _settle_serving(self, wanted: DesiredSlot, error: AgentError) -> None:
        """Wait and try again, or FAILED until the next offer."""
        lane = (wanted.slot, Purpose.SERVE)
        match error.reason:
            case Reason.DISK_FULL:
                again = await self._give_way()
            case Reason.DIGEST_MISMATCH:
                again = self._is_first_mismatch(lane, wanted)
                if again:
                    self._waits.postpone(lane, error)
            case reason:
                attempts_left = self._waits.attempts(lane) < limits.REFUSED_ATTEMPTS_MAX
                again = isinstance(error, ControllerError) and (reason in _LOST or attempts_left)
                if again:
                    self._waits.postpone(lane, error)
        if not again:
            await self._fail(wanted, error)

    async def _settle_candidate(self, candidate: DesiredSlot, purpose: Purpose, error: AgentError) -> None:
        if error.reason is Reason.DISK_FULL:
            await self._drop_bytes(digests_of([candidate]) - self._needed_digests())
        self._background.settle(
            candidate,
            purpose,
            error,
            again=error.reason is Reason.DIGEST_MISMATCH
            and self._is_first_mismatch((candidate.slot, purpose), candidate),
        )
        self._changed()
        await self._saver.save()

    async def _give_way(self) -> bool:
        """Drop every byte that serving does not need; whether there were any."""
        dropped = self._cache.digests() - self._needed_digests()
        if not dropped:
            return False
        await self._background.give_way(self._desired.slots, dropped)
        await self._drop_bytes(dropped)
        return True

    def _needed_digests(self) -> frozenset[str]:
        """Of everything that serves, should serve or may have to serve again."""
        serving = [slot.serving for slot in self._slots.values() if slot.serving is not None]
        return digests_of((*self._desired.slots, *serving, *self._trials.fallbacks()))

    def _is_first_mismatch(self, lane: Lane, slot: DesiredSlot) -> bool:
        seen = (lane, slot.artifact.digest)
        first = seen not in self._mismatched
        self._mismatched.add(seen)
        return first

    async def _fail(self, wanted: DesiredSlot, error: AgentError) -> None:
        self._waits.drop((wanted.slot, Purpose.SERVE))
        self._slots[wanted.slot] = slot_states.failed(self._slot(wanted.slot), wanted, error)
        _log.error("version_failed", slot=wanted.slot, version=wanted.version, reason=error.reason, error=str(error))
        self._changed()
        await self._saver.save()

    # --- saving and telling ---

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _shadow_changed(self) -> None:
        """From the thread of a run."""
        self._saver.unsaved = True
        self._wakeup.wake()
        self._changed()

    def _saved_state(self) -> SavedState:
        if self._starting is not None:
            return replace(self._starting, boot_count=self.boot_count, trials=self._trials.all())
        slots = [slot for _, slot in sorted(self._slots.items())]
        return SavedState(
            desired=self._desired,
            serving=tuple(record for slot in slots if (record := slot_states.serving_record(slot)) is not None),
            failures=tuple(failure for slot in slots if (failure := slot_states.failure_record(slot)) is not None),
            boot_count=self.boot_count,
            trials=self._trials.all(),
            prepared=self._preparations.records(self._desired.slots),
            shadows=self._shadows.records(),
        )
