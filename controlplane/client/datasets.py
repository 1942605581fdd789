"""Frozen datasets."""

from collections.abc import Iterator

from lineside.v1 import (
    dataset_content_service_pb2,
    dataset_content_service_pb2_grpc,
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
)

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import IntegrityError
from controlplane.client.names import dataset_name, model_name
from controlplane.client.pages import iterate


class Datasets:
    """Calls of DatasetService and DatasetContentService. Datasets are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = dataset_service_pb2_grpc.DatasetServiceStub(connection.api)

    def freeze(
        self,
        model: str,
        *,
        rule: dataset_pb2.DatasetRule | None = None,
        dataset_id: str = "",
        description: str = "",
    ) -> dataset_pb2.Dataset:
        """Freeze what is labelled now. The same samples, labels and rule are the dataset that they were."""
        request = dataset_service_pb2.FreezeDatasetRequest(
            model=model_name(model), rule=rule, dataset_id=dataset_id, description=description
        )
        return self._connection.call(self._stub.FreezeDataset, request, deadline_seconds=limits.FREEZE_SECONDS)

    def get(self, dataset: str) -> dataset_pb2.Dataset:
        request = dataset_service_pb2.GetDatasetRequest(name=dataset_name(dataset))
        return self._connection.call(self._stub.GetDataset, request)

    def list(self, *, model: str = "", limit: int | None = None) -> Iterator[dataset_pb2.Dataset]:
        """Yield datasets, newest first."""

        def fetch(size: int, token: str) -> tuple[list[dataset_pb2.Dataset], str]:
            request = dataset_service_pb2.ListDatasetsRequest(
                model=model_name(model) if model else "", page_size=size, page_token=token
            )
            page = self._connection.call(self._stub.ListDatasets, request)
            return [*page.datasets], page.next_page_token

        return iterate(fetch, limit=limit)

    def items(self, dataset: str, *, holdout: bool = False) -> Iterator[dataset_pb2.DatasetItem]:
        """Yield what a trainer is given, by sample; or the holdout, which the audit log keeps."""

        def fetch(size: int, token: str) -> tuple[list[dataset_pb2.DatasetItem], str]:
            request = dataset_service_pb2.ListDatasetItemsRequest(
                name=dataset_name(dataset), holdout=holdout, page_size=size, page_token=token
            )
            page = self._connection.call(self._stub.ListDatasetItems, request)
            return [*page.items], page.next_page_token

        return iterate(fetch)

    def sheet(self, dataset: str, *, holdout: bool = False, pictures_max: int = 0) -> bytes:
        """Return a contact sheet, a PNG."""
        stub = dataset_content_service_pb2_grpc.DatasetContentServiceStub(self._connection.bytes_channel())
        request = dataset_content_service_pb2.DrawContactSheetRequest(
            name=dataset_name(dataset), holdout=holdout, pictures_max=pictures_max
        )
        picture = bytearray()
        for piece in self._connection.receive(stub.DrawContactSheet, request, deadline_seconds=limits.SHEET_SECONDS):
            picture += piece.data
            if len(picture) > limits.SHEET_BYTES_MAX:
                raise IntegrityError("more bytes than a contact sheet can have", field=dataset)
        return bytes(picture)
