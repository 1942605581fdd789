"""Sync streams against a whole store in memory, in the test's own time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from controlplane import limits
from controlplane.app.convergence import Convergence
from controlplane.app.desired import DesiredStates
from controlplane.app.fleet import Fleet, SyncAnswer, SyncMessage
from controlplane.app.notices import Notices
from controlplane.app.observations import Observations
from controlplane.app.revocations import Revocations
from controlplane.app.telling import Telling
from controlplane.domain.errors import CredentialError, FieldInvalidError, ForbiddenError, Reason, StorageError
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import ObservedState, SlotState
from controlplane.domain.lease import Lease
from tests.support.factories import (
    NOW,
    SOLAR,
    ST_1,
    make_agent,
    make_certificate,
    make_deployment,
    make_desired,
    make_desired_slot,
    make_device,
    make_host,
    make_model,
    make_observation,
    make_observed_slot,
    make_version,
)
from tests.support.memory_store import MemoryStore, MemoryUnitOfWork
from tests.support.virtual_time import VirtualClock


class WatchedStore(MemoryStore):
    """Counts transactions, and refuses to write while `full`."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.writes = 0
        self.full = False
        self.written = asyncio.Event()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[MemoryUnitOfWork]:
        self.reads += 1
        # Like a database, it lets others run first.
        await asyncio.sleep(0)
        async with super().read() as work:
            yield work

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[MemoryUnitOfWork]:
        if self.full:
            raise StorageError("no space", reason=Reason.STORAGE_FULL)
        self.writes += 1
        async with super().write(lease=lease) as work:
            yield work
        self.written.set()


@dataclass
class Line:
    """One agent's stream: `say` and `hear`."""

    fleet: Fleet
    agent_id: AgentId = ST_1
    certificate_expire_seconds: float = 1000.0
    spoken: asyncio.Queue[SyncMessage | Exception | None] = field(default_factory=asyncio.Queue)

    def __post_init__(self) -> None:
        expire_time = NOW + timedelta(seconds=self.certificate_expire_seconds)
        certificate = make_certificate(agent_id=self.agent_id, expire_time=expire_time)
        self.answers = self.fleet.sync(certificate, self._messages(), lambda message: message)

    def say(self, generation: int = 0, **changes: object) -> None:
        observed = ObservedState(generation=generation, **changes)  # type: ignore[arg-type]
        self.spoken.put_nowait(SyncMessage(observed=observed))

    async def hear(self) -> SyncAnswer:
        async with asyncio.timeout(5):
            return await anext(self.answers)

    async def _messages(self) -> AsyncIterator[SyncMessage]:
        while (spoken := await self.spoken.get()) is not None:
            if isinstance(spoken, Exception):
                raise spoken
            yield spoken


@dataclass
class World:
    """The use case with everything around it."""

    store: WatchedStore = field(default_factory=WatchedStore)
    clock: VirtualClock = field(default_factory=VirtualClock)
    notices: Notices = field(default_factory=Notices)
    telling: Telling = field(default_factory=Telling)

    def __post_init__(self) -> None:
        self.convergence = Convergence(store=self.store, notifier=self.notices)
        self.observations = Observations(store=self.store, convergence=self.convergence)
        self.revocations = Revocations(store=self.store, clock=self.clock)
        self.desired_states = DesiredStates(store=self.store)
        self.fleet = Fleet(
            clock=self.clock,
            notices=self.notices,
            observations=self.observations,
            desired_states=self.desired_states,
            revocations=self.revocations,
            telling=self.telling,
        )

    async def desire(self, generation: int) -> None:
        async with self.store.write() as work:
            slots = (make_desired_slot(offer=generation),)
            await work.desired.save([make_desired(generation=generation, slots=slots)])
        self.notices.desired_changed([ST_1])


@pytest.fixture
async def world() -> World:
    world = World()
    async with world.store.write() as work:
        await work.models.add(make_model())
        await work.models.add_version(make_version())
        await work.agents.add(make_agent())
    return world


@pytest.fixture
async def line(world: World) -> AsyncIterator[Line]:
    line = Line(world.fleet)
    yield line
    await line.answers.aclose()


async def test_an_agent_that_never_had_a_desired_state_is_answered_without_one(line: Line) -> None:
    line.say()
    answer = await line.hear()
    assert (answer.desired, answer.generation, answer.controller_time) == (None, 0, NOW)


async def test_an_agent_that_is_behind_gets_the_whole_state_with_its_versions(world: World, line: Line) -> None:
    await world.desire(3)
    line.say(generation=2)
    answer = await line.hear()
    assert answer.desired is not None
    assert (answer.generation, answer.desired.desired.generation) == (3, 3)
    assert answer.desired.versions[SOLAR, 1] == make_version(number=1)


async def test_an_agent_that_is_up_to_date_is_answered_without_the_state(world: World, line: Line) -> None:
    await world.desire(3)
    line.say(generation=3)
    first = await line.hear()
    assert first.desired is not None, "the generation may be another store's"
    line.say(generation=3)
    answer = await line.hear()
    assert (answer.desired, answer.generation) == (None, 3)


async def test_an_agent_that_is_ahead_of_a_restored_store_is_told_what_holds(world: World, line: Line) -> None:
    await world.desire(2)
    for _ in range(2):
        line.say(generation=9)
        answer = await line.hear()
        assert answer.desired is not None
        assert answer.generation == 2


async def test_a_lost_answer_is_made_good_by_the_next(world: World, line: Line) -> None:
    await world.desire(3)
    for _ in range(2):
        line.say(generation=2)
        assert (await line.hear()).desired is not None


async def test_what_was_refused_is_told_again_only_when_it_changes_or_on_a_new_stream(world: World, line: Line) -> None:
    await world.desire(3)
    line.say(generation=2)
    assert (await line.hear()).desired is not None
    refusal = {"nack_message": "no room", "nack_generation": 3}
    for _ in range(3):
        line.say(generation=2, **refusal)
        answer = await line.hear()
        assert (answer.desired, answer.generation) == (None, 3)
    again = Line(world.fleet)
    again.say(generation=2, **refusal)
    assert (await again.hear()).desired is not None
    await again.answers.aclose()
    await world.desire(4)
    told = (await line.hear()).desired
    assert told is not None
    assert told.desired.generation == 4


async def test_a_change_is_pushed_once_without_being_asked_for(world: World, line: Line) -> None:
    line.say()
    await line.hear()
    await world.desire(1)
    pushed = await line.hear()
    assert pushed.generation == 1
    assert pushed.desired is not None
    world.notices.desired_changed([ST_1])
    line.say(generation=1)
    assert (await line.hear()).desired is None


async def test_a_change_whose_notice_was_lost_is_found_in_time(world: World, line: Line) -> None:
    line.say()
    await line.hear()
    async with world.store.write() as work:
        await work.desired.save([make_desired(generation=1)])
    line.say()
    assert (await line.hear()).generation == 0
    world.clock.advance(limits.DESIRED_AGE_SECONDS)
    line.say()
    assert (await line.hear()).generation == 1


async def test_a_silent_stream_looks_for_itself(world: World, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DESIRED_AGE_SECONDS", 0.01)
    line.say()
    await line.hear()
    async with world.store.write() as work:
        await work.desired.save([make_desired(generation=1)])
    world.clock.advance(1)
    assert (await line.hear()).generation == 1


async def test_reports_that_all_are_urgent_share_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OBSERVATION_FLUSH_SECONDS", 1000.0)
    monkeypatch.setattr(limits, "OBSERVATION_ROWS_MAX", 50)
    agents = [AgentId(f"agent-{number}") for number in range(51)]
    async with world.store.write() as work:
        for agent_id in agents:
            await work.agents.add(make_agent(id=agent_id, uid=f"uid-{agent_id}"))
    writer = asyncio.create_task(world.observations.run())
    writes = world.store.writes
    for agent_id in agents:
        world.store.written.clear()
        world.observations.put(make_observation(agent_id=agent_id, host=None, devices=None), urgent=True)
        if agent_id in (agents[0], agents[-1]):
            async with asyncio.timeout(5):
                await world.store.written.wait()
        else:
            await asyncio.sleep(0)
    assert world.store.writes - writes == 2
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_heartbeats_cost_no_transaction_each(world: World, line: Line) -> None:
    await world.desire(1)
    line.say(generation=1)
    await line.hear()
    reads, writes = world.store.reads, world.store.writes
    for _ in range(100):
        line.say(generation=1)
        await line.hear()
    await world.observations.flush()
    assert (world.store.reads - reads, world.store.writes - writes) == (0, 1)


async def test_a_revoked_agent_is_refused_at_once(world: World, line: Line) -> None:
    line.say()
    await line.hear()
    world.revocations.add(ST_1)
    world.notices.agent_revoked(ST_1)
    with pytest.raises(ForbiddenError) as refusal:
        await line.hear()
    assert refusal.value.reason is Reason.AGENT_REVOKED


async def test_a_revocation_by_another_process_is_seen_within_its_bound(world: World, line: Line) -> None:
    line.say()
    await line.hear()
    async with world.store.write() as work:
        await work.agents.save(make_agent(revoked=True))
    world.clock.advance(limits.REVOCATION_AGE_SECONDS)
    line.say()
    with pytest.raises(ForbiddenError):
        await line.hear()


async def test_an_expired_certificate_ends_a_live_stream(world: World) -> None:
    line = Line(world.fleet, certificate_expire_seconds=10)
    line.say()
    await line.hear()
    world.clock.advance(10)
    line.say()
    with pytest.raises(CredentialError) as refusal:
        await line.hear()
    assert refusal.value.reason is Reason.CERTIFICATE_INVALID


async def test_the_end_of_the_messages_ends_the_answers(line: Line) -> None:
    line.say()
    await line.hear()
    line.spoken.put_nowait(None)
    with pytest.raises(StopAsyncIteration):
        await line.hear()


async def test_a_message_that_is_none_is_refused(line: Line) -> None:
    line.spoken.put_nowait(FieldInvalidError("a slot is named twice", field="observed_state.slots"))
    with pytest.raises(FieldInvalidError):
        await line.hear()


async def test_a_closed_stream_leaves_no_task_and_no_watcher(world: World, line: Line) -> None:
    before = len(asyncio.all_tasks())
    line.say()
    await line.hear()
    assert len(asyncio.all_tasks()) > before
    await line.answers.aclose()
    assert len(asyncio.all_tasks()) == before


async def test_only_the_latest_report_is_written_and_the_box_is_kept(world: World) -> None:
    host, devices = make_host(), (make_device(),)
    world.observations.put(make_observation(host=host, devices=devices), urgent=False)
    newest = ObservedState(generation=9, nack_message="no room")
    world.observations.put(make_observation(observed=newest, host=None, devices=None), urgent=False)
    await world.observations.flush()
    async with world.store.read() as work:
        stored = (await work.agents.get(ST_1)).observation
    assert stored is not None
    assert (stored.observed, stored.host, stored.devices) == (newest, host, devices)


async def test_reports_are_kept_while_the_store_cannot_take_them(world: World) -> None:
    world.store.full = True
    world.observations.put(make_observation(observed=ObservedState(generation=1)), urgent=False)
    with pytest.raises(StorageError):
        await world.observations.flush()
    world.observations.put(make_observation(observed=ObservedState(generation=2), host=None), urgent=False)
    world.store.full = False
    await world.observations.flush()
    async with world.store.read() as work:
        stored = (await work.agents.get(ST_1)).observation
    assert stored is not None
    assert stored.observed.generation == 2
    assert stored.host is not None


async def test_the_writer_writes_at_once_what_somebody_waits_for(world: World) -> None:
    running = asyncio.create_task(world.observations.run())
    await asyncio.sleep(0)
    world.store.written.clear()
    began = asyncio.get_running_loop().time()
    world.observations.put(make_observation(), urgent=True)
    await world.store.written.wait()
    assert asyncio.get_running_loop().time() - began < limits.OBSERVATION_FLUSH_SECONDS
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_writer_survives_a_full_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OBSERVATION_RETRY_SECONDS", 0.0)
    running = asyncio.create_task(world.observations.run())
    world.store.full = True
    world.observations.put(make_observation(), urgent=True)
    for _ in range(5):
        await asyncio.sleep(0)
    world.store.full = False
    world.store.written.clear()
    slot = make_observed_slot(state=SlotState.FAILED)
    world.observations.put(make_observation(observed=ObservedState(slots=(slot,))), urgent=True)
    async with asyncio.timeout(5):
        await world.store.written.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with world.store.read() as work:
        stored = (await work.agents.get(ST_1)).observation
    assert stored is not None
    assert stored.observed.slots == (slot,)


async def test_what_waits_is_written_when_the_writer_is_stopped(world: World) -> None:
    running = asyncio.create_task(world.observations.run())
    await asyncio.sleep(0)
    world.observations.put(make_observation(), urgent=False)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with world.store.read() as work:
        assert (await work.agents.get(ST_1)).observation is not None


async def test_an_agents_first_report_of_its_devices_may_make_a_deployment_hold_it(world: World, line: Line) -> None:
    async with world.store.write() as work:
        await work.deployments.add(make_deployment(selector="device.cpu", version=1))
    await world.convergence.run()
    line.spoken.put_nowait(SyncMessage(observed=ObservedState(), host=make_host(), devices=(make_device(),)))
    assert (await line.hear()).desired is None
    await world.observations.flush()
    pushed = await line.hear()
    assert pushed.desired is not None
    assert [slot.slot for slot in pushed.desired.desired.slots] == [SOLAR]


async def test_a_broadcast_costs_a_handful_of_reads(world: World) -> None:
    agents = [AgentId(f"agent-{number}") for number in range(200)]
    async with world.store.write() as work:
        for agent_id in agents:
            await work.agents.add(make_agent(id=agent_id, uid=f"uid-{agent_id}"))
        await work.desired.save([make_desired(agent_id=agent_id, generation=1) for agent_id in agents])
    reads = world.store.reads
    found = await asyncio.gather(*map(world.desired_states.find, agents))
    assert [state.agent_id for state in found if state] == agents
    assert world.store.reads - reads <= 2


async def test_a_read_begins_after_its_caller_asked(world: World) -> None:
    early = asyncio.create_task(world.desired_states.find(ST_1))
    await asyncio.sleep(0)
    await world.desire(1)
    late = await world.desired_states.find(ST_1)
    assert late is not None
    assert late.generation == 1
    await early


@pytest.fixture
async def lines(world: World) -> AsyncIterator[list[Line]]:
    """Three agents that were answered once."""
    lines = [Line(world.fleet, agent_id=AgentId(f"st-{number}")) for number in (1, 2, 3)]
    for line in lines:
        line.say()
        await line.hear()
    yield lines
    for line in lines:
        await line.answers.aclose()


@pytest.fixture
async def report(world: World, lines: list[Line], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[None]]:
    """That of the third, which comes while two streams have a change to tell that nobody fetches."""
    monkeypatch.setattr(limits, "TELLING_STREAMS_MIN", 2)
    monkeypatch.setattr(limits, "TELLING_SECONDS_MAX", 1.0)
    world.notices.desired_changed([ST_1, AgentId("st-2")])
    lines[2].say(generation=7)
    report = asyncio.create_task(take(lines[2]))
    yield report
    report.cancel()


async def take(line: Line) -> None:
    await line.hear()


async def go_on(line: Line, following: asyncio.TaskGroup) -> None:
    """What a server does: it asks for the next answer as soon as it has sent one."""
    following.create_task(take(line))
    for _ in range(50):
        await asyncio.sleep(0)


async def test_what_agents_report_waits_until_a_change_is_told(
    world: World, lines: list[Line], report: asyncio.Task[None]
) -> None:
    taken = world.fleet.messages
    async with asyncio.timeout(limits.TELLING_SECONDS_MAX / 2), asyncio.TaskGroup() as following:
        await go_on(lines[0], following)
        assert (report.done(), world.fleet.messages) == (False, taken), "the second has told nothing yet"
        await go_on(lines[1], following)
        await report
        assert world.fleet.messages == taken + 1
        for line in lines[:2]:
            line.spoken.put_nowait(SyncMessage(observed=ObservedState()))


async def test_many_that_are_told_together_are_asked_to_spread_what_they_report(
    world: World, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TELLING_STREAMS_MIN", 2)
    monkeypatch.setattr(limits, "TOLD_REPORTS_PER_SECOND", 4)
    agents = [line.agent_id for line in lines]
    async with world.store.write() as work:
        slots = (make_desired_slot(),)
        await work.desired.save([make_desired(agent_id=agent, generation=1, slots=slots) for agent in agents])
    world.notices.desired_changed(agents[:1])
    alone = await lines[0].hear()
    lines[0].say(generation=1)
    assert (await lines[0].hear()).desired is None
    world.notices.desired_changed(agents[1:])
    together = await lines[1].hear()
    assert alone.desired is not None
    assert together.desired is not None
    assert (alone.report_jitter_seconds, together.report_jitter_seconds) == (0.0, 2 / 4)


async def test_a_stream_that_ends_holds_up_no_report(
    world: World, lines: list[Line], report: asyncio.Task[None]
) -> None:
    taken = world.fleet.messages
    for line in lines[:2]:
        assert not report.done()
        await line.answers.aclose()
    async with asyncio.timeout(limits.TELLING_SECONDS_MAX / 2):
        await report
    assert world.fleet.messages == taken + 1


async def test_a_stream_that_stalls_holds_up_reports_for_a_moment_only(
    lines: list[Line], report: asyncio.Task[None]
) -> None:
    begin = asyncio.get_running_loop().time()
    async with asyncio.timeout(limits.TELLING_SECONDS_MAX + 5):
        await report
    assert asyncio.get_running_loop().time() - begin >= limits.TELLING_SECONDS_MAX * 0.9


async def test_a_few_that_are_told_hold_up_no_report(world: World, lines: list[Line]) -> None:
    world.notices.desired_changed([ST_1, AgentId("st-2")])
    lines[2].say(generation=7)
    async with asyncio.timeout(limits.TELLING_SECONDS_MAX / 2):
        await lines[2].hear()
