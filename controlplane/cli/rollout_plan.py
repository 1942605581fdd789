"""How a plan is shown: what it comes to, its waves, its targets with what speaks against them, who is left out."""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import rollout_service_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import bytes_text, time_text
from controlplane.client import Plan
from controlplane.client.names import short


def show_plan(printer: Printer, plan: Plan) -> None:
    """Show it; as JSON one object, with `targets` and `left_out` beside the summary."""
    summary, now = plan.summary, printer.now
    if printer.json:
        rows = {"targets": map(document_of, plan.targets), "left_out": map(document_of, plan.left_out)}
        printer.document(document_of(summary) | {name: [*documents] for name, documents in rows.items()})
        return
    printer.pairs(
        [
            ("targets", str(summary.target_count)),
            ("left out", str(summary.left_out_count)),
            ("to fetch", bytes_text(summary.fetch_bytes)),
            ("would end", time_text(summary.end_time_estimate, now=now)),
            *([("other rollout", short(summary.related_rollout))] if summary.related_rollout else []),
            *(("warning", warning) for warning in summary.warnings),
        ]
    )
    printer.section("waves", _wave_columns(now), summary.waves)
    printer.section("targets", _target_columns(now), plan.targets)
    printer.section("left out", _LEFT_OUT, plan.left_out)


def _wave_columns(now: datetime) -> Sequence[Column[rollout_service_pb2.PlannedWave]]:
    return (
        Column(header="WAVE", cell=lambda wave: str(wave.index + 1)),
        Column(header="SIZE", cell=lambda wave: wave.size),
        Column(header="AGENTS", cell=lambda wave: str(wave.agent_count), number=True),
        Column(header="TO FETCH", cell=lambda wave: bytes_text(wave.fetch_bytes), number=True),
        Column(
            header="ADMITTED",
            cell=lambda wave: _earliest(wave.HasField("admit_time_estimate"), wave.admit_time_estimate, now),
        ),
        Column(
            header="PASSES",
            cell=lambda wave: _earliest(wave.HasField("pass_time_estimate"), wave.pass_time_estimate, now),
        ),
        Column(header="APPROVAL", cell=lambda wave: "needed" if wave.needs_approval else "-"),
        Column(header="DEVICE CLASSES", cell=lambda wave: "\n".join(wave.device_classes)),
    )


def _earliest(known: bool, time: Timestamp, now: datetime) -> str:
    """Return an estimate, or that there can be none."""
    return time_text(time, now=now) if known else "cannot be said"


def _target_columns(now: datetime) -> Sequence[Column[rollout_service_pb2.PlannedTarget]]:
    return (
        Column(header="AGENT", cell=lambda target: short(target.agent), whole=True),
        Column(header="WAVE", cell=lambda target: str(target.wave + 1), number=True),
        Column(header="TO FETCH", cell=lambda target: bytes_text(target.fetch_bytes), number=True),
        Column(header="DISK FREE", cell=_disk_free, number=True),
        Column(
            header="SWAPS",
            cell=lambda target: (
                time_text(target.swap_time_earliest, now=now) if target.HasField("swap_time_earliest") else "never"
            ),
        ),
        Column(header="IN REACH", cell=lambda target: "yes" if target.connected else "no"),
        Column(header="DEVICE CLASS", cell=lambda target: target.device_class),
        Column(header="WARNING", cell=lambda target: target.warning),
    )


def _disk_free(target: rollout_service_pb2.PlannedTarget) -> str:
    return bytes_text(target.disk_free_bytes) if target.HasField("disk_free_bytes") else "unknown"


_LEFT_OUT: Sequence[Column[rollout_service_pb2.LeftOutAgent]] = (
    Column(header="AGENT", cell=lambda left_out: short(left_out.agent), whole=True),
    Column(header="REASON", cell=lambda left_out: left_out.reason),
    Column(header="WHY", cell=lambda left_out: left_out.message),
)
