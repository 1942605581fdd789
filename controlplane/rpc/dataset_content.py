"""DatasetContentService."""

from collections.abc import AsyncIterator

from lineside.v1 import dataset_content_service_pb2, dataset_content_service_pb2_grpc

from controlplane import limits
from controlplane.app.contact_sheets import ContactSheets
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.names import parse_dataset_name


class DatasetContentServicer(dataset_content_service_pb2_grpc.DatasetContentServiceServicer):
    """Pictures of datasets, for operators."""

    def __init__(self, sheets: ContactSheets) -> None:
        self._sheets = sheets

    async def DrawContactSheet(
        self, request: dataset_content_service_pb2.DrawContactSheetRequest, context: Context
    ) -> AsyncIterator[dataset_content_service_pb2.DrawContactSheetResponse]:
        picture = await self._sheets.draw(
            parse_dataset_name(request.name, field="name"),
            released_to=current_actor() if request.holdout else None,
            pictures_max=request.pictures_max,
        )
        for start in range(0, len(picture), limits.CHUNK_BYTES_MAX):
            piece = picture[start : start + limits.CHUNK_BYTES_MAX]
            yield dataset_content_service_pb2.DrawContactSheetResponse(data=piece)
