"""A controller in memory that implements the agent's port, and can be away, forgetful or hostile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.app.ports import EvidenceBatch, RenewedCertificate, SpooledSample, SyncReply
from agent.domain.device import Device, Host
from agent.domain.errors import ControllerError, Reason
from agent.domain.slot import DesiredState, ObservedState

CHUNK = 1024


@dataclass(slots=True)
class FakeStream:
    """One Sync stream; the controller answers each message as the real one does."""

    controller: "FakeController"
    replies: "asyncio.Queue[SyncReply | ControllerError]" = field(default_factory=asyncio.Queue)
    answered: bool = False

    async def send(self, state: ObservedState, *, host: Host | None, devices: Sequence[Device] | None) -> None:
        self.controller.check()
        self.controller.observed.append(state)
        self.controller.facts.append((host, devices))
        if not self.controller.mute:
            self.replies.put_nowait(self.controller.reply(state.generation if self.answered else -1))
            self.answered = True

    async def receive(self) -> SyncReply:
        reply = await self.replies.get()
        if isinstance(reply, ControllerError):
            raise reply
        return reply


class FakeController:
    """What it holds is for tests to look at; what it does is for them to set."""

    def __init__(self) -> None:
        self.desired = DesiredState()
        self.blobs: dict[str, bytes] = {}
        self.error: ControllerError | None = None
        """Raised by every call while it is set."""
        self.mute = False
        """Take messages and answer nothing, as a half-open connection does."""
        self.lost_acknowledgements = 0
        """So many deliveries are stored and then not acknowledged."""
        self.break_after_bytes: int | None = None
        """The next read ends with an error after so many bytes; once."""
        self.sync_interval_seconds = 5.0
        self.report_jitter_seconds = 0.0
        self.observed: list[ObservedState] = []
        self.facts: list[tuple[Host | None, Sequence[Device] | None]] = []
        self.asked: list[tuple[str, int]] = []
        """Digest and offset of each read."""
        self.sent_bytes = 0
        self.batches: dict[int, EvidenceBatch] = {}
        self.deliveries: list[int] = []
        self.samples: dict[str, SpooledSample] = {}
        self.located = 0
        self.streams: list[FakeStream] = []
        self.renewed: RenewedCertificate | None = None
        self.reconnects = 0

    def away(self) -> None:
        self.error = ControllerError("away")
        for stream in self.streams:
            stream.replies.put_nowait(self.error)
        self.streams.clear()

    def back(self) -> None:
        self.error = None

    def refuse(self, reason: Reason) -> None:
        self.error = ControllerError("refused", reason=reason)
        for stream in self.streams:
            stream.replies.put_nowait(self.error)
        self.streams.clear()

    def forget(self) -> None:
        """Never have had a desired state for this agent."""
        self.desired = DesiredState()

    def check(self) -> None:
        if self.error is not None:
            error = self.error
            raise ControllerError(error.message, field=error.field, remedy=error.remedy, reason=error.reason)

    def reply(self, generation: int) -> SyncReply:
        """To an agent that runs `generation`; -1 for one that is told in any case."""
        known = self.desired.generation
        return SyncReply(
            desired=self.desired if known > 0 and generation != known else None,
            generation=self.desired.generation,
            sync_interval_seconds=self.sync_interval_seconds,
            report_jitter_seconds=self.report_jitter_seconds,
        )

    def push(self, desired: DesiredState) -> None:
        """Change what is desired, and say so on every open stream."""
        self.desired = desired
        for stream in self.streams:
            stream.replies.put_nowait(self.reply(-1))

    # --- agent.app.ports.Controller ---

    @asynccontextmanager
    async def sync(self) -> AsyncIterator[FakeStream]:
        self.check()
        stream = FakeStream(self)
        self.streams.append(stream)
        try:
            yield stream
        finally:
            if stream in self.streams:
                self.streams.remove(stream)

    async def read_blob(self, digest: str, *, offset_bytes: int) -> AsyncIterator[bytes]:
        self.asked.append((digest, offset_bytes))
        self.check()
        content = self.blobs[digest]
        end = len(content)
        broken, self.break_after_bytes = self.break_after_bytes, None
        if broken is not None:
            end = min(end, offset_bytes + broken)
        for start in range(offset_bytes, end, CHUNK):
            chunk = content[start : min(start + CHUNK, end)]
            self.sent_bytes += len(chunk)
            yield chunk
        if broken is not None:
            raise ControllerError("the connection broke")

    async def report_evidence(self, batch: EvidenceBatch) -> None:
        self.check()
        self.deliveries.append(batch.number)
        self.batches.setdefault(batch.number, batch)
        self._acknowledge()

    async def upload_sample(self, sample: SpooledSample) -> None:
        self.check()
        self.samples.setdefault(sample.id, sample)
        self._acknowledge()

    async def locate(self) -> None:
        self.located += 1
        self.check()

    async def renew_certificate(self, csr_der: bytes) -> RenewedCertificate:
        self.check()
        assert self.renewed is not None
        return self.renewed

    async def reconnect(self) -> None:
        self.reconnects += 1

    def _acknowledge(self) -> None:
        if self.lost_acknowledgements > 0:
            self.lost_acknowledgements -= 1
            raise ControllerError("the acknowledgement was lost")
