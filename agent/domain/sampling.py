"""Which inputs are kept for training, and how useful each is.

Rules kept here:
- The same draws pick the same inputs.
- Chance comes first: what it picks is kept as RANDOM whatever else speaks for it, so that these are an unbiased share
  of what the line sees. Of the other reasons the one that says the most is given.
- A sample's value, 0 to 1, says which goes first where room is short. It tells nothing of a label.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.domain.result import LabelScore, SampleReason
from agent.domain.slot import SamplePolicy

RANDOM_VALUE = 0.6
"""Above the doubts that are least: there are few of them, and a spool that drops them all is biased."""
QUOTA_VALUE = 0.5
DISAGREEMENT_VALUE = 0.95
"""One of two versions is wrong here."""
_DOUBT_VALUES = (0.2, 0.8)
_OUTLIER_VALUES = (0.5, 1.0)
_SUM_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    reason: SampleReason
    value: float


def pick(
    policy: SamplePolicy,
    labels: Sequence[LabelScore],
    *,
    drawn: float,
    distance: float | None = None,
    quota_left: bool = False,
) -> Pick | None:
    """Why the input should be kept, or None. `labels` are the result's, best first; `drawn` is uniform in [0, 1);
    `distance` is the input's from the baseline, None where it is not known; `quota_left` says whether the quota of
    its label asks for more."""
    found = _reasons(policy, labels, distance=distance, quota_left=quota_left)
    best = max(found, key=lambda each: each.value, default=None)
    if drawn < policy.random_fraction:
        return Pick(reason=SampleReason.RANDOM, value=max(RANDOM_VALUE, 0.0 if best is None else best.value))
    return best


def _reasons(
    policy: SamplePolicy, labels: Sequence[LabelScore], *, distance: float | None, quota_left: bool
) -> list[Pick]:
    found: list[Pick] = []
    if distance is not None and 0.0 < policy.outlier_above < distance:
        found.append(_valued(SampleReason.OUTLIER, 1.0 - policy.outlier_above / distance, _OUTLIER_VALUES))
    if not labels:
        return found
    confidence = labels[0].score
    if confidence < policy.confidence_below:
        found.append(_valued(SampleReason.LEAST_CONFIDENCE, 1.0 - confidence / policy.confidence_below, _DOUBT_VALUES))
    if policy.margin_below > 0.0:
        margin = margin_of(labels)
        if margin is not None and margin < policy.margin_below:
            found.append(_valued(SampleReason.MARGIN, 1.0 - margin / policy.margin_below, _DOUBT_VALUES))
    if policy.entropy_above < 1.0:
        entropy = entropy_of(labels)
        if entropy is not None and entropy > policy.entropy_above:
            beyond = (entropy - policy.entropy_above) / (1.0 - policy.entropy_above)
            found.append(_valued(SampleReason.ENTROPY, beyond, _DOUBT_VALUES))
    if quota_left:
        found.append(Pick(reason=SampleReason.CLASS_QUOTA, value=QUOTA_VALUE))
    return found


def margin_of(labels: Sequence[LabelScore]) -> float | None:
    """How far the best score is ahead of the second; None where there is one score, or they exclude not each other."""
    if len(labels) < 2 or not _exclusive(labels):
        return None
    return labels[0].score - labels[1].score


def entropy_of(labels: Sequence[LabelScore]) -> float | None:
    """Of the scores and what they leave of 1 as one more, normalised: 0 is certain, 1 is all alike. None as for
    `margin_of`."""
    if len(labels) < 2 or not _exclusive(labels):
        return None
    scores = [label.score for label in labels]
    rest = 1.0 - math.fsum(scores)
    if rest > _SUM_TOLERANCE:
        scores.append(rest)
    return min(1.0, -math.fsum(score * math.log(score) for score in scores if score > 0.0) / math.log(len(scores)))


def _exclusive(labels: Sequence[LabelScore]) -> bool:
    return math.fsum(label.score for label in labels) <= 1.0 + _SUM_TOLERANCE and labels[-1].score >= 0.0


def _valued(reason: SampleReason, strength: float, ends: tuple[float, float]) -> Pick:
    low, high = ends
    return Pick(reason=reason, value=low + (high - low) * min(1.0, max(0.0, strength)))
