"""Sample policies, reasons and statistics of inputs on the wire."""

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import evidence_pb2, slot_pb2

from controlplane import limits
from controlplane.domain.deployment import RedactedRegion, RedactionMethod, SamplePolicy
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import Histogram
from controlplane.rpc.convert.input_statistics import input_statistics_from_proto, input_statistics_to_proto
from controlplane.rpc.convert.sample_policies import sample_policy_from_proto, sample_policy_to_proto

policies = st.builds(
    SamplePolicy,
    random_fraction=st.floats(0, 1),
    confidence_below=st.floats(0, 1),
    budget_bytes_per_day=st.integers(0, 1 << 40),
    margin_below=st.floats(0, 1),
    entropy_above=st.floats(0, 1),
    class_quota_per_day=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.integers(0)),
    outlier_above=st.floats(0, 50),
    near_duplicate_distance=st.none() | st.integers(0, 63),
    budget_images_per_day=st.integers(0, 1 << 40),
    redaction=st.lists(
        st.builds(
            RedactedRegion, x=st.just(0.25), y=st.just(0.5), width=st.floats(0.1, 0.75), height=st.floats(0.1, 0.5)
        ),
        max_size=2,
    ).map(tuple),
)


@given(policies.filter(lambda policy: all(count < 1 << 31 for count in policy.class_quota_per_day.values())))
def test_a_policy_returns(policy: SamplePolicy) -> None:
    assert sample_policy_from_proto(sample_policy_to_proto(policy)) == policy


def test_what_a_policy_leaves_out_is_the_controllers_default() -> None:
    default = SamplePolicy()
    assert sample_policy_from_proto(slot_pb2.SamplePolicy()) == default
    for name, value in (
        ("random_fraction", 0.5),
        ("confidence_below", 0.25),
        ("budget_bytes_per_day", 7),
        ("margin_below", 0.0),
        ("entropy_above", 0.5),
        ("outlier_above", 0.0),
        ("shadow_disagreement", False),
        ("near_duplicate_distance", 3),
        ("budget_images_per_day", 9),
    ):
        given_one: Any = {name: value}
        policy = sample_policy_from_proto(slot_pb2.SamplePolicy(**given_one))
        assert {field: getattr(policy, field) for field in SamplePolicy.__dataclass_fields__} == {
            **{field: getattr(default, field) for field in SamplePolicy.__dataclass_fields__},
            name: value,
        }


def test_a_distance_below_zero_keeps_duplicates() -> None:
    assert sample_policy_from_proto(slot_pb2.SamplePolicy(near_duplicate_distance=-1)).near_duplicate_distance is None


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("margin_below", slot_pb2.SamplePolicy(margin_below=1.5)),
        ("entropy_above", slot_pb2.SamplePolicy(entropy_above=-0.5)),
        ("entropy_above", slot_pb2.SamplePolicy(entropy_above=float("nan"))),
        ("outlier_above", slot_pb2.SamplePolicy(outlier_above=float("inf"))),
        ("outlier_above", slot_pb2.SamplePolicy(outlier_above=float("nan"))),
        ("near_duplicate_distance", slot_pb2.SamplePolicy(near_duplicate_distance=64)),
        ("budget_images_per_day", slot_pb2.SamplePolicy(budget_images_per_day=-1)),
        ("class_quota_per_day", slot_pb2.SamplePolicy(class_quota_per_day={"ok": -1})),
        (
            "class_quota_per_day",
            slot_pb2.SamplePolicy(
                class_quota_per_day={str(index): 1 for index in range(limits.CLASS_QUOTAS_MAX + 1)},
            ),
        ),
        (
            "redaction",
            slot_pb2.SamplePolicy(redaction=[slot_pb2.RedactedRegion(x=0.5, y=0, width=0.6, height=1)]),
        ),
        ("redaction", slot_pb2.SamplePolicy(redaction=[slot_pb2.RedactedRegion(width=1, height=float("nan"))])),
        (
            "redaction",
            slot_pb2.SamplePolicy(
                redaction=[slot_pb2.RedactedRegion(width=1, height=1)] * (limits.REDACTED_REGIONS_MAX + 1)
            ),
        ),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_its_field(field: str, message: slot_pb2.SamplePolicy) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        sample_policy_from_proto(message)
    assert refusal.value.field == f"deployment.sample_policy.{field}"


def test_a_method_of_redaction_that_is_not_known_leaves_nothing_to_see() -> None:
    region = slot_pb2.RedactedRegion(width=1, height=1)
    (read,) = sample_policy_from_proto(slot_pb2.SamplePolicy(redaction=[region])).redaction
    assert read.method is RedactionMethod.FILL


def test_statistics_of_inputs_return_sorted() -> None:
    statistics = MappingProxyType(
        {
            "contrast": Histogram(low=0.0, high=0.5, bin_counts=(1,) * 32),
            "mean": Histogram(low=0.0, high=1.0, bin_counts=(2,) * 32),
        }
    )
    messages = input_statistics_to_proto(dict(reversed(list(statistics.items()))))
    assert [(message.name, message.count) for message in messages] == [("contrast", 32), ("mean", 64)]
    assert input_statistics_from_proto(messages) == statistics


@pytest.mark.parametrize(
    "messages",
    [
        [evidence_pb2.InputStatistic(name="mean", high=1, bin_counts=[1, 2], count=4)],
        [evidence_pb2.InputStatistic(name="mean", high=1)] * 2,
    ],
)
def test_statistics_that_contradict_themselves_are_refused(messages: list[evidence_pb2.InputStatistic]) -> None:
    with pytest.raises(FieldInvalidError):
        input_statistics_from_proto(messages)
