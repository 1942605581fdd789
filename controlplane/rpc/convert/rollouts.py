"""Rollouts on the wire."""

from types import MappingProxyType

from lineside.v1 import rollout_pb2, rollout_service_pb2

from controlplane.app.rollouts import RolloutRequest, WhenActive
from controlplane.domain.gate import GateCheck, GateOutcome, GateVerdict
from controlplane.domain.rollout import Rollout, RolloutState, Wave, WaveState
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import parse_deployment_name, parse_version_name, version_name
from controlplane.rpc.convert.strategies import strategy_from_proto, strategy_to_proto
from controlplane.rpc.convert.times import optional_time_to_proto, time_to_proto

_Wire = rollout_pb2.Rollout
_STATES = MappingProxyType(
    {
        RolloutState.QUEUED: _Wire.STATE_QUEUED,
        RolloutState.RUNNING: _Wire.STATE_RUNNING,
        RolloutState.PAUSED: _Wire.STATE_PAUSED,
        RolloutState.ROLLING_BACK: _Wire.STATE_ROLLING_BACK,
        RolloutState.SUCCEEDED: _Wire.STATE_SUCCEEDED,
        RolloutState.ROLLED_BACK: _Wire.STATE_ROLLED_BACK,
        RolloutState.ABORTED: _Wire.STATE_ABORTED,
        RolloutState.SUPERSEDED: _Wire.STATE_SUPERSEDED,
    }
)
_WAVE_STATES = MappingProxyType(
    {
        WaveState.PENDING: rollout_pb2.Wave.STATE_PENDING,
        WaveState.SHADOWING: rollout_pb2.Wave.STATE_SHADOWING,
        WaveState.ADMITTED: rollout_pb2.Wave.STATE_ADMITTED,
        WaveState.PASSED: rollout_pb2.Wave.STATE_PASSED,
        WaveState.FAILED: rollout_pb2.Wave.STATE_FAILED,
    }
)
_OUTCOMES = MappingProxyType(
    {
        GateOutcome.PASS: rollout_pb2.GateVerdict.OUTCOME_PASS,
        GateOutcome.FAIL: rollout_pb2.GateVerdict.OUTCOME_FAIL,
        GateOutcome.PENDING: rollout_pb2.GateVerdict.OUTCOME_PENDING,
        GateOutcome.INCONCLUSIVE: rollout_pb2.GateVerdict.OUTCOME_INCONCLUSIVE,
    }
)
_Create = rollout_service_pb2.CreateRolloutRequest
_WHEN_ACTIVE = MappingProxyType(
    {
        _Create.WHEN_ACTIVE_REFUSE: WhenActive.REFUSE,
        _Create.WHEN_ACTIVE_QUEUE: WhenActive.QUEUE,
        _Create.WHEN_ACTIVE_SUPERSEDE: WhenActive.SUPERSEDE,
    }
)


def rollout_request_from_proto(message: rollout_service_pb2.CreateRolloutRequest, *, actor: str) -> RolloutRequest:
    """Return what `actor` asks for. Raises FieldInvalidError for names, wave sizes or a duration that are none."""
    return rollout_wanted(
        message.rollout,
        actor=actor,
        when_active=_WHEN_ACTIVE.get(message.when_active, WhenActive.RULE),
        request_id=message.request_id,
    )


def rollout_wanted(
    rollout: rollout_pb2.Rollout, *, actor: str, when_active: WhenActive = WhenActive.RULE, request_id: str = ""
) -> RolloutRequest:
    """As `rollout_request_from_proto`, of the rollout alone: also what is planned or rehearsed."""
    model_id, number = parse_version_name(rollout.target_version, field="rollout.target_version")
    return RolloutRequest(
        deployment_id=parse_deployment_name(rollout.deployment, field="rollout.deployment"),
        model_id=model_id,
        target_version=number,
        strategy=strategy_from_proto(rollout.strategy),
        when_active=when_active,
        actor=actor,
        request_id=request_id,
    )


def rollout_to_proto(rollout: Rollout) -> rollout_pb2.Rollout:
    """Return the whole rollout."""
    model_id, previous = rollout.model_id, rollout.previous_version
    return rollout_pb2.Rollout(
        name=f"rollouts/{rollout.id}",
        uid=rollout.uid,
        create_time=time_to_proto(rollout.create_time),
        update_time=time_to_proto(rollout.update_time),
        etag=etag_of(rollout.revision),
        deployment=f"deployments/{rollout.deployment_id}",
        target_version=version_name(model_id, rollout.target_version),
        previous_version=version_name(model_id, previous) if previous is not None else "",
        strategy=strategy_to_proto(rollout.strategy),
        state=_STATES[rollout.state],
        reason=rollout.reason,
        message=rollout.message,
        waves=map(_wave_to_proto, rollout.waves),
        end_time=optional_time_to_proto(rollout.end_time),
        creator=rollout.creator,
        related_rollout=f"rollouts/{rollout.related_id}" if rollout.related_id is not None else "",
    )


def _wave_to_proto(wave: Wave) -> rollout_pb2.Wave:
    return rollout_pb2.Wave(
        index=wave.index,
        size=str(wave.size),
        state=_WAVE_STATES[wave.state],
        agents=[f"agents/{agent_id}" for agent_id in wave.agents],
        admit_time=optional_time_to_proto(wave.admit_time),
        complete_time=optional_time_to_proto(wave.complete_time),
        verdict=_verdict_to_proto(wave.verdict) if wave.verdict is not None else None,
        released_agents=[f"agents/{release.agent_id}" for release in wave.releases],
        approver=wave.approver,
        approve_time=optional_time_to_proto(wave.approve_time),
        shadow_time=optional_time_to_proto(wave.shadow_time),
    )


def _verdict_to_proto(verdict: GateVerdict) -> rollout_pb2.GateVerdict:
    return rollout_pb2.GateVerdict(
        outcome=_OUTCOMES[verdict.outcome],
        reason=verdict.reason,
        message=verdict.message,
        targets=verdict.evidence.targets,
        installed=verdict.evidence.installed,
        failed=verdict.evidence.failed,
        inferences=verdict.evidence.inferences,
        errors=verdict.evidence.errors,
        evaluate_time=time_to_proto(verdict.evaluate_time),
        checks=map(_check_to_proto, verdict.checks),
    )


def _check_to_proto(check: GateCheck) -> rollout_pb2.GateCheck:
    return rollout_pb2.GateCheck(
        name=check.name,
        device_class=check.device_class,
        outcome=_OUTCOMES[check.outcome],
        reason=check.reason,
        message=check.message,
        observed=check.observed,
        low=check.low,
        high=check.high,
        limit=check.limit,
        samples=check.samples,
    )
