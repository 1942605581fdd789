"""An agent at the level of the protocol: it speaks Sync as a real one does, and runs nothing.

It takes up each generation at once, says so as soon as it may, and says again when its slots serve, which it pretends
after a delay.
"""

import asyncio
import random
import ssl
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from lineside.v1 import agent_pb2, fleet_service_pb2, slot_pb2

from agent import limits
from agent.domain.backoff import delay_seconds
from tests.bench.grpc_stream import GrpcStream
from tests.bench.simulated_agents import SERVER_NAME

SYNC_PATH = "/lineside.v1.FleetService/Sync"
INSTALL_SECONDS = (0.5, 2.0)
"""From taking a version up to serving it, where the bytes and what was compiled are there already."""

HOST = agent_pb2.Host(
    hostname="simulated",
    os="linux",
    os_release="6.8",
    architecture="x86_64",
    cpu_model="Simulated CPU",
    cpu_count=8,
    memory_bytes=16 << 30,
    disk_bytes=256 << 30,
    disk_free_bytes=128 << 30,
    agent_version="0.1.0",
    openvino_version="2026.4",
)
DEVICES = [
    agent_pb2.Device(
        device="CPU", full_name="Simulated CPU", device_type="integrated", capabilities=["FP32", "INT8", "BIN"]
    ),
    agent_pb2.Device(
        device="GPU",
        full_name="Simulated GPU",
        device_type="integrated",
        capabilities=["FP32", "FP16", "INT8"],
        memory_bytes=4 << 30,
    ),
]


@dataclass(slots=True)
class Fleet:
    """What all agents of a process share: where they go, how many get in at a time, and what was measured."""

    host: str
    port: int
    rng: random.Random
    answers_ms: list[float] = field(default_factory=list)
    """Latency of each answered message since somebody last took them."""
    causes: Counter[str] = field(default_factory=Counter)
    """Why connections and streams ended."""
    refused: int = 0
    """Connections and streams that ended before their first answer."""
    synced: set[int] = field(default_factory=set)
    """Agents that were answered on the connection that they have now."""
    synced_seconds: float = 0.0
    """When the last of them was."""
    awaited: tuple[str, str] = ("", "")
    """Slot and version that a measurement waits for."""
    told: dict[int, float] = field(default_factory=dict)
    """When each agent was told `awaited`, on the clock that all processes share."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class ProtocolAgent:
    """One enrolled agent. `connect` once; then it holds its stream by itself until `drop`."""

    def __init__(self, index: int, fleet: Fleet, context: ssl.SSLContext) -> None:
        self.index = index
        self.lost = 0
        """Streams that ended by themselves after they had been answered."""
        self._fleet, self._context = fleet, context
        self._state = slot_pb2.ObservedState(boot_count=1)
        self._stream: GrpcStream | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._sent: deque[float] = deque()
        self._failures = 0
        self._interval_seconds = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._first = True
        self._dials = 0
        """Changes with every dial and every end: what an earlier dial has to say is of no interest."""

    def connect(self) -> None:
        """Dial now."""
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    def drop(self) -> None:
        """Lose the connection, at once and without a word."""
        self._forget()
        if self._stream is not None:
            self._stream.drop()
            self._stream = None

    def unanswered_seconds(self) -> float:
        """How long the oldest message has waited for its answer."""
        return time.monotonic() - self._sent[0] if self._sent else 0.0

    def spread(self) -> None:
        """Send the next whole state anywhere within the interval: a fleet that started over days does so."""
        self._arm(self._fleet.rng.random() * self._interval_seconds)

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        self._first = True
        self._dials += 1
        dialled = self._dials

        def make() -> GrpcStream:
            self._stream = GrpcStream(
                SYNC_PATH,
                authority=SERVER_NAME,
                on_open=lambda _: self._send(),
                on_message=self._take,
                on_end=self._ended,
            )
            return self._stream

        try:
            await loop.create_connection(
                make,
                self._fleet.host,
                self._fleet.port,
                ssl=self._context,
                server_hostname=SERVER_NAME,
                ssl_handshake_timeout=limits.CHANNEL_REDIAL_SECONDS,
            )
        except OSError as error:
            if dialled == self._dials:
                self._ended(self._stream, str(error))

    def _ended(self, stream: GrpcStream | None, why: str) -> None:
        """Come back as an agent does: with jitter, ever more slowly."""
        if stream is not self._stream:
            return
        self._fleet.causes[why] += 1
        self._dials += 1
        if not self._first:
            self.lost += 1
            self._failures = 0
        else:
            self._fleet.refused += 1
        self._forget()
        self._stream = None
        self._failures += 1
        seconds = delay_seconds(
            self._failures,
            rng=self._fleet.rng,
            first_seconds=limits.BACKOFF_FIRST_SECONDS,
            max_seconds=limits.BACKOFF_MAX_SECONDS,
            growth=limits.RECONNECT_GROWTH,
        )
        self._timers.append(asyncio.get_running_loop().call_later(seconds, self.connect))

    def _forget(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._sent.clear()
        self._fleet.synced.discard(self.index)

    def _send(self) -> None:
        """Send the whole state, and again after the interval."""
        if self._stream is None:
            return
        self._state.agent_time.GetCurrentTime()
        request = fleet_service_pb2.SyncRequest(observed_state=self._state)
        if self._first and not self._sent:
            request.host.CopyFrom(HOST)
            request.devices.extend(DEVICES)
        self._sent.append(time.monotonic())
        self._stream.send(request.SerializeToString())
        if self._interval_seconds:
            spread = self._fleet.rng.uniform(1 - limits.SYNC_SPREAD, 1 + limits.SYNC_SPREAD)
            self._arm(self._interval_seconds * spread)

    def _arm(self, seconds: float) -> None:
        if self._timers:
            self._timers.pop(0).cancel()
        self._timers.insert(0, asyncio.get_running_loop().call_later(seconds, self._send))

    def _take(self, message: bytes) -> None:
        response = fleet_service_pb2.SyncResponse.FromString(message)
        now = time.monotonic()
        if self._sent:
            self._fleet.answers_ms.append((now - self._sent.popleft()) * 1e3)
        self._interval_seconds = response.sync_interval.seconds + response.sync_interval.nanos / 1e9
        if self._first:
            self._first = False
            self._failures = 0
            self._arm(self._interval_seconds)
            self._fleet.synced.add(self.index)
            self._fleet.synced_seconds = now
            self._fleet.changed.set()
        if response.HasField("desired_state"):
            jitter = response.report_jitter
            self._desire(response.desired_state, now, jitter_seconds=jitter.seconds + jitter.nanos / 1e9)

    def _desire(self, desired: slot_pb2.DesiredState, now: float, *, jitter_seconds: float) -> None:
        awaited = self._fleet.awaited
        if any((slot.slot, slot.model_version) == awaited for slot in desired.slots):
            self._fleet.told.setdefault(self.index, now)
            self._fleet.changed.set()
        if desired.generation == self._state.generation:
            return
        self._state.generation = desired.generation
        served = {slot.slot: slot for slot in self._state.slots}
        slots = [_take_up(wanted, served.get(wanted.slot)) for wanted in desired.slots]
        del self._state.slots[:]
        self._state.slots.extend(slots)
        rng, loop = self._fleet.rng, asyncio.get_running_loop()
        report_seconds, serve_seconds = rng.uniform(0.0, jitter_seconds), rng.uniform(*INSTALL_SECONDS)
        if not report_seconds:
            self._send()
        elif report_seconds < serve_seconds:
            self._timers.append(loop.call_later(report_seconds, self._send))
        self._timers.append(loop.call_later(max(report_seconds, serve_seconds), self._serve))

    def _serve(self) -> None:
        """Whatever was being prepared answers now."""
        for slot in self._state.slots:
            slot.serving_version = slot.target_version
            slot.state = slot_pb2.ObservedSlot.STATE_SERVING
            if not slot.measurements:
                slot.device, slot.device_reason = "GPU", "GPU at 2.1 ms a request, before CPU at 6.4 ms"
                slot.measurements.add(device="CPU", ok=True, latency_ms_p50=6.4, throughput_per_second=310.5)
                slot.measurements.add(
                    device="GPU", ok=True, latency_ms_p50=2.1, throughput_per_second=912.25, chosen=True
                )
            slot.serving_time.GetCurrentTime()
        self._send()


def _take_up(wanted: slot_pb2.DesiredSlot, served: slot_pb2.ObservedSlot | None) -> slot_pb2.ObservedSlot:
    taken = slot_pb2.ObservedSlot(slot=wanted.slot)
    if served is not None:
        taken.CopyFrom(served)
    if taken.target_version != wanted.model_version or taken.offer != wanted.offer:
        taken.target_version, taken.offer = wanted.model_version, wanted.offer
        taken.state = slot_pb2.ObservedSlot.STATE_PREPARING
    return taken
