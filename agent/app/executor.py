"""Brings the box to what is desired, one action at a time, and knows what every slot is doing.

Rules kept here:
- Level-triggered: after each action the diff is taken anew from what is desired and held; a wake only hurries it.
- What serves goes on serving until its replacement answers, whatever fails before that.
- A controller out of reach is no failure of a version: a download waits and goes on. Wrong bytes are tried once more.
- A download or preparation that is no longer wanted is given up when the wish changes.
- What kills the process is not tried for ever: `trials` says when a version is given up.
- What serves is saved when it changes. A state file that cannot be written is a condition, not a reason to stop.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import structlog

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.ports import (
    ArtifactCache,
    Clock,
    Controller,
    FailureRecord,
    LoadedModel,
    Runtime,
    SavedState,
    ServingPath,
    ServingRecord,
    StateFile,
)
from agent.app.trials import Trials, settle
from agent.app.wakeup import Wakeup
from agent.domain.backoff import delay_seconds
from agent.domain.device import DeviceChoice, choose
from agent.domain.errors import AgentError, ArtifactError, ControllerError, PrepareError, Reason, StateError
from agent.domain.reconcile import (
    Action,
    Adopt,
    Fetch,
    Holding,
    Prepare,
    PreparedKey,
    Prune,
    Swap,
    Unload,
    diff,
    failed_for_good,
    prepared_key,
    runs_alike,
)
from agent.domain.slot import DesiredSlot, DesiredState, ObservedSlot, SlotState

_log = structlog.get_logger()

_PRUNING = ""
"""Stands for pruning where slots are named."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """A slot that is left alone until `until_seconds` on the monotonic clock."""

    until_seconds: float
    attempts: int
    reason: Reason


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
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._runtime = runtime
        self._serving = serving
        self._cache = cache
        self._controller = controller
        self._state_file = state_file
        self._conditions = conditions
        self._clock = clock
        self._rng = rng
        self._wakeup = Wakeup()
        self._listeners: list[Callable[[], None]] = []
        self._desired = DesiredState()
        self._slots: dict[str, ObservedSlot] = {}
        self._choices: dict[PreparedKey, DeviceChoice] = {}
        self._waits: dict[str, _Wait] = {}
        self._mismatched: set[str] = set()
        """Slots whose target came with wrong bytes once already."""
        self._trials = Trials()
        self._starting: SavedState | None = None
        """What this start is made from, as long as it lasts: slots that are still to be restored are saved from it."""
        self._saving = asyncio.Lock()
        self._unsaved = False
        self.boot_count = 0

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
        return tuple(self._with_progress(slot, wanted.get(name)) for name, slot in sorted(self._slots.items()))

    async def desire(self, desired: DesiredState) -> None:
        """Take up `desired`, whatever its generation: the caller knows which of two is the newer."""
        if desired == self._desired:
            return
        _log.info("desired_state_taken", generation=desired.generation, slots=len(desired.slots))
        self._take(desired)
        self._waits = {}
        self._mismatched = set()
        await self._save()
        self._changed()
        self._wakeup.wake()

    def hurry(self) -> None:
        """The controller is back: downloads that wait for it go on now."""
        lost = Reason.CONTROLLER_UNAVAILABLE
        self._waits = {
            name: replace(wait, until_seconds=0.0) if wait.reason is lost else wait
            for name, wait in self._waits.items()
        }
        self._wakeup.wake()

    def confirm(self) -> None:
        """The controller has been heard: what serves and is desired is no longer a guess from disk."""
        wanted = {slot.slot: slot for slot in self._desired.slots}
        for name, slot in self._slots.items():
            want = wanted.get(name)
            if slot.last_known_good and want is not None and want.version == slot.serving_version:
                self._slots[name] = replace(slot, last_known_good=False)

    # --- start ---

    async def recall(self) -> SavedState:
        """Read what the last run left and announce its slots. Called before anybody can ask for one, so that whoever
        asks before `start` is done is told to wait rather than that there is no such model."""
        saved = self._starting = settle(await self._load_state())
        self._serving.announce(
            sorted({record.desired.slot for record in saved.serving} | {slot.slot for slot in saved.desired.slots})
        )
        return saved

    async def start(self) -> None:
        """Serve what served last, with the device that was chosen then, before any controller is asked."""
        saved = self._starting or await self.recall()
        self.boot_count = saved.boot_count + 1
        self._trials.restore(saved.trials)
        for record in saved.serving:
            await self._restore(record)
        for failure in saved.failures:
            self._restore_failure(failure)
        self._take(saved.desired)
        self._starting = None
        await self._save()

    async def _load_state(self) -> SavedState:
        try:
            return await asyncio.to_thread(self._state_file.load)
        except StateError as error:
            _log.error("state_unreadable", reason=error.reason, error=str(error))
            self._conditions.set(conditions.STATE_READABLE, holds=False, reason="StateUnreadable", message=str(error))
            return SavedState()

    async def _restore(self, record: ServingRecord) -> None:
        wanted, choice = record.desired, record.choice
        if self._cache.folder(wanted.artifact) is None:
            _log.warning("last_known_good_missing", slot=wanted.slot, version=wanted.version)
            return
        try:
            loaded = await self._load(wanted, choice)
        except PrepareError as error:
            _log.error("last_known_good_failed", slot=wanted.slot, version=wanted.version, error=str(error))
            return
        self._swap_in(wanted, loaded)
        self._choices[prepared_key(wanted)] = choice
        self._slots[wanted.slot] = _serving_slot(wanted, choice, self._clock, last_known_good=True)
        _log.info("last_known_good_serves", slot=wanted.slot, version=wanted.version, device=choice.device)

    def _restore_failure(self, failure: FailureRecord) -> None:
        slot = self._slot(failure.slot)
        self._slots[failure.slot] = replace(
            slot,
            state=SlotState.FAILED,
            target_version=failure.version,
            offer=failure.offer,
            failure_reason=failure.reason,
            failure_message=failure.message,
        )

    # --- the loop ---

    async def run(self) -> None:
        try:
            await self._run()
        except asyncio.CancelledError:
            self._trials.stop()
            await self._save()
            raise

    async def _run(self) -> None:
        while True:
            if self._trials.prove(now_seconds=self._clock.monotonic()):
                self._unsaved = True
            action = self._next_action()
            if action is not None:
                await self._apply_while_wanted(action)
                continue
            if self._unsaved:
                await self._save()
            await self._wakeup.wait(self._clock, self._idle_seconds())

    def _next_action(self) -> Action | None:
        """The first action of the diff whose slot is not waiting. Pruning comes only when nothing else is to be done,
        since a waiting slot may still need what it serves from."""
        now_seconds = self._clock.monotonic()
        waiting = {name for name, wait in self._waits.items() if wait.until_seconds > now_seconds}
        for action in diff(self._desired, self._holding()):
            if isinstance(action, Prune):
                return None if waiting else action
            if _slot_name(action) not in waiting:
                return action
        return None

    def _idle_seconds(self) -> float:
        now_seconds = self._clock.monotonic()
        ends = [wait.until_seconds for wait in self._waits.values() if wait.until_seconds > now_seconds]
        proof_seconds = self._trials.proof_seconds(now_seconds=now_seconds)
        return min([limits.BACKOFF_MAX_SECONDS, proof_seconds, *(end - now_seconds for end in ends)])

    async def _apply_while_wanted(self, action: Action) -> None:
        """Apply the action; give it up when it is no longer wanted and giving up is safe."""
        task = asyncio.create_task(self._apply(action))
        try:
            while not task.done():
                woken = asyncio.create_task(self._wakeup.wait_forever())
                await asyncio.wait({task, woken}, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if not task.done() and self._stale(action):
                    _log.info("action_given_up", action=type(action).__name__, slot=_slot_name(action))
                    break
        finally:
            given_up = not task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if given_up:
            self._take(self._desired)

    def _stale(self, action: Action) -> bool:
        match action:
            case Fetch(slot=wanted) | Prepare(slot=wanted):
                now_wanted = next((slot for slot in self._desired.slots if slot.slot == wanted.slot), None)
                return now_wanted is None or not runs_alike(now_wanted, wanted)
            case _:
                return False

    async def _apply(self, action: Action) -> None:
        match action:
            case Fetch(slot=wanted):
                await self._attempt(wanted, self._fetch)
            case Prepare(slot=wanted):
                await self._attempt(wanted, self._prepare)
            case Swap(slot=wanted):
                await self._attempt(wanted, self._swap)
            case Adopt(slot=wanted):
                await self._adopt(wanted)
            case Unload(slot=name):
                await self._unload(name)
            case Prune(keep=keep):
                await self._prune(keep)
            case _:
                assert_never(action)

    async def _attempt(self, wanted: DesiredSlot, step: Callable[[DesiredSlot], Coroutine[None, None, None]]) -> None:
        """Run the step and settle how it failed: wait and try again, or FAILED until the next offer."""
        try:
            await step(wanted)
        except ControllerError as error:
            if not self._postpone(wanted.slot, error):
                await self._fail(wanted, error)
        except ArtifactError as error:
            again = error.reason is Reason.DIGEST_MISMATCH and wanted.slot not in self._mismatched
            self._mismatched.add(wanted.slot)
            if not (again and self._postpone(wanted.slot, error)):
                await self._fail(wanted, error)
        except (PrepareError, StateError) as error:
            self._choices.pop(prepared_key(wanted), None)
            await self._fail(wanted, error)

    # --- the steps ---

    async def _fetch(self, wanted: DesiredSlot) -> None:
        self._set_progress(wanted, SlotState.DOWNLOADING)
        begun_seconds = self._clock.monotonic()
        await self._cache.fetch(wanted.artifact, self._controller)
        self._waits.pop(wanted.slot, None)
        seconds = self._clock.monotonic() - begun_seconds
        _log.info("artifact_fetched", slot=wanted.slot, version=wanted.version, seconds=round(seconds, 3))

    async def _prepare(self, wanted: DesiredSlot) -> None:
        self._set_progress(wanted, SlotState.PREPARING)
        measurements = await self._runtime.measure(self._folder(wanted), wanted.signature, wanted.runtime_policy)
        choice = choose(measurements, wanted.runtime_policy.hint)
        self._choices[prepared_key(wanted)] = choice
        _log.info("device_chosen", slot=wanted.slot, version=wanted.version, device=choice.device, why=choice.reason)

    async def _swap(self, wanted: DesiredSlot) -> None:
        self._set_progress(wanted, SlotState.PREPARING)
        choice = self._choices[prepared_key(wanted)]
        loaded = await self._load(wanted, choice)
        self._swap_in(wanted, loaded)
        self._trials.supersede(wanted)
        self._slots[wanted.slot] = _serving_slot(wanted, choice, self._clock)
        self._changed()
        _log.info("version_serves", slot=wanted.slot, version=wanted.version, device=choice.device)
        await self._save()

    async def _load(self, wanted: DesiredSlot, choice: DeviceChoice) -> LoadedModel:
        """Load in this process, which a bad version may end: that it begins is saved first."""
        self._trials.begin(wanted, before=_record(self._slot(wanted.slot)))
        await self._save()
        try:
            return await self._runtime.load(
                self._folder(wanted), wanted.signature, wanted.runtime_policy, choice.device
            )
        except BaseException:
            self._trials.end(wanted)
            raise

    def _swap_in(self, wanted: DesiredSlot, loaded: LoadedModel) -> None:
        self._serving.swap(wanted, loaded)
        self._trials.serve(wanted, now_seconds=self._clock.monotonic())

    async def _adopt(self, wanted: DesiredSlot) -> None:
        slot = self._slot(wanted.slot)
        self._serving.adopt(wanted)
        self._trials.adopt(wanted)
        self._slots[wanted.slot] = replace(
            slot,
            state=SlotState.SERVING,
            serving=wanted,
            target_version=wanted.version,
            offer=wanted.offer,
            failure_reason="",
            failure_message="",
        )
        self._changed()
        await self._save()

    async def _unload(self, name: str) -> None:
        if any(slot.slot == name for slot in self._desired.slots):
            return  # it was asked for again in between
        self._serving.unload(name)
        self._trials.forget(name)
        self._slots.pop(name, None)
        self._waits.pop(name, None)
        self._changed()
        _log.info("slot_unloaded", slot=name)
        await self._save()

    async def _prune(self, keep: frozenset[str]) -> None:
        try:
            await asyncio.to_thread(self._cache.prune, keep)
        except OSError as error:
            _log.warning("prune_failed", error=str(error))
        if self._cache.digests() - keep:
            self._wait(_PRUNING, Reason.STATE_UNWRITABLE, seconds=limits.BACKOFF_MAX_SECONDS)
        used = {prepared_key(slot) for slot in self._desired.slots}
        used.update(prepared_key(slot.serving) for slot in self._slots.values() if slot.serving is not None)
        self._choices = {key: choice for key, choice in self._choices.items() if key in used}

    # --- what is known ---

    def _holding(self) -> Holding:
        desired = {slot.artifact.digest: slot.artifact for slot in self._desired.slots}
        return Holding(
            slots=tuple(self._slots.values()),
            complete=frozenset(
                digest for digest, artifact in desired.items() if self._cache.folder(artifact) is not None
            ),
            stored=self._cache.digests(),
            prepared=frozenset(self._choices),
            fallbacks=self._trials.fallbacks(),
        )

    def _take(self, desired: DesiredState) -> None:
        """Make `desired` the wish, and say of each slot what it is now heading for."""
        self._desired = desired
        self._serving.announce([slot.slot for slot in desired.slots])
        for wanted in desired.slots:
            slot = self._slot(wanted.slot)
            settled = slot.serving is not None and runs_alike(slot.serving, wanted)
            if settled or failed_for_good(wanted, slot):
                self._slots[wanted.slot] = slot
                continue
            self._slots[wanted.slot] = _heading(slot, wanted, SlotState.PENDING)

    def _set_progress(self, wanted: DesiredSlot, state: SlotState) -> None:
        slot = self._slot(wanted.slot)
        if slot.state is not state or slot.target_version != wanted.version or slot.offer != wanted.offer:
            self._slots[wanted.slot] = _heading(slot, wanted, state)
            self._changed()

    def _slot(self, name: str) -> ObservedSlot:
        return self._slots.get(name, ObservedSlot(slot=name))

    def _with_progress(self, slot: ObservedSlot, wanted: DesiredSlot | None) -> ObservedSlot:
        if wanted is None or slot.state not in (SlotState.DOWNLOADING, SlotState.PENDING):
            return slot
        return replace(slot, downloaded_bytes=self._cache.received_bytes(wanted.artifact))

    def _folder(self, wanted: DesiredSlot) -> Path:
        folder = self._cache.folder(wanted.artifact)
        assert folder is not None, "the diff asks for a fetch first"
        return folder

    # --- failures ---

    def _postpone(self, name: str, error: ControllerError | ArtifactError) -> bool:
        """Leave the slot alone for a while. False when enough was tried: a refusal is not repeated for ever."""
        before = self._waits.get(name)
        attempts = 1 if before is None else before.attempts + 1
        lasting = error.reason in (Reason.CONTROLLER_UNAVAILABLE, Reason.AGENT_REVOKED)
        if not lasting and attempts > limits.REFUSED_ATTEMPTS_MAX:
            return False
        seconds = delay_seconds(
            attempts, rng=self._rng, first_seconds=limits.BACKOFF_FIRST_SECONDS, max_seconds=limits.BACKOFF_MAX_SECONDS
        )
        self._waits[name] = _Wait(self._clock.monotonic() + seconds, attempts, error.reason)
        _log.warning("step_postponed", slot=name, reason=error.reason, error=str(error), seconds=round(seconds, 1))
        return True

    def _wait(self, name: str, reason: Reason, *, seconds: float) -> None:
        self._waits[name] = _Wait(self._clock.monotonic() + seconds, 1, reason)

    async def _fail(self, wanted: DesiredSlot, error: AgentError) -> None:
        self._waits.pop(wanted.slot, None)
        self._slots[wanted.slot] = replace(
            _heading(self._slot(wanted.slot), wanted, SlotState.FAILED),
            failure_reason=error.reason,
            failure_message=str(error),
        )
        _log.error("version_failed", slot=wanted.slot, version=wanted.version, reason=error.reason, error=str(error))
        self._changed()
        await self._save()

    # --- saving and telling ---

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    async def _save(self) -> None:
        async with self._saving:
            self._unsaved = True
            try:
                await asyncio.shield(asyncio.to_thread(self._state_file.save, self._saved_state()))
            except StateError as error:
                self._conditions.set(
                    conditions.STATE_WRITABLE, holds=False, reason="StateUnwritable", message=str(error)
                )
                return
            self._unsaved = False
            self._conditions.set(conditions.STATE_WRITABLE, holds=True, reason="Written")

    def _saved_state(self) -> SavedState:
        if self._starting is not None:
            return replace(self._starting, boot_count=self.boot_count, trials=self._trials.all())
        slots = [slot for _, slot in sorted(self._slots.items())]
        return SavedState(
            desired=self._desired,
            serving=tuple(record for slot in slots if (record := _record(slot)) is not None),
            failures=tuple(
                FailureRecord(
                    slot=slot.slot,
                    version=slot.target_version,
                    offer=slot.offer,
                    reason=slot.failure_reason,
                    message=slot.failure_message,
                )
                for slot in slots
                if slot.state is SlotState.FAILED
            ),
            boot_count=self.boot_count,
            trials=self._trials.all(),
        )


def _record(slot: ObservedSlot) -> ServingRecord | None:
    if slot.serving is None or slot.device_choice is None:
        return None
    return ServingRecord(desired=slot.serving, choice=slot.device_choice)


def _heading(slot: ObservedSlot, wanted: DesiredSlot, state: SlotState) -> ObservedSlot:
    """The slot on its way to `wanted`; what serves is untouched."""
    return replace(
        slot,
        state=state,
        target_version=wanted.version,
        offer=wanted.offer,
        failure_reason="",
        failure_message="",
        downloaded_bytes=0,
    )


def _serving_slot(
    wanted: DesiredSlot, choice: DeviceChoice, clock: Clock, *, last_known_good: bool = False
) -> ObservedSlot:
    return ObservedSlot(
        slot=wanted.slot,
        serving_version=wanted.version,
        target_version=wanted.version,
        state=SlotState.SERVING,
        device_choice=choice,
        downloaded_bytes=wanted.artifact.size_bytes,
        offer=wanted.offer,
        serving_time=clock.now(),
        last_known_good=last_known_good,
        serving=wanted,
    )


def _slot_name(action: Action) -> str:
    match action:
        case Fetch(slot=wanted) | Prepare(slot=wanted) | Swap(slot=wanted) | Adopt(slot=wanted):
            return wanted.slot
        case Unload(slot=name):
            return name
        case Prune():
            return _PRUNING
    assert_never(action)
