"""Leadership: who runs the jobs, and that nobody writes who does not."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.leadership import LEASE_NAME, FencedStore, Leadership
from controlplane.app.ports import AuditFilter, Store, UnitOfWork
from controlplane.domain.errors import LeaseLostError, StorageError
from controlplane.domain.lease import Lease
from tests.support.factories import SOLAR, make_model
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock

ALMOST = limits.LEASE_SECONDS - 0.1


class WatchedStore:
    """A store that can be switched off, as a database that is away, and that counts who writes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_away = False
        self.writing = 0
        self.writing_at_once = 0
        """The most that ever wrote at a time, or waited to."""

    def read(self) -> Any:
        return self._store.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncGenerator[UnitOfWork, None]:
        if self.is_away:
            raise StorageError("the database is away", remedy="wait")
        self.writing += 1
        self.writing_at_once = max(self.writing_at_once, self.writing)
        try:
            async with self._store.write(lease=lease) as work:
                yield work
        finally:
            self.writing -= 1


@dataclass
class Scene:
    """Controllers on one store; the database's clock and each one's own run alike."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    ids: CountingIds = field(default_factory=CountingIds)

    def __post_init__(self) -> None:
        self.store = MemoryStore(now=self.clock.now)

    def controller(self, holder: str, *, predecessor: str | None = None, store: Store | None = None) -> Leadership:
        start = self.clock.now()

        def monotonic() -> float:
            return (self.clock.now() - start).total_seconds()

        return Leadership(
            store=store or self.store,
            clock=self.clock,
            ids=self.ids,
            monotonic=monotonic,
            holder=holder,
            predecessor=predecessor,
        )

    async def lease(self) -> Lease | None:
        async with self.store.read() as work:
            return await work.leases.find(LEASE_NAME)

    async def has_model(self) -> bool:
        async with self.store.read() as work:
            return await work.models.find(SOLAR) is not None

    async def log(self) -> list[tuple[str, str, object]]:
        async with self.store.read() as work:
            events = await work.audit.list(AuditFilter(), after=None, limit=50, oldest_first=True)
        happenings = [event.happening for event in events]
        return [(one.action, one.resource, one.evidence["epoch"]) for one in happenings]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def add_model(store: Store) -> None:
    async with store.write() as work:
        await work.models.add(make_model())


def epoch_of(leadership: Leadership) -> int | None:
    return None if leadership.lease is None else leadership.lease.epoch


async def test_the_first_leads_and_the_second_waits(scene: Scene) -> None:
    first, second = scene.controller("a"), scene.controller("b")
    await first.renew_or_wait()
    await second.renew_or_wait()
    assert (epoch_of(first), epoch_of(second)) == (1, None)


async def test_a_leader_that_renews_stays_so_and_says_it_once(scene: Scene) -> None:
    first, second = scene.controller("a"), scene.controller("b")
    for _ in range(5):
        await first.renew_or_wait()
        await second.renew_or_wait()
        scene.clock.advance(ALMOST)
    assert (epoch_of(first), epoch_of(second)) == (1, None)
    assert await scene.log() == [("leadership.take", "controllers/a", 1)]


async def test_another_steps_in_when_the_lease_has_run_out(scene: Scene) -> None:
    first, second = scene.controller("a"), scene.controller("b")
    await first.renew_or_wait()
    scene.clock.advance(ALMOST)
    await second.renew_or_wait()
    assert epoch_of(second) is None
    scene.clock.advance(0.1)
    await second.renew_or_wait()
    assert (epoch_of(first), epoch_of(second)) == (None, 2)
    assert await scene.log() == [("leadership.take", "controllers/a", 1), ("leadership.take", "controllers/b", 2)]


async def test_who_wakes_after_the_lease_does_not_even_try(scene: Scene) -> None:
    """By its own clock alone, without a question to the database."""
    store = WatchedStore(scene.store)
    leader = scene.controller("a", store=store)
    await leader.renew_or_wait()
    scene.clock.advance(limits.LEASE_SECONDS)
    store.is_away = True
    with pytest.raises(LeaseLostError):
        await add_model(FencedStore(store, leader))
    done: list[str] = []

    async def work() -> None:
        done.append("work")

    await leader.while_leading(work)
    assert done == []


async def test_what_was_decided_before_another_took_over_is_not_written(scene: Scene) -> None:
    """The process sleeps in the middle of its transaction, and its own clock with it."""
    leader = scene.controller("a")
    leader._monotonic = lambda: 0.0
    await leader.renew_or_wait()

    async def decide_and_sleep() -> None:
        async with FencedStore(scene.store, leader).write() as work:
            await work.models.add(make_model())
            scene.clock.advance(limits.LEASE_SECONDS)

    await leader.while_leading(decide_and_sleep)
    assert not await scene.has_model()
    assert leader.lease is None


async def test_the_leader_writes(scene: Scene) -> None:
    leader = scene.controller("a")
    await leader.renew_or_wait()
    await leader.while_leading(lambda: add_model(FencedStore(scene.store, leader)))
    assert await scene.has_model()


async def test_who_does_not_lead_does_no_work_and_writes_nothing(scene: Scene) -> None:
    await scene.controller("a").renew_or_wait()
    other = scene.controller("b")
    await other.renew_or_wait()
    await other.while_leading(lambda: add_model(scene.store))
    with pytest.raises(LeaseLostError):
        await add_model(FencedStore(scene.store, other))
    assert not await scene.has_model()


async def test_a_database_that_is_away_costs_the_lease_only_when_it_runs_out(scene: Scene) -> None:
    store = WatchedStore(scene.store)
    leader = scene.controller("a", store=store)
    await leader.renew_or_wait()
    store.is_away = True
    scene.clock.advance(ALMOST)
    await leader.renew_or_wait()
    assert epoch_of(leader) == 1
    scene.clock.advance(0.1)
    await leader.renew_or_wait()
    assert epoch_of(leader) is None
    store.is_away = False
    await leader.renew_or_wait()
    assert epoch_of(leader) == 2


async def test_a_restarted_controller_does_not_wait_for_its_dead_predecessor(scene: Scene) -> None:
    await scene.controller("a-1").renew_or_wait()
    restarted = scene.controller("a-2", predecessor="a-1")
    await restarted.renew_or_wait()
    assert epoch_of(restarted) == 2


async def test_the_predecessor_of_another_folder_is_left_alone(scene: Scene) -> None:
    await scene.controller("a-1").renew_or_wait()
    other = scene.controller("b-2", predecessor="b-1")
    await other.renew_or_wait()
    assert epoch_of(other) is None


async def test_renewals_wait_for_a_write_that_is_under_way(scene: Scene) -> None:
    """A database that serializes would refuse one of the two."""
    store = WatchedStore(scene.store)
    leader = scene.controller("a", store=store)
    await leader.renew_or_wait()
    before = await scene.lease()
    async with FencedStore(store, leader).write() as work:
        renewal = asyncio.create_task(leader.renew_or_wait())
        scene.clock.advance(1.0)
        for _ in range(20):
            await asyncio.sleep(0)
        await work.models.add(make_model())
    await renewal
    assert store.writing_at_once == 1
    after = await scene.lease()
    assert before is not None
    assert after is not None
    assert after.expire_time > before.expire_time


async def test_a_controller_that_stops_lets_another_lead_at_once(scene: Scene) -> None:
    leader, other = scene.controller("a"), scene.controller("b")
    running = asyncio.create_task(leader.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert epoch_of(leader) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert leader.lease is None
    await other.renew_or_wait()
    assert epoch_of(other) == 2
    assert [action for action, _, _ in await scene.log()] == [
        "leadership.take",
        "leadership.release",
        "leadership.take",
    ]
