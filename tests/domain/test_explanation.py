"""Why an agent runs what it runs: the chain of rules, and what an operator could do."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from controlplane.domain.admission import Hold, HoldReason
from controlplane.domain.assignment import Standing, assign
from controlplane.domain.explanation import Case, SlotExplanation
from controlplane.domain.ids import ModelId, RolloutId
from controlplane.domain.inventory import AgentRecord, ObservedState, SlotState
from controlplane.domain.rollout import WAITS_FOR_APPROVAL, Release, RolloutState, WaveState
from controlplane.domain.slot_explanation import explain
from tests.domain.standings import make_pin, standings
from tests.support.factories import (
    NOW,
    SOLAR,
    ST_1,
    after_seconds,
    make_agent,
    make_deployment,
    make_desired,
    make_desired_slot,
    make_observation,
    make_observed_slot,
    make_rollout,
    make_wave,
)

YANKED_1 = frozenset({(SOLAR, 1)})


def heard(generation: int = 1, **slot: Any) -> AgentRecord:
    observed = ObservedState(generation=generation, slots=(make_observed_slot(**slot),), agent_time=NOW)
    return AgentRecord(
        agent=make_agent(labels={"line": "3"}),
        observation=make_observation(observed=observed),
        desired_generation=1,
    )


def case_of(record: AgentRecord, **changes: Any) -> Case:
    fields = {"agents": (record,), "deployments": (make_deployment(),)}
    known = {name: changes.pop(name) for name in list(changes) if name in Standing.__dataclass_fields__}
    return Case(
        record=record,
        standing=Standing(**(fields | known)),
        now=changes.pop("now", NOW),
        silent_seconds_max=15.0,
        clock_skew_seconds_max=60.0,
        **changes,
    )


def explained(record: AgentRecord, **changes: Any) -> SlotExplanation:
    (slot,) = explain(case_of(record, **changes))
    return slot


def reasons(slot: SlotExplanation) -> list[str]:
    return [fact.reason for fact in slot.because]


def said(slot: SlotExplanation, reason: str) -> str:
    return next(fact.message for fact in slot.because if fact.reason == reason)


def advice(slot: SlotExplanation) -> dict[str, str]:
    return {fact.reason: fact.message for fact in slot.would_change}


def test_the_plain_case_is_selector_version_and_what_it_serves() -> None:
    slot = explained(heard())
    assert reasons(slot) == ["SELECTOR_MATCHES", "DEPLOYMENT_VERSION", "SERVES"]
    assert said(slot, "SELECTOR_MATCHES") == "deployments/solar-line-3 asks for line=3, and it has line=3"
    assert said(slot, "SERVES") == "it serves version 1 on CPU (the only device)"
    assert (slot.desired_version, slot.serving_version, slot.deployment_id) == (1, 1, "solar-line-3")
    assert "lineside rollouts start solar-line-3 --version N" in advice(slot)["START_ROLLOUT"]


def test_another_deployment_that_matches_is_told_off_by_priority_or_age() -> None:
    higher = make_deployment(id="trial", version=2, priority=5)
    newer = make_deployment(id="newer", version=3, create_time=after_seconds(9))
    slot = explained(heard(), deployments=(make_deployment(), higher, newer))
    assert (slot.deployment_id, slot.desired_version) == ("trial", 2)
    told = [fact.message for fact in slot.because if fact.reason == "HELD_BY_PRIORITY"]
    assert len(told) == 2
    assert all("priority 5 is above 0" in message for message in told)
    older = explained(heard(), deployments=(make_deployment(), newer))
    assert "of equal priority 0 the older holds it" in said(older, "HELD_BY_PRIORITY")


def test_a_pin_names_who_and_why_and_how_to_end_it() -> None:
    slot = explained(heard(), pins=(make_pin("st-1"),))
    assert reasons(slot)[:2] == ["SELECTOR_MATCHES", "PINNED"]
    assert "operators/anna pinned it at version 9" in said(slot, "PINNED")
    assert "lineside agents unpin st-1 solar" in advice(slot)["UNPIN"]
    assert slot.desired_version == 9


def test_what_an_ended_rollout_left_is_told() -> None:
    slot = explained(heard(), deployments=(make_deployment(kept_versions={ST_1: 2}),))
    assert "left it at version 2 on purpose" in said(slot, "KEPT")
    assert slot.desired_version == 2


def test_a_release_is_told_with_its_wave_and_the_way_back() -> None:
    wave = make_wave(state=WaveState.ADMITTED, releases=(Release(ST_1, NOW),))
    slot = explained(heard(), rollouts=(make_rollout(waves=(wave,)),))
    assert said(slot, "ROLLOUT_RELEASED") == (
        "rollouts/rollout-1 gave it version 2 at 2026-03-01 12:00:00 UTC, in wave 1 of 1"
    )
    assert "lineside rollouts rollback rollout-1" in advice(slot)["ROLL_BACK"]
    assert slot.rollout_id == "rollout-1"


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (make_wave(agents=("st-9",)), "LATE_JOINER"),
        (make_wave(state=WaveState.PENDING), "WAVE_NOT_ADMITTED"),
        (make_wave(state=WaveState.SHADOWING), "SHADOWS"),
        (make_wave(state=WaveState.ADMITTED), "WAITS_IN_WAVE"),
    ],
)
def test_an_agent_that_waits_is_told_for_what(wave: Any, reason: str) -> None:
    slot = explained(heard(), rollouts=(make_rollout(waves=(wave,)),))
    assert reasons(slot) == ["SELECTOR_MATCHES", reason, "DEPLOYMENT_VERSION", "SERVES"]
    assert slot.desired_version == 1
    assert "lineside rollouts watch rollout-1" in advice(slot)["WATCH"]


def test_in_an_admitted_wave_the_reason_of_its_hold_is_told() -> None:
    rollout = make_rollout(waves=(make_wave(state=WaveState.ADMITTED),))
    hold = Hold(reason=HoldReason.LINE_BUSY, message="waits for line 3: at most 1 of its agents")
    slot = explained(heard(), rollouts=(rollout,), holds={RolloutId("rollout-1"): hold})
    assert said(slot, "WAITS_IN_WAVE").endswith("LINE_BUSY: it waits for line 3: at most 1 of its agents")


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"state": RolloutState.PAUSED}, "lineside rollouts resume rollout-1"),
        ({"reason": WAITS_FOR_APPROVAL}, "lineside rollouts approve rollout-1"),
        ({"state": RolloutState.ROLLING_BACK}, "lineside rollouts watch rollout-1"),
    ],
)
def test_the_next_step_is_a_command_to_type(changes: dict[str, Any], command: str) -> None:
    slot = explained(heard(), rollouts=(make_rollout(waves=(make_wave(),), **changes),))
    assert any(command in message for message in advice(slot).values())


def test_a_queued_rollout_is_told() -> None:
    queued = make_rollout(id="next", state=RolloutState.QUEUED, target_version=5)
    slot = explained(heard(), queued=(queued,))
    assert "rollouts/next to version 5" in said(slot, "ROLLOUT_QUEUED")


@pytest.mark.parametrize(
    ("stored", "outcome", "desired"),
    [
        ({}, "so it has no slot", None),
        ({ST_1: make_desired(slots=(make_desired_slot(version=2),))}, "so it stays at version 2", 2),
        ({ST_1: make_desired(slots=(make_desired_slot(version=1),))}, "it has it already and goes on", 1),
    ],
)
def test_a_yanked_version_and_what_follows_is_told(stored: Any, outcome: str, desired: int | None) -> None:
    slot = explained(heard(serving_version=0), yanked=YANKED_1, stored=stored)
    assert said(slot, "VERSION_YANKED") == f"models/solar/versions/1 is yanked: {_passive(outcome)}"
    assert slot.desired_version == desired
    assert "lineside models unyank solar:1" in advice(slot)["LEAVE_VERSION"]


def _passive(outcome: str) -> str:
    return outcome if outcome.startswith("it has") else f"it is not newly given, {outcome}"


def test_where_nothing_matches_the_nearest_miss_is_named() -> None:
    far = make_deployment(id="far", selector="site=x,line=9,device.npu")
    near = make_deployment(id="near", selector="line=3,cell in (7,8)")
    record = AgentRecord(agent=make_agent(labels={"line": "3", "cell": "6"}))
    slot = explained(record, deployments=(far, near))
    assert said(slot, "NO_DEPLOYMENT_MATCHES") == (
        "no deployment of models/solar matches it; the nearest is deployments/near with line=3,cell in (7,8): "
        "cell in (7,8) fails, it has cell=6"
    )
    assert (slot.deployment_id, slot.desired_version) == (None, None)
    assert "lineside agents label st-1" in advice(slot)["LABEL_AGENT"]


def test_a_model_that_nobody_deploys_has_an_answer_too() -> None:
    (slot,) = explain(case_of(heard()), ModelId("weld"))
    assert said(slot, "NO_DEPLOYMENT_MATCHES") == "there is no deployment of models/weld"
    assert "lineside deployments create" in advice(slot)["CREATE_DEPLOYMENT"]


def test_a_revoked_agent_is_told_so() -> None:
    record = replace(heard(), agent=make_agent(labels={"line": "3"}, revoked=True))
    slot = explained(record, stored={ST_1: make_desired()})
    assert reasons(slot)[0] == "AGENT_REVOKED"
    assert slot.desired_version == 1


def test_an_agent_that_was_never_heard_and_one_that_is_silent() -> None:
    never = explained(AgentRecord(agent=make_agent(labels={"line": "3"})))
    assert reasons(never)[-1] == "NEVER_HEARD"
    silent = explained(heard(), now=after_seconds(16))
    assert "last heard at 2026-03-01 12:00:00 UTC" in said(silent, "OUT_OF_REACH")
    assert "BRING_BACK" in advice(silent)
    assert "OUT_OF_REACH" not in reasons(explained(heard(), now=after_seconds(15)))


def test_a_failure_names_the_last_known_good_and_only_a_retry_offers_it_again() -> None:
    wave = make_wave(state=WaveState.ADMITTED, releases=(Release(ST_1, NOW),))
    failed = heard(
        serving_version=1,
        target_version=2,
        state=SlotState.FAILED,
        failure_reason="COMPILE_FAILED",
        failure_message="no kernel",
        last_known_good=True,
    )
    slot = explained(failed, rollouts=(make_rollout(waves=(wave,)),))
    assert said(slot, "FAILED") == (
        "version 2 failed on it (COMPILE_FAILED: no kernel); it serves version 1 as its last-known-good, and does not "
        "try again by itself"
    )
    assert "lineside rollouts retry rollout-1" in advice(slot)["RETRY"]
    again = explained(failed, rollouts=(make_rollout(waves=(wave,)),), deployments=(make_deployment(offer=1),))
    assert "OFFERED_AGAIN" in reasons(again)
    assert "RETRY" not in advice(again)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (SlotState.PENDING, "PENDING"),
        (SlotState.DOWNLOADING, "DOWNLOADING"),
        (SlotState.PREPARING, "PREPARING"),
        (SlotState.SERVING, "SERVES"),
    ],
)
def test_each_state_of_a_slot_has_its_word(state: SlotState, reason: str) -> None:
    assert reasons(explained(heard(state=state)))[-1] == reason


def test_a_refused_desired_state_and_one_that_is_not_taken_up() -> None:
    record = heard()
    assert record.observation is not None
    refused = replace(record.observation.observed, nack_message="disk full", nack_generation=1)
    nacked = replace(record, observation=replace(record.observation, observed=refused))
    assert said(explained(nacked), "NACK") == "it refuses its desired state 1 as a whole: disk full"
    assert "NOT_TAKEN_UP" in reasons(explained(replace(record, desired_generation=2)))
    assert "AHEAD" in reasons(explained(heard(generation=7)))


def test_a_clock_that_is_years_off_is_told() -> None:
    record = heard()
    assert record.observation is not None
    late = replace(record.observation.observed, agent_time=after_seconds(-61))
    slot = explained(replace(record, observation=replace(record.observation, observed=late)))
    assert said(slot, "CLOCK_SKEWED").startswith("its clock is 61 s behind the controller's")


@given(standings())
def test_every_agent_is_explained_and_by_what_it_is_assigned(standing: Standing) -> None:
    assigned = assign(standing)
    for record in standing.agents:
        case = replace(case_of(record), standing=standing)
        slots = explain(case)
        assert [slot.slot for slot in slots] == sorted({slot.slot for slot in slots})
        told = {slot.slot: slot.desired_version for slot in slots}
        for slot in slots:
            assert slot.because
            assert all(fact.message for fact in (*slot.because, *slot.would_change))
        if not record.agent.revoked:
            wanted = {slot.slot: slot.version for slot in assigned[record.agent.id]}
            assert {model: version for model, version in told.items() if version is not None} == wanted
