"""Imported samples, labels and datasets over the wire; the holdout is handed out by name alone."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from lineside.v1 import (
    dataset_content_service_pb2,
    dataset_content_service_pb2_grpc,
    dataset_pb2,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    label_pb2,
    label_service_pb2,
    label_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    sample_import_service_pb2,
    sample_import_service_pb2_grpc,
    sample_pb2,
    sample_service_pb2,
    sample_service_pb2_grpc,
)

from controlplane.config import Settings
from tests.support.bytes_listeners import BytesListeners, serving_bytes
from tests.support.dataset_factories import picture
from tests.support.wire import Refusal, bearer, refused

ANY_STATE: Any = 99
HOLDOUT = dataset_pb2.DatasetItem.SPLIT_HOLDOUT


class Operator:
    """An operator's stubs on both listeners."""

    def __init__(self, api: grpc.aio.Channel, bytes_: grpc.aio.Channel, token: str) -> None:
        self._metadata = bearer(token)
        models: Any = model_service_pb2_grpc.ModelServiceStub(api)
        self.models = models
        self.samples: Any = sample_service_pb2_grpc.SampleServiceStub(api)
        self.labels: Any = label_service_pb2_grpc.LabelServiceStub(api)
        self.datasets: Any = dataset_service_pb2_grpc.DatasetServiceStub(api)
        self.imports: Any = sample_import_service_pb2_grpc.SampleImportServiceStub(bytes_)
        self.contents: Any = dataset_content_service_pb2_grpc.DatasetContentServiceStub(bytes_)

    async def call(self, method: Any, request: Any) -> Any:
        return await method(request, metadata=self._metadata, timeout=30)

    async def bring(self, *contents: bytes, part: str = "") -> list[sample_import_service_pb2.ImportedSample]:
        pictures = [
            sample_import_service_pb2.ImportedPicture(content=content, part_id=part and f"{part}-{number}")
            for number, content in enumerate(contents)
        ]
        request = sample_import_service_pb2.ImportSamplesRequest(model="models/solar", pictures=pictures, line="3")
        return list((await self.call(self.imports.ImportSamples, request)).samples)

    async def label(self, *entries: label_service_pb2.LabelEntry, dry_run: bool = False) -> Any:
        request = label_service_pb2.ImportLabelsRequest(
            model="models/solar", entries=entries, source="labels.csv", dry_run=dry_run
        )
        return await self.call(self.labels.ImportLabels, request)

    async def freeze(self, **rule: Any) -> dataset_pb2.Dataset:
        request = dataset_service_pb2.FreezeDatasetRequest(model="models/solar", rule=dataset_pb2.DatasetRule(**rule))
        dataset: dataset_pb2.Dataset = await self.call(self.datasets.FreezeDataset, request)
        return dataset

    async def items(self, name: str, *, holdout: bool = False) -> list[dataset_pb2.DatasetItem]:
        request = dataset_service_pb2.ListDatasetItemsRequest(name=name, holdout=holdout, page_size=1000)
        return list((await self.call(self.datasets.ListDatasetItems, request)).items)


@pytest.fixture
async def listeners(served: Any, settings: Settings) -> AsyncIterator[BytesListeners]:
    async with serving_bytes(settings, store=served.parts.database, blobs=served.parts.blobs) as listeners:
        yield listeners


@pytest.fixture
async def operator(served: Any, listeners: BytesListeners) -> AsyncIterator[Operator]:
    box = served.box("desk")
    async with box.tls_channel(served.api) as api, box.tls_channel(listeners.operator_bytes) as bytes_:
        operator = Operator(api, bytes_, served.operator_token)
        await operator.call(operator.models.CreateModel, model_service_pb2.CreateModelRequest(model_id="solar"))
        yield operator


def entry(target: str, label: str, **fields: Any) -> label_service_pb2.LabelEntry:
    return label_service_pb2.LabelEntry(target=target, label=label, **fields)


async def test_pictures_become_a_dataset_whose_holdout_is_asked_for_by_name(operator: Operator) -> None:
    brought = await operator.bring(*(picture(number) for number in range(30)), part="cell")
    assert all(one.sample and not one.duplicate for one in brought)
    listed = await operator.call(
        operator.samples.ListSamples,
        sample_service_pb2.ListSamplesRequest(model="models/solar", reason=sample_pb2.Sample.REASON_IMPORTED),
    )
    sample = listed.samples[0]
    assert (len(listed.samples), sample.agent, sample.line, sample.result.slot) == (30, "", "3", "solar")
    assert sample.result.part_id.startswith("cell-")

    entries = [entry(f"cell-{number}", ("good", "crack")[number % 2], line=number + 2) for number in range(30)]
    assert (await operator.label(*entries)).added == 30
    dataset = await operator.freeze(holdout_percent=40)
    assert await operator.freeze(holdout_percent=40) == dataset
    assert (dataset.name, dataset.rule.holdout_percent, dataset.rule.validation_percent) == ("datasets/solar-1", 40, 10)

    given = await operator.items(dataset.name)
    held = await operator.items(dataset.name, holdout=True)
    assert HOLDOUT not in {item.split for item in given}
    assert {item.split for item in held} == {HOLDOUT}
    assert len(given) + len(held) == 30 == sum(count.count for count in dataset.counts)
    assert (given[0].line, list(given[0].annotators), given[0].weight) == ("3", ["admin"], 1.0)

    call = operator.contents.DrawContactSheet(
        dataset_content_service_pb2.DrawContactSheetRequest(name=dataset.name),
        metadata=operator._metadata,
        timeout=30,
    )
    assert b"".join([piece.data async for piece in call]).startswith(b"\x89PNG")


async def test_what_is_stored_is_told_so_that_it_is_not_sent_again(operator: Operator) -> None:
    content = picture(1)
    (first, broken) = await operator.bring(content, b"no picture")
    assert (bool(first.sample), bool(broken.sample), bool(broken.error)) == (True, False, True)
    (again,) = await operator.bring(content)
    assert (again.sample, again.duplicate) == (first.sample, True)
    digests = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (b"other", content)]
    request = sample_import_service_pb2.FindImportedSamplesRequest(model="models/solar", source_digests=digests)
    assert list((await operator.call(operator.imports.FindImportedSamples, request)).samples) == ["", first.sample]


async def test_faults_and_conflicts_of_labels_are_told(operator: Operator) -> None:
    await operator.bring(picture(1), picture(2), part="cell")
    outcome = await operator.label(entry("cell-0", "good", line=2), entry("cell-9", "good", line=3))
    assert [(error.line, error.field, bool(error.remedy)) for error in outcome.errors] == [(3, "target", True)]
    assert outcome.added == 0
    bad = label_pb2.LabeledRegion(label="crack", x=float("nan"), y=0, width=1, height=1)
    assert [error.field for error in (await operator.label(entry("cell-0", "good", regions=[bad]))).errors] == [
        "regions"
    ]
    assert (await operator.label(entry("cell-0", "good"), dry_run=True)).added == 1
    await operator.label(entry("cell-0", "good"), entry("cell-0", "crack", annotator="bea"))
    request = label_service_pb2.ListConsensusRequest(model="models/solar", state=label_pb2.Consensus.STATE_CONFLICT)
    (conflict,) = (await operator.call(operator.labels.ListConsensus, request)).consensus
    assert {opinion.annotator: opinion.label for opinion in conflict.opinions} == {"admin": "good", "bea": "crack"}
    listed = await operator.call(operator.labels.ListLabels, label_service_pb2.ListLabelsRequest(annotator="bea"))
    assert [(label.label, label.source) for label in listed.labels] == [("crack", "labels.csv")]


async def refusal_of(operator: Operator, method: Any, request: Any) -> Refusal:
    return await refused(operator.call(method, request))


async def test_refusals_name_field_and_remedy(operator: Operator) -> None:
    datasets, service = operator.datasets, dataset_service_pb2
    weight = dataset_pb2.WeightRule(key="colour", value="x", weight=2)
    cases = [
        (datasets.FreezeDataset, service.FreezeDatasetRequest(model="solar"), "model"),
        (datasets.FreezeDataset, service.FreezeDatasetRequest(model="models/solar"), "model"),
        (
            datasets.FreezeDataset,
            service.FreezeDatasetRequest(model="models/solar", rule=dataset_pb2.DatasetRule(holdout_percent=99)),
            "rule.holdout_percent",
        ),
        (
            datasets.FreezeDataset,
            service.FreezeDatasetRequest(model="models/solar", rule=dataset_pb2.DatasetRule(weights=[weight])),
            "rule.weights",
        ),
        (datasets.GetDataset, service.GetDatasetRequest(name="datasets/no"), "name"),
        (datasets.ListDatasetItems, service.ListDatasetItemsRequest(name="no"), "name"),
        (datasets.ListDatasets, service.ListDatasetsRequest(page_token="x"), "page_token"),
        (datasets.ListDatasets, service.ListDatasetsRequest(page_token="WyJub3QgYSB0aW1lIiwicy0xIl0"), "page_token"),
        (
            operator.labels.ListConsensus,
            label_service_pb2.ListConsensusRequest(model="models/solar", state=ANY_STATE),
            "state",
        ),
    ]
    for method, request, field in cases:
        refusal = await refusal_of(operator, method, request)
        assert (refusal.field, bool(refusal.remedy)) == (field, True), request


async def test_an_agent_gets_at_no_dataset(served: Any, listeners: BytesListeners) -> None:
    """Neither listener for agents knows these services, and an agent has no operator's token for the others."""
    box = await served.agent("st-1")
    request = dataset_service_pb2.ListDatasetItemsRequest(name="datasets/solar-1", holdout=True)
    for address in (served.fleet, listeners.agent_bytes):
        async with box.mtls_channel(address) as channel:
            stub: Any = dataset_service_pb2_grpc.DatasetServiceStub(channel)
            assert (await refused(stub.ListDatasetItems(request))).code == grpc.StatusCode.UNIMPLEMENTED
    async with box.tls_channel(served.api) as channel:
        stub = dataset_service_pb2_grpc.DatasetServiceStub(channel)
        assert (await refused(stub.ListDatasetItems(request))).code == grpc.StatusCode.UNAUTHENTICATED
    async with box.tls_channel(listeners.operator_bytes) as channel:
        sheets: Any = dataset_content_service_pb2_grpc.DatasetContentServiceStub(channel)
        call = sheets.DrawContactSheet(dataset_content_service_pb2.DrawContactSheetRequest(name="datasets/solar-1"))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            _ = [piece async for piece in call]
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED
