"""Datasets: labelled samples of a model, frozen.

Rules kept here:
- A dataset never changes, and it is its content: its digest is one over both manifests, which name every sample,
  label and weight. The same samples, labels and rule are the same dataset.
- What a trainer is given and what judges it have a manifest each. Nobody who reads the one learns of the other.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, DatasetId, Digest, LabelId, ModelId, SampleId
from controlplane.domain.label import AGREEMENT_PERCENT_DEFAULT, LabeledRegion
from controlplane.domain.split import HASH_BITS, TRAINING_SPLITS, Split, SplitRule

NO_AGENT = AgentId("")
"""Whose an imported sample is."""


class LeftOut(StrEnum):
    """Why a labelled sample is in no split."""

    CONFLICT = "CONFLICT"
    """Its annotators do not agree."""
    UNREADABLE = "UNREADABLE"
    """Its content is no picture and no array."""
    DUPLICATE = "DUPLICATE"
    """Another sample in it has the same content."""
    CONTRADICTION = "CONTRADICTION"
    """Another sample has the same content and another label."""
    BOTH_SIDES = "BOTH_SIDES"
    """It joins what is held out with what trainers have seen."""


class WeightKey(StrEnum):
    SITE = "site"
    LINE = "line"
    STATION = "station"
    AGENT = "agent"
    LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRule:
    """Items whose `key` is `value` count `weight` times as much."""

    key: WeightKey
    value: str
    weight: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and 0 < self.weight <= 1e6):
            raise FieldInvalidError(
                f"{self.weight:g} is no weight", field="rule.weights", remedy="give a number above 0, at most 1,000,000"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRule:
    """How labelled samples are split and weighted."""

    holdout_percent: int = 20
    validation_percent: int = 10
    near_duplicate_distance: int = 10
    agreement_percent: int = AGREEMENT_PERCENT_DEFAULT
    weights: tuple[WeightRule, ...] = ()

    def __post_init__(self) -> None:
        bounds = (
            ("holdout_percent", 0, 90),
            ("validation_percent", 0, 90),
            ("near_duplicate_distance", 0, HASH_BITS // 8),
            ("agreement_percent", 1, 100),
        )
        for name, low, high in bounds:
            value = getattr(self, name)
            if not low <= value <= high:
                raise FieldInvalidError(
                    f"{value} is not from {low} to {high}", field=f"rule.{name}", remedy=f"give {low} to {high}"
                )
        if self.holdout_percent + self.validation_percent > 95:
            raise FieldInvalidError(
                "nothing is left to train on",
                field="rule.holdout_percent",
                remedy="hold out and validate with at most 95 percent together",
            )

    def split_rule(self, model_id: ModelId) -> SplitRule:
        return SplitRule(
            key=f"models/{model_id}",
            holdout_percent=self.holdout_percent,
            validation_percent=self.validation_percent,
            near_duplicate_distance=self.near_duplicate_distance,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetItem:
    """One sample as it was when the dataset was frozen."""

    sample_id: SampleId
    digest: Digest
    content_type: str
    split: Split
    label: str
    regions: tuple[LabeledRegion, ...] = ()
    annotators: tuple[str, ...] = ()
    """Who say so."""
    label_ids: tuple[LabelId, ...] = ()
    weight: float = 1.0
    part_id: str = ""
    agent_id: AgentId = NO_AGENT
    """Empty for an imported sample."""
    site: str = ""
    line: str = ""
    station: str = ""
    capture_time: datetime
    group: str = ""

    @property
    def file_name(self) -> str:
        """Of its content in a folder: by digest, so that one content is one file."""
        suffix = "png" if self.content_type == "image/png" else "npy"
        return f"{self.digest.removeprefix('sha256:')}.{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCount:
    split: Split
    label: str
    line: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A frozen dataset; its items are in the blobs that its manifests name."""

    id: DatasetId
    model_id: ModelId
    number: int
    """Of the model's datasets, from 1."""
    create_time: datetime
    creator: str
    description: str
    digest: Digest
    training_manifest: Digest
    holdout_manifest: Digest
    rule: DatasetRule
    counts: tuple[DatasetCount, ...]
    left_out: Mapping[LeftOut, int] = field(default_factory=lambda: MappingProxyType({}))

    def count(self, *splits: Split) -> int:
        """Return how many items these splits have; all of them when none is named."""
        return sum(entry.count for entry in self.counts if not splits or entry.split in splits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """The canonical bytes of a dataset, and its digest over them."""

    training: bytes
    holdout: bytes
    digest: Digest


def weight_of(item: DatasetItem, rules: Iterable[WeightRule]) -> float:
    """Return the product of the weights whose rules match."""
    facts = {
        WeightKey.SITE: item.site,
        WeightKey.LINE: item.line,
        WeightKey.STATION: item.station,
        WeightKey.AGENT: str(item.agent_id),
        WeightKey.LABEL: item.label,
    }
    return math.prod(rule.weight for rule in rules if facts[rule.key] == rule.value)


def count_items(items: Iterable[DatasetItem]) -> tuple[DatasetCount, ...]:
    """Return how many items each split, class and line has, sorted."""
    counts = Counter((item.split, item.label, item.line) for item in items)
    return tuple(
        DatasetCount(split=split, label=label, line=line, count=counts[split, label, line])
        for split, label, line in sorted(counts)
    )


def write_manifests(model_id: ModelId, rule: DatasetRule, items: Sequence[DatasetItem]) -> Manifests:
    """Return the manifests of the items in canonical JSON: equal items, in any order, are equal bytes."""
    ordered = sorted(items, key=lambda item: item.sample_id)
    head = {"model": f"models/{model_id}", "rule": rule_to_json(rule)}
    sides = (
        [item for item in ordered if item.split in TRAINING_SPLITS],
        [item for item in ordered if item.split not in TRAINING_SPLITS],
    )
    training, holdout = (_canonical({**head, "items": [item_to_json(item) for item in side]}) for side in sides)
    whole = hashlib.sha256(hashlib.sha256(training).digest() + hashlib.sha256(holdout).digest()).hexdigest()
    return Manifests(training=training, holdout=holdout, digest=Digest(f"sha256:{whole}"))


def read_manifest(content: bytes) -> tuple[DatasetItem, ...]:
    """Return the items of a manifest, by sample."""
    return tuple(item_from_json(item) for item in json.loads(content)["items"])


def digest_of(content: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def item_to_json(item: DatasetItem) -> dict[str, Any]:
    return {
        "sample": item.sample_id,
        "digest": item.digest,
        "content_type": item.content_type,
        "split": item.split.value,
        "label": item.label,
        "regions": [[box.label, box.x, box.y, box.width, box.height] for box in item.regions],
        "annotators": list(item.annotators),
        "label_ids": list(item.label_ids),
        "weight": item.weight,
        "part_id": item.part_id,
        "agent": item.agent_id,
        "site": item.site,
        "line": item.line,
        "station": item.station,
        "capture_time": item.capture_time.astimezone(UTC).isoformat(),
        "group": item.group,
    }


def item_from_json(value: Mapping[str, Any]) -> DatasetItem:
    return DatasetItem(
        sample_id=SampleId(value["sample"]),
        digest=Digest(value["digest"]),
        content_type=value["content_type"],
        split=Split(value["split"]),
        label=value["label"],
        regions=tuple(
            LabeledRegion(label=label, x=x, y=y, width=width, height=height)
            for label, x, y, width, height in value["regions"]
        ),
        annotators=tuple(value["annotators"]),
        label_ids=tuple(LabelId(label_id) for label_id in value["label_ids"]),
        weight=value["weight"],
        part_id=value["part_id"],
        agent_id=AgentId(value["agent"]),
        site=value["site"],
        line=value["line"],
        station=value["station"],
        capture_time=datetime.fromisoformat(value["capture_time"]),
        group=value["group"],
    )


def rule_to_json(rule: DatasetRule) -> dict[str, Any]:
    return {
        "holdout_percent": rule.holdout_percent,
        "validation_percent": rule.validation_percent,
        "near_duplicate_distance": rule.near_duplicate_distance,
        "agreement_percent": rule.agreement_percent,
        "weights": [[weight.key.value, weight.value, weight.weight] for weight in rule.weights],
    }


def rule_from_json(value: Mapping[str, Any]) -> DatasetRule:
    return DatasetRule(
        holdout_percent=value["holdout_percent"],
        validation_percent=value["validation_percent"],
        near_duplicate_distance=value["near_duplicate_distance"],
        agreement_percent=value["agreement_percent"],
        weights=tuple(
            WeightRule(key=WeightKey(key), value=text, weight=weight) for key, text, weight in value["weights"]
        ),
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
