"""Drift on the wire."""

from collections.abc import Mapping
from math import inf, log
from types import MappingProxyType

from lineside.v1 import drift_pb2, drift_service_pb2

from controlplane.app.drift import DriftHistory, DriftNews, ShownDrift
from controlplane.app.ports_drift import DriftFilter
from controlplane.domain.drift import DriftPolicy, DriftState, Moved, moved
from controlplane.domain.drift_evidence import Counts
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, ModelId, check_resource_id
from controlplane.rpc.convert.audit import event_to_proto
from controlplane.rpc.convert.names import parse_agent_name, parse_model_name, version_name
from controlplane.rpc.convert.times import time_to_proto

_PATTERN = "agents/{agent}/drifts/{model}@{version}"
_NUMBER_DIGITS_MAX = 18
_STATES = MappingProxyType(
    {
        DriftState.LEARNING: drift_pb2.Drift.STATE_LEARNING,
        DriftState.STEADY: drift_pb2.Drift.STATE_STEADY,
        DriftState.DRIFTED: drift_pb2.Drift.STATE_DRIFTED,
    }
)
_FROM_WIRE: Mapping[int, DriftState] = MappingProxyType({wire: state for state, wire in _STATES.items()})
_LOG_10 = log(10)


def parse_drift_name(name: str, *, field: str) -> tuple[AgentId, ModelId, int | None]:
    """Return agent, model and version of `agents/{agent}/drifts/{model}@{version}`; None where no version is named."""
    match name.split("/"):
        case ["agents", agent, "drifts", rest]:
            model, at, number = rest.partition("@")
            if at and not (number.isascii() and number.isdecimal() and 0 < len(number) <= _NUMBER_DIGITS_MAX):
                raise _no_name(name, field)
            return (
                AgentId(check_resource_id(agent, field=field)),
                ModelId(check_resource_id(model, field=field)),
                int(number) if at else None,
            )
        case _:
            raise _no_name(name, field)


def filter_from_proto(request: drift_service_pb2.ListDriftsRequest) -> DriftFilter:
    """Return which drifts are asked for; what is empty asks for any. Raises FieldInvalidError."""
    if request.state and request.state not in _FROM_WIRE:
        raise FieldInvalidError(f"{request.state} is no state", field="state", remedy="send one of Drift.State")
    return DriftFilter(
        model_id=parse_model_name(request.model, field="model") if request.model else None,
        agent_id=parse_agent_name(request.agent, field="agent") if request.agent else None,
        state=_FROM_WIRE[request.state] if request.state else None,
        serving=None if request.all_versions else True,
    )


def drift_to_proto(shown: ShownDrift, policy: DriftPolicy, *, whole: bool = False) -> drift_pb2.Drift:
    """Return the drift, with its histograms where it is to be `whole`."""
    drift = shown.drift
    needed = drift.log_needed(policy) / _LOG_10
    statistics = [_statistic_to_proto(one, needed=needed, whole=whole) for one in moved(drift, policy)]
    return drift_pb2.Drift(
        name=drift.name,
        agent=f"agents/{drift.agent_id}",
        model_version=version_name(drift.model_id, drift.version),
        labels=dict(shown.labels),
        serving=drift.serving,
        state=_STATES[drift.state],
        transition_time=time_to_proto(drift.transition_time),
        message=drift.message,
        reference_start_time=time_to_proto(drift.start_time),
        reference_count=drift.reference_count,
        reference_wanted=max(policy.reference_count, drift.reference_count),
        inference_count=drift.inference_count,
        last_inference_time=time_to_proto(drift.place[1]),
        episode_count=drift.episode_count,
        statistics=statistics,
    )


def history_to_proto(history: DriftHistory, model_id: ModelId) -> drift_service_pb2.QueryDriftHistoryResponse:
    """Return the history of a slot of the model."""
    points = (
        drift_pb2.DriftPoint(
            model_version=version_name(model_id, point.version),
            start_time=time_to_proto(point.start_time),
            end_time=time_to_proto(point.end_time),
            inference_count=point.inferences,
            distances=dict(point.distances),
        )
        for point in history.points
    )
    return drift_service_pb2.QueryDriftHistoryResponse(points=points, events=map(event_to_proto, history.events))


def news_to_proto(news: DriftNews, policy: DriftPolicy) -> drift_service_pb2.WatchDriftsResponse:
    """Return what a watch tells."""
    return drift_service_pb2.WatchDriftsResponse(
        drifts=(drift_to_proto(shown, policy) for shown in news.drifts), events=map(event_to_proto, news.events)
    )


def _statistic_to_proto(one: Moved, *, needed: float, whole: bool) -> drift_pb2.DriftStatistic:
    recent = one.recent if one.recent is not None else Counts(bins=())
    message = drift_pb2.DriftStatistic(
        name=one.name,
        distance=one.distance,
        tolerated=one.tolerated,
        evidence_log10=one.log_evidence / _LOG_10 if one.log_evidence > -inf else 0.0,
        evidence_needed_log10=needed,
        drifted=one.drifted,
        reference_count=one.reference.total,
        recent_count=recent.total,
        range_low=one.reference.low,
        range_high=one.reference.high,
    )
    if whole:
        message.labels.extend(one.reference.labels)
        message.reference_bins.extend(one.reference.bins)
        message.recent_bins.extend(recent.bins)
    return message


def _no_name(name: str, field: str) -> FieldInvalidError:
    return FieldInvalidError(f"{name[:200]!r} names no drift", field=field, remedy=f"write {_PATTERN}")
