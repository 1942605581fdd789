"""What a deployment's slots keep for training, as JSON."""

from types import MappingProxyType
from typing import Any

from controlplane.domain.deployment import RedactedRegion, RedactionMethod, SamplePolicy
from controlplane.store.mapping.values import Row


def sample_policy_to_json(policy: SamplePolicy) -> dict[str, Any]:
    return {
        "random_fraction": policy.random_fraction,
        "confidence_below": policy.confidence_below,
        "budget_bytes_per_day": policy.budget_bytes_per_day,
        "margin_below": policy.margin_below,
        "entropy_above": policy.entropy_above,
        "class_quota_per_day": dict(policy.class_quota_per_day),
        "outlier_above": policy.outlier_above,
        "shadow_disagreement": policy.shadow_disagreement,
        "near_duplicate_distance": policy.near_duplicate_distance,
        "budget_images_per_day": policy.budget_images_per_day,
        "redaction": [_region_to_json(region) for region in policy.redaction],
    }


def sample_policy_from_json(value: Row) -> SamplePolicy:
    """Rows of earlier controllers know the first three alone, and asked for nothing else."""
    return SamplePolicy(
        random_fraction=value["random_fraction"],
        confidence_below=value["confidence_below"],
        budget_bytes_per_day=value["budget_bytes_per_day"],
        margin_below=value.get("margin_below", 0.0),
        entropy_above=value.get("entropy_above", 1.0),
        class_quota_per_day=MappingProxyType(dict(value.get("class_quota_per_day", {}))),
        outlier_above=value.get("outlier_above", 0.0),
        shadow_disagreement=value.get("shadow_disagreement", False),
        near_duplicate_distance=value.get("near_duplicate_distance"),
        budget_images_per_day=value.get("budget_images_per_day", 0),
        redaction=tuple(_region_from_json(region) for region in value.get("redaction", ())),
    )


def _region_to_json(region: RedactedRegion) -> dict[str, Any]:
    return {
        "x": region.x,
        "y": region.y,
        "width": region.width,
        "height": region.height,
        "method": region.method.value,
    }


def _region_from_json(value: Row) -> RedactedRegion:
    return RedactedRegion(
        x=value["x"],
        y=value["y"],
        width=value["width"],
        height=value["height"],
        method=RedactionMethod(value["method"]),
    )
