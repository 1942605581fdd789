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
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane import limits
from controlplane.app.desired import DesiredStates, ResolvedState
from controlplane.app.notices import Changes, Notices
from controlplane.app.observations import Observations
from controlplane.app.ports import Clock
from controlplane.app.revocations import Revocations
from controlplane.domain.assignment import DesiredState
from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Device, Host, Observation, ObservedState, SlotState


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
    ) -> None:
        self._clock = clock
        self._notices = notices
        self._observations = observations
        self._desired_states = desired_states
        self._revocations = revocations
        self.streams = 0
        """Open now."""
        self.messages = 0
        """Taken since the start."""
        self.answers = 0

    async def sync(
        self, certificate: AgentCertificate, messages: AsyncIterator[SyncMessage]
    ) -> AsyncGenerator[SyncAnswer, None]:
        """Answer the messages of one stream until they end. Raises ForbiddenError (AGENT_REVOKED),
        CredentialError (CERTIFICATE_INVALID), and what `messages` raises."""
        session = _Session(agent_id=certificate.agent_id)
        self.streams += 1
        with self._notices.watch_agent(certificate.agent_id) as changes:
            inbox = _Inbox(messages, changes)
            try:
                async for arrival in inbox.arrivals():
                    await self._revocations.check(certificate)
                    if isinstance(arrival, SyncMessage):
                        self._take(session, arrival)
                    if isinstance(arrival, _Changed) or session.read_before(self._clock.now()):
                        await self._read(session)
                    if isinstance(arrival, SyncMessage) or session.should_push():
                        answer = await self._answer(session)
                        self.answers += 1
                        yield answer
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
    progress: tuple[tuple[str, int, int, SlotState], ...] = ()

    def hear(self, observed: ObservedState) -> bool:
        """Take a message; return whether a slot has got somewhere, which a rollout waits for."""
        progress = tuple((slot.slot, slot.serving_version, slot.offer, slot.state) for slot in observed.slots)
        advanced = progress != self.progress or self.observed_generation != observed.generation
        self.progress, self.observed_generation = progress, observed.generation
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


@dataclass(frozen=True, slots=True)
class _Changed:
    """Something about the agent may have changed: read it again."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """No message will come any more; `cause` is what ended them, None for a regular end."""

    cause: Exception | None


class _Inbox:
    """Messages and changes of one stream, in one queue. A full queue stops the reading of messages, and so, by
    HTTP/2's flow control, an agent that talks faster than it is answered."""

    def __init__(self, messages: AsyncIterator[SyncMessage], changes: Changes) -> None:
        self._queue: asyncio.Queue[SyncMessage | _Changed | _Ended] = asyncio.Queue(limits.SYNC_INBOX_MAX)
        self._tasks = (
            asyncio.create_task(self._take_messages(messages)),
            asyncio.create_task(self._take_changes(changes)),
        )

    async def arrivals(self) -> AsyncIterator[SyncMessage | _Changed]:
        """Yield what comes, and a _Changed after a long silence; raise what ended the messages."""
        while True:
            try:
                async with asyncio.timeout(limits.DESIRED_AGE_SECONDS):
                    arrival = await self._queue.get()
            except TimeoutError:
                arrival = _Changed()
            if isinstance(arrival, _Ended):
                if arrival.cause is not None:
                    raise arrival.cause
                return
            yield arrival

    async def close(self) -> None:
        """Stop both readers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take_messages(self, messages: AsyncIterator[SyncMessage]) -> None:
        cause: Exception | None = None
        try:
            async for message in messages:
                await self._queue.put(message)
        except Exception as error:  # noqa: BLE001 - raised where the stream is answered
            cause = error
        await self._queue.put(_Ended(cause))

    async def _take_changes(self, changes: Changes) -> None:
        while True:
            await changes.wait()
            await self._queue.put(_Changed())
