"""Strategies: the bounds of what an operator may ask of a rollout. A refusal names its field as the contract does."""

import math
from collections.abc import Iterable

from controlplane import limits
from controlplane.app.windows import check_windows
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.gate import GatePolicy
from controlplane.domain.rollout import ApprovalScope, RolloutStrategy, ShadowPolicy

STRATEGY = "rollout.strategy"

Bound = tuple[str, float, float, float]
"""Field, what was asked for, least and most."""


def check_strategy(strategy: RolloutStrategy) -> None:
    """Raise FieldInvalidError for the first field that is out of bounds."""
    _check(_times(strategy), unit=" s")
    _check(_counts(strategy))
    _check_gate(strategy.gate)
    if strategy.shadow is not None:
        _check_shadow(strategy.shadow)
    if strategy.second_person and strategy.approval is ApprovalScope.NONE:
        raise FieldInvalidError(
            "a second person is asked for, and no wave needs an approval",
            field=f"{STRATEGY}.approval.scope",
            remedy="ask for approvals after the canary or of every wave, or leave second_person out",
        )
    check_windows(strategy.windows)


def _times(strategy: RolloutStrategy) -> Iterable[Bound]:
    yield "bake", strategy.bake_seconds, 0, limits.BAKE_SECONDS_MAX
    yield "deadline", strategy.deadline_seconds, 0, limits.ROLLOUT_SECONDS_MAX
    yield "install_timeout", strategy.install_seconds_max, limits.INSTALL_SECONDS_MIN, limits.INSTALL_SECONDS_MAX
    yield "offline_wait", strategy.offline_wait_seconds, 0, limits.OFFLINE_WAIT_SECONDS_MAX


def _counts(strategy: RolloutStrategy) -> Iterable[Bound]:
    yield "max_unavailable_per_line", strategy.max_unavailable_per_line, 0, limits.PACE_AGENTS_MAX
    yield "pace.agents_per_minute", strategy.agents_per_minute, 0, limits.PACE_AGENTS_MAX
    yield "pace.bytes_per_second_per_site", strategy.bytes_per_second_per_site, 0, limits.PACE_BYTES_MAX


def _check_gate(gate: GatePolicy) -> None:
    counts: tuple[Bound, ...] = (
        ("min_inferences", gate.min_inferences, 0, limits.GATE_COUNT_MAX),
        ("max_errors_per_mille", gate.max_errors_per_mille, 0, 1000),
        ("max_failed_installs", gate.max_failed_installs, 0, limits.GATE_COUNT_MAX),
        ("max_latency_p99_percent", gate.max_latency_p99_percent, 0, limits.GATE_PERCENT_MAX),
        ("min_throughput_percent", gate.min_throughput_percent, 0, limits.GATE_PERCENT_MAX),
        ("max_confidence_drift_per_mille", gate.max_confidence_drift_per_mille, 0, 1000),
        ("max_class_drift_per_mille", gate.max_class_drift_per_mille, 0, 1000),
        ("max_silent_per_mille", gate.max_silent_per_mille, 0, 1000),
        ("confidence_per_mille", gate.confidence_per_mille, limits.CONFIDENCE_PER_MILLE_MIN, 999),
    )
    _check((f"gate.{name}", number, least, most) for name, number, least, most in counts)
    latencies = (("max_latency_ms_p95", gate.max_latency_ms_p95), ("max_latency_ms_p99", gate.max_latency_ms_p99))
    _check(((f"gate.{name}", number, 0.0, limits.LATENCY_MS_MAX) for name, number in latencies), unit=" ms")
    _check([("gate.idle_timeout", gate.idle_seconds, limits.IDLE_SECONDS_MIN, limits.IDLE_SECONDS_MAX)], unit=" s")


def _check_shadow(shadow: ShadowPolicy) -> None:
    _check(
        [
            ("shadow.min_comparisons", shadow.min_comparisons, 1, limits.SHADOW_COMPARISONS_MAX),
            ("shadow.min_agreement_per_mille", shadow.min_agreement_per_mille, 0, 1000),
        ]
    )
    bound = ("shadow.serving_latency_ms_p99_max", shadow.serving_latency_ms_p99_max, 0.0, limits.LATENCY_MS_MAX)
    _check([bound], unit=" ms")


def _check(bounds: Iterable[Bound], *, unit: str = "") -> None:
    for name, number, least, most in bounds:
        if not (math.isfinite(number) and least <= number <= most):
            raise FieldInvalidError(
                f"{number:.15g}{unit} is out of bounds",
                field=f"{STRATEGY}.{name}",
                remedy=f"use {least:.15g} to {most:.15g}{unit}",
            )
