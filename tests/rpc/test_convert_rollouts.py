"""Strategies, plans, explanations and the log survive the wire, and what is absent has its default."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import audit_service_pb2, rollout_pb2, rollout_service_pb2

from controlplane import limits
from controlplane.app.ports import AuditFilter
from controlplane.app.rollouts import WhenActive
from controlplane.domain.audit import AuditEvent, Happening, rule
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.explanation import Explanation, SlotExplanation
from controlplane.domain.gate import FailureAction, GateCheck, GateOutcome, GatePolicy
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.plan import LeftOut, PlannedTarget, PlannedWave, RolloutPlan
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    Release,
    RolloutState,
    RolloutStrategy,
    ShadowPolicy,
    WaveSize,
    WaveState,
    WindowScope,
)
from controlplane.rpc.convert import audit, explanations, plans, rollouts, strategies
from tests.support.factories import NOW, SOLAR, ST_1, after_seconds, make_rollout, make_verdict

COUNTS = st.integers(min_value=0, max_value=(1 << 31) - 1)
SHARES = st.integers(min_value=0, max_value=1000)
SECONDS = st.integers(min_value=0, max_value=10**12).map(lambda microseconds: microseconds / 1_000_000)
MILLISECONDS = st.floats(min_value=0, max_value=1e6)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
WAVES = st.sampled_from(
    [
        (WaveSize(percent=100),),
        (WaveSize(count=1), WaveSize(percent=100)),
        (WaveSize(count=1), WaveSize(count=5), WaveSize(percent=50), WaveSize(percent=100)),
    ]
)
GATES = st.builds(
    GatePolicy,
    min_inferences=COUNTS,
    max_errors_per_mille=SHARES,
    max_failed_installs=COUNTS,
    on_failure=st.sampled_from(FailureAction),
    max_latency_ms_p95=MILLISECONDS,
    max_latency_ms_p99=MILLISECONDS,
    max_latency_p99_percent=COUNTS,
    min_throughput_percent=COUNTS,
    max_confidence_drift_per_mille=SHARES,
    max_class_drift_per_mille=SHARES,
    max_silent_per_mille=SHARES,
    confidence_per_mille=SHARES,
    idle_seconds=SECONDS,
)
WINDOWS = st.builds(
    MaintenanceWindow,
    selector=TEXTS,
    cron=TEXTS,
    duration_seconds=SECONDS,
    time_zone=TEXTS,
    scope=st.sampled_from(WindowScope),
)
STRATEGIES = st.builds(
    RolloutStrategy,
    waves=WAVES,
    bake_seconds=SECONDS,
    gate=GATES,
    canary_per_device_class=st.booleans(),
    max_unavailable_per_line=COUNTS,
    approval=st.sampled_from(ApprovalScope),
    second_person=st.booleans(),
    windows=st.lists(WINDOWS, max_size=3).map(tuple),
    deadline_seconds=SECONDS,
    install_seconds_max=SECONDS,
    offline_wait_seconds=SECONDS,
    agents_per_minute=COUNTS,
    bytes_per_second_per_site=st.integers(min_value=0, max_value=(1 << 63) - 1),
    prefetch=st.booleans(),
    shadow=st.none()
    | st.builds(
        ShadowPolicy,
        min_comparisons=COUNTS,
        min_agreement_per_mille=SHARES,
        serving_latency_ms_p99_max=MILLISECONDS,
    ),
)


@given(strategy=STRATEGIES)
def test_a_strategy_returns(strategy: RolloutStrategy) -> None:
    message = strategies.strategy_to_proto(strategy)
    sent = rollout_pb2.RolloutStrategy.FromString(message.SerializeToString())
    assert strategies.strategy_from_proto(sent) == strategy


def test_what_a_strategy_leaves_out_is_the_domains_default() -> None:
    bare = rollout_pb2.RolloutStrategy(waves=["100%"])
    assert strategies.strategy_from_proto(bare) == RolloutStrategy(waves=(WaveSize(percent=100),))
    shadow = rollout_pb2.RolloutStrategy(waves=["100%"], shadow=rollout_pb2.ShadowPolicy(min_comparisons=7))
    assert strategies.strategy_from_proto(shadow).shadow == ShadowPolicy(min_comparisons=7)


def test_zero_that_is_said_is_not_the_default() -> None:
    gate = rollout_pb2.GatePolicy(
        min_inferences=0, max_errors_per_mille=0, max_silent_per_mille=0, confidence_per_mille=0
    )
    gate.idle_timeout.FromTimedelta(timedelta())
    said = rollout_pb2.RolloutStrategy(waves=["100%"], gate=gate, canary_per_device_class=False)
    said.install_timeout.FromTimedelta(timedelta())
    said.offline_wait.FromTimedelta(timedelta())
    said.shadow.min_agreement_per_mille = 0
    strategy = strategies.strategy_from_proto(said)
    assert strategy.gate == GatePolicy(
        min_inferences=0, max_errors_per_mille=0, max_silent_per_mille=0, confidence_per_mille=0, idle_seconds=0
    )
    assert not strategy.canary_per_device_class
    assert (strategy.install_seconds_max, strategy.offline_wait_seconds) == (0, 0)
    assert strategy.shadow == ShadowPolicy(min_comparisons=0, min_agreement_per_mille=0)


def test_words_of_a_newer_client_are_read_as_the_careful_ones() -> None:
    message = rollout_pb2.RolloutStrategy(waves=["100%"], windows=[rollout_pb2.MaintenanceWindow()])
    message.windows[0].scope = 77  # type: ignore[assignment]
    message.approval.scope = 77  # type: ignore[assignment]
    message.gate.on_failure = 77  # type: ignore[assignment]
    strategy = strategies.strategy_from_proto(message)
    assert strategy.windows[0].scope is WindowScope.SWAP
    assert strategy.approval is ApprovalScope.NONE
    assert strategy.gate.on_failure is FailureAction.ROLLBACK


@pytest.mark.parametrize(
    "name", ["bake", "deadline", "install_timeout", "offline_wait", "gate.idle_timeout", "windows.duration"]
)
def test_a_duration_that_is_none_is_refused_by_field(name: str) -> None:
    message = rollout_pb2.RolloutStrategy(waves=["100%"])
    holder, _, last = name.rpartition(".")
    part = message.windows.add() if holder == "windows" else message.gate if holder == "gate" else message
    getattr(part, last).seconds = 1 << 62
    with pytest.raises(FieldInvalidError) as caught:
        strategies.strategy_from_proto(message)
    assert caught.value.field == f"rollout.strategy.{name}"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "RULE"), (1, "REFUSE"), (2, "QUEUE"), (3, "SUPERSEDE"), (77, "RULE")]
)
def test_what_to_do_with_an_active_rollout_arrives(number: int, expected: str) -> None:
    wanted = rollout_pb2.Rollout(deployment="deployments/d", target_version="models/m/versions/2")
    wanted.strategy.waves.append("100%")
    message = rollout_service_pb2.CreateRolloutRequest(rollout=wanted)
    message.when_active = number  # type: ignore[assignment]
    request = rollouts.rollout_request_from_proto(message, actor="operators/anna")
    assert (request.when_active, request.actor) == (WhenActive(expected), "operators/anna")


def test_a_rollout_tells_releases_approvals_and_checks() -> None:
    check = GateCheck(
        name="errors",
        outcome=GateOutcome.INCONCLUSIVE,
        reason="IDLE",
        message="no inference for 15 min",
        device_class="x86_64/GPU(FP16)",
        observed=1.5,
        low=0.5,
        high=2.5,
        limit=2.0,
        samples=9,
    )
    rollout = make_rollout()
    wave = replace(
        rollout.waves[0],
        state=WaveState.SHADOWING,
        verdict=make_verdict(checks=(check,)),
        releases=(Release(ST_1, NOW),),
        approver="operators/bea",
        approve_time=after_seconds(1),
        shadow_time=after_seconds(2),
    )
    rollout = replace(rollout, waves=(wave,), creator="operators/anna", related_id=RolloutId("r0"))
    message = rollouts.rollout_to_proto(rollout)
    assert (message.creator, message.related_rollout) == ("operators/anna", "rollouts/r0")
    (told,) = message.waves
    assert told.state == rollout_pb2.Wave.STATE_SHADOWING
    assert (list(told.released_agents), told.approver) == (["agents/st-1"], "operators/bea")
    assert (told.approve_time.ToSeconds() - told.shadow_time.ToSeconds()) == -1
    (said,) = told.verdict.checks
    assert said.outcome == rollout_pb2.GateVerdict.OUTCOME_INCONCLUSIVE
    assert (said.name, said.device_class, said.reason, said.message) == (
        check.name,
        check.device_class,
        check.reason,
        check.message,
    )
    assert (said.observed, said.low, said.high, said.limit, said.samples) == (1.5, 0.5, 2.5, 2.0, 9)


@pytest.mark.parametrize("state", RolloutState)
def test_every_state_has_its_word(state: RolloutState) -> None:
    message = rollouts.rollout_to_proto(replace(make_rollout(), state=state))
    assert rollout_pb2.Rollout.State.Name(message.state) == f"STATE_{state}"


def test_a_plan_comes_in_parts_and_loses_nothing() -> None:
    count = limits.PLAN_ROWS_A_MESSAGE + 1
    agents = tuple(AgentId(f"st-{number}") for number in range(count))
    plan = RolloutPlan(
        waves=(
            PlannedWave(
                index=0,
                size=WaveSize(percent=100),
                agents=agents,
                device_classes=("x86_64/CPU(FP32)",),
                fetch_bytes=7 * count,
                admit_time_estimate=NOW,
                pass_time_estimate=after_seconds(60),
                needs_approval=True,
            ),
        ),
        targets=tuple(
            PlannedTarget(
                agent_id=agent_id,
                wave=0,
                device_class="x86_64/CPU(FP32)",
                fetch_bytes=7,
                disk_free_bytes=None,
                connected=False,
                swap_time_earliest=None,
                warning="out of reach",
            )
            for agent_id in agents
        ),
        left_out=(LeftOut(agent_id=AgentId("st-x"), reason="PINNED", message="pinned to 1"),),
        related_id=RolloutId("r0"),
        warnings=("no traffic",),
    )
    first, *rest = plans.plan_to_proto(plan)
    assert (first.plan.target_count, first.plan.left_out_count, first.plan.fetch_bytes) == (count, 1, 7 * count)
    assert first.plan.end_time_estimate == first.plan.waves[0].pass_time_estimate
    assert (first.plan.related_rollout, list(first.plan.warnings)) == ("rollouts/r0", ["no traffic"])
    assert (first.plan.waves[0].agent_count, first.plan.waves[0].needs_approval) == (count, True)
    assert [len(part.targets) for part in rest] == [limits.PLAN_ROWS_A_MESSAGE, 1, 0]
    told = rest[0].targets[0]
    assert (told.agent, told.warning, told.connected) == ("agents/st-0", "out of reach", False)
    assert not told.HasField("disk_free_bytes")
    assert not told.HasField("swap_time_earliest")
    assert (rest[-1].left_out[0].agent, rest[-1].left_out[0].reason) == ("agents/st-x", "PINNED")


def test_a_plan_whose_end_cannot_be_said_says_none() -> None:
    wave = PlannedWave(
        index=0,
        size=WaveSize(percent=100),
        agents=(),
        device_classes=(),
        fetch_bytes=0,
        admit_time_estimate=NOW,
        pass_time_estimate=None,
        needs_approval=False,
    )
    (only,) = plans.plan_to_proto(RolloutPlan(waves=(wave,), targets=(), left_out=(), related_id=None, warnings=()))
    assert not only.plan.HasField("end_time_estimate")
    assert not only.plan.waves[0].HasField("pass_time_estimate")


def test_an_event_tells_who_what_and_on_what_evidence() -> None:
    happening = Happening(
        actor=rule("gate"),
        action="wave.fail",
        resource="rollouts/r1",
        reason="ERRORS",
        message="2 of 10 failed",
        evidence={"checks": [{"name": "errors", "low": 0.1}]},
        related=("deployments/line-3",),
    )
    message = audit.event_to_proto(AuditEvent(id="e1", create_time=NOW, happening=happening))
    assert (message.name, message.actor, message.action) == ("auditEvents/e1", "rules/gate", "wave.fail")
    assert (message.resource, list(message.related_resources)) == ("rollouts/r1", ["deployments/line-3"])
    assert (message.reason, message.message) == ("ERRORS", "2 of 10 failed")
    assert json.loads(message.evidence_json) == {"checks": [{"name": "errors", "low": 0.1}]}
    bare = Happening(actor="operators/anna", action="agent.pin", resource="agents/a")
    assert audit.event_to_proto(AuditEvent(id="e2", create_time=NOW, happening=bare)).evidence_json == ""


def test_a_filter_asks_for_any_where_it_says_nothing() -> None:
    message = audit_service_pb2.ListAuditEventsRequest()
    assert audit.filter_from_proto(message) == AuditFilter()
    message = audit_service_pb2.ListAuditEventsRequest(resource="rollouts/r1", actor="rules/gate", action="wave.")
    message.start_time.FromDatetime(NOW)
    message.end_time.FromDatetime(after_seconds(5))
    assert audit.filter_from_proto(message) == AuditFilter(
        resource="rollouts/r1", actor="rules/gate", action="wave.", start_time=NOW, end_time=after_seconds(5)
    )
    message.end_time.seconds = 1 << 62
    with pytest.raises(FieldInvalidError) as caught:
        audit.filter_from_proto(message)
    assert caught.value.field == "end_time"


def test_an_explanation_names_versions_and_leaves_out_what_there_is_not() -> None:
    slot = SlotExplanation(
        slot=SOLAR,
        desired_version=2,
        serving_version=None,
        deployment_id=None,
        rollout_id=RolloutId("r1"),
        because=(Explanation(reason="PINNED", message="by anna"),),
        would_change=(Explanation(reason="UNPIN", message="unpin it"),),
    )
    message = explanations.explanation_to_proto(ST_1, [slot])
    (told,) = message.slots
    assert (message.agent, told.slot) == ("agents/st-1", "solar")
    assert (told.desired_version, told.serving_version) == ("models/solar/versions/2", "")
    assert (told.deployment, told.rollout) == ("", "rollouts/r1")
    assert [(fact.reason, fact.message) for fact in told.because] == [("PINNED", "by anna")]
    assert [fact.reason for fact in told.would_change] == ["UNPIN"]
