"""Labels, datasets, sides of samples, and pictures."""

from types import MappingProxyType
from typing import Any

from controlplane.app.ports_datasets import Picture
from controlplane.domain.dataset import Dataset, DatasetCount, LeftOut, rule_from_json, rule_to_json
from controlplane.domain.ids import DatasetId, Digest, LabelId, ModelId, SampleId
from controlplane.domain.label import Label, LabeledRegion
from controlplane.domain.split import Candidate, Side, Split, SplitMember
from controlplane.store.mapping.values import Row


def label_to_row(label: Label) -> dict[str, Any]:
    return {
        "id": label.id,
        "model_id": label.model_id,
        "sample_id": label.sample_id,
        "annotator": label.annotator,
        "create_time": label.create_time,
        "label": label.label,
        "regions": [[box.label, box.x, box.y, box.width, box.height] for box in label.regions],
        "source": label.source,
        "adjudicates": label.adjudicates,
    }


def label_from_row(row: Row) -> Label:
    return Label(
        id=LabelId(row["id"]),
        model_id=ModelId(row["model_id"]),
        sample_id=SampleId(row["sample_id"]),
        annotator=row["annotator"],
        create_time=row["create_time"],
        label=row["label"],
        regions=tuple(
            LabeledRegion(label=name, x=x, y=y, width=width, height=height)
            for name, x, y, width, height in row["regions"]
        ),
        source=row["source"],
        adjudicates=row["adjudicates"],
    )


def dataset_to_row(dataset: Dataset) -> dict[str, Any]:
    return {
        "id": dataset.id,
        "model_id": dataset.model_id,
        "number": dataset.number,
        "create_time": dataset.create_time,
        "creator": dataset.creator,
        "description": dataset.description,
        "digest": dataset.digest,
        "training_manifest": dataset.training_manifest,
        "holdout_manifest": dataset.holdout_manifest,
        "rule": rule_to_json(dataset.rule),
        "counts": [[entry.split.value, entry.label, entry.line, entry.count] for entry in dataset.counts],
        "left_out": {reason.value: dataset.left_out[reason] for reason in sorted(dataset.left_out)},
    }


def dataset_from_row(row: Row) -> Dataset:
    return Dataset(
        id=DatasetId(row["id"]),
        model_id=ModelId(row["model_id"]),
        number=row["number"],
        create_time=row["create_time"],
        creator=row["creator"],
        description=row["description"],
        digest=Digest(row["digest"]),
        training_manifest=Digest(row["training_manifest"]),
        holdout_manifest=Digest(row["holdout_manifest"]),
        rule=rule_from_json(row["rule"]),
        counts=tuple(
            DatasetCount(split=Split(split), label=label, line=line, count=count)
            for split, label, line, count in row["counts"]
        ),
        left_out=MappingProxyType({LeftOut(reason): count for reason, count in row["left_out"].items()}),
    )


def member_to_row(model_id: ModelId, member: SplitMember) -> dict[str, Any]:
    candidate = member.candidate
    return {
        "model_id": model_id,
        "sample_id": candidate.sample_id,
        "side": member.side.value,
        "digest": candidate.digest,
        "part_id": candidate.part_id,
        "difference_hash": _hash_to_text(candidate.difference_hash),
    }


def member_from_row(row: Row) -> SplitMember:
    return SplitMember(
        candidate=Candidate(
            sample_id=SampleId(row["sample_id"]),
            digest=Digest(row["digest"]),
            part_id=row["part_id"],
            difference_hash=_hash_from_text(row["difference_hash"]),
        ),
        side=Side(row["side"]),
    )


def picture_to_row(picture: Picture) -> dict[str, Any]:
    return {
        "digest": picture.digest,
        "readable": picture.readable,
        "width": picture.width,
        "height": picture.height,
        "difference_hash": _hash_to_text(picture.difference_hash),
    }


def picture_from_row(row: Row) -> Picture:
    return Picture(
        digest=Digest(row["digest"]),
        readable=row["readable"],
        width=row["width"],
        height=row["height"],
        difference_hash=_hash_from_text(row["difference_hash"]),
    )


def _hash_to_text(value: int | None) -> str | None:
    return None if value is None else f"{value:064x}"


def _hash_from_text(text: str | None) -> int | None:
    return None if text is None else int(text, 16)
