"""Datasets on the wire."""

from collections.abc import Mapping
from types import MappingProxyType

from lineside.v1 import dataset_pb2, sample_import_service_pb2

from controlplane.domain.dataset import Dataset, DatasetCount, DatasetItem, DatasetRule, WeightKey, WeightRule
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.split import Side, Split
from controlplane.rpc.convert.labels import region_to_proto
from controlplane.rpc.convert.times import time_to_proto

_SPLITS_TO_PROTO = MappingProxyType(
    {
        Split.TRAIN: dataset_pb2.DatasetItem.SPLIT_TRAIN,
        Split.VALIDATION: dataset_pb2.DatasetItem.SPLIT_VALIDATION,
        Split.HOLDOUT: dataset_pb2.DatasetItem.SPLIT_HOLDOUT,
    }
)
_SIDES: Mapping[int, Side | None] = MappingProxyType(
    {
        sample_import_service_pb2.ImportSamplesRequest.SIDE_UNSPECIFIED: None,
        sample_import_service_pb2.ImportSamplesRequest.SIDE_TRAINING: Side.TRAINING,
        sample_import_service_pb2.ImportSamplesRequest.SIDE_HOLDOUT: Side.HOLDOUT,
    }
)
_NUMBERS = ("holdout_percent", "validation_percent", "near_duplicate_distance", "agreement_percent")


def rule_from_proto(message: dataset_pb2.DatasetRule) -> DatasetRule:
    """Return the rule; what is absent has the default."""
    given = {field.name: value for field, value in message.ListFields() if field.name in _NUMBERS}
    return DatasetRule(**given, weights=tuple(map(_weight_from_proto, message.weights)))


def side_from_proto(number: int) -> Side | None:
    """Return the side, None where none is given. Raises FieldInvalidError for one that is not known."""
    if number not in _SIDES:
        raise FieldInvalidError(f"{number} is no side", field="side", remedy="name SIDE_TRAINING or SIDE_HOLDOUT")
    return _SIDES[number]


def rule_to_proto(rule: DatasetRule) -> dataset_pb2.DatasetRule:
    return dataset_pb2.DatasetRule(
        holdout_percent=rule.holdout_percent,
        validation_percent=rule.validation_percent,
        near_duplicate_distance=rule.near_duplicate_distance,
        agreement_percent=rule.agreement_percent,
        weights=[
            dataset_pb2.WeightRule(key=weight.key.value, value=weight.value, weight=weight.weight)
            for weight in rule.weights
        ],
    )


def dataset_to_proto(dataset: Dataset) -> dataset_pb2.Dataset:
    return dataset_pb2.Dataset(
        name=f"datasets/{dataset.id}",
        model=f"models/{dataset.model_id}",
        create_time=time_to_proto(dataset.create_time),
        creator=dataset.creator,
        description=dataset.description,
        digest=dataset.digest,
        training_manifest=dataset.training_manifest,
        holdout_manifest=dataset.holdout_manifest,
        rule=rule_to_proto(dataset.rule),
        counts=map(_count_to_proto, dataset.counts),
        left_out={reason.value: count for reason, count in dataset.left_out.items()},
    )


def item_to_proto(item: DatasetItem) -> dataset_pb2.DatasetItem:
    return dataset_pb2.DatasetItem(
        sample=f"samples/{item.sample_id}",
        digest=item.digest,
        content_type=item.content_type,
        split=_SPLITS_TO_PROTO[item.split],
        label=item.label,
        regions=map(region_to_proto, item.regions),
        annotators=item.annotators,
        label_ids=item.label_ids,
        weight=item.weight,
        part_id=item.part_id,
        agent=f"agents/{item.agent_id}" if item.agent_id else "",
        site=item.site,
        line=item.line,
        station=item.station,
        capture_time=time_to_proto(item.capture_time),
        group=item.group,
    )


def _weight_from_proto(message: dataset_pb2.WeightRule) -> WeightRule:
    try:
        key = WeightKey(message.key)
    except ValueError as error:
        raise FieldInvalidError(
            f"{message.key[:80]!r} weighs nothing", field="rule.weights", remedy=f"use one of {', '.join(WeightKey)}"
        ) from error
    return WeightRule(key=key, value=message.value, weight=message.weight)


def _count_to_proto(count: DatasetCount) -> dataset_pb2.DatasetCount:
    return dataset_pb2.DatasetCount(
        split=_SPLITS_TO_PROTO[count.split], label=count.label, line=count.line, count=count.count
    )
