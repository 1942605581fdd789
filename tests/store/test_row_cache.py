"""Reads of the fleet through the cache equal reads without it, whoever wrote, and whether it was committed."""

import asyncio
import contextlib
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controlplane.app.ports import UnitOfWork
from controlplane.domain.assignment import DesiredState
from controlplane.domain.ids import AgentId
from controlplane.domain.rollout import RolloutState
from controlplane.store import SqlStore, open_store
from tests.support.factories import (
    SOLAR,
    WELD,
    after_seconds,
    make_agent,
    make_certificate,
    make_desired_slot,
    make_device,
    make_host,
    make_observation,
    make_observed_slot,
    make_rollout,
)

AGENTS = tuple(AgentId(f"st-{number}") for number in range(6))


class TakenBackError(Exception):
    """Takes a transaction back."""


class Writer:
    """Random changes of the fleet. What a change holds never repeats, and times hardly move."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = 0

    async def write(self, store: SqlStore) -> None:
        """A few changes in one transaction, which every third time is taken back after reading what it did."""
        try:
            async with store.write() as uow:
                for _ in range(self._rng.randint(1, 4)):
                    await self._change(uow)
                if self._rng.random() < 0.5:
                    await seen(uow)
                if self._rng.random() < 0.33:
                    raise TakenBackError
        except TakenBackError:
            pass

    async def _change(self, uow: UnitOfWork) -> None:
        self._number += 1
        agent_id = self._rng.choice(AGENTS)
        if await uow.agents.find(agent_id) is None:
            await uow.agents.add(make_agent(id=agent_id))
        what = self._rng.choice((self._observe, self._relabel, self._certify, self._desire, self._roll_out))
        await what(uow, agent_id)

    async def _observe(self, uow: UnitOfWork, agent_id: AgentId) -> None:
        facts = {"host": make_host(hostname=f"box-{self._number}"), "devices": (make_device(),)}
        observed = replace(
            make_observation().observed, slots=(make_observed_slot(downloaded_bytes=self._number),), generation=1
        )
        fields: dict[str, Any] = {"agent_id": agent_id, "observed": observed, "host": None, "devices": None}
        fields["receive_time"] = after_seconds(self._rng.randint(0, 1))
        await uow.agents.record([make_observation(**fields | (facts if self._rng.random() < 0.5 else {}))])

    async def _relabel(self, uow: UnitOfWork, agent_id: AgentId) -> None:
        agent = (await uow.agents.get(agent_id)).agent
        await uow.agents.save(replace(agent, labels={"number": str(self._number)}))

    async def _certify(self, uow: UnitOfWork, agent_id: AgentId) -> None:
        certificate = make_certificate(
            agent_id=agent_id, serial=f"{self._number:x}", expire_time=after_seconds(self._number)
        )
        if await uow.certificates.find(certificate.serial) is None:
            await uow.certificates.add(certificate)

    async def _roll_out(self, uow: UnitOfWork, agent_id: AgentId) -> None:
        """Start, carry on or end one of this agent's and others."""
        found = await uow.rollouts.list_active()
        if found and self._rng.random() < 0.7:
            state = self._rng.choice((RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ABORTED))
            await uow.rollouts.save(replace(self._rng.choice(found), state=state, message=f"step {self._number}"))
        else:
            new = make_rollout(id=f"{agent_id}-{self._number}", uid=f"{self._number:08x}", deployment_id=agent_id)
            await uow.rollouts.add(new)

    async def _desire(self, uow: UnitOfWork, agent_id: AgentId) -> None:
        before = await uow.desired.find(agent_id)
        offers = {slot.slot: slot.offer for slot in before.slots} if before else {}
        wanted = {SOLAR: self._rng.choice((0, self._number)), WELD: self._rng.choice((0, offers.get(WELD, 1)))}
        slots = tuple(make_desired_slot(slot=model, offer=offer) for model, offer in wanted.items() if offer)
        generation = before.generation + 1 if before else 1
        await uow.desired.save([DesiredState(agent_id=agent_id, generation=generation, slots=slots)])


async def seen(uow: UnitOfWork) -> tuple[object, ...]:
    """Everything that is cached, as the transaction sees it."""
    return (
        await uow.agents.list_all(),
        await uow.desired.list_all(),
        await uow.desired.list(AGENTS[:3]),
        await uow.agents.list_of(AGENTS[2:5]),
        await uow.rollouts.list_active(),
    )


async def read(store: SqlStore) -> tuple[object, ...]:
    async with store.read() as uow:
        return await seen(uow)


async def read_anew(database_url: str) -> tuple[object, ...]:
    """As a controller that has just started."""
    store = open_store(database_url)
    try:
        return await read(store)
    finally:
        await store.close()


@pytest.mark.parametrize("seed", range(12))
async def test_a_cached_read_equals_a_full_one(database_url: str, seed: int) -> None:
    rng = random.Random(seed)
    writer, stores = Writer(rng), [open_store(database_url) for _ in range(2)]
    try:
        for _ in range(12):
            await writer.write(rng.choice(stores))
            fresh = await read_anew(database_url)
            assert [await read(store) for store in stores] == [fresh, fresh]
    finally:
        for store in stores:
            await store.close()


async def test_what_is_kept_of_a_write_has_what_another_controller_wrote_before(database_url: str) -> None:
    stores = [open_store(database_url) for _ in range(2)]
    try:
        async with stores[0].write() as uow:
            await uow.agents.add(make_agent(id=AGENTS[0]))
            await uow.agents.record([make_observation(agent_id=AGENTS[0], host=make_host(hostname="old"))])
        await read(stores[0])
        async with stores[1].write() as uow:
            await uow.agents.record([make_observation(agent_id=AGENTS[0], host=make_host(hostname="new"))])
        async with stores[0].write() as uow:
            later = make_observation(agent_id=AGENTS[0], receive_time=after_seconds(1), host=None, devices=None)
            await uow.agents.record([later])
        assert await read(stores[0]) == await read_anew(database_url)
    finally:
        for store in stores:
            await store.close()


async def test_a_reader_keeps_its_snapshot_while_others_write(database_url: str) -> None:
    store, writer = open_store(database_url), Writer(random.Random(1))
    try:
        for _ in range(5):
            async with store.read() as uow:
                before = await seen(uow)
                await writer.write(store)
                await read(store)
                assert await seen(uow) == before
            assert await read(store) == await read_anew(database_url)
    finally:
        await store.close()


async def test_a_commit_spares_the_readers_of_the_moment_before(database_url: str) -> None:
    """What was known is found by either, and nobody pushes it out for the other."""
    store = open_store(database_url)
    await store.connect()

    async def desire(generation: int) -> None:
        async with store.write() as uow:
            slots = (make_desired_slot(offer=generation),)
            states = [DesiredState(agent_id=agent, generation=generation, slots=slots) for agent in AGENTS]
            await uow.desired.save(states)

    try:
        await desire(1)
        async with store.read() as older:
            before = await older.desired.list_all()
            await desire(2)
            async with store.read() as newer:
                after = await newer.desired.list_all()
                for _ in range(2):
                    for reader, known in ((older, before), (newer, after)):
                        again = await reader.desired.list_all()
                        assert all(again[agent] is known[agent] for agent in AGENTS)
        assert {state.generation for state in before.values()} == {1}
        assert {state.generation for state in after.values()} == {2}
    finally:
        await store.close()


async def test_readers_and_writers_at_once_never_spoil_the_cache(database_url: str) -> None:
    store, writer = open_store(database_url), Writer(random.Random(2))

    async def write() -> None:
        for _ in range(10):
            await writer.write(store)

    async def look() -> None:
        for _ in range(20):
            await read(store)

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            for _ in range(3):
                tasks.create_task(look())
        assert await read(store) == await read_anew(database_url)
    finally:
        await store.close()


async def test_a_database_restored_from_a_backup_is_read_anew(sqlite_url: str, tmp_path: Path) -> None:
    path, store = Path(sqlite_url.removeprefix("sqlite:///")), open_store(sqlite_url)

    async def give(offer: int) -> None:
        async with store.write() as uow:
            slots = (make_desired_slot(offer=offer),)
            await uow.desired.save([DesiredState(agent_id=AGENTS[0], generation=offer, slots=slots)])
        await read(store)
        await store.close()

    await give(1)
    shutil.copy(path, tmp_path / "backup.db")
    await give(2)
    shutil.copy(tmp_path / "backup.db", path)
    assert await read(store) == await read_anew(sqlite_url)
    await store.close()


async def test_what_was_taken_back_is_known_to_nobody(database_url: str) -> None:
    store, other = open_store(database_url), open_store(database_url)

    async def change(uow: UnitOfWork, number: int, *, generation: int) -> None:
        slots = (make_desired_slot(offer=number),)
        await uow.desired.save([DesiredState(agent_id=AGENTS[0], generation=generation, slots=slots)])
        observed = replace(make_observation().observed, boot_count=number)
        await uow.agents.record([make_observation(agent_id=AGENTS[0], observed=observed)])

    try:
        async with store.write() as uow:
            await uow.agents.add(make_agent(id=AGENTS[0]))
            await change(uow, 1, generation=1)
        with contextlib.suppress(TakenBackError):
            async with store.write() as uow:
                await change(uow, 2, generation=2)
                await seen(uow)
                raise TakenBackError
        async with other.write() as uow:
            await change(uow, 3, generation=2)
        assert await read(store) == await read_anew(database_url)
    finally:
        await store.close()
        await other.close()
