"""DatasetService."""

from lineside.v1 import dataset_pb2, dataset_service_pb2, dataset_service_pb2_grpc

from controlplane.app.datasets import Datasets
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.datasets import dataset_to_proto, item_to_proto, rule_from_proto
from controlplane.rpc.convert.names import parse_dataset_name, parse_model_name


class DatasetServicer(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Frozen datasets, for operators."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    async def FreezeDataset(
        self, request: dataset_service_pb2.FreezeDatasetRequest, context: Context
    ) -> dataset_pb2.Dataset:
        dataset = await self._datasets.freeze(
            parse_model_name(request.model, field="model"),
            rule=rule_from_proto(request.rule),
            actor=current_actor(),
            dataset_id=request.dataset_id,
            description=request.description,
        )
        return dataset_to_proto(dataset)

    async def GetDataset(self, request: dataset_service_pb2.GetDatasetRequest, context: Context) -> dataset_pb2.Dataset:
        return dataset_to_proto(await self._datasets.get(parse_dataset_name(request.name, field="name")))

    async def ListDatasets(
        self, request: dataset_service_pb2.ListDatasetsRequest, context: Context
    ) -> dataset_service_pb2.ListDatasetsResponse:
        page = await self._datasets.list(
            model_id=parse_model_name(request.model, field="model") if request.model else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return dataset_service_pb2.ListDatasetsResponse(
            datasets=map(dataset_to_proto, page.items), next_page_token=page.next_token
        )

    async def ListDatasetItems(
        self, request: dataset_service_pb2.ListDatasetItemsRequest, context: Context
    ) -> dataset_service_pb2.ListDatasetItemsResponse:
        page = await self._datasets.list_items(
            parse_dataset_name(request.name, field="name"),
            released_to=current_actor() if request.holdout else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return dataset_service_pb2.ListDatasetItemsResponse(
            items=map(item_to_proto, page.items), next_page_token=page.next_token
        )
