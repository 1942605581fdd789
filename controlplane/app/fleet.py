"""Sync streams: observed state up, desired state down.

Rules kept:
- Every message is answered; a desired state is sent whenever the generation that the agent runs is not the
  current one, so a lost answer is made good by the next message. One that the agent refused is not sent again on
  that stream: it would be refused again.
- The first answer of a stream carries the desired state in any case: after the store was restored from a backup, the
  same generation may mean something else.
- A change is pushed as soon as it is noticed, and found by itself within DESIRED_AGE_SECONDS otherwise.
- A revoked agent or an expired certificate ends a live stream at its next message or notice.
- No message costs a query: observations go through one writer, desired states are read when they change.
- While a change is told to many, what agents report waits for them to be told, for so long as TELLING_SECONDS_MAX: each
  that was told reports at once, which costs more than to tell the next one.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from controlplane import limits
from controlplane.app.desired import DesiredStates, ResolvedState
from controlplane.app.notices import Notices
from controlplane.app.observations import Observations
from controlplane.app.ports import Clock
from controlplane.app.revocations import Revocations
from controlplane.app.telling import Telling
from controlplane.domain.assignment import DesiredState
from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Device, Host, Observation, ObservedSlot, ObservedState, SlotState

R = TypeVar("R")
"""A request as it comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMessage:
    """What an agent says. Host and devices come together, first of all and when they have changed."""

    observed: ObservedState
    host: Host | None = None
    devices: tuple[Device, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncAnswer:
    """What it is told. `desired` is None when it was told on this stream and runs `generation` already, or never had a
    desired state."""

    desired: ResolvedState | None
    generation: int
    controller_time: datetime
    report_jitter_seconds: float = 0.0
    """Up to so long the agent waits before it reports what this changes."""


class Fleet:
    """Serves Sync streams."""

    def __init__(
        self,
        *,
        clock: Clock,
        notices: Notices,
        observations: Observations,
        desired_states: DesiredStates,
        revocations: Revocations,
        telling: Telling,
    ) -> None:
        self._clock = clock
        self._notices = notices
        self._observations = observations
        self._desired_states = desired_states
        self._revocations = revocations
        self._telling = telling
        self.streams = 0
        """Open now."""
        self.messages = 0
        """Taken since the start."""
        self.answers = 0

    async def sync(
        self, certificate: AgentCertificate, requests: AsyncIterator[R], read: Callable[[R], SyncMessage]
    ) -> AsyncGenerator[SyncAnswer, None]:
        """Answer what one stream says until it ends; `read` makes a message of a request once its turn has come.
        Raises ForbiddenError (AGENT_REVOKED), CredentialError (CERTIFICATE_INVALID), and what `requests` and `read`
        raise."""
        session = _Session(agent_id=certificate.agent_id)
        self.streams += 1
        inbox = _Inbox(requests, read, self._telling)
        try:
            with self._notices.on_agent(certificate.agent_id, inbox.hurry):
                while (arrival := await inbox.take()) is not None:
                    await self._revocations.check(certificate)
                    if isinstance(arrival, SyncMessage):
                        self._take(session, arrival)
                    if inbox.take_change() or session.read_before(self._clock.now()):
                        await self._read(session)
                    if isinstance(arrival, SyncMessage) or session.should_push():
                        answer = await self._answer(session)
                        self.answers += 1
                        yield answer
                    inbox.settle()
        finally:
            self.streams -= 1
            await inbox.close()

    def _take(self, session: "_Session", message: SyncMessage) -> None:
        self.messages += 1
        observation = Observation(
            agent_id=session.agent_id,
            observed=message.observed,
            receive_time=self._clock.now(),
            host=message.host,
            devices=message.devices,
        )
        self._observations.put(observation, urgent=session.hear(message.observed))

    async def _read(self, session: "_Session") -> None:
        session.read_time = self._clock.now()
        session.desired = await self._desired_states.find(session.agent_id)

    async def _answer(self, session: "_Session") -> SyncAnswer:
        desired = session.desired
        resolved = None
        if desired is not None and session.should_tell(desired):
            resolved = await self._desired_states.resolve(desired)
            session.told_generation = desired.generation
        return SyncAnswer(
            desired=resolved,
            generation=desired.generation if desired else 0,
            controller_time=self._clock.now(),
            report_jitter_seconds=0.0 if resolved is None else self._telling.report_jitter_seconds,
        )


@dataclass(slots=True, kw_only=True)
class _Session:
    """What one stream remembers."""

    agent_id: AgentId
    desired: DesiredState | None = None
    read_time: datetime | None = None
    """When `desired` was read; None until then."""
    observed_generation: int | None = None
    """None until the first message."""
    told_generation: int | None = None
    refused_generation: int | None = None
    """The one that the agent said it cannot take up."""
    slots: tuple[ObservedSlot, ...] = ()

    def hear(self, observed: ObservedState) -> bool:
        """Take a message; return whether a slot has got somewhere, which a rollout waits for."""
        # Slots that the agent only repeats are the same objects, as a rule.
        moved = observed.slots is not self.slots and _progress(observed.slots) != _progress(self.slots)
        advanced = moved or self.observed_generation != observed.generation
        self.slots, self.observed_generation = observed.slots, observed.generation
        refused_generation = observed.nack_generation if observed.nack_message else None
        advanced = advanced or refused_generation != self.refused_generation
        self.refused_generation = refused_generation
        return advanced

    def read_before(self, now: datetime) -> bool:
        """Whether the desired state was read so long ago that a notice may have been lost, or never."""
        return self.read_time is None or now - self.read_time >= timedelta(seconds=limits.DESIRED_AGE_SECONDS)

    def should_tell(self, desired: DesiredState) -> bool:
        """Whether an answer must carry the state: nothing was told on this stream yet, or the agent neither runs it
        nor has refused it."""
        if self.told_generation is None:
            return True
        return desired.generation not in (self.observed_generation, self.refused_generation)

    def should_push(self) -> bool:
        """Whether there is a state that the agent has neither taken up nor been told. An agent speaks first."""
        if self.desired is None or self.observed_generation is None:
            return False
        return self.desired.generation not in (self.observed_generation, self.told_generation)


def _progress(slots: tuple[ObservedSlot, ...]) -> list[tuple[str, int, int, SlotState]]:
    return [(slot.slot, slot.serving_version, slot.offer, slot.state) for slot in slots]


class _Look:
    """Look whether there is something to say: a change was noticed, or much time has passed."""


_LOOK = _Look()


class _Inbox:
    """Messages of one stream, and what else wakes it. A full queue stops the reading of messages, and so, by HTTP/2's
    flow control, an agent that talks faster than it is answered."""

    def __init__(self, requests: AsyncIterator[R], read: Callable[[R], SyncMessage], telling: Telling) -> None:
        self._telling = telling
        self._queue: asyncio.Queue[SyncMessage | _Look | Exception | None] = asyncio.Queue(limits.SYNC_INBOX_MAX)
        self._changed = False
        self._reader = asyncio.create_task(self._read(requests, read))
        # One timer a stream: a timeout for each wait would cost more than the rest of the wait.
        self._timer = asyncio.get_running_loop().call_later(limits.DESIRED_AGE_SECONDS, self._look)

    async def take(self) -> SyncMessage | _Look | None:
        """Return what comes next, a _Look after a long silence too, and None at the end of the messages; raise what
        ended them."""
        arrival = await self._queue.get()
        if isinstance(arrival, Exception):
            raise arrival
        return arrival

    def hurry(self) -> None:
        """Something about the agent may have changed."""
        self._changed = True
        self._telling.begin(self)
        self._wake()

    def take_change(self) -> bool:
        """Return whether something may have changed since it was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def settle(self) -> None:
        """What had changed is told."""
        if not self._changed:
            self._telling.end(self)

    async def close(self) -> None:
        """Stop the reader and the timer."""
        self._telling.end(self)
        self._timer.cancel()
        self._reader.cancel()
        await asyncio.wait([self._reader])

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(limits.DESIRED_AGE_SECONDS, self._look)
        self._wake()

    def _wake(self) -> None:
        # Whatever waits in the queue wakes the stream as well.
        if self._queue.empty():
            self._queue.put_nowait(_LOOK)

    async def _read(self, requests: AsyncIterator[R], read: Callable[[R], SyncMessage]) -> None:
        cause: Exception | None = None
        try:
            async for request in requests:
                await self._telling.wait()
                await self._queue.put(read(request))
        except Exception as error:  # noqa: BLE001 - raised where the stream is answered
            cause = error
        await self._queue.put(cause)
