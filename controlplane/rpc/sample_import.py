"""SampleImportService."""

from lineside.v1 import sample_import_service_pb2, sample_import_service_pb2_grpc

from controlplane.app.sample_imports import ImportedPicture, SampleImports
from controlplane.domain.lake import Place
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.datasets import side_from_proto
from controlplane.rpc.convert.names import parse_model_name
from controlplane.rpc.convert.times import time_from_proto


class SampleImportServicer(sample_import_service_pb2_grpc.SampleImportServiceServicer):
    """Takes what operators bring."""

    def __init__(self, imports: SampleImports) -> None:
        self._imports = imports

    async def FindImportedSamples(
        self, request: sample_import_service_pb2.FindImportedSamplesRequest, context: Context
    ) -> sample_import_service_pb2.FindImportedSamplesResponse:
        model_id = parse_model_name(request.model, field="model")
        found = await self._imports.find(model_id, request.source_digests, side=side_from_proto(request.side))
        return sample_import_service_pb2.FindImportedSamplesResponse(
            samples=["" if sample_id is None else f"samples/{sample_id}" for sample_id in found]
        )

    async def ImportSamples(
        self, request: sample_import_service_pb2.ImportSamplesRequest, context: Context
    ) -> sample_import_service_pb2.ImportSamplesResponse:
        outcomes = await self._imports.store(
            parse_model_name(request.model, field="model"),
            [_picture(picture, index) for index, picture in enumerate(request.pictures)],
            place=Place(site=request.site, line=request.line, station=request.station),
            side=side_from_proto(request.side),
        )
        return sample_import_service_pb2.ImportSamplesResponse(
            samples=[
                sample_import_service_pb2.ImportedSample(
                    sample="" if outcome.sample_id is None else f"samples/{outcome.sample_id}",
                    duplicate=outcome.duplicate,
                    error=outcome.error,
                )
                for outcome in outcomes
            ]
        )


def _picture(message: sample_import_service_pb2.ImportedPicture, index: int) -> ImportedPicture:
    field = f"pictures[{index}].capture_time"
    return ImportedPicture(
        content=message.content,
        part_id=message.part_id,
        capture_time=time_from_proto(message.capture_time, field=field) if message.HasField("capture_time") else None,
    )
