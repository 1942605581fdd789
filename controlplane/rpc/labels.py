"""LabelService."""

from lineside.v1 import label_service_pb2, label_service_pb2_grpc

from controlplane.app.labels import Labels
from controlplane.app.ports_datasets import LabelFilter
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.labels import (
    consensus_to_proto,
    entry_from_proto,
    import_to_proto,
    label_to_proto,
    state_from_proto,
)
from controlplane.rpc.convert.names import parse_model_name, parse_sample_name


class LabelServicer(label_service_pb2_grpc.LabelServiceServicer):
    """What people say of samples, for operators."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels

    async def ImportLabels(
        self, request: label_service_pb2.ImportLabelsRequest, context: Context
    ) -> label_service_pb2.ImportLabelsResponse:
        outcome = await self._labels.add(
            parse_model_name(request.model, field="model"),
            [entry_from_proto(entry) for entry in request.entries],
            actor=current_actor(),
            source=request.source,
            dry_run=request.dry_run,
        )
        return import_to_proto(outcome)

    async def ListLabels(
        self, request: label_service_pb2.ListLabelsRequest, context: Context
    ) -> label_service_pb2.ListLabelsResponse:
        wanted = LabelFilter(
            model_id=parse_model_name(request.model, field="model") if request.model else None,
            sample_id=parse_sample_name(request.sample, field="sample") if request.sample else None,
            annotator=request.annotator or None,
        )
        page = await self._labels.list(wanted, page_size=request.page_size, page_token=request.page_token)
        return label_service_pb2.ListLabelsResponse(
            labels=map(label_to_proto, page.items), next_page_token=page.next_token
        )

    async def ListConsensus(
        self, request: label_service_pb2.ListConsensusRequest, context: Context
    ) -> label_service_pb2.ListConsensusResponse:
        page = await self._labels.list_consensus(
            parse_model_name(request.model, field="model"),
            state=state_from_proto(request.state, field="state") if request.state else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return label_service_pb2.ListConsensusResponse(
            consensus=map(consensus_to_proto, page.items), next_page_token=page.next_token
        )
