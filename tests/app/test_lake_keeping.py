"""Keeping the lake: whoever is killed between any two steps, every result is there once."""

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import obstore
import pytest

from controlplane import limits
from controlplane.app.evidence import Evidence
from controlplane.app.lake_keeping import LakeKeeping
from controlplane.app.ports import Store, UnitOfWork
from controlplane.app.ports_lake import ListedObject
from controlplane.artifacts.object_store import CloudObjectStore
from controlplane.domain.lake import FIRST_ARRIVAL, ResultFilter, ResultObject, ResultSpan
from controlplane.domain.lease import Lease
from controlplane.lake.codec import ParquetCodec
from controlplane.system import SystemIds
from tests.support.factories import make_agent, make_batch, make_result
from tests.support.lake import make_evidence, make_results, memory_objects
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import VirtualClock

ANY = ResultFilter()
HOUR = 3600.0


class Killed(Exception):  # noqa: N818 - no error: the process is gone
    """The process ended here."""


class Steps:
    """Counts steps that leave something behind, and ends the process before one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.done = 0
        self._last = last

    def step(self) -> None:
        if self._last is not None and self.done >= self._last:
            raise Killed
        self.done += 1


class KillableObjects:
    """The object store, killed between two changes."""

    def __init__(self, inner: CloudObjectStore, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    async def put(self, key: str, content: bytes) -> None:
        self._steps.step()
        await self._inner.put(key, content)

    async def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._steps.step()
            await self._inner.remove([key])

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class KillableStore:
    """The store, killed before a commit or right after it."""

    def __init__(self, inner: Store, steps: Steps) -> None:
        self._inner = inner
        self._steps = steps

    def read(self) -> object:
        return self._inner.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        async with self._inner.write(lease=lease) as work:
            yield work
            self._steps.step()
        self._steps.step()


class Lake:
    """A lake with its clock."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.objects = memory_objects()
        self.clock = VirtualClock()
        self.evidence: Evidence = make_evidence(self.store, self.objects, clock=self.clock)
        self.batch = itertools.count(1)
        self.expected: list[str] = []

    def keeping(self, *, steps: Steps | None = None, retention: timedelta | None = None) -> LakeKeeping:
        steps = steps or Steps()
        return LakeKeeping(
            store=KillableStore(self.store, steps),  # type: ignore[arg-type]
            objects=KillableObjects(self.objects, steps),  # type: ignore[arg-type]
            codec=ParquetCodec(),
            ids=SystemIds(),
            retention=retention,
        )

    async def report(self, *parts: str, agent: str = "st-1") -> None:
        number = next(self.batch)
        now = self.clock.now()
        results = tuple(
            make_result(agent_id=agent, batch=number, index=index, part_id=part, infer_time=now)
            for index, part in enumerate(parts)
        )
        await self.evidence.report(make_batch(agent_id=agent, batch=number, windows=(), results=results))
        self.expected += parts

    async def parts(self) -> list[str]:
        read = await make_results(self.store, self.objects).read(ANY, after=None, limit=10_000, newest_first=False)
        return [result.part_id for _, result, _ in read]

    async def named(self) -> Sequence[ResultObject]:
        async with self.store.read() as work:
            return await work.result_index.list_span(ResultSpan(), limit=1000)

    async def lying(self) -> list[str]:
        return [one.key async for page in self.objects.list("results") for one in page]


@pytest.fixture
async def lake() -> Lake:
    lake = Lake()
    async with lake.store.write() as work:
        await work.agents.add(make_agent(labels={"line": "3"}))
        await work.agents.add(make_agent(id="st-2", uid="2", labels={"line": "4"}))
    return lake


async def some_hours(lake: Lake) -> None:
    """Three hours of two lines, the last of which is not over."""
    for hour in range(3):
        for number in range(3):
            await lake.report(f"{9 - hour}{9 - number}-b", f"{9 - hour}{9 - number}-a")
            await lake.report(f"other-{hour}{number}", agent="st-2")
        if hour < 2:
            lake.clock.advance(HOUR)
    lake.clock.advance(limits.LAKE_SETTLE_SECONDS)


async def test_files_of_an_hour_that_is_over_become_one_by_place(lake: Lake) -> None:
    await some_hours(lake)
    await lake.keeping().round(lake.clock.now())
    named = await lake.named()
    assert sorted((one.level, one.rows, "line=3" in one.key) for one in named) == [
        *[(0, 1, False)] * 3,
        *[(0, 2, True)] * 3,
        *[(1, 3, False)] * 2,
        *[(1, 6, True)] * 2,
    ]
    assert await lake.parts() == lake.expected
    again = {one.key for one in named}
    await lake.keeping().round(lake.clock.now())
    assert {one.key for one in await lake.named()} == again


async def test_hours_of_a_day_that_is_over_become_a_file_a_day(lake: Lake) -> None:
    await some_hours(lake)
    lake.clock.advance(24 * HOUR)
    for _ in range(2):
        await lake.keeping().round(lake.clock.now())
    assert sorted((one.level, one.rows) for one in await lake.named()) == [(2, 9), (2, 18)]
    assert await lake.parts() == lake.expected


async def test_a_merged_file_keeps_its_bound(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAKE_MERGED_ROWS_MAX", 4)
    await some_hours(lake)
    await lake.keeping().round(lake.clock.now())
    assert max(one.rows for one in await lake.named()) == 4
    assert await lake.parts() == lake.expected


async def test_what_was_replaced_stays_for_its_readers_and_then_goes(lake: Lake) -> None:
    await some_hours(lake)
    before = await lake.lying()
    await lake.keeping().round(lake.clock.now())
    assert set(before) < set(await lake.lying())
    lake.clock.advance(limits.LAKE_WASTE_SECONDS + 1)
    await lake.keeping().round(lake.clock.now())
    assert sorted(await lake.lying()) == sorted(one.key for one in await lake.named())


async def test_results_beyond_the_retention_go_and_the_rest_stays(lake: Lake) -> None:
    await lake.report("old")
    lake.clock.advance(25 * HOUR)
    await lake.report("new")
    keeping = lake.keeping(retention=timedelta(days=1))
    await keeping.round(lake.clock.now())
    assert await lake.parts() == ["new"]
    lake.clock.advance(limits.LAKE_WASTE_SECONDS + 1)
    await keeping.round(lake.clock.now())
    assert sorted(await lake.lying()) == sorted(one.key for one in await lake.named())


async def test_a_file_that_is_damaged_or_gone_is_left_and_costs_no_other(lake: Lake) -> None:
    await some_hours(lake)
    first, second, *_ = sorted(await lake.named(), key=lambda one: one.first_arrival)
    await lake.objects.put(first.key, b"damaged")
    await lake.objects.remove([second.key])
    await lake.keeping().round(lake.clock.now())
    left = {one.key for one in await lake.named()}
    assert {first.key, second.key} <= left
    assert sum(one.rows for one in await lake.named()) == len(lake.expected)


def aged(objects: CloudObjectStore, modify_time: Callable[[str], datetime]) -> CloudObjectStore:
    """The same objects with times of the test's clock."""

    class Aged(CloudObjectStore):
        async def list(self, prefix: str) -> AsyncIterator[Sequence[ListedObject]]:
            async for page in super().list(prefix):
                yield [replace(one, modify_time=modify_time(one.key)) for one in page]

    return Aged(objects._store, url="memory:///")


async def test_a_sweep_removes_what_nobody_ever_named_and_nothing_else(lake: Lake) -> None:
    await lake.report("a")
    now = lake.clock.now()
    young, old = "results/site=a/line=b/station=c/day=2026-03-01/young.parquet", "results/old.parquet"
    for key in (young, old, "blobs/sha256/00/aa"):
        await lake.objects.put(key, b"x")
    just_over = timedelta(seconds=limits.LAKE_ORPHAN_SECONDS + 1)
    objects = aged(lake.objects, lambda key: now if key == young else now - just_over)
    keeping = LakeKeeping(store=lake.store, objects=objects, codec=ParquetCodec(), ids=SystemIds())
    await keeping.sweep(now)
    assert old not in await lake.lying()
    assert young in await lake.lying()
    assert await lake.parts() == ["a"]
    assert [meta["path"] for page in obstore.list(lake.objects._store, "blobs") for meta in page] == [
        "blobs/sha256/00/aa"
    ]


async def test_rows_of_the_table_before_the_lake_move_into_it_with_their_arrivals(lake: Lake) -> None:
    lake.store._tables.result_rows |= {
        number: make_result(
            agent_id="st-1" if number % 2 else "st-2", batch=0, index=number, part_id=f"old-{number}",
            infer_time=lake.clock.now() + timedelta(hours=8 * number),
        )
        for number in (1, 2, 3, 7, 8)
    }  # fmt: skip
    await lake.report("new")
    expected = ["old-1", "old-2", "old-3", "old-7", "old-8", "new"]
    assert await lake.parts() == expected
    await lake.keeping().move_rows(lake.clock.now())
    assert lake.store._tables.result_rows == {}
    assert await lake.parts() == expected
    assert min(one.first_arrival for one in await lake.named()) == 1 < FIRST_ARRIVAL


@pytest.mark.parametrize("what", ["merge", "expire", "rows"])
async def test_killed_between_any_two_steps_nothing_is_lost_or_doubled(what: str) -> None:
    for last in range(100):
        lake = Lake()
        async with lake.store.write() as work:
            await work.agents.add(make_agent(labels={"line": "3"}))
            await work.agents.add(make_agent(id="st-2", uid="2", labels={"line": "4"}))
        if what == "rows":
            lake.store._tables.result_rows |= {
                number: make_result(batch=0, index=number, part_id=f"old-{number}") for number in (1, 2, 3)
            }
            lake.expected = ["old-1", "old-2", "old-3"]
        await some_hours(lake)
        retention = None
        if what == "expire":
            lake.clock.advance(24 * HOUR)
            retention, lake.expected = timedelta(days=1), []
            await lake.report("kept")
        killed = False
        try:
            await lake.keeping(steps=Steps(last), retention=retention).round(lake.clock.now())
        except Killed:
            killed = True
        if what != "expire":
            assert await lake.parts() == lake.expected, f"killed before step {last}"
        for _ in range(3):
            await lake.keeping(retention=retention).round(lake.clock.now())
            assert await lake.parts() == lake.expected, f"after a kill before step {last}"
            lake.clock.advance(limits.LAKE_WASTE_SECONDS + 1)
        now = lake.clock.now()
        swept = aged(lake.objects, lambda _, then=now: then - timedelta(days=1))  # type: ignore[misc]
        await LakeKeeping(store=lake.store, objects=swept, codec=ParquetCodec(), ids=SystemIds()).sweep(now)
        assert await lake.parts() == lake.expected
        assert sorted(await lake.lying()) == sorted(one.key for one in await lake.named())
        if not killed:
            assert last > 3
            return
    raise AssertionError("it never ends")
