"""Datasets are their content."""

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from controlplane.domain.dataset import (
    DatasetRule,
    WeightKey,
    WeightRule,
    count_items,
    digest_of,
    read_manifest,
    rule_from_json,
    rule_to_json,
    weight_of,
    write_manifests,
)
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.label import LabeledRegion
from controlplane.domain.split import Split
from tests.support.dataset_factories import make_item
from tests.support.factories import SOLAR

ITEMS = [
    make_item(sample_id="a", split=Split.TRAIN, regions=(LabeledRegion(label="c", x=0, y=0, width=0.5, height=1),)),
    make_item(sample_id="b", split=Split.HOLDOUT, part_id="secret", line="9"),
    make_item(sample_id="c", split=Split.VALIDATION, label="crack", weight=2.5),
]
RULE = DatasetRule(weights=(WeightRule(key=WeightKey.LINE, value="poly", weight=4.0),))


def test_manifests_hold_every_item_on_its_side_and_nothing_of_the_other() -> None:
    manifests = write_manifests(SOLAR, RULE, ITEMS)
    assert list(read_manifest(manifests.training)) == [ITEMS[0], ITEMS[2]]
    assert list(read_manifest(manifests.holdout)) == [ITEMS[1]]
    assert b"secret" not in manifests.training
    assert ITEMS[1].digest.encode() not in manifests.training


def test_the_digest_is_of_the_content_in_any_order() -> None:
    before = write_manifests(SOLAR, RULE, ITEMS)
    for seed in range(5):
        shuffled = random.Random(seed).sample(ITEMS, len(ITEMS))
        assert write_manifests(SOLAR, RULE, shuffled) == before
    assert digest_of(before.training) == digest_of(write_manifests(SOLAR, RULE, ITEMS).training)


@pytest.mark.parametrize(
    "change", [{"label": "dust"}, {"weight": 3.0}, {"split": Split.HOLDOUT}, {"label_ids": ("x",)}, {"group": "g"}]
)
def test_another_item_is_another_dataset(change: dict[str, Any]) -> None:
    changed = [replace(ITEMS[0], **change), *ITEMS[1:]]
    assert write_manifests(SOLAR, RULE, changed).digest != write_manifests(SOLAR, RULE, ITEMS).digest


def test_what_moves_between_the_manifests_changes_the_digest() -> None:
    swapped = [replace(ITEMS[0], split=Split.HOLDOUT), replace(ITEMS[1], split=Split.TRAIN), ITEMS[2]]
    assert write_manifests(SOLAR, RULE, swapped).digest != write_manifests(SOLAR, RULE, ITEMS).digest


def test_weights_of_rules_that_match_multiply() -> None:
    rules = (
        WeightRule(key=WeightKey.LABEL, value="crack", weight=3.0),
        WeightRule(key=WeightKey.LINE, value="poly", weight=4.0),
        WeightRule(key=WeightKey.SITE, value="elsewhere", weight=9.0),
    )
    assert weight_of(make_item(label="crack", line="poly"), rules) == 12.0
    assert weight_of(make_item(label="good", line="mono"), rules) == 1.0


def test_counts_are_by_split_class_and_line() -> None:
    items = [make_item(sample_id=name, line=line) for name, line in (("a", "1"), ("b", "2"), ("c", "2"))]
    assert [(entry.line, entry.count) for entry in count_items(items)] == [("1", 1), ("2", 2)]


def test_a_rule_reads_as_it_was_written() -> None:
    assert rule_from_json(json.loads(json.dumps(rule_to_json(RULE)))) == RULE


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"holdout_percent": 91}, "rule.holdout_percent"),
        ({"holdout_percent": -1}, "rule.holdout_percent"),
        ({"holdout_percent": 60, "validation_percent": 40}, "rule.holdout_percent"),
        ({"near_duplicate_distance": 100}, "rule.near_duplicate_distance"),
        ({"agreement_percent": 0}, "rule.agreement_percent"),
    ],
)
def test_a_rule_that_cannot_be_right_names_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        DatasetRule(**change)
    assert (refusal.value.field, bool(refusal.value.remedy)) == (field, True)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_a_weight_is_a_number_above_zero(weight: float) -> None:
    with pytest.raises(FieldInvalidError):
        WeightRule(key=WeightKey.LINE, value="poly", weight=weight)
