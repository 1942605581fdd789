"""What Store and UnitOfWork promise."""

import asyncio
from dataclasses import replace

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import ResourceExistsError, StaleWriteError
from tests.support.factories import SOLAR, make_model


class DeliberateError(Exception):
    """Raised by a test within a unit of work."""


async def bump_latest_version(store: Store) -> None:
    """Read, modify and write, again whenever somebody else was faster."""
    while True:
        try:
            async with store.write() as work:
                model = await work.models.get(SOLAR)
                await asyncio.sleep(0)  # an invitation to every other task
                await work.models.save(replace(model, latest_version=model.latest_version + 1))
                return
        except StaleWriteError:
            continue


async def test_a_write_is_seen_by_later_units(store: Store) -> None:
    async with store.write() as work:
        await work.models.add(make_model())
        assert await work.models.find(SOLAR) == make_model()
    async with store.read() as work:
        assert await work.models.get(SOLAR) == make_model()


async def test_a_block_that_raises_leaves_nothing(store: Store) -> None:
    async def write_and_fail() -> None:
        async with store.write() as work:
            await work.models.add(make_model())
            raise DeliberateError

    with pytest.raises(DeliberateError):
        await write_and_fail()
    async with store.read() as work:
        assert await work.models.find(SOLAR) is None


async def test_a_write_hidden_in_a_reader_is_rolled_back(store: Store) -> None:
    async with store.read() as work:
        await work.models.add(make_model())
        assert await work.models.find(SOLAR) == make_model()
    async with store.read() as work:
        assert await work.models.find(SOLAR) is None


async def test_a_refusal_leaves_the_unit_usable(store: Store) -> None:
    async with store.write() as work:
        await work.models.add(make_model())
        with pytest.raises(ResourceExistsError):
            await work.models.add(make_model())
        await work.models.add(make_model(id="weld"))
    async with store.read() as work:
        assert [model.id for model in await work.models.list(after=None, limit=10)] == ["solar", "weld"]


async def test_concurrent_updates_of_one_row_are_never_lost(store: Store) -> None:
    async with store.write() as work:
        await work.models.add(make_model())
    await asyncio.gather(*(bump_latest_version(store) for _ in range(20)))
    async with store.read() as work:
        model = await work.models.get(SOLAR)
    assert (model.latest_version, model.revision) == (20, 20)


async def test_a_writer_that_read_before_another_wrote_waits_or_is_stale(store: Store) -> None:
    async with store.write() as work:
        await work.models.add(make_model())
    has_read, may_write = asyncio.Event(), asyncio.Event()

    async def write_slowly() -> None:
        async with store.write() as work:
            model = await work.models.get(SOLAR)
            has_read.set()
            await may_write.wait()
            await work.models.save(replace(model, description="slow"))

    slow = asyncio.create_task(write_slowly())
    await has_read.wait()
    fast = asyncio.create_task(bump_latest_version(store))
    await asyncio.sleep(0)
    may_write.set()
    outcome, _ = await asyncio.gather(slow, fast, return_exceptions=True)
    async with store.read() as work:
        model = await work.models.get(SOLAR)
    assert model.latest_version == 1
    if outcome is None:
        assert (model.description, model.revision) == ("slow", 2)
    else:
        assert isinstance(outcome, StaleWriteError)
        assert (model.description, model.revision) == ("", 1)


async def test_a_decision_from_rows_that_another_writer_adds_to_is_not_made_twice(store: Store) -> None:
    """Both see no model and would add the first; only one of them may."""

    async def add_if_none(model_id: str) -> None:
        async with store.write() as work:
            if not await work.models.list(after=None, limit=1):
                await asyncio.sleep(0)
                await work.models.add(make_model(id=model_id))

    outcomes = await asyncio.gather(*(add_if_none(f"m-{n}") for n in range(4)), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, StaleWriteError) for outcome in outcomes)
    async with store.read() as work:
        assert len(await work.models.list(after=None, limit=10)) == 1


async def test_a_cancelled_writer_leaves_nothing_and_lets_the_next_one_in(store: Store) -> None:
    has_written = asyncio.Event()

    async def write_for_ever() -> None:
        async with store.write() as work:
            await work.models.add(make_model())
            has_written.set()
            await asyncio.Event().wait()

    writer = asyncio.create_task(write_for_ever())
    await has_written.wait()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    async with store.write() as work:
        assert await work.models.find(SOLAR) is None
        await work.models.add(make_model())
