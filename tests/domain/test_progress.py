"""What the fleet's last words say about a rollout."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.evidence import InferenceCount
from controlplane.domain.gate import GateOutcome, GatePolicy, evaluate
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord, ObservedSlot, ObservedState, SlotState
from controlplane.domain.progress import Install, Return, Sight, install_state, observe, pool_evidence, return_state
from controlplane.domain.rollout import Rollout, RolloutState, WaveState
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
            make_wave(agents=("st-1", "st-2"), state=WaveState.PASSED, admit_time=NOW),
            make_wave(index=1, agents=("st-3", "st-4"), state=WaveState.ADMITTED, admit_time=after_seconds(-5)),
            make_wave(index=2, agents=("st-5",)),
        )
    )


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
