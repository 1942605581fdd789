"""How rollouts move, as JSON. A key that is absent means the domain's default: rows of earlier releases have fewer."""

from collections.abc import Iterable
from typing import Any

from controlplane.domain.gate import FailureAction, GatePolicy
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    RolloutStrategy,
    ShadowPolicy,
    WaveSize,
    WindowScope,
)
from controlplane.store.mapping.values import Row, float_from_json, float_to_json

_GATE_NUMBERS = (
    "min_inferences",
    "max_errors_per_mille",
    "max_failed_installs",
    "max_latency_p99_percent",
    "min_throughput_percent",
    "max_confidence_drift_per_mille",
    "max_class_drift_per_mille",
    "max_silent_per_mille",
    "confidence_per_mille",
)
_GATE_FLOATS = ("max_latency_ms_p95", "max_latency_ms_p99", "idle_seconds")
_STRATEGY_NUMBERS = (
    "canary_per_device_class",
    "max_unavailable_per_line",
    "second_person",
    "agents_per_minute",
    "bytes_per_second_per_site",
    "prefetch",
)
_STRATEGY_FLOATS = ("bake_seconds", "deadline_seconds", "install_seconds_max", "offline_wait_seconds")


def strategy_to_json(strategy: RolloutStrategy) -> dict[str, Any]:
    return {
        "waves": [size_to_json(size) for size in strategy.waves],
        "gate": _gate_to_json(strategy.gate),
        "approval": strategy.approval.value,
        "windows": [_window_to_json(window) for window in strategy.windows],
        "shadow": None if strategy.shadow is None else _shadow_to_json(strategy.shadow),
        **_numbers_to_json(strategy, _STRATEGY_NUMBERS),
        **_floats_to_json(strategy, _STRATEGY_FLOATS),
    }


def strategy_from_json(value: Row) -> RolloutStrategy:
    shadow = value.get("shadow")
    return RolloutStrategy(
        waves=tuple(size_from_json(size) for size in value["waves"]),
        gate=_gate_from_json(value["gate"]),
        approval=ApprovalScope(value.get("approval", ApprovalScope.NONE)),
        windows=tuple(_window_from_json(window) for window in value.get("windows", ())),
        shadow=None if shadow is None else _shadow_from_json(shadow),
        **_numbers_from_json(value, _STRATEGY_NUMBERS),
        **_floats_from_json(value, _STRATEGY_FLOATS),
    )


def size_to_json(size: WaveSize) -> dict[str, Any]:
    return {"count": size.count, "percent": size.percent}


def size_from_json(value: Row) -> WaveSize:
    return WaveSize(count=value["count"], percent=value["percent"])


def _gate_to_json(gate: GatePolicy) -> dict[str, Any]:
    return {
        "on_failure": gate.on_failure.value,
        **_numbers_to_json(gate, _GATE_NUMBERS),
        **_floats_to_json(gate, _GATE_FLOATS),
    }


def _gate_from_json(value: Row) -> GatePolicy:
    return GatePolicy(
        on_failure=FailureAction(value["on_failure"]),
        **_numbers_from_json(value, _GATE_NUMBERS),
        **_floats_from_json(value, _GATE_FLOATS),
    )


def _window_to_json(window: MaintenanceWindow) -> dict[str, Any]:
    return {
        "selector": window.selector,
        "cron": window.cron,
        "duration_seconds": float_to_json(window.duration_seconds),
        "time_zone": window.time_zone,
        "scope": window.scope.value,
    }


def _window_from_json(value: Row) -> MaintenanceWindow:
    return MaintenanceWindow(
        selector=value["selector"],
        cron=value["cron"],
        duration_seconds=float_from_json(value["duration_seconds"]),
        time_zone=value["time_zone"],
        scope=WindowScope(value["scope"]),
    )


def _shadow_to_json(shadow: ShadowPolicy) -> dict[str, Any]:
    return {
        "min_comparisons": shadow.min_comparisons,
        "min_agreement_per_mille": shadow.min_agreement_per_mille,
        "serving_latency_ms_p99_max": float_to_json(shadow.serving_latency_ms_p99_max),
    }


def _shadow_from_json(value: Row) -> ShadowPolicy:
    return ShadowPolicy(
        min_comparisons=value["min_comparisons"],
        min_agreement_per_mille=value["min_agreement_per_mille"],
        serving_latency_ms_p99_max=float_from_json(value["serving_latency_ms_p99_max"]),
    )


def _numbers_to_json(entity: object, names: Iterable[str]) -> dict[str, Any]:
    """Fields that are the same in JSON: whole numbers and truth values."""
    return {name: getattr(entity, name) for name in names}


def _numbers_from_json(value: Row, names: Iterable[str]) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value}


def _floats_to_json(entity: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: float_to_json(getattr(entity, name)) for name in names}


def _floats_from_json(value: Row, names: Iterable[str]) -> dict[str, Any]:
    return {name: float_from_json(value[name]) for name in names if name in value}
