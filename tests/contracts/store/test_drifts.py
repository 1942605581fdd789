"""What DriftRepository promises."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from controlplane.app.drift import POLICY
from controlplane.app.ports import Store
from controlplane.app.ports_drift import DriftFilter, DriftKey
from controlplane.domain.drift import Drift, DriftState, begin, take
from controlplane.domain.errors import StaleWriteError
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId
from tests.support.drifting import Line, shifted
from tests.support.factories import NOW, SOLAR, ST_1, ST_2, WELD, after_seconds, make_batch, make_window


def make_drift(**overrides: Any) -> Drift:
    fields: dict[str, Any] = {
        "agent_id": ST_1,
        "model_id": SOLAR,
        "version": 1,
        "transition_time": NOW,
        "place": (1, after_seconds(60)),
        "start_time": NOW,
    }
    return Drift(**(fields | overrides))


def followed(windows: Sequence[MetricWindow]) -> Drift:
    drift = begin(windows[0], now=NOW)
    for window in windows:
        drift = take(drift, [window], POLICY, now=NOW)
    return drift


async def save(store: Store, *drifts: Drift) -> None:
    async with store.write() as work:
        await work.drifts.save(drifts)


async def test_a_drift_is_kept_whole_in_every_state(store: Store) -> None:
    line = Line()
    windows = line.windows(40)
    learning, steady = followed(windows[:5]), followed(windows)
    drifted = followed([*windows, *line.windows(10, shifted(0.3))])
    assert [one.state for one in (learning, steady, drifted)] == list(DriftState)
    for version, drift in enumerate((learning, steady, drifted), start=1):
        kept = replace(drift, version=version)
        await save(store, kept)
        async with store.read() as work:
            assert await work.drifts.find(ST_1, SOLAR, version) == replace(kept, revision=1)


async def test_a_drift_that_somebody_else_changed_is_not_written_over(store: Store) -> None:
    await save(store, make_drift(), make_drift(model_id=WELD))
    changed = make_drift(revision=1, message="mine")
    await save(store, changed)
    with pytest.raises(StaleWriteError):
        await save(store, make_drift(model_id=WELD, revision=1), replace(changed, message="late"))
    async with store.read() as work:
        found = await work.drifts.find(ST_1, SOLAR, 1)
        weld = await work.drifts.find(ST_1, WELD, 1)
    assert found is not None
    assert weld is not None
    assert (found.message, found.revision, weld.revision) == ("mine", 2, 1)


async def test_a_drift_that_is_there_is_not_made_anew(store: Store) -> None:
    await save(store, make_drift())
    with pytest.raises(StaleWriteError):
        await save(store, make_drift())


async def test_drifts_are_listed_by_agent_model_and_version_page_by_page(store: Store) -> None:
    drifts = [
        make_drift(version=1, serving=False),
        make_drift(version=2, state=DriftState.DRIFTED),
        make_drift(model_id=WELD),
        make_drift(agent_id=ST_2, state=DriftState.DRIFTED, serving=False),
    ]
    await save(store, *reversed(drifts))

    async def keys(wanted: DriftFilter, after: DriftKey | None = None, limit: int = 10) -> list[DriftKey]:
        async with store.read() as work:
            found = await work.drifts.list(wanted, after=after, limit=limit)
        return [(one.agent_id, one.model_id, one.version) for one in found]

    every: list[DriftKey] = [(ST_1, SOLAR, 1), (ST_1, SOLAR, 2), (ST_1, WELD, 1), (ST_2, SOLAR, 1)]
    assert await keys(DriftFilter()) == every
    assert await keys(DriftFilter(), limit=2) == every[:2]
    assert await keys(DriftFilter(), after=every[1]) == every[2:]
    assert await keys(DriftFilter(model_id=SOLAR, serving=True)) == [every[1]]
    assert await keys(DriftFilter(agent_id=ST_2)) == [every[3]]
    assert await keys(DriftFilter(state=DriftState.DRIFTED)) == [every[1], every[3]]
    async with store.read() as work:
        assert [one.version for one in await work.drifts.list_flagged(SOLAR)] == [2]
        assert await work.drifts.list_flagged(WELD) == []
        assert len(await work.drifts.list_flagged()) == 1
        assert [one.version for one in await work.drifts.list_serving([ST_1, ST_2, AgentId("nobody")])] == [2]
        assert len(await work.drifts.list_slots([(ST_1, SOLAR), (ST_2, WELD)])) == 2
        serving = await work.drifts.find(ST_1, SOLAR, None)
        assert serving is not None
        assert serving.version == 2
        assert await work.drifts.find(ST_2, SOLAR, None) is None
    async with store.write() as work:
        await work.drifts.remove([every[0], every[3]])
    assert await keys(DriftFilter()) == every[1:3]


async def test_a_batch_waits_until_it_is_done_with(store: Store) -> None:
    windows = (make_window(batch=7), make_window(batch=7, slot="weld"))
    async with store.write() as work:
        await work.evidence.add(make_batch(batch=7, windows=windows, results=()))
        await work.evidence.add(make_batch(batch=3, results=()))
        for batch in (7, 3, 99):
            await work.drifts.note(ST_1, batch)
    async with store.read() as work:
        first, second, third = await work.drifts.list_new(agents=9, limit=10)
        assert [len(await work.drifts.list_new(agents=9, limit=limit)) for limit in (1, 2)] == [1, 2]
    assert first.windows == windows
    assert [window.batch for window in second.windows] == [3]
    assert third.windows == (), "a batch that is not there any more waits for nothing"
    async with store.write() as work:
        await work.drifts.done([first.arrival, third.arrival])
    async with store.read() as work:
        assert [one.arrival for one in await work.drifts.list_new(agents=9, limit=10)] == [second.arrival]


async def test_those_that_waited_longest_come_first_each_with_all_that_waits(store: Store) -> None:
    async with store.write() as work:
        for agent, batch in ((ST_2, 1), (ST_1, 1), (AgentId("st-3"), 1), (ST_2, 2), (ST_1, 2)):
            windows = (make_window(agent_id=agent, batch=batch),)
            await work.evidence.add(make_batch(agent_id=agent, batch=batch, windows=windows, results=()))
            await work.drifts.note(agent, batch)

    async def waiting(agents: int, limit: int) -> list[tuple[str, int]]:
        async with store.read() as work:
            found = await work.drifts.list_new(agents=agents, limit=limit)
        return [(window.agent_id, window.batch) for one in found for window in one.windows]

    assert await waiting(2, 10) == [(ST_2, 1), (ST_1, 1), (ST_2, 2), (ST_1, 2)]
    assert await waiting(1, 10) == [(ST_2, 1), (ST_2, 2)]
    assert await waiting(3, 3) == [(ST_2, 1), (ST_1, 1), ("st-3", 1)]


async def test_a_batch_that_was_rolled_back_waits_for_nothing(store: Store) -> None:
    async with store.read() as work:
        await work.drifts.note(ST_1, 1)
    async with store.read() as work:
        assert await work.drifts.list_new(agents=9, limit=10) == []


async def test_of_too_many_that_wait_the_oldest_are_forgotten(store: Store) -> None:
    async with store.write() as work:
        assert await work.drifts.forget_new(keep=3) == 0
        for batch in range(10):
            await work.drifts.note(ST_1, batch)
        before = [one.arrival for one in await work.drifts.list_new(agents=9, limit=20)]
        assert await work.drifts.forget_new(keep=3) == 7
        assert [one.arrival for one in await work.drifts.list_new(agents=9, limit=20)] == before[7:]


async def test_windows_of_one_slot_are_read_oldest_first(store: Store) -> None:
    def at(batch: int, **overrides: Any) -> MetricWindow:
        times = {"start_time": after_seconds(batch * 10.0), "end_time": after_seconds(batch * 10.0 + 5)}
        return make_window(batch=batch, **(times | overrides))

    async with store.write() as work:
        for batch in (3, 1, 2, 4):
            windows = (at(batch), at(batch, slot="weld"))
            await work.evidence.add(make_batch(batch=batch, windows=windows, results=()))
        other = make_window(agent_id="st-2", batch=1)
        await work.evidence.add(make_batch(agent_id="st-2", windows=(other,), results=()))

    async def batches(start: float, end: float, limit: int = 10) -> list[int]:
        async with store.read() as work:
            found = await work.drifts.list_windows(
                ST_1, SOLAR, start_time=after_seconds(start), end_time=after_seconds(end), limit=limit
            )
        return [window.batch for window in found]

    assert await batches(0, 100) == [1, 2, 3, 4]
    assert await batches(16, 31) == [2, 3]
    assert await batches(0, 100, limit=2) == [3, 4], "the newest"
