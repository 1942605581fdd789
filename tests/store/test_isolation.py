"""What transactions see of each other."""

import asyncio
from dataclasses import replace

import pytest

from controlplane import limits
from controlplane.domain.assignment import DesiredState
from controlplane.domain.errors import StaleWriteError, StorageError
from controlplane.domain.ids import AgentId
from controlplane.domain.lake import ResultFilter
from controlplane.store import SqlStore, open_store
from tests.support.factories import SOLAR, after_seconds, make_agent, make_batch, make_model, make_observation
from tests.support.lake import make_object

AGENT = AgentId("st-1")


async def add_model(store: SqlStore, model_id: str) -> None:
    async with store.write() as work:
        await work.models.add(make_model(id=model_id))


async def count_models(store: SqlStore) -> int:
    async with store.read() as work:
        return len(await work.models.list(after=None, limit=100))


async def test_a_reader_sees_one_snapshot(store: SqlStore) -> None:
    async with store.read() as work:
        assert await work.models.find(SOLAR) is None
        await add_model(store, "solar")
        assert await work.models.find(SOLAR) is None
    assert await count_models(store) == 1


async def test_a_reader_does_not_wait_for_a_writer(store: SqlStore) -> None:
    async with store.write() as work:
        await work.models.add(make_model())
        assert await count_models(store) == 0
    assert await count_models(store) == 1


async def test_readers_do_not_keep_a_writer_waiting(store: SqlStore) -> None:
    async with store.read() as first, store.read() as second:
        assert not await first.models.list(after=None, limit=1)
        assert not await second.models.list(after=None, limit=1)
        await add_model(store, "solar")


async def test_what_agents_report_meanwhile_refuses_nobody_who_read_the_fleet(
    database_url: str, store: SqlStore
) -> None:
    """A rollout to a large fleet reads for a second, and reports come ten times a second."""
    await store.connect()
    async with store.write() as work:
        await work.agents.add(make_agent())
        await work.agents.record([make_observation()])
        await work.desired.save([DesiredState(agent_id=AGENT, generation=1, slots=())])
    async with store.read() as work:
        await work.agents.list_all()

    async def report(number: int) -> None:
        async with store.write() as work:
            await work.agents.record([make_observation(receive_time=after_seconds(number))])

    reports = []
    async with store.write() as work:
        assert [record.desired_generation for record in await work.agents.list_all()] == [1]
        for number in range(1, 4):
            reports.append(asyncio.create_task(report(number)))
            if database_url.startswith("postgresql"):  # SQLite's writers wait for each other
                await reports[-1]
        await work.desired.save([DesiredState(agent_id=AGENT, generation=2, slots=())])
    await asyncio.gather(*reports)
    async with store.read() as work:
        (record,) = await work.agents.list_all()
    assert record.desired_generation == 2
    assert record.observation is not None
    assert record.observation.receive_time == after_seconds(3)


async def test_two_stores_on_one_database_never_lose_an_update(database_url: str, store: SqlStore) -> None:
    """As two processes: neither knows of the other's queue."""
    other = open_store(database_url)
    await add_model(store, "solar")

    async def bump(mine: SqlStore) -> None:
        while True:
            try:
                async with mine.write() as work:
                    model = await work.models.get(SOLAR)
                    await asyncio.sleep(0)
                    await work.models.save(replace(model, latest_version=model.latest_version + 1))
                    return
            except StaleWriteError:
                continue

    await asyncio.gather(*(bump(mine) for mine in (store, other) * 10))
    await other.close()
    async with store.read() as work:
        assert (await work.models.get(SOLAR)).latest_version == 20


async def test_arrivals_are_numbered_in_the_order_in_which_they_can_be_seen(database_url: str, store: SqlStore) -> None:
    other = open_store(database_url)
    has_added, may_commit = asyncio.Event(), asyncio.Event()

    async def add_slowly() -> None:
        async with store.write() as work:
            await work.evidence.add(make_batch(batch=1), [make_object("slow")])
            has_added.set()
            await may_commit.wait()

    async def add_quickly() -> None:
        async with other.write() as work:
            await work.evidence.add(make_batch(batch=2), [make_object("quick")])

    slow = asyncio.create_task(add_slowly())
    await has_added.wait()
    quick = asyncio.create_task(add_quickly())
    _, waiting = await asyncio.wait({quick}, timeout=0.3)
    assert waiting == {quick}
    may_commit.set()
    await asyncio.gather(slow, quick)
    async with other.read() as work:
        listed = await work.result_index.list(ResultFilter(), after=None, beyond=None, limit=10)
    await other.close()
    assert [one.key.rpartition("/")[2] for one in listed] == ["slow.parquet", "quick.parquet"]


async def test_a_writer_inside_a_writer_is_refused_instead_of_waiting_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DATABASE_WAIT_SECONDS", 0.05)
    store = open_store(sqlite_url)
    async with store.write() as work:
        await work.models.add(make_model())
        with pytest.raises(StorageError, match="busy"):
            await add_model(store, "weld")
    assert await count_models(store) == 1
    await store.close()
