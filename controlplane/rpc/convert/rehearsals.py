"""Rehearsals on the wire. What is absent is the domain's default; bounds are the use case's to check."""

from lineside.v1 import rollout_service_pb2

from controlplane.app.rehearsals import Rehearsed
from controlplane.rehearsal.report import RehearsalReport, Spread
from controlplane.rehearsal.stage import Assumptions
from controlplane.rpc.convert.times import seconds_from_proto, seconds_to_proto

_DEFAULT = Assumptions()


def assumptions_from_proto(message: rollout_service_pb2.RehearsalAssumptions) -> Assumptions:
    """Return the assumptions; raises FieldInvalidError for an outage that is no duration."""
    has_outage = message.HasField("outage")
    return Assumptions(
        message_loss_per_mille=message.message_loss_per_mille,
        offline_per_mille=message.offline_per_mille,
        outage_seconds=(
            seconds_from_proto(message.outage, field="assumptions.outage") if has_outage else _DEFAULT.outage_seconds
        ),
        restarts_per_day=message.restarts_per_day,
        install_failures_per_mille=message.install_failures_per_mille,
        errors_per_mille=message.errors_per_mille,
        errors_device_class=message.errors_device_class,
        inferences_per_second=message.inferences_per_second,
        fetch_bytes_per_second=message.fetch_bytes_per_second or _DEFAULT.fetch_bytes_per_second,
    )


def rehearsed_to_proto(rehearsed: Rehearsed) -> rollout_service_pb2.RehearseRolloutResponse:
    """Return how far it is; the last with what came out."""
    return rollout_service_pb2.RehearseRolloutResponse(
        plays_done=rehearsed.plays_done,
        plays=rehearsed.plays,
        report=_report_to_proto(rehearsed.report) if rehearsed.report is not None else None,
    )


def _report_to_proto(report: RehearsalReport) -> rollout_service_pb2.RehearsalReport:
    return rollout_service_pb2.RehearsalReport(
        outcomes=dict(report.outcomes),
        seconds=_spread_to_proto(report.seconds),
        exposed_agents=_spread_to_proto(report.exposed_agents),
        failed_inferences=_spread_to_proto(report.failed_inferences),
        fetch_bytes=_spread_to_proto(report.fetch_bytes),
        stopped_in_wave=dict(report.stopped_in_wave),
        horizon=seconds_to_proto(report.horizon_seconds),
    )


def _spread_to_proto(spread: Spread) -> rollout_service_pb2.Spread:
    return rollout_service_pb2.Spread(min=spread.min, p50=spread.p50, p95=spread.p95, max=spread.max)
