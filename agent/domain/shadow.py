"""Shadow runs: what is compared between the version that answers and a candidate, and when a run must stop.

Rules kept here:
- An input on which the candidate failed is compared and agrees with nothing.
- The distance is that of the scores which both give to the serving version's top label; a label that the candidate does
  not know has score 0 there.
- The 99th percentile of a window is above a limit exactly when more of its latencies are above it than one in a hundred
  of a full window: so a run stops as soon as that is certain, and never on account of one slow inference.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from agent.domain.artifact import ModelSignature
from agent.domain.interpretation import reading_of
from agent.domain.result import LabelScore, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPair:
    """Who is compared with whom. Windows are kept apart by these."""

    slot: str
    serving_version: int
    candidate_version: int
    device: str
    """Of the candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One input that the serving version answered and the candidate was given."""

    pair: ShadowPair
    time: datetime
    agreed: bool
    failed: bool
    score_distance: float | None
    """0 to 1; None where the candidate failed or the serving version gave no label."""
    candidate_latency_us: int
    serving_latency_us: int


def compare(
    result: Result, *, candidate_version: int, device: str, labels: tuple[LabelScore, ...] | None, latency_us: int
) -> Comparison:
    """`labels` are all of the candidate's, best first; None where it failed on the input."""
    distance = None
    if labels is not None and result.labels:
        top = result.labels[0]
        score = next((each.score for each in labels if each.label == top.label), 0.0)
        distance = min(1.0, abs(top.score - score))
    return Comparison(
        pair=ShadowPair(
            slot=result.slot, serving_version=result.version, candidate_version=candidate_version, device=device
        ),
        time=result.infer_time,
        agreed=labels is not None and _top(labels) == _top(result.labels),
        failed=labels is None,
        score_distance=distance,
        candidate_latency_us=latency_us,
        serving_latency_us=result.latency_us,
    )


def p99_exceeds(latencies_ms: Collection[float], limit_ms: float, *, window: int) -> bool:
    """Whether the 99th percentile of the last `window` latencies is above the limit, however those that are missing to
    a full window turn out. `latencies_ms` are at most `window`."""
    assert len(latencies_ms) <= window
    return sum(latency > limit_ms for latency in latencies_ms) > window // 100


def why_not_comparable(serving: ModelSignature, candidate: ModelSignature) -> str:
    """Why the candidate cannot be run on the serving version's inputs and compared; empty where it can."""
    served = {spec.name: spec for spec in serving.inputs}
    if set(served) != {spec.name for spec in candidate.inputs}:
        return f"its inputs are {_names(candidate)}, those of the serving version {_names(serving)}"
    for spec in candidate.inputs:
        other = served[spec.name]
        if spec.datatype != other.datatype or not _fits(other.shape, spec.shape):
            return (
                f"its input {spec.name!r} is {spec.datatype} {list(spec.shape)}, "
                f"that of the serving version {other.datatype} {list(other.shape)}"
            )
    for signature, whose in ((serving, "of the serving version"), (candidate, "of the candidate")):
        if reading_of(signature) is None:
            return f"the outputs {whose} are no scores of classes, so there is no top label to compare"
    return ""


def _top(labels: tuple[LabelScore, ...]) -> str | None:
    return labels[0].label if labels else None


def _fits(given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether some inputs of the one shape may be of the other; -1 is any size."""
    return len(given) == len(wanted) and all(-1 in (a, b) or a == b for a, b in zip(given, wanted, strict=True))


def _names(signature: ModelSignature) -> str:
    return ", ".join(repr(spec.name) for spec in signature.inputs) or "none"
