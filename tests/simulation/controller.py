"""Controllers of the simulation: the real use cases, each in a process that may die or be stopped at any write."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from controlplane.app.agents import Agents
from controlplane.app.convergence import Convergence
from controlplane.app.leadership import FencedStore, Leadership
from controlplane.app.notices import Notices
from controlplane.app.pins import Pins
from controlplane.app.ports import Clock, IdSource, Store, UnitOfWork
from controlplane.app.registry import Registry
from controlplane.app.revocations import Revocations
from controlplane.app.rollout_ticks import RolloutTicks
from controlplane.app.rollouts import Rollouts
from controlplane.domain.catalog import ModelSignature
from controlplane.domain.errors import DomainError
from controlplane.domain.lease import Lease
from tests.simulation.events import EventHeap
from tests.support.memory_blobs import MemoryBlobStore

Act = Callable[[], Awaitable[Any]]
SILENT_SECONDS = 15.0


class CrashError(Exception):
    """The controller died here."""


class MortalStore:
    """A store at some of whose writes the controller dies, right before or right after the commit, or is stopped right
    before, to be woken much later."""

    def __init__(self, store: Store, rng: random.Random, crash_share: float) -> None:
        self._store = store
        self._rng = rng
        self.crash_share = crash_share
        self.stops_next = False
        """At the next write the process is stopped."""
        self.stopped: asyncio.Future[None] | None = None
        """Resolved by `wake`; None while the process runs."""
        self.asleep: asyncio.Event = asyncio.Event()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        async with self._store.read() as work:
            yield work

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        if self.stops_next:
            self.stops_next = False
            self.stopped = asyncio.get_running_loop().create_future()
            self.asleep.set()
            await self.stopped
        dies, commits = self._rng.random() < self.crash_share, self._rng.random() < 0.5
        async with self._store.write(lease=lease) as work:
            yield work
            if dies and not commits:
                raise CrashError
        if dies:
            raise CrashError

    def wake(self) -> None:
        """Let a stopped process go on."""
        stopped, self.stopped = self.stopped, None
        self.asleep.clear()
        if stopped is not None:
            stopped.set_result(None)


class NoInspector:
    """Nobody publishes here."""

    async def inspect(self, folder: Path) -> ModelSignature:
        raise AssertionError(f"{folder} is not inspected")


class Replica:
    """One controller. After a crash it remembers nothing, and goes by another name."""

    def __init__(
        self, name: str, memory: Store, heap: EventHeap, ids: IdSource, rng: random.Random, *, crash_share: float
    ) -> None:
        self.name = name
        self.store = MortalStore(memory, rng, crash_share)
        self.runs = 0
        self._heap = heap
        self._ids = ids
        self._task: asyncio.Future[Any] | None = None
        self.start()

    def start(self) -> None:
        """Begin as a new process does."""
        self.runs += 1
        clock: Clock = self._heap.clock
        ports: dict[str, Any] = {"clock": clock, "ids": self._ids}
        self.notices = Notices()
        self.leadership = Leadership(
            store=self.store, monotonic=lambda: self._heap.seconds, holder=f"{self.name}-{self.runs}", **ports
        )
        fenced = FencedStore(self.store, self.leadership)
        rollouts: dict[str, Any] = {"notices": self.notices, "silent_seconds_max": SILENT_SECONDS, **ports}
        self.rollouts = Rollouts(store=self.store, **rollouts)
        self.ticks = RolloutTicks(store=fenced, **rollouts)
        self.convergence = Convergence(store=fenced, notifier=self.notices)
        told: dict[str, Any] = {"store": self.store, "notifier": self.notices, **ports}
        self.pins = Pins(**told)
        self.people = Agents(revocations=Revocations(store=self.store, clock=clock), **told)
        self.registry = Registry(blobs=MemoryBlobStore(), inspector=NoInspector(), workspace=Path("nowhere"), **told)

    @property
    def stopped(self) -> bool:
        return self._task is not None

    def stop_at_next_write(self) -> None:
        """SIGSTOP, in the middle of whatever it does next."""
        self.store.stops_next = True

    async def wake(self) -> None:
        """SIGCONT: what was cut short goes on as if no time had passed."""
        self.store.stops_next = False
        task, self._task = self._task, None
        self.store.wake()
        if task is not None:
            await self._survive(lambda: task)

    async def lead(self) -> None:
        """Try to lead, or stay so."""
        await self.act(self.leadership.renew_or_wait)

    async def work(self, job: Act) -> None:
        """Do a job of the leader, if it is that."""
        await self.act(lambda: self.leadership.while_leading(job))

    async def act(self, act: Act) -> None:
        """Let it do something; that it dies, refuses or falls asleep over it is part of the game. A stopped one does
        nothing."""
        if not self.stopped:
            await self._survive(lambda: self._until_asleep(act))

    async def _until_asleep(self, act: Act) -> None:
        if not self.store.stops_next:
            await act()
            return
        task = asyncio.ensure_future(act())
        asleep = asyncio.ensure_future(self.store.asleep.wait())
        await asyncio.wait({task, asleep}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            asleep.cancel()
            await task
        else:
            self._task = task

    async def _survive(self, act: Act) -> None:
        try:
            await act()
        except CrashError:
            self.start()
        except DomainError:
            return
        except ExceptionGroup as group:
            ours, others = group.split((CrashError, DomainError))
            if others is not None:
                raise
            if ours is not None and ours.subgroup(CrashError) is not None:
                self.start()
