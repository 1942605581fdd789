"""What the fleet's last words say about a rollout."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.evidence import InferenceCount, ShadowTally, Tally
from controlplane.domain.gate import GateOutcome, GatePolicy, evaluate
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import (
    AgentRecord,
    Device,
    ObservedShadow,
    ObservedSlot,
    ObservedState,
    ShadowState,
    SlotState,
)
from controlplane.domain.progress import (
    Install,
    Return,
    Sight,
    install_state,
    observe,
    pool_evidence,
    pool_shadow,
    release_times,
    return_state,
)
from controlplane.domain.rollout import Release, Rollout, RolloutState, WaveState
from tests.support.factories import (
    NOW,
    after_seconds,
    make_agent,
    make_observation,
    make_observed_slot,
    make_rollout,
    make_wave,
)

SILENT_SECONDS_MAX = 15.0


def make_record(agent: str = "st-1", *, heard: float = 0.0, generation: int = 3, **slot: Any) -> AgentRecord:
    """An agent heard `heard` seconds before now, with one slot."""
    observed = ObservedState(generation=generation, slots=(make_observed_slot(**slot),))
    return AgentRecord(
        agent=make_agent(id=agent),
        observation=make_observation(agent_id=agent, observed=observed, receive_time=after_seconds(-heard)),
        desired_generation=3,
    )


def make_sight(*records: AgentRecord, offer: int = 1, listened_seconds: float = 3600.0) -> Sight:
    targets = {record.agent.id: record for record in records}
    return Sight(
        targets=targets,
        offer=offer,
        now=NOW,
        silent_seconds_max=SILENT_SECONDS_MAX,
        listening_since=after_seconds(-listened_seconds),
    )


SERVES: dict[str, Any] = {"serving_version": 2, "target_version": 2, "offer": 1}
FAILED: dict[str, Any] = {"serving_version": 1, "target_version": 2, "state": SlotState.FAILED, "offer": 1}


def refusing(record: AgentRecord, *, generation: int = 3) -> AgentRecord:
    """The same agent, which cannot take up the desired state of this generation."""
    assert record.observation is not None
    observed = replace(record.observation.observed, nack_message="no such slot", nack_generation=generation)
    return replace(record, observation=replace(record.observation, observed=observed))


@pytest.mark.parametrize(
    ("record", "state"),
    [
        (make_record(**SERVES), Install.INSTALLED),
        (make_record(**SERVES, heard=16), Install.SILENT),
        (make_record(**FAILED), Install.FAILED),
        (make_record(**FAILED, heard=16), Install.FAILED),
        (make_record(**(FAILED | {"offer": 0})), Install.WAITING),
        (make_record(**(FAILED | {"target_version": 3})), Install.WAITING),
        (make_record(**(SERVES | {"state": SlotState.PREPARING})), Install.WAITING),
        (make_record(serving_version=1, target_version=2, state=SlotState.DOWNLOADING), Install.WAITING),
        (make_record(slot="other", **SERVES), Install.WAITING),
        (AgentRecord(agent=make_agent()), Install.SILENT),
        (refusing(make_record(generation=2, serving_version=1)), Install.FAILED),
        (refusing(make_record(generation=2, serving_version=1, heard=16)), Install.FAILED),
        (refusing(make_record(**SERVES), generation=2), Install.INSTALLED),
    ],
)
def test_an_install_is_what_the_agent_last_said_of_this_offer(record: AgentRecord, state: Install) -> None:
    assert install_state(record, make_rollout(), make_sight(record)) is state


@pytest.mark.parametrize(
    ("record", "previous", "state"),
    [
        (make_record(serving_version=1), 1, Return.BACK),
        (make_record(serving_version=1, generation=2), 1, Return.RETURNING),
        (make_record(serving_version=1, heard=16), 1, Return.MISSING),
        (make_record(**SERVES), 1, Return.RETURNING),
        (make_record(serving_version=2, target_version=1, state=SlotState.FAILED), 1, Return.STUCK),
        (make_record(slot="other"), None, Return.BACK),
        (make_record(**SERVES), None, Return.RETURNING),
        (AgentRecord(agent=make_agent()), 1, Return.MISSING),
        (refusing(make_record(serving_version=2, generation=2)), 1, Return.STUCK),
    ],
)
def test_an_agent_is_back_when_it_says_so_of_its_present_desired_state(
    record: AgentRecord, previous: int | None, state: Return
) -> None:
    rollout = make_rollout(previous_version=previous, state=RolloutState.ROLLING_BACK)
    assert return_state(record, rollout, make_sight(record)) is state


agents = st.integers(1, 6).map(lambda number: AgentId(f"st-{number}"))
slots = st.builds(
    ObservedSlot,
    slot=st.just("solar"),
    serving_version=st.integers(0, 3),
    target_version=st.integers(0, 3),
    state=st.sampled_from(SlotState),
    offer=st.integers(0, 2),
)


@st.composite
def fleets(draw: st.DrawFn) -> Mapping[AgentId, AgentRecord]:
    records = {}
    for agent in sorted(draw(st.sets(agents))):
        heard = draw(st.integers(0, 30))
        observed = ObservedState(generation=draw(st.integers(0, 4)), slots=(draw(slots),))
        observation = make_observation(agent_id=agent, observed=observed, receive_time=after_seconds(-heard))
        known = draw(st.booleans())
        records[agent] = AgentRecord(
            agent=make_agent(id=agent), observation=observation if known else None, desired_generation=3
        )
    return records


counts = st.lists(
    st.builds(InferenceCount, agent_id=agents, inferences=st.integers(10, 50), errors=st.integers(0, 10)),
    unique_by=lambda count: count.agent_id,
)


def make_two_waves() -> Rollout:
    return make_rollout(
        waves=(
            make_wave(
                agents=("st-1", "st-2"),
                state=WaveState.PASSED,
                admit_time=after_seconds(-9),
                releases=released("st-1", "st-2", seconds=-9),
            ),
            make_wave(
                index=1,
                agents=("st-3", "st-4", "st-6"),
                state=WaveState.ADMITTED,
                admit_time=after_seconds(-5),
                releases=released("st-3", "st-4", seconds=-5),
            ),
            make_wave(index=2, agents=("st-5",)),
        )
    )


def released(*agents: str, seconds: float) -> tuple[Release, ...]:
    return tuple(Release(AgentId(agent), after_seconds(seconds)) for agent in agents)


@given(fleets(), counts, st.randoms(use_true_random=False))
def test_the_order_of_the_evidence_does_not_matter(
    fleet: Mapping[AgentId, AgentRecord], counted: list[InferenceCount], random: Any
) -> None:
    rollout = make_two_waves()
    mixed_counts, mixed_agents = list(counted), list(fleet)
    random.shuffle(mixed_counts)
    random.shuffle(mixed_agents)
    sight, mixed = make_sight(*fleet.values()), make_sight(*(fleet[agent] for agent in mixed_agents))
    wave = rollout.waves[1]
    assert pool_evidence(rollout, wave, sight, counted) == pool_evidence(rollout, wave, mixed, mixed_counts)
    assert observe(rollout, sight) == observe(rollout, mixed)


@given(fleets(), counts)
def test_only_targets_that_were_offered_the_version_count(
    fleet: Mapping[AgentId, AgentRecord], counted: list[InferenceCount]
) -> None:
    rollout = make_two_waves()
    evidence = pool_evidence(rollout, rollout.waves[1], make_sight(*fleet.values()), counted)
    offered = {"st-1", "st-2", "st-3", "st-4"} & fleet.keys()
    assert evidence.targets == len(offered)
    assert evidence.inferences == sum(count.inferences for count in counted if count.agent_id in offered)
    assert evidence.wave_inferences <= evidence.inferences
    assert evidence.wave_errors <= evidence.errors
    assert evidence.wave_age_seconds == 5.0


@pytest.mark.parametrize(
    ("failed", "said"),
    [
        (refusing(make_record("st-2", generation=2, serving_version=1)), "st-2: no such slot"),
        (make_record("st-2", **FAILED, failure_message="COMPILE_FAILED"), "st-2: COMPILE_FAILED"),
        (make_record("st-2", **FAILED), ""),
    ],
)
def test_a_failed_gate_hands_on_what_the_first_agent_said(failed: AgentRecord, said: str) -> None:
    rollout = make_two_waves()
    evidence = pool_evidence(rollout, rollout.waves[1], make_sight(make_record("st-1", **SERVES), failed), [])
    assert (evidence.failed, evidence.first_failure) == (1, said)
    verdict = evaluate(GatePolicy(), evidence, bake_seconds=0.0, now=NOW)
    assert verdict.outcome is GateOutcome.FAIL
    assert verdict.message.endswith(said or "allowed are 0")


def test_a_controller_that_has_just_begun_to_listen_calls_nobody_missing() -> None:
    silent = make_record(heard=60.0, **SERVES)
    rollout = make_two_waves()
    assert return_state(silent, rollout, make_sight(silent, listened_seconds=5.0)) is Return.RETURNING
    assert return_state(silent, rollout, make_sight(silent, listened_seconds=16.0)) is Return.MISSING


@given(fleets(), counts)
def test_silence_is_never_success(fleet: Mapping[AgentId, AgentRecord], counted: list[InferenceCount]) -> None:
    rollout = make_two_waves()
    sight = make_sight(*fleet.values())
    evidence, progress = pool_evidence(rollout, rollout.waves[1], sight, counted), observe(rollout, sight)
    heard = {
        agent
        for agent, record in fleet.items()
        if record.observation is not None
        and (NOW - record.observation.receive_time).total_seconds() <= SILENT_SECONDS_MAX
    }
    assert evidence.installed <= len(heard & {"st-1", "st-2", "st-3", "st-4"})
    assert not heard & set(progress.silent)
    assert not heard & set(progress.missing)
    assert not set(progress.returning) - heard


def make_canary(*agents: str, seconds: float = -60.0, **strategy: Any) -> Rollout:
    """A rollout whose first wave was given the version `seconds` ago."""
    wave = make_wave(
        agents=agents,
        state=WaveState.ADMITTED,
        admit_time=after_seconds(seconds),
        releases=released(*agents, seconds=seconds),
    )
    rollout = make_rollout(waves=(wave,))
    return replace(rollout, strategy=replace(rollout.strategy, **strategy))


def look_at(rollout: Rollout, *records: AgentRecord, **overrides: Any) -> Sight:
    return replace(make_sight(*records), **({"released": release_times(rollout)} | overrides))


def test_an_install_is_timed_while_the_agent_is_in_reach() -> None:
    rollout = make_canary("st-1", seconds=-100, install_seconds_max=99.0)
    busy = make_record(serving_version=1, target_version=2, state=SlotState.DOWNLOADING)

    def state(**overrides: Any) -> Install:
        return install_state(busy, rollout, look_at(rollout, busy, **overrides))

    assert state() is Install.FAILED
    assert state(released={}) is Install.WAITING
    assert state(absent_seconds={"st-1": 2.0}) is Install.WAITING
    assert state(listening_since=after_seconds(-98)) is Install.WAITING
    assert install_state(make_record(**SERVES), rollout, look_at(rollout, busy)) is Install.INSTALLED
    evidence = pool_evidence(rollout, rollout.waves[0], look_at(rollout, busy), [])
    assert (evidence.failed, evidence.first_failure) == (1, "st-1: has not installed within 99 s")


def test_an_agent_out_of_reach_is_waited_for_and_then_counts_for_nothing() -> None:
    rollout = make_canary("st-1", "st-2", seconds=-100, offline_wait_seconds=60.0)
    here, gone = make_record("st-1", **SERVES), make_record("st-2", serving_version=1, heard=61)

    def evidence(record: AgentRecord, **overrides: Any) -> Any:
        return pool_evidence(rollout, rollout.waves[0], look_at(rollout, here, record, **overrides), [])

    assert (evidence(gone).installed, evidence(gone).away) == (1, 1)
    assert evidence(make_record("st-2", serving_version=1, heard=59)).away == 0
    assert evidence(gone, listening_since=after_seconds(-59)).away == 0
    never = AgentRecord(agent=make_agent(id="st-2"))
    assert evidence(never).away == 1
    assert evidence(never, released={"st-2": after_seconds(-59)}).away == 0
    assert evidence(gone).groups[0].waiting == 0


def test_who_falls_silent_after_taking_the_version_up_is_held_against_the_others() -> None:
    rollout = make_canary("st-1", "st-2", "st-3", seconds=-100, offline_wait_seconds=60.0)
    records = (
        make_record("st-1", **SERVES),
        make_record("st-2", heard=61, **SERVES),
        make_record("st-3", heard=61, serving_version=1, target_version=1),
        make_record("st-4", heard=61, serving_version=1),
        make_record("st-5", serving_version=1),
        make_record("st-6", serving_version=1),
    )
    evidence = pool_evidence(rollout, rollout.waves[0], look_at(rollout, *records), [])
    assert (evidence.taken_up, evidence.silent_taken_up, evidence.silent_others_per_mille) == (2, 1, 334)


def test_evidence_is_grouped_by_device_class() -> None:
    rollout = make_canary("st-1", "st-2", "st-3", seconds=-100)
    records = []
    for agent, kind in (("st-1", "CPU"), ("st-2", "NPU"), ("st-3", "NPU")):
        record = make_record(agent, **SERVES)
        assert record.observation is not None
        observation = replace(record.observation, devices=(Device(device=kind),))
        records.append(replace(record, observation=observation))
    counts = [
        InferenceCount(agent_id=AgentId(agent), inferences=number, errors=1, last_receive_time=after_seconds(-number))
        for agent, number in (("st-1", 10), ("st-2", 20), ("st-3", 30))
    ]
    measured = [Tally(agent_id=AgentId("st-2"), inferences=5, label_counts={"good": 5})]
    before = [Tally(agent_id=AgentId(agent), inferences=7, label_counts={"good": 7}) for agent in ("st-2", "st-3")]
    evidence = pool_evidence(
        rollout, rollout.waves[0], look_at(rollout, *records), counts, distributions=measured, previous=before
    )
    cpu, npu = evidence.groups
    assert [group.device_class.partition("/")[2] for group in evidence.groups] == ["CPU()", "NPU()"]
    assert (cpu.target.inferences, npu.target.inferences, npu.target.errors) == (10, 50, 2)
    assert (cpu.previous, npu.previous and npu.previous.inferences) == (None, 14)
    assert (npu.compared.inferences, dict(npu.target.label_counts)) == (5, {"good": 5})
    assert (cpu.quiet_since, npu.quiet_since) == (after_seconds(-10), after_seconds(-20))
    assert evidence.inferences == 60


def make_shadowing() -> Rollout:
    wave = make_wave(agents=("st-1", "st-2"), state=WaveState.SHADOWING, shadow_time=after_seconds(-60))
    return make_rollout(waves=(wave,))


@pytest.mark.parametrize(
    ("shadow", "running", "ended", "said"),
    [
        (None, 1, 0, ""),
        (ObservedShadow(candidate_version=2, state=ShadowState.RUNNING, offer=1), 1, 0, ""),
        (ObservedShadow(candidate_version=2, state=ShadowState.COMPLETE, offer=1), 0, 1, ""),
        (ObservedShadow(candidate_version=2, state=ShadowState.STOPPED, offer=1, message="slow"), 0, 1, "st-1: slow"),
        (ObservedShadow(candidate_version=2, state=ShadowState.STOPPED, offer=0, message="slow"), 1, 0, ""),
        (ObservedShadow(candidate_version=3, state=ShadowState.FAILED, offer=1, message="no"), 1, 0, ""),
    ],
)
def test_a_shadow_run_is_what_the_agent_says_of_this_candidate(
    shadow: ObservedShadow | None, running: int, ended: int, said: str
) -> None:
    rollout = make_shadowing()
    tally = ShadowTally(agent_id=AgentId("st-1"), compared=9, agreed=8, last_receive_time=after_seconds(-3))
    other = replace(tally, agent_id=AgentId("st-9"))
    record = make_record("st-1", serving_version=1, shadow=shadow)
    evidence = pool_shadow(rollout, rollout.waves[0], make_sight(record), [tally, other])
    (group,) = evidence.shadows
    assert (group.running, group.ended, group.first_end) == (running, ended, said)
    assert (group.tally.compared, group.tally.agreed) == (9, 8)
    heard = shadow is not None and (shadow.offer, shadow.candidate_version) == (1, 2)
    assert group.quiet_since == (after_seconds(-3) if heard else None)
