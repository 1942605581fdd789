"""Strategies on the wire: how a rollout moves, and what its gates ask for.

What is absent is the domain's default; bounds are the use case's to check.
"""

from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from lineside.v1 import rollout_pb2

from controlplane import limits
from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    RolloutStrategy,
    ShadowPolicy,
    WindowScope,
)
from controlplane.domain.wave import parse_wave_sizes
from controlplane.rpc.convert.times import seconds_from_proto, seconds_to_proto

_ACTIONS = MappingProxyType(
    {
        FailureAction.ROLLBACK: rollout_pb2.GatePolicy.FAILURE_ACTION_ROLLBACK,
        FailureAction.PAUSE: rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE,
    }
)
_APPROVALS = MappingProxyType(
    {
        ApprovalScope.NONE: rollout_pb2.ApprovalPolicy.SCOPE_NONE,
        ApprovalScope.AFTER_CANARY: rollout_pb2.ApprovalPolicy.SCOPE_AFTER_CANARY,
        ApprovalScope.EVERY_WAVE: rollout_pb2.ApprovalPolicy.SCOPE_EVERY_WAVE,
    }
)
_APPROVALS_FROM_WIRE = MappingProxyType({wire: scope for scope, wire in _APPROVALS.items()})
_WINDOWS = MappingProxyType(
    {
        WindowScope.SWAP: rollout_pb2.MaintenanceWindow.SCOPE_SWAP,
        WindowScope.START: rollout_pb2.MaintenanceWindow.SCOPE_START,
    }
)
_FIELD = "rollout.strategy"
_DEFAULT = RolloutStrategy(waves=())
_SHADOW_DEFAULT = ShadowPolicy(min_comparisons=1)


def strategy_from_proto(message: rollout_pb2.RolloutStrategy) -> RolloutStrategy:
    """Return the strategy. Raises FieldInvalidError for wave sizes or durations that are none."""
    has_canary = message.HasField("canary_per_device_class")
    return RolloutStrategy(
        waves=parse_wave_sizes(message.waves, field=f"{_FIELD}.waves", waves_max=limits.WAVES_MAX),
        bake_seconds=seconds_from_proto(message.bake, field=f"{_FIELD}.bake"),
        gate=gate_from_proto(message.gate),
        canary_per_device_class=(message.canary_per_device_class if has_canary else _DEFAULT.canary_per_device_class),
        max_unavailable_per_line=message.max_unavailable_per_line,
        approval=_APPROVALS_FROM_WIRE.get(message.approval.scope, ApprovalScope.NONE),
        second_person=message.approval.second_person,
        windows=tuple(_window_from_proto(window) for window in message.windows),
        deadline_seconds=seconds_from_proto(message.deadline, field=f"{_FIELD}.deadline"),
        install_seconds_max=_seconds(message, "install_timeout", _DEFAULT.install_seconds_max),
        offline_wait_seconds=_seconds(message, "offline_wait", _DEFAULT.offline_wait_seconds),
        agents_per_minute=message.pace.agents_per_minute,
        bytes_per_second_per_site=message.pace.bytes_per_second_per_site,
        prefetch=message.prefetch,
        shadow=_shadow_from_proto(message.shadow) if message.HasField("shadow") else None,
    )


def gate_from_proto(message: rollout_pb2.GatePolicy) -> GatePolicy:
    """Return the gate; any action but PAUSE is ROLLBACK."""
    default = GatePolicy()
    pauses = message.on_failure == rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE

    stated = {field.name for field, _ in message.ListFields()}

    def given(name: str) -> int:
        return int(getattr(message if name in stated else default, name))

    return GatePolicy(
        min_inferences=given("min_inferences"),
        max_errors_per_mille=given("max_errors_per_mille"),
        max_failed_installs=given("max_failed_installs"),
        on_failure=FailureAction.PAUSE if pauses else FailureAction.ROLLBACK,
        max_latency_ms_p95=message.max_latency_ms_p95,
        max_latency_ms_p99=message.max_latency_ms_p99,
        max_latency_p99_percent=message.max_latency_p99_percent,
        min_throughput_percent=message.min_throughput_percent,
        max_confidence_drift_per_mille=message.max_confidence_drift_per_mille,
        max_class_drift_per_mille=message.max_class_drift_per_mille,
        max_silent_per_mille=given("max_silent_per_mille"),
        confidence_per_mille=given("confidence_per_mille"),
        idle_seconds=(
            seconds_from_proto(message.idle_timeout, field=f"{_FIELD}.gate.idle_timeout")
            if message.HasField("idle_timeout")
            else default.idle_seconds
        ),
    )


def strategy_to_proto(strategy: RolloutStrategy) -> rollout_pb2.RolloutStrategy:
    """Return the strategy with every default filled in."""
    return rollout_pb2.RolloutStrategy(
        waves=[str(size) for size in strategy.waves],
        bake=seconds_to_proto(strategy.bake_seconds),
        gate=_gate_to_proto(strategy.gate),
        canary_per_device_class=strategy.canary_per_device_class,
        max_unavailable_per_line=strategy.max_unavailable_per_line,
        approval=rollout_pb2.ApprovalPolicy(scope=_APPROVALS[strategy.approval], second_person=strategy.second_person),
        windows=map(_window_to_proto, strategy.windows),
        deadline=_optional_seconds(strategy.deadline_seconds),
        install_timeout=seconds_to_proto(strategy.install_seconds_max),
        offline_wait=seconds_to_proto(strategy.offline_wait_seconds),
        pace=rollout_pb2.Pace(
            agents_per_minute=strategy.agents_per_minute,
            bytes_per_second_per_site=strategy.bytes_per_second_per_site,
        ),
        prefetch=strategy.prefetch,
        shadow=_shadow_to_proto(strategy.shadow) if strategy.shadow is not None else None,
    )


def _gate_to_proto(gate: GatePolicy) -> rollout_pb2.GatePolicy:
    return rollout_pb2.GatePolicy(
        min_inferences=gate.min_inferences,
        max_errors_per_mille=gate.max_errors_per_mille,
        max_failed_installs=gate.max_failed_installs,
        on_failure=_ACTIONS[gate.on_failure],
        max_latency_ms_p95=gate.max_latency_ms_p95,
        max_latency_ms_p99=gate.max_latency_ms_p99,
        max_latency_p99_percent=gate.max_latency_p99_percent,
        min_throughput_percent=gate.min_throughput_percent,
        max_confidence_drift_per_mille=gate.max_confidence_drift_per_mille,
        max_class_drift_per_mille=gate.max_class_drift_per_mille,
        max_silent_per_mille=gate.max_silent_per_mille,
        confidence_per_mille=gate.confidence_per_mille,
        idle_timeout=seconds_to_proto(gate.idle_seconds),
    )


def _window_from_proto(message: rollout_pb2.MaintenanceWindow) -> MaintenanceWindow:
    starts = message.scope == rollout_pb2.MaintenanceWindow.SCOPE_START
    return MaintenanceWindow(
        selector=message.selector,
        cron=message.cron,
        duration_seconds=seconds_from_proto(message.duration, field=f"{_FIELD}.windows.duration"),
        time_zone=message.time_zone,
        scope=WindowScope.START if starts else WindowScope.SWAP,
    )


def _window_to_proto(window: MaintenanceWindow) -> rollout_pb2.MaintenanceWindow:
    return rollout_pb2.MaintenanceWindow(
        selector=window.selector,
        cron=window.cron,
        duration=seconds_to_proto(window.duration_seconds),
        time_zone=window.time_zone,
        scope=_WINDOWS[window.scope],
    )


def _shadow_from_proto(message: rollout_pb2.ShadowPolicy) -> ShadowPolicy:
    has_agreement = message.HasField("min_agreement_per_mille")
    return ShadowPolicy(
        min_comparisons=message.min_comparisons,
        min_agreement_per_mille=(
            message.min_agreement_per_mille if has_agreement else _SHADOW_DEFAULT.min_agreement_per_mille
        ),
        serving_latency_ms_p99_max=message.serving_latency_ms_p99_max,
    )


def _shadow_to_proto(shadow: ShadowPolicy) -> rollout_pb2.ShadowPolicy:
    return rollout_pb2.ShadowPolicy(
        min_comparisons=shadow.min_comparisons,
        min_agreement_per_mille=shadow.min_agreement_per_mille,
        serving_latency_ms_p99_max=shadow.serving_latency_ms_p99_max,
    )


def _seconds(message: rollout_pb2.RolloutStrategy, name: str, default: float) -> float:
    if name not in {field.name for field, _ in message.ListFields()}:
        return default
    return seconds_from_proto(getattr(message, name), field=f"{_FIELD}.{name}")


def _optional_seconds(seconds: float) -> Duration | None:
    """No bound is an absent field."""
    return seconds_to_proto(seconds) if seconds else None
