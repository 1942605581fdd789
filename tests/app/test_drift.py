"""Drift as the use cases see it: ticks over what agents report, and what operators are shown."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.drift import DriftNews, Drifts, DriftTicks
from controlplane.app.ports import Store, UnitOfWork
from controlplane.app.ports_drift import DriftFilter
from controlplane.domain.condition import ConditionState
from controlplane.domain.drift import DriftState
from controlplane.domain.errors import DomainError, Reason, StorageError
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId
from controlplane.domain.lease import Lease
from tests.app.fleet import ANNA, LINE_3, SOLAR, Fleet
from tests.app.log import actions_of
from tests.support.contended_store import ContendedStore
from tests.support.drifting import Draw, Line, shifted, usual
from tests.support.factories import NOW, ST_1, ST_2, after_seconds, make_batch

FAR = shifted(0.3)


@dataclass
class Station:
    """A fleet of which stations report, and the use cases of drift."""

    fleet: Fleet = field(default_factory=Fleet)
    lines: dict[str, Line] = field(default_factory=dict)

    @property
    def drifts(self) -> Drifts:
        fleet = self.fleet
        return Drifts(store=fleet.store, clock=fleet.clock, ids=fleet.ids, notices=fleet.notices)

    @property
    def ticks(self) -> DriftTicks:
        fleet = self.fleet
        return DriftTicks(store=fleet.store, clock=fleet.clock, ids=fleet.ids, notifier=fleet.notices)

    async def begin(self, *agents: str) -> None:
        await self.fleet.publish(1, 2)
        await self.fleet.enrol(*agents)
        await self.fleet.deploy()
        for seed, agent in enumerate(agents):
            self.lines[agent] = Line(seed=seed, agent_id=agent)

    async def report(self, windows: Sequence[MetricWindow]) -> None:
        """As `Evidence` stores a batch."""
        async with self.fleet.store.write() as work:
            for window in windows:
                batch = make_batch(agent_id=window.agent_id, batch=window.batch, windows=(window,), results=())
                if await work.evidence.add(batch):
                    await work.drifts.note(window.agent_id, window.batch)

    async def see(self, agent: str, draw: Draw = usual, *, windows: int = 30, **overrides: Any) -> None:
        await self.report(self.lines[agent].windows(windows, draw, **overrides))
        await self.ticks.tick(self.fleet.clock.now())

    async def states(self) -> dict[str, DriftState]:
        page = await self.drifts.list(DriftFilter(), page_size=0, page_token="")
        return {f"{one.drift.agent_id}@{one.drift.version}": one.drift.state for one in page.items}


async def make_station(*agents: str) -> Station:
    station = Station()
    await station.begin(*(agents or ("st-1",)))
    return station


async def test_a_drift_begins_and_ends_with_an_event_each() -> None:
    station = await make_station()
    await station.see("st-1")
    assert await station.states() == {"st-1@1": DriftState.STEADY}
    await station.see("st-1", FAR, windows=10)
    assert await station.states() == {"st-1@1": DriftState.DRIFTED}
    assert [one.agent_id for one in await station.drifts.flagged(SOLAR)] == ["st-1"]
    await station.see("st-1", FAR, windows=10)
    await station.see("st-1", windows=20)
    assert await station.states() == {"st-1@1": DriftState.STEADY}
    assert await station.drifts.flagged(SOLAR) == []
    logged = await actions_of(station.fleet.store, "models/solar/versions/1")
    assert logged == [("rules/drift", "drift.begin"), ("rules/drift", "drift.end")]
    assert await actions_of(station.fleet.store, "agents/st-1") == logged


async def test_only_the_station_that_sees_something_else_is_flagged() -> None:
    station = await make_station("st-1", "st-2")
    for agent in ("st-1", "st-2"):
        await station.see(agent)
    await station.see("st-2", FAR, windows=10)
    await station.see("st-1", windows=10)
    assert await station.states() == {"st-1@1": DriftState.STEADY, "st-2@1": DriftState.DRIFTED}


async def test_a_tick_that_finds_nothing_new_writes_nothing() -> None:
    station = await make_station()
    await station.see("st-1")
    store = ContendedStore(station.fleet.store, losses=1)
    before = (await station.drifts.get(ST_1, SOLAR, None)).drift
    ticks = replace(station, fleet=replace(station.fleet, store=store)).ticks
    await ticks.tick(NOW)
    assert (await station.drifts.get(ST_1, SOLAR, None)).drift == before
    assert store.losses == 1, "no write was tried"


async def test_a_batch_that_comes_twice_is_looked_at_once() -> None:
    station = await make_station()
    windows = station.lines["st-1"].windows(30)
    for _ in range(3):
        await station.report(windows)
        await station.ticks.tick(NOW)
    assert (await station.drifts.get(ST_1, SOLAR, None)).drift.inference_count == 1500


async def test_a_tick_that_is_cut_short_is_made_good_by_the_next() -> None:
    station = await make_station()
    await station.report(station.lines["st-1"].windows(30))
    failing = replace(station, fleet=replace(station.fleet, store=FailingStore(station.fleet.store)))
    with pytest.raises(StorageError):
        await failing.ticks.tick(NOW)
    assert await station.states() == {}
    await station.ticks.tick(NOW)
    assert (await station.drifts.get(ST_1, SOLAR, None)).drift.inference_count == 1500


class FailingStore:
    """Writes fail when they are to commit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._store.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        async with self._store.write(lease=lease) as work:
            yield work
            raise StorageError("the disk is full", remedy="free some")


async def test_a_lost_race_is_decided_again() -> None:
    station = await make_station()
    await station.report(station.lines["st-1"].windows(30))
    store = ContendedStore(station.fleet.store, losses=2)
    await replace(station, fleet=replace(station.fleet, store=store)).ticks.tick(NOW)
    assert (await station.drifts.get(ST_1, SOLAR, None)).drift.inference_count == 1500


async def test_what_is_too_much_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRIFT_BATCHES_A_TICK_MAX", 5)
    monkeypatch.setattr(limits, "DRIFT_BACKLOG_MAX", 10)
    station = await make_station()
    await station.see("st-1", windows=40)
    for _ in range(4):
        await station.ticks.tick(NOW)
    assert (await station.drifts.get(ST_1, SOLAR, None)).drift.inference_count == 50 * (5 + 10)


async def test_a_new_version_ends_the_drift_of_the_one_before() -> None:
    station = await make_station()
    await station.see("st-1")
    await station.see("st-1", FAR, windows=10)
    await station.see("st-1", FAR, version=2)
    assert await station.drifts.flagged(SOLAR) == []
    assert await station.states() == {"st-1@1": DriftState.STEADY, "st-1@2": DriftState.STEADY}
    serving = await station.drifts.list(DriftFilter(serving=True), page_size=0, page_token="")
    assert [one.drift.version for one in serving.items] == [2]
    assert (await station.drifts.get(ST_1, SOLAR, None)).drift.version == 2
    assert (await station.drifts.get(ST_1, SOLAR, 1)).drift.serving is False


async def test_an_agent_that_is_revoked_or_serves_something_else_is_not_flagged() -> None:
    station = await make_station("st-1", "st-2", "st-3")
    for agent in station.lines:
        await station.see(agent)
        await station.see(agent, FAR, windows=10)
    await station.fleet.sync("st-1", "st-2", "st-3")
    assert [one.agent_id for one in await station.drifts.flagged(SOLAR)] == ["st-1", "st-2", "st-3"]
    await station.fleet.revoke("st-1")
    await station.fleet.deployments.delete(LINE_3, actor=ANNA)
    await station.fleet.sync("st-2")
    assert [one.agent_id for one in await station.drifts.flagged(SOLAR)] == ["st-3"]


async def test_a_deployment_says_which_of_its_agents_have_drifted() -> None:
    station = await make_station("st-1", "st-2")

    async def condition() -> tuple[ConditionState, str] | None:
        await station.fleet.convergence.round(NOW)
        async with station.fleet.store.read() as work:
            conditions = (await work.deployments.get(LINE_3)).conditions
        found = next((one for one in conditions if one.type == "InputsDrifted"), None)
        return None if found is None else (found.state, found.message)

    await station.see("st-1")
    assert await condition() is None
    await station.see("st-1", FAR, windows=10)
    found = await condition()
    assert found is not None
    assert (found[0], "1 of 2 agents" in found[1], "st-1" in found[1]) == (ConditionState.TRUE, True, True)
    await station.see("st-1", FAR, version=2)
    found = await condition()
    assert found is not None
    assert found[0] is ConditionState.FALSE


async def test_what_is_seen_now_can_be_made_the_reference() -> None:
    station = await make_station()
    await station.see("st-1")
    await station.see("st-1", FAR, windows=10)
    shown = await station.drifts.relearn(ST_1, SOLAR, None, reason=" a new lamp ", actor=ANNA)
    assert shown.drift.state is DriftState.LEARNING
    await station.see("st-1", FAR)
    assert await station.states() == {"st-1@1": DriftState.STEADY}
    logged = await actions_of(station.fleet.store, "agents/st-1")
    assert logged == [("rules/drift", "drift.begin"), (ANNA, "drift.relearn")]


@pytest.mark.parametrize(
    ("agent", "version", "reason", "refused"),
    [
        (ST_2, None, "lamp", (Reason.RESOURCE_NOT_FOUND, "name")),
        (ST_1, 9, "lamp", (Reason.RESOURCE_NOT_FOUND, "name")),
        (ST_1, None, " ", (Reason.FIELD_INVALID, "reason")),
    ],
)
async def test_what_cannot_be_learned_anew_is_refused(
    agent: AgentId, version: int | None, reason: str, refused: tuple[Reason, str]
) -> None:
    station = await make_station()
    await station.see("st-1")
    with pytest.raises(DomainError) as raised:
        await station.drifts.relearn(agent, SOLAR, version, reason=reason, actor=ANNA)
    assert (raised.value.reason, raised.value.field) == refused


async def test_the_history_shows_when_it_began() -> None:
    station = await make_station()
    await station.see("st-1", windows=50)
    await station.see("st-1", FAR, windows=50)
    history = await station.drifts.history(
        ST_1, SOLAR, start_time=after_seconds(0), end_time=after_seconds(220), points=10
    )
    moved = [point.distances["sharpness"] > 0.5 for point in history.points]
    assert moved == sorted(moved)
    assert (moved[0], moved[-1], len(moved)) == (False, True, 10)
    assert sum(point.inferences for point in history.points) == 5000
    assert {point.version for point in history.points} == {1}
    with pytest.raises(DomainError, match="ends before it starts"):
        await station.drifts.history(ST_1, SOLAR, start_time=NOW, end_time=NOW, points=0)


async def test_a_history_of_too_many_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRIFT_HISTORY_WINDOWS_MAX", 9)
    station = await make_station()
    await station.see("st-1", windows=10)
    with pytest.raises(DomainError, match="more than 9 windows"):
        await station.drifts.history(ST_1, SOLAR, start_time=NOW, end_time=after_seconds(1e4), points=0)


async def test_a_watch_tells_what_has_drifted_and_then_each_change() -> None:
    station = await make_station("st-1", "st-2")
    for agent in station.lines:
        await station.see(agent)
    await station.see("st-1", FAR, windows=10)
    heard: asyncio.Queue[DriftNews] = asyncio.Queue()

    async def follow() -> None:
        async for news in station.drifts.watch(SOLAR):
            heard.put_nowait(news)

    async with asyncio.timeout(5):
        following = asyncio.create_task(follow())
        first = await heard.get()
        assert [one.drift.agent_id for one in first.drifts] == ["st-1"]
        await station.see("st-2", FAR, windows=10)
        second = await heard.get()
        assert [one.drift.agent_id for one in second.drifts] == ["st-2"]
        assert second.drifts[0].labels == {"line": "3"}
        assert [one.happening.action for one in second.events] == ["drift.begin"]
        await station.see("st-1", FAR, version=2, windows=2)
        third = await heard.get()
        assert (third.drifts, [one.happening.reason for one in third.events]) == ([], ["VERSION_REPLACED"])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
