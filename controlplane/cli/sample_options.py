"""What a deployment keeps for training, as options of the command line and in words."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter
from lineside.v1 import slot_pb2

from controlplane.cli.quantity import BytesOption, CountOption, bytes_text
from controlplane.client import InvalidInputError

_ANY_LABEL = "*"
_REDACT_REMEDY = "write LEFT,TOP,WIDTH,HEIGHT as shares of the image, and ,blur for tiles instead of grey: 0,0,0.3,0.1"


@Parameter(name="*", group=Group("Samples", sort_key=10))
@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """For what is left out the controller's default holds."""

    sample_random: float | None = None
    """Share of inputs kept at random for training, 0 to 1."""
    sample_below: float | None = None
    """Inputs whose confidence is below this are kept, 0 to 1."""
    sample_margin: float | None = None
    """Inputs whose two best scores are nearer than this are kept, 0 to 1."""
    sample_entropy: float | None = None
    """Inputs whose scores have a normalised entropy above this are kept, 0 to 1; 1 keeps none."""
    sample_outlier: float | None = None
    """Inputs further than this from what the version saw first are kept, in standard deviations; 0 keeps none."""
    sample_disagreement: Annotated[bool | None, Parameter(negative="--no-sample-disagreement")] = None
    """Keep inputs to which a candidate in shadow gives another label."""
    sample_quota: tuple[str, ...] = ()
    """LABEL=N: keep N inputs a day of each label; *=N for every label that is not named; may be repeated."""
    sample_near: int | None = None
    """Leave out what is this near to what was kept, in bits of a 64-bit hash; 0 is the same bytes, -1 keeps all."""
    sample_budget: BytesOption | None = None
    """Most bytes of kept inputs an agent and day: 1000, 200MB, 1GiB; 0 keeps none."""
    sample_images: CountOption | None = None
    """Most kept inputs an agent and day; 0 is no bound."""
    redact: tuple[str, ...] = ()
    """LEFT,TOP,WIDTH,HEIGHT[,blur] of kept images, as shares, made unreadable on the box; may be repeated."""


NO_SAMPLE_OPTIONS = SampleOptions()


def sample_policy_of(options: SampleOptions) -> slot_pb2.SamplePolicy:
    """Return a policy of what is given; the controller has a default for the rest. Raises InvalidInputError."""
    return slot_pb2.SamplePolicy(
        random_fraction=options.sample_random,
        confidence_below=options.sample_below,
        budget_bytes_per_day=options.sample_budget,
        margin_below=options.sample_margin,
        entropy_above=options.sample_entropy,
        class_quota_per_day=dict(map(_quota, options.sample_quota)),
        outlier_above=options.sample_outlier,
        shadow_disagreement=options.sample_disagreement,
        near_duplicate_distance=options.sample_near,
        budget_images_per_day=options.sample_images,
        redaction=map(_region, options.redact),
    )


def _quota(written: str) -> tuple[str, int]:
    label, equals, count = written.rpartition("=")
    if not (label and equals and count.isdecimal() and int(count) < 1 << 31):
        raise InvalidInputError(
            f"{written!r} is no quota", field="sample-quota", remedy="write LABEL=N, or *=N for every other label"
        )
    return ("" if label == _ANY_LABEL else label), int(count)


def _region(written: str) -> slot_pb2.RedactedRegion:
    *numbers, last = written.split(",")
    blur = last == "blur"
    try:
        x, y, width, height = (float(word) for word in (numbers if blur else [*numbers, last]))
    except ValueError as error:
        raise InvalidInputError(f"{written!r} is no region", field="redact", remedy=_REDACT_REMEDY) from error
    method = slot_pb2.RedactedRegion.METHOD_BLUR if blur else slot_pb2.RedactedRegion.METHOD_FILL
    return slot_pb2.RedactedRegion(x=x, y=y, width=width, height=height, method=method)


def samples_text(policy: slot_pb2.SamplePolicy) -> str:
    """Return the policy in one sentence: reasons, then bounds."""
    if not policy.budget_bytes_per_day:
        return "none kept"
    words = [f"{policy.random_fraction:g} at random"]
    words += [
        text
        for asked, text in (
            (policy.confidence_below > 0, f"confidence below {policy.confidence_below:g}"),
            (policy.margin_below > 0, f"margin below {policy.margin_below:g}"),
            (policy.entropy_above < 1, f"entropy above {policy.entropy_above:g}"),
            (policy.outlier_above > 0, f"outliers above {policy.outlier_above:g}"),
            (policy.shadow_disagreement, "disagreement in shadow"),
        )
        if asked
    ]
    words += [f"{count} a day of {label or 'any label'}" for label, count in sorted(policy.class_quota_per_day.items())]
    words.append(_duplicates_text(policy.near_duplicate_distance))
    words.append(f"{bytes_text(policy.budget_bytes_per_day)} an agent and day")
    if policy.budget_images_per_day:
        words.append(f"{policy.budget_images_per_day} images an agent and day")
    if policy.redaction:
        words.append(f"{len(policy.redaction)} regions redacted")
    return ", ".join(words)


def _duplicates_text(bits: int) -> str:
    if bits < 0:
        return "duplicates too"
    return "no duplicates" if bits == 0 else f"none within {bits} bits of another"
