"""How a rollout is shown: where it stands and why, how it moves, its waves, and what their gates measured."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from lineside.v1 import rollout_pb2

from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import bytes_text, duration_text, share_text, time_text
from controlplane.client.names import short

Rollout = rollout_pb2.Rollout
_NAMES_MAX = 20
"""Agents of a wave that a table names; JSON has them all."""


def rollout_columns(now: datetime) -> Sequence[Column[Rollout]]:
    """Return how rollouts are listed."""
    return (
        Column(header="ROLLOUT", cell=lambda rollout: short(rollout.name), whole=True),
        Column(header="DEPLOYMENT", cell=lambda rollout: short(rollout.deployment), whole=True),
        Column(header="TO", cell=lambda rollout: short(rollout.target_version), whole=True),
        Column(header="STATE", cell=lambda rollout: word(rollout, "state")),
        Column(header="WAVES", cell=_waves_text),
        Column(header="STARTED", cell=lambda rollout: time_text(rollout.create_time, now=now)),
        Column(header="REASON", cell=lambda rollout: rollout.reason),
    )


def show_rollout(printer: Printer, rollout: Rollout) -> None:
    """Show the whole rollout."""
    if printer.json:
        printer.document(document_of(rollout))
        return
    now = printer.now
    printer.pairs(
        [
            ("rollout", short(rollout.name)),
            ("deployment", short(rollout.deployment)),
            ("from", short(rollout.previous_version)),
            ("to", short(rollout.target_version)),
            ("state", word(rollout, "state")),
            ("reason", f"{rollout.reason}: {rollout.message}" if rollout.reason else rollout.message),
            *([("other rollout", short(rollout.related_rollout))] if rollout.related_rollout else []),
            ("started by", rollout.creator),
            ("waves", ", ".join(rollout.strategy.waves)),
            ("bake", duration_text(rollout.strategy.bake.ToTimedelta())),
            ("strategy", "\n".join(_strategy_facts(rollout.strategy))),
            *(("window", _window_text(window)) for window in rollout.strategy.windows),
            ("gate", "\n".join(_gate_facts(rollout.strategy.gate))),
            ("started", time_text(rollout.create_time, now=now)),
            ("ended", time_text(rollout.end_time, now=now)),
        ]
    )
    printer.section("waves", _wave_columns(now), rollout.waves)
    for wave in rollout.waves:
        printer.section(f"checks of wave {wave.index + 1}", _CHECKS, wave.verdict.checks)


def _waves_text(rollout: Rollout) -> str:
    passed = sum(wave.state == rollout_pb2.Wave.STATE_PASSED for wave in rollout.waves)
    return f"{passed} of {len(rollout.waves)} passed"


def _strategy_facts(strategy: rollout_pb2.RolloutStrategy) -> Iterator[str]:
    """Yield what the strategy asks for beside its waves, windows and gate."""
    if strategy.canary_per_device_class:
        yield "every device class in the first wave"
    if strategy.max_unavailable_per_line:
        yield f"at most {strategy.max_unavailable_per_line} of a line at once"
    if strategy.approval.scope > rollout_pb2.ApprovalPolicy.SCOPE_NONE:
        second = ", by a second person" if strategy.approval.second_person else ""
        yield f"approval {word(strategy.approval, 'scope')}{second}"
    if strategy.pace.agents_per_minute:
        yield f"at most {strategy.pace.agents_per_minute} agents a minute"
    if strategy.pace.bytes_per_second_per_site:
        yield f"at most {bytes_text(strategy.pace.bytes_per_second_per_site)} a second and site"
    if strategy.prefetch:
        yield "prefetched"
    if strategy.HasField("shadow"):
        shadow = strategy.shadow
        yield f"shadow of {shadow.min_comparisons} inputs, agreement {share_text(shadow.min_agreement_per_mille)}"
    for words, field in (
        ("to end within", "deadline"),
        ("install within", "install_timeout"),
        ("waits for agents out of reach for", "offline_wait"),
    ):
        if field in {given.name for given, _ in strategy.ListFields()}:
            yield f"{words} {duration_text(getattr(strategy, field).ToTimedelta())}"


def _window_text(window: rollout_pb2.MaintenanceWindow) -> str:
    parts = [window.selector, window.cron, duration_text(window.duration.ToTimedelta()), window.time_zone]
    return "; ".join([*parts, "start" if window.scope == rollout_pb2.MaintenanceWindow.SCOPE_START else "swap"])


class _Bound(NamedTuple):
    words: str
    """With {} for the number."""
    field: str
    share: bool = False


_BOUNDS = (
    _Bound("p95 of at most {} ms", "max_latency_ms_p95"),
    _Bound("p99 of at most {} ms", "max_latency_ms_p99"),
    _Bound("p99 of at most {} % of the version before", "max_latency_p99_percent"),
    _Bound("throughput of at least {} % of the version before", "min_throughput_percent"),
    _Bound("drift of confidences of at most {}", "max_confidence_drift_per_mille", share=True),
    _Bound("drift of classes of at most {}", "max_class_drift_per_mille", share=True),
    _Bound("at most {} silent", "max_silent_per_mille", share=True),
    _Bound("confidence {}", "confidence_per_mille", share=True),
)


def _gate_facts(gate: rollout_pb2.GatePolicy) -> Iterator[str]:
    if gate.HasField("min_inferences"):
        yield f"{gate.min_inferences} inferences"
    if gate.HasField("max_errors_per_mille"):
        yield f"at most {gate.max_errors_per_mille}/1000 errors"
    yield f"at most {gate.max_failed_installs} failed installs"
    for bound in _BOUNDS:
        if value := getattr(gate, bound.field):
            yield bound.words.format(share_text(value) if bound.share else f"{value:g}")
    yield f"on failure {word(gate, 'on_failure')}"


def _wave_columns(now: datetime) -> Sequence[Column[rollout_pb2.Wave]]:
    return (
        Column(header="WAVE", cell=lambda wave: str(wave.index + 1)),
        Column(header="SIZE", cell=lambda wave: wave.size),
        Column(header="STATE", cell=lambda wave: word(wave, "state")),
        Column(header="ADMITTED", cell=lambda wave: time_text(wave.admit_time, now=now)),
        Column(header="APPROVED", cell=lambda wave: short(wave.approver) or "-"),
        Column(header="GIVEN TO", cell=lambda wave: f"{len(wave.released_agents)} of {len(wave.agents)}"),
        Column(header="AGENTS", cell=_agents_text),
        Column(header="GATE", cell=lambda wave: word(wave.verdict, "outcome") if wave.HasField("verdict") else "-"),
        Column(header="WHY", cell=lambda wave: wave.verdict.message),
    )


def _agents_text(wave: rollout_pb2.Wave) -> str:
    more = len(wave.agents) - _NAMES_MAX
    return "\n".join([*map(short, wave.agents[:_NAMES_MAX]), *([f"and {more} more"] if more > 0 else [])])


_CHECKS: Sequence[Column[rollout_pb2.GateCheck]] = (
    Column(header="CHECK", cell=lambda check: check.name, whole=True),
    Column(header="OUTCOME", cell=lambda check: word(check, "outcome")),
    Column(header="MEASURED", cell=lambda check: f"{check.observed:.4g}", number=True),
    Column(header="INTERVAL", cell=lambda check: f"{check.low:.4g} to {check.high:.4g}"),
    Column(header="LIMIT", cell=lambda check: f"{check.limit:.4g}", number=True),
    Column(header="OF", cell=lambda check: str(check.samples), number=True),
    Column(header="DEVICE CLASS", cell=lambda check: check.device_class or "all"),
    Column(header="WHY", cell=lambda check: check.message),
)
