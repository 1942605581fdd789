"""What LeaseRepository and a fenced write promise."""

import asyncio

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import LeaseLostError, StaleWriteError
from controlplane.domain.lease import Lease
from tests.support.factories import SOLAR, make_model

LONG = 60.0
PAST = -1.0
"""A lease of so many seconds has run out before anybody looks."""


async def acquire(store: Store, holder: str, *, ttl_seconds: float = LONG) -> Lease | None:
    async with store.write() as work:
        return await work.leases.acquire("rollouts", holder=holder, ttl_seconds=ttl_seconds)


async def held(store: Store, holder: str, *, ttl_seconds: float = LONG) -> Lease:
    lease = await acquire(store, holder, ttl_seconds=ttl_seconds)
    assert lease is not None
    return lease


async def release(store: Store, lease: Lease) -> None:
    async with store.write() as work:
        await work.leases.release(lease)


async def add_model(store: Store, lease: Lease) -> None:
    async with store.write(lease=lease) as work:
        await work.models.add(make_model())


async def has_model(store: Store) -> bool:
    async with store.read() as work:
        return await work.models.find(SOLAR) is not None


async def test_a_free_lease_is_taken_with_the_first_epoch(store: Store) -> None:
    async with store.read() as work:
        assert await work.leases.find("rollouts") is None
    lease = await held(store, "a")
    assert (lease.name, lease.holder, lease.epoch) == ("rollouts", "a", 1)
    async with store.read() as work:
        assert await work.leases.find("rollouts") == lease


async def test_nobody_else_takes_a_lease_that_is_held(store: Store) -> None:
    lease = await held(store, "a")
    assert await acquire(store, "b") is None
    async with store.read() as work:
        assert await work.leases.find("rollouts") == lease


async def test_a_renewal_keeps_the_epoch_and_moves_the_end(store: Store) -> None:
    first = await held(store, "a")
    renewed = await held(store, "a", ttl_seconds=2 * LONG)
    assert renewed.epoch == first.epoch
    assert renewed.expire_time > first.expire_time


@pytest.mark.parametrize("next_holder", ["a", "b"])
async def test_whoever_takes_a_lease_that_ran_out_has_the_next_epoch(store: Store, next_holder: str) -> None:
    await held(store, "a", ttl_seconds=PAST)
    assert (await held(store, next_holder)).epoch == 2


async def test_a_released_lease_is_free_at_once(store: Store) -> None:
    await release(store, await held(store, "a"))
    second = await held(store, "b")
    assert (second.holder, second.epoch) == ("b", 2)


async def test_a_release_by_a_former_holder_changes_nothing(store: Store) -> None:
    former = await held(store, "a", ttl_seconds=PAST)
    second = await held(store, "b")
    await release(store, former)
    async with store.read() as work:
        assert await work.leases.find("rollouts") == second


async def test_leases_of_different_names_do_not_meet(store: Store) -> None:
    await held(store, "a")
    async with store.write() as work:
        other = await work.leases.acquire("reports", holder="b", ttl_seconds=LONG)
    assert other is not None
    assert other.epoch == 1


async def test_of_many_that_ask_at_once_one_leads(store: Store) -> None:
    outcomes = await asyncio.gather(*(acquire(store, f"c-{n}") for n in range(8)), return_exceptions=True)
    leases = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
    assert len(leases) == 1
    async with store.read() as work:
        assert await work.leases.find("rollouts") == leases[0]


async def test_the_holder_writes(store: Store) -> None:
    await add_model(store, await held(store, "a"))
    assert await has_model(store)


async def test_a_renewed_lease_writes_as_before(store: Store) -> None:
    lease = await held(store, "a")
    await held(store, "a", ttl_seconds=2 * LONG)
    await add_model(store, lease)
    assert await has_model(store)


async def test_a_lease_that_ran_out_writes_nothing(store: Store) -> None:
    lease = await held(store, "a", ttl_seconds=PAST)
    with pytest.raises(LeaseLostError):
        await add_model(store, lease)
    assert not await has_model(store)


async def test_a_former_holder_writes_nothing(store: Store) -> None:
    former = await held(store, "a")
    await release(store, former)
    await held(store, "b")
    with pytest.raises(LeaseLostError):
        await add_model(store, former)
    assert not await has_model(store)


async def test_a_holder_of_an_older_epoch_writes_nothing(store: Store) -> None:
    former = await held(store, "a", ttl_seconds=PAST)
    await held(store, "a")
    with pytest.raises(LeaseLostError):
        await add_model(store, former)
    assert not await has_model(store)


async def test_a_lease_that_is_taken_in_mid_transaction_writes_nothing_or_is_taken_after_it(store: Store) -> None:
    """A database with one writer has the next holder wait; the other refuses the writer at its end."""
    lease = await held(store, "a")
    has_written, may_end = asyncio.Event(), asyncio.Event()

    async def write_slowly() -> None:
        async with store.write(lease=lease) as work:
            await work.models.add(make_model())
            has_written.set()
            await may_end.wait()

    async def take_over() -> None:
        await release(store, lease)
        await held(store, "b")

    writer = asyncio.create_task(write_slowly())
    await has_written.wait()
    taker = asyncio.create_task(take_over())
    done, _ = await asyncio.wait({taker}, timeout=1.0)
    may_end.set()
    outcome, _ = await asyncio.gather(writer, taker, return_exceptions=True)
    if done:
        assert isinstance(outcome, LeaseLostError)
        assert not await has_model(store)
    else:
        assert outcome is None
        assert await has_model(store)


async def test_a_lease_that_is_renewed_in_mid_transaction_is_not_lost(store: Store) -> None:
    """The writer commits, or has to try again; it is never told that another leads."""
    lease = await held(store, "a")
    has_written, may_end = asyncio.Event(), asyncio.Event()

    async def write_slowly() -> None:
        async with store.write(lease=lease) as work:
            await work.models.add(make_model())
            has_written.set()
            await may_end.wait()

    writer = asyncio.create_task(write_slowly())
    await has_written.wait()
    renewal = asyncio.create_task(held(store, "a"))
    await asyncio.wait({renewal}, timeout=1.0)
    may_end.set()
    outcome, _ = await asyncio.gather(writer, renewal, return_exceptions=True)
    assert outcome is None or isinstance(outcome, StaleWriteError)
    assert await has_model(store) == (outcome is None)


async def test_a_fenced_block_that_raises_keeps_its_own_reason(store: Store) -> None:
    lease = await held(store, "a")

    async def write_and_fail() -> None:
        async with store.write(lease=lease) as work:
            await work.models.add(make_model())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert not await has_model(store)
    await add_model(store, lease)
