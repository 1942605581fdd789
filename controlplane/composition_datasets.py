"""Samples, labels and datasets put together, for the control process and for the bytes process."""

from collections.abc import Callable

import grpc
from lineside.v1 import (
    dataset_content_service_pb2_grpc,
    dataset_service_pb2_grpc,
    label_service_pb2_grpc,
    sample_import_service_pb2_grpc,
)

from controlplane.app.contact_sheets import ContactSheets
from controlplane.app.datasets import Datasets
from controlplane.app.labels import Labels
from controlplane.app.ports import BlobStore, Clock, IdSource, Store
from controlplane.app.sample_imports import SampleImports
from controlplane.imaging.reading import PillowReader
from controlplane.imaging.sheet import PillowSheets
from controlplane.rpc.dataset_content import DatasetContentServicer
from controlplane.rpc.datasets import DatasetServicer
from controlplane.rpc.labels import LabelServicer
from controlplane.rpc.sample_import import SampleImportServicer

Registration = tuple[str, Callable[[grpc.aio.Server], None]]


def open_datasets(*, store: Store, blobs: BlobStore, clock: Clock, ids: IdSource) -> Datasets:
    """Return the datasets over these adapters; also what trainers and the judgement are given."""
    return Datasets(store=store, blobs=blobs, reader=PillowReader(), clock=clock, ids=ids)


def api_services(*, store: Store, datasets: Datasets, clock: Clock, ids: IdSource) -> tuple[Registration, ...]:
    """What operators reach on the API listener."""
    labels = LabelServicer(Labels(store=store, clock=clock, ids=ids))
    frozen = DatasetServicer(datasets)
    return (
        ("lineside.v1.LabelService", lambda to: label_service_pb2_grpc.add_LabelServiceServicer_to_server(labels, to)),
        (
            "lineside.v1.DatasetService",
            lambda to: dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(frozen, to),
        ),
    )


def bytes_services(*, store: Store, blobs: BlobStore, clock: Clock, ids: IdSource) -> tuple[Registration, ...]:
    """What operators reach on their bytes listener: pictures, decoded and drawn away from the control process."""
    imports = SampleImportServicer(SampleImports(store=store, blobs=blobs, reader=PillowReader(), clock=clock))
    datasets = open_datasets(store=store, blobs=blobs, clock=clock, ids=ids)
    sheets = DatasetContentServicer(ContactSheets(datasets=datasets, painter=PillowSheets()))
    return (
        (
            "lineside.v1.SampleImportService",
            lambda to: sample_import_service_pb2_grpc.add_SampleImportServiceServicer_to_server(imports, to),
        ),
        (
            "lineside.v1.DatasetContentService",
            lambda to: dataset_content_service_pb2_grpc.add_DatasetContentServiceServicer_to_server(sheets, to),
        ),
    )
