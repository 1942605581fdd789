"""Labels on the wire."""

from collections.abc import Mapping
from types import MappingProxyType

from lineside.v1 import label_pb2, label_service_pb2

from controlplane.app.labels import LabelEntry, LabelImport
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.label import Consensus, ConsensusState, Label, LabeledRegion
from controlplane.rpc.convert.times import time_to_proto

_STATES_TO_PROTO = MappingProxyType(
    {
        ConsensusState.AGREED: label_pb2.Consensus.STATE_AGREED,
        ConsensusState.CONFLICT: label_pb2.Consensus.STATE_CONFLICT,
    }
)
_STATES: Mapping[int, ConsensusState] = MappingProxyType({wire: state for state, wire in _STATES_TO_PROTO.items()})


def state_from_proto(state: int, *, field: str) -> ConsensusState:
    if state not in _STATES:
        raise FieldInvalidError("no such state", field=field, remedy=f"send one of {', '.join(ConsensusState)}")
    return _STATES[state]


def entry_from_proto(message: label_service_pb2.LabelEntry) -> LabelEntry:
    """Return the entry as it came: what is wrong with it is told with its line."""
    return LabelEntry(
        target=message.target.removeprefix("samples/"),
        label=message.label,
        regions=tuple((region.label, region.x, region.y, region.width, region.height) for region in message.regions),
        annotator=message.annotator,
        adjudicates=message.adjudicates,
        line=message.line,
    )


def import_to_proto(outcome: LabelImport) -> label_service_pb2.ImportLabelsResponse:
    return label_service_pb2.ImportLabelsResponse(
        errors=[
            label_service_pb2.LabelError(line=error.line, field=error.field, message=error.message, remedy=error.remedy)
            for error in outcome.errors
        ],
        added=outcome.added,
        unchanged=outcome.unchanged,
        samples=outcome.samples,
        conflicts=[f"samples/{sample_id}" for sample_id in outcome.conflicts],
        classes=outcome.classes,
    )


def region_to_proto(region: LabeledRegion) -> label_pb2.LabeledRegion:
    return label_pb2.LabeledRegion(label=region.label, x=region.x, y=region.y, width=region.width, height=region.height)


def label_to_proto(label: Label) -> label_pb2.Label:
    return label_pb2.Label(
        name=f"labels/{label.id}",
        sample=f"samples/{label.sample_id}",
        model=f"models/{label.model_id}",
        annotator=label.annotator,
        create_time=time_to_proto(label.create_time),
        label=label.label,
        regions=map(region_to_proto, label.regions),
        source=label.source,
        adjudicates=label.adjudicates,
    )


def consensus_to_proto(consensus: Consensus) -> label_pb2.Consensus:
    return label_pb2.Consensus(
        sample=f"samples/{consensus.sample_id}",
        state=_STATES_TO_PROTO[consensus.state],
        label=consensus.label,
        regions=map(region_to_proto, consensus.regions),
        opinions=map(label_to_proto, consensus.opinions),
        adjudicated=consensus.adjudicated,
    )
