"""Rollouts on the wire."""

from types import MappingProxyType

from lineside.v1 import rollout_pb2, rollout_service_pb2

from controlplane import limits
from controlplane.app.rollouts import RolloutRequest
from controlplane.domain.gate import FailureAction, GateOutcome, GatePolicy, GateVerdict
from controlplane.domain.rollout import Rollout, RolloutState, RolloutStrategy, Wave, WaveState
from controlplane.domain.wave import parse_wave_sizes
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import parse_deployment_name, parse_version_name, version_name
from controlplane.rpc.convert.times import (
    optional_time_to_proto,
    seconds_from_proto,
    seconds_to_proto,
    time_to_proto,
)

_Wire = rollout_pb2.Rollout
_STATES = MappingProxyType(
    {
        RolloutState.RUNNING: _Wire.STATE_RUNNING,
        RolloutState.PAUSED: _Wire.STATE_PAUSED,
        RolloutState.ROLLING_BACK: _Wire.STATE_ROLLING_BACK,
        RolloutState.SUCCEEDED: _Wire.STATE_SUCCEEDED,
        RolloutState.ROLLED_BACK: _Wire.STATE_ROLLED_BACK,
        RolloutState.ABORTED: _Wire.STATE_ABORTED,
    }
)
_WAVE_STATES = MappingProxyType(
    {
        WaveState.PENDING: rollout_pb2.Wave.STATE_PENDING,
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
_ACTIONS = MappingProxyType(
    {
        FailureAction.ROLLBACK: rollout_pb2.GatePolicy.FAILURE_ACTION_ROLLBACK,
        FailureAction.PAUSE: rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE,
    }
)


def rollout_request_from_proto(message: rollout_service_pb2.CreateRolloutRequest) -> RolloutRequest:
    """Return what is asked for. Raises FieldInvalidError for names, wave sizes or a duration that are none."""
    rollout = message.rollout
    model_id, number = parse_version_name(rollout.target_version, field="rollout.target_version")
    return RolloutRequest(
        deployment_id=parse_deployment_name(rollout.deployment, field="rollout.deployment"),
        model_id=model_id,
        target_version=number,
        strategy=strategy_from_proto(rollout.strategy),
        request_id=message.request_id,
    )


def strategy_from_proto(message: rollout_pb2.RolloutStrategy) -> RolloutStrategy:
    """Return the strategy; its bounds are the use case's to check."""
    return RolloutStrategy(
        waves=parse_wave_sizes(message.waves, field="rollout.strategy.waves", waves_max=limits.WAVES_MAX),
        bake_seconds=seconds_from_proto(message.bake, field="rollout.strategy.bake"),
        gate=gate_from_proto(message.gate),
    )


def strategy_to_proto(strategy: RolloutStrategy) -> rollout_pb2.RolloutStrategy:
    """Return the strategy with every default filled in."""
    gate = strategy.gate
    return rollout_pb2.RolloutStrategy(
        waves=[str(size) for size in strategy.waves],
        bake=seconds_to_proto(strategy.bake_seconds),
        gate=rollout_pb2.GatePolicy(
            min_inferences=gate.min_inferences,
            max_errors_per_mille=gate.max_errors_per_mille,
            max_failed_installs=gate.max_failed_installs,
            on_failure=_ACTIONS[gate.on_failure],
        ),
    )


def gate_from_proto(message: rollout_pb2.GatePolicy) -> GatePolicy:
    """Return the gate; what is absent is the controller's default, and any action but PAUSE is ROLLBACK."""
    default = GatePolicy()
    has_inferences, has_errors = message.HasField("min_inferences"), message.HasField("max_errors_per_mille")
    pauses = message.on_failure == rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE
    return GatePolicy(
        min_inferences=message.min_inferences if has_inferences else default.min_inferences,
        max_errors_per_mille=message.max_errors_per_mille if has_errors else default.max_errors_per_mille,
        max_failed_installs=message.max_failed_installs,
        on_failure=FailureAction.PAUSE if pauses else FailureAction.ROLLBACK,
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
    )
