"""The one conversation with the controller: the whole observed state up, the desired state down.

Rules kept here:
- The whole state is sent at each interval and at each change; nothing is reported only once.
- Within a stream a generation that is lower than one told before is ignored. The first answer of a stream holds
  whatever its generation: a controller restored from a backup counts on from a lower one.
- Whatever ends a stream, the agent goes on serving and comes back after a full-jitter wait; it asks anew where the
  controller is when it fails repeatedly, and asks rarely once it was revoked.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.ports import Clock, Controller, Runtime, SyncReply, SyncStream
from agent.app.wakeup import Wakeup, first_of
from agent.domain.backoff import delay_seconds
from agent.domain.device import Device, Host
from agent.domain.errors import CLOCK_FIELD, ControllerError, Reason
from agent.domain.slot import ObservedState, SampleCounts

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """How the conversation with the controller stands."""

    connected: bool
    """The controller has answered on the stream that is open."""
    heard_age_seconds: float | None
    """Since it was heard last, on whatever stream; None where it never was."""
    connections: int
    """Streams on which it was heard, since the start."""
    failures: int
    """Streams that ended or could not be opened, since the start."""
    desired_generation: int
    """The highest that the controller has told of on the last stream; of what is on disk until it has."""
    observed_generation: int
    """Of the desired state that was taken up."""
    clock_offset_seconds: float | None
    """How far this box's clock is ahead of the controller's; None until it was heard."""


class SyncLoop:
    """One per agent. `run` until cancelled."""

    def __init__(
        self,
        *,
        controller: Controller,
        executor: Executor,
        runtime: Runtime,
        conditions: Conditions,
        clock: Clock,
        rng: random.Random,
        sample_counts: Callable[[], SampleCounts] = SampleCounts,
    ) -> None:
        self._sample_counts = sample_counts
        self._controller = controller
        self._executor = executor
        self._runtime = runtime
        self._conditions = conditions
        self._clock = clock
        self._rng = rng
        self._wakeup = Wakeup()
        self._listeners: list[Callable[[], None]] = []
        self._interval_seconds = limits.SYNC_INTERVAL_SECONDS
        self._heard_seconds: float | None = None
        """When the controller was last heard on the present stream; None before its first answer."""
        self._told_generation = 0
        """The highest that was told on the present stream."""
        self._report_seconds = 0.0
        """Nothing is reported before: many agents were told what this one was."""
        self._last_heard_seconds: float | None = None
        self._connections = 0
        self._failures = 0
        self._clock_offset_seconds: float | None = None
        self._refusal: tuple[str, int] = ("", 0)
        """Why a desired state is refused, and its generation."""
        self._facts: tuple[Host, Sequence[Device]] | None = None
        self._facts_seconds = 0.0
        executor.subscribe(self._wakeup.wake)
        conditions.subscribe(self._wakeup.wake)

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the controller is heard on a new stream: what waits for it may hurry."""
        self._listeners.append(listener)

    def status(self) -> SyncStatus:
        """For the loop that runs it."""
        last = self._last_heard_seconds
        return SyncStatus(
            connected=self._was_heard(),
            heard_age_seconds=None if last is None else self._clock.monotonic() - last,
            connections=self._connections,
            failures=self._failures,
            desired_generation=self._told_generation or self._executor.generation,
            observed_generation=self._executor.generation,
            clock_offset_seconds=self._clock_offset_seconds,
        )

    @property
    def devices(self) -> Sequence[Device]:
        """Of the box, as they were looked at last; none before the first look."""
        return () if self._facts is None else self._facts[1]

    async def run(self) -> None:
        failures = 0
        while True:
            self._heard_seconds = None
            self._told_generation = 0
            try:
                async with self._controller.sync() as stream:
                    await self._converse(stream)
            except ControllerError as error:
                failures = 1 if self._was_heard() else failures + 1
                self._failures += 1
                self._heard_seconds = None
                await self._recover(error, failures)

    def _was_heard(self) -> bool:
        return self._heard_seconds is not None

    # --- one stream ---

    async def _converse(self, stream: SyncStream) -> None:
        """Runs until the stream fails; raises ControllerError."""
        await first_of(self._send_all(stream), self._receive_all(stream), self._watch())

    async def _send_all(self, stream: SyncStream) -> None:
        sent_facts: object = None
        while True:
            facts = await self._current_facts()
            host, devices = facts if facts is not sent_facts else (None, None)
            await stream.send(self._observed(), host=host, devices=devices)
            sent_facts = facts
            # A fleet that was told something together would else report together at every interval from then on.
            spread = self._rng.uniform(1 - limits.SYNC_SPREAD, 1 + limits.SYNC_SPREAD)
            await self._wakeup.wait(self._clock, self._interval_seconds * spread)
            while (left_seconds := self._report_seconds - self._clock.monotonic()) > 0:
                await self._wakeup.wait(self._clock, left_seconds)

    async def _receive_all(self, stream: SyncStream) -> None:
        while True:
            reply = await stream.receive()
            await self._take(reply)

    async def _watch(self) -> None:
        """Raise ControllerError when nothing is heard for too long: a half-open connection looks like this."""
        begun_seconds = self._clock.monotonic()
        while True:
            silence_seconds = max(
                limits.SYNC_SILENCE_SECONDS_MIN, limits.SYNC_SILENCE_INTERVALS * self._interval_seconds
            )
            heard_seconds = begun_seconds if self._heard_seconds is None else self._heard_seconds
            left_seconds = heard_seconds + silence_seconds - self._clock.monotonic()
            if left_seconds <= 0:
                raise ControllerError(f"nothing was heard for {silence_seconds:.0f} s")
            await self._clock.sleep(left_seconds)

    async def _take(self, reply: SyncReply) -> None:
        first = self._heard_seconds is None
        self._heard_seconds = self._last_heard_seconds = self._clock.monotonic()
        self._connections += first
        if reply.controller_time is not None:
            self._clock_offset_seconds = (self._clock.now() - reply.controller_time).total_seconds()
        self._interval_seconds = min(
            max(reply.sync_interval_seconds, limits.SYNC_INTERVAL_SECONDS_MIN), limits.SYNC_INTERVAL_SECONDS_MAX
        )
        if first:
            _log.info("controller_heard", generation=reply.generation)
            self._conditions.set(conditions.CONTROLLER_ACCEPTS, holds=True, reason="Synced")
            self._conditions.set(conditions.CLOCK_PLAUSIBLE, holds=True, reason="CertificateVerified")
            for listener in tuple(self._listeners):
                listener()
        if reply.desired is not None:
            jitter_seconds = min(max(reply.report_jitter_seconds, 0.0), limits.REPORT_JITTER_SECONDS_MAX)
            self._report_seconds = self._clock.monotonic() + self._rng.uniform(0.0, jitter_seconds)
        self._settle_refusal(reply)
        if reply.desired is not None and reply.desired.generation >= self._told_generation:
            await self._executor.desire(reply.desired)
        self._told_generation = max(self._told_generation, reply.generation)
        if reply.generation == self._executor.generation:
            self._executor.confirm()

    def _settle_refusal(self, reply: SyncReply) -> None:
        """A refusal stands until there is a state to take up, or none is wanted that is not taken up already: the
        controller does not send again what was refused."""
        if not reply.refusal and reply.desired is None and reply.generation != self._executor.generation:
            return
        refusal = (reply.refusal, reply.generation if reply.refusal else 0)
        if refusal != self._refusal:
            self._refusal = refusal
            if reply.refusal:
                _log.error("desired_state_refused", generation=reply.generation, error=reply.refusal)
            self._wakeup.wake()

    def _observed(self) -> ObservedState:
        return ObservedState(
            generation=self._executor.generation,
            slots=self._executor.observed(),
            boot_count=self._executor.boot_count,
            agent_time=self._clock.now(),
            conditions=self._conditions.all(),
            nack_message=self._refusal[0],
            nack_generation=self._refusal[1],
            sample_counts=self._sample_counts(),
        )

    async def _current_facts(self) -> tuple[Host, Sequence[Device]]:
        """Host and devices, looked at again now and then; the same object as long as nothing has changed."""
        now_seconds = self._clock.monotonic()
        if self._facts is None or now_seconds - self._facts_seconds >= limits.HOST_FACTS_SECONDS:
            facts = (await self._runtime.host(), tuple(await self._runtime.devices()))
            self._facts_seconds = now_seconds
            if facts != self._facts:
                self._facts = facts
        assert self._facts is not None
        return self._facts

    # --- between streams ---

    async def _recover(self, error: ControllerError, failures: int) -> None:
        seconds = self._delay_seconds(error, failures)
        if failures == 1 or error.reason is not Reason.CONTROLLER_UNAVAILABLE:
            _log.warning("controller_lost", reason=error.reason, error=str(error), retry_seconds=round(seconds, 1))
        if error.field == CLOCK_FIELD:
            self._tell_clock(error, failures)
        elif error.reason is Reason.AGENT_REVOKED:
            self._conditions.set(
                conditions.CONTROLLER_ACCEPTS, holds=False, reason="AgentRevoked", message=error.message
            )
        elif not error.retryable:
            self._conditions.set(conditions.CONTROLLER_ACCEPTS, holds=False, reason="Refused", message=str(error))
        await self._clock.sleep(seconds)
        if error.retryable and failures >= limits.LOCATE_AFTER_FAILURES:
            try:
                await self._controller.locate()
            except ControllerError as lost:
                _log.info("controller_not_located", error=str(lost))

    def _tell_clock(self, error: ControllerError, failures: int) -> None:
        now = self._clock.now().isoformat(timespec="seconds")
        message = f"the clock of this box says {now}: {error}"
        if failures == 1:
            _log.error("clock_implausible", error=message)
        self._conditions.set(conditions.CLOCK_PLAUSIBLE, holds=False, reason="CertificateTime", message=message)

    def _delay_seconds(self, error: ControllerError, failures: int) -> float:
        if error.reason is Reason.AGENT_REVOKED:
            return limits.REVOKED_RETRY_SECONDS * (0.5 + self._rng.random())
        return delay_seconds(
            failures,
            rng=self._rng,
            first_seconds=limits.BACKOFF_FIRST_SECONDS,
            max_seconds=limits.BACKOFF_MAX_SECONDS,
            growth=limits.RECONNECT_GROWTH,
        )
