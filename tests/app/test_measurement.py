"""What is gathered in steps equals what is added up from the beginning."""

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.measurement import Measurement
from controlplane.domain.gate import Evidence, GatePolicy
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.progress import Sight, release_times
from controlplane.domain.rollout import Release, Rollout, WaveState
from tests.support.factories import (
    NOW,
    after_seconds,
    make_agent,
    make_batch,
    make_observation,
    make_rollout,
    make_shadow_window,
    make_wave,
    make_window,
)
from tests.support.memory_store import MemoryStore

AGENTS = tuple(AgentId(f"st-{number}") for number in range(4))
COMPARES = GatePolicy(max_latency_ms_p99=50.0, max_class_drift_per_mille=300)


def make_canary(policy: GatePolicy = COMPARES) -> Rollout:
    releases = tuple(Release(agent, NOW) for agent in AGENTS)
    wave = make_wave(agents=AGENTS, state=WaveState.ADMITTED, admit_time=NOW, releases=releases)
    rollout = make_rollout(waves=(wave,), create_time=NOW)
    return replace(rollout, strategy=replace(rollout.strategy, gate=policy))


def make_sight(rollout: Rollout, now: datetime, *, heard: datetime | None = None) -> Sight:
    records = {
        agent: AgentRecord(
            agent=make_agent(id=agent),
            observation=make_observation(agent_id=agent, receive_time=heard or now),
        )
        for agent in AGENTS
    }
    return Sight(
        targets=records,
        offer=1,
        now=now,
        silent_seconds_max=15.0,
        listening_since=NOW,
        released=release_times(rollout),
    )


def rounded(evidence: Evidence) -> Evidence:
    """Without what sums of floats in another order may differ by."""
    groups = []
    for group in evidence.groups:
        tallies = {}
        for name in ("target", "compared", "previous"):
            tally = getattr(group, name)
            if tally is not None and tally.latency is not None:
                latency = replace(tally.latency, sum_ms=round(tally.latency.sum_ms, 6))
                tally = replace(tally, latency=latency, active_seconds=round(tally.active_seconds, 6))
            tallies[name] = tally
        groups.append(replace(group, **tallies))
    return replace(evidence, groups=tuple(groups))


async def add(store: MemoryStore, agent: AgentId, batch: int, receive_time: datetime, **window: Any) -> None:
    made = make_window(agent_id=agent, batch=batch, label_counts={"good": 9}, **window)
    async with store.write() as work:
        await work.evidence.add(
            make_batch(agent_id=agent, batch=batch, receive_time=receive_time, windows=(made,), results=())
        )


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_gathered_in_steps_equals_what_is_read_whole(seed: int) -> None:
    rng, store, rollout, stepwise = random.Random(seed), MemoryStore(), make_canary(), Measurement()
    now, late = NOW, []
    for batch in range(1, 60):
        now += timedelta(seconds=rng.choice([1, 30, 90]))
        for agent in AGENTS:
            late.append((agent, batch, now, rng.choice([1, 2, 2]), rng.randint(0, 5)))
        rng.shuffle(late)
        oldest = [item for item in late if now - item[2] > timedelta(seconds=limits.EVIDENCE_SETTLE_SECONDS / 2)]
        for item in [*oldest, *late[: rng.randint(0, len(late))]]:
            if item in late:
                late.remove(item)
                agent, number, time, version, errors = item
                await add(store, agent, number, time, version=version, error_count=errors, inference_count=10)
        sight = make_sight(rollout, now)
        async with store.read() as work:
            gathered = await stepwise.gather(work, rollout, rollout.waves[0], sight)
            whole = await Measurement().gather(work, rollout, rollout.waves[0], sight)
        assert rounded(gathered) == rounded(whole)
    assert gathered.inferences > 500
    assert stepwise._sums[rollout.id].counts.sealed


async def test_a_wave_that_is_admitted_anew_counts_from_then() -> None:
    store, rollout, measurement = MemoryStore(), make_canary(), Measurement()
    await add(store, AGENTS[0], 1, after_seconds(5), version=2)
    again = replace(rollout, waves=(replace(rollout.waves[0], admit_time=after_seconds(10)),))
    counted = []
    async with store.read() as work:
        for each in (rollout, again):
            found = await measurement.gather(work, each, each.waves[0], make_sight(each, after_seconds(20)))
            counted.append(found.inferences)
    assert counted == [10, 0]


@pytest.mark.parametrize("policy", [GatePolicy(), GatePolicy(max_latency_ms_p99=9.0), COMPARES])
async def test_distributions_are_read_where_the_policy_asks_for_them(policy: GatePolicy) -> None:
    store, rollout = MemoryStore(), make_canary(policy)
    await add(store, AGENTS[0], 1, after_seconds(-60), version=1)
    await add(store, AGENTS[0], 2, after_seconds(5), version=2)
    async with store.read() as work:
        sight = make_sight(rollout, after_seconds(9))
        (group,) = (await Measurement().gather(work, rollout, rollout.waves[0], sight)).groups
    assert (group.target.latency is not None) is policy.reads_distributions
    assert (group.previous is not None) is policy.compares
    assert group.target.inferences == 10
    assert group.quiet_since == after_seconds(5)


async def test_a_large_fleet_is_not_read_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVIDENCE_AGENTS_A_SECOND", len(AGENTS) / 10)
    store, rollout, measurement = MemoryStore(), make_canary(GatePolicy()), Measurement()
    counted = []
    for second in (1, 9, 11):
        await add(store, AGENTS[0], second, after_seconds(second), version=2)
        async with store.read() as work:
            sight = make_sight(rollout, after_seconds(second))
            counted.append((await measurement.gather(work, rollout, rollout.waves[0], sight)).inferences)
    assert counted == [10, 10, 30]


async def test_a_shadow_run_is_gathered() -> None:
    wave = make_wave(agents=AGENTS, state=WaveState.SHADOWING, shadow_time=NOW)
    store, rollout = MemoryStore(), make_rollout(waves=(wave,))
    shadow = make_shadow_window(agent_id=AGENTS[0])
    async with store.write() as work:
        batch = make_batch(agent_id=AGENTS[0], receive_time=after_seconds(5), windows=(), shadow_windows=(shadow,))
        await work.evidence.add(batch)
    async with store.read() as work:
        found = await Measurement().gather(work, rollout, wave, make_sight(rollout, after_seconds(9)))
    assert (found.inferences, found.shadows[0].tally.agreed, found.shadows[0].running) == (10, 9, 4)


def test_absences_of_released_agents_add_up() -> None:
    rollout, measurement = make_canary(), Measurement()
    absent: Mapping[AgentId, float] = {}
    for second, heard in ((0, 0), (10, 10), (40, 10), (50, 10), (60, 60), (70, 70)):
        sight = make_sight(rollout, after_seconds(second), heard=after_seconds(heard))
        absent = measurement.absent_seconds(rollout, sight)
        assert measurement.absent_seconds(rollout, sight) == absent
    assert absent == dict.fromkeys(AGENTS, 40.0)
    measurement.keep([])
    assert measurement.absent_seconds(rollout, make_sight(rollout, after_seconds(80))) == {}
