"""Sample policies on the wire: as operators write them and as agents are told them."""

from types import MappingProxyType

from lineside.v1 import slot_pb2

from controlplane import limits
from controlplane.domain.deployment import RedactedRegion, RedactionMethod, SamplePolicy
from controlplane.domain.errors import FieldInvalidError

_METHODS = MappingProxyType(
    {
        RedactionMethod.FILL: slot_pb2.RedactedRegion.METHOD_FILL,
        RedactionMethod.BLUR: slot_pb2.RedactedRegion.METHOD_BLUR,
    }
)
_METHODS_FROM_WIRE = MappingProxyType({wire: method for method, wire in _METHODS.items()})
_OPTIONAL = (
    "random_fraction",
    "confidence_below",
    "budget_bytes_per_day",
    "margin_below",
    "entropy_above",
    "outlier_above",
    "shadow_disagreement",
    "budget_images_per_day",
)
_KEEP_DUPLICATES = -1


def sample_policy_to_proto(policy: SamplePolicy) -> slot_pb2.SamplePolicy:
    """Return the policy with nothing left to a default."""
    distance = policy.near_duplicate_distance
    return slot_pb2.SamplePolicy(
        random_fraction=policy.random_fraction,
        confidence_below=policy.confidence_below,
        budget_bytes_per_day=policy.budget_bytes_per_day,
        margin_below=policy.margin_below,
        entropy_above=policy.entropy_above,
        class_quota_per_day=policy.class_quota_per_day,
        outlier_above=policy.outlier_above,
        shadow_disagreement=policy.shadow_disagreement,
        near_duplicate_distance=_KEEP_DUPLICATES if distance is None else distance,
        budget_images_per_day=policy.budget_images_per_day,
        redaction=[_region_to_proto(region) for region in policy.redaction],
    )


def sample_policy_from_proto(message: slot_pb2.SamplePolicy) -> SamplePolicy:
    """Return the policy, with the default for what is absent; raises FieldInvalidError as its constructor does, and
    for more labels or regions than a model and an image have."""
    default = SamplePolicy()
    for name, count, bound in (
        ("class_quota_per_day", len(message.class_quota_per_day), limits.CLASS_QUOTAS_MAX),
        ("redaction", len(message.redaction), limits.REDACTED_REGIONS_MAX),
    ):
        if count > bound:
            raise FieldInvalidError(
                f"{count} are more than {bound}",
                field=f"deployment.sample_policy.{name}",
                remedy='let "" stand for the other labels' if name == "class_quota_per_day" else "use larger regions",
            )
    given = {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}  # type: ignore[arg-type]
    return SamplePolicy(
        **{name: given.get(name, getattr(default, name)) for name in _OPTIONAL},
        class_quota_per_day=MappingProxyType(dict(sorted(message.class_quota_per_day.items()))),
        near_duplicate_distance=_near_duplicate_distance(message, default),
        redaction=tuple(map(_region_from_proto, message.redaction)),
    )


def _near_duplicate_distance(message: slot_pb2.SamplePolicy, default: SamplePolicy) -> int | None:
    if not message.HasField("near_duplicate_distance"):
        return default.near_duplicate_distance
    return message.near_duplicate_distance if message.near_duplicate_distance >= 0 else None


def _region_to_proto(region: RedactedRegion) -> slot_pb2.RedactedRegion:
    return slot_pb2.RedactedRegion(
        x=region.x, y=region.y, width=region.width, height=region.height, method=_METHODS[region.method]
    )


def _region_from_proto(message: slot_pb2.RedactedRegion) -> RedactedRegion:
    """A method that is not known is the one that leaves nothing to see."""
    return RedactedRegion(
        x=message.x,
        y=message.y,
        width=message.width,
        height=message.height,
        method=_METHODS_FROM_WIRE.get(message.method, RedactionMethod.FILL),
    )
