"""Judgement: a candidate held against the champion on the same items of the holdout.

What holds:
- Every measure is paired: what both get right, or both get wrong, says nothing about their difference.
- Images of one part are one piece of evidence: an image that is there twice narrows no interval.
- A proposal needs a gain whose interval lies above 0 and an estimate of at least the least gain, enough parts over all
  and of each class, and every class within its budget. Too little evidence is INCONCLUSIVE, never PROPOSED.
- The order of the items is irrelevant, and candidate and champion swapped give the same difference negated.

Intervals are closed form and use no chance. A measure is a mean of what each item contributes, its influence: 1 or 0
for a share, the placement of a score among those of the other kind for the area under the ROC curve (DeLong, DeLong,
Clarke-Pearson, Biometrics 44, 1988), its first-order share of a ratio for F1. The variance of a difference of two such
means on the same items is that of the differences of the contributions, added up part by part first (Obuchowski,
Biometrics 53, 1997). Where hardly any item tells the two apart that variance is far too small, and 0 where none does;
so an interval is widened by what may be there unseen: a kind of part of which none came among n may still be log(1 /
miss) / n of all, and moves the difference by at most 1 + its size. Its square is added to that of the normal
approximation's half width.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import fsum, hypot, log, sqrt
from statistics import NormalDist
from types import MappingProxyType

from controlplane.domain.ids import Digest
from controlplane.domain.interval import Interval


class Metric(StrEnum):
    AUC = "AUC"
    """Area under the ROC curve of a class's score, one class against the rest, averaged over the classes."""
    ACCURACY = "ACCURACY"
    """Share of items whose highest score is that of their label."""


class ClassMetric(StrEnum):
    """Of one class, by what each item's highest score says."""

    F1 = "F1"
    """Harmonic mean of precision and recall: neither a version that calls everything by this class nor one that hardly
    ever names it looks good."""
    RECALL = "RECALL"
    """Share of the class's items that are called by it."""


class Verdict(StrEnum):
    PROPOSED = "PROPOSED"
    REJECTED = "REJECTED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementPolicy:
    """What a candidate must show."""

    metric: Metric = Metric.AUC
    minimum_gain: float = 0.0
    confidence: float = 0.95
    """That the gain is above 0: one-sided, at least 0.5 and below 1."""
    class_metric: ClassMetric = ClassMetric.F1
    class_budget: float = 0.05
    """What a class may lose in its metric."""
    class_budgets: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    line_budget: float | None = None
    """What a line may lose in the metric; None tells of lines and judges none. A line with fewer parts than
    `min_class_parts`, or on which the metric says nothing, is told alone."""
    budget_confidence: float = 0.5
    """That a budget is kept: at 0.5 the estimate decides."""
    min_parts: int = 30
    min_class_parts: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedItem:
    """One item of the holdout and what both said of it. A class without a score has 0."""

    part: str
    """What the item's images have in common; items of one part are one piece of evidence."""
    label: str
    line: str
    """`site/line`."""
    candidate: Mapping[str, float]
    champion: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """One measure of both on the same items. Unmeasured, its numbers are 0."""

    subject: str
    """The class, or the line; empty over all."""
    metric: Metric | ClassMetric
    items: int
    parts: int
    """Parts that it rests on: of the rarer kind where there are two, of the class where it is of one."""
    measured: bool = False
    candidate: float = 0.0
    champion: float = 0.0
    difference: Interval = field(default_factory=lambda: Interval(0.0, 0.0))
    """Of candidate less champion, each end with the confidence asked of this measure."""

    @property
    def gain(self) -> float:
        return self.candidate - self.champion


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict with its numbers."""

    verdict: Verdict
    reasons: tuple[str, ...]
    champion_version: int
    candidate_digest: Digest
    confidence: float
    budget_confidence: float
    items: int
    parts: int
    skipped_items: int
    overall: PairedComparison
    classes: tuple[PairedComparison, ...]
    lines: tuple[PairedComparison, ...]


def judge(
    items: Sequence[JudgedItem],
    policy: JudgementPolicy,
    *,
    champion_version: int,
    candidate_digest: Digest,
    skipped_items: int = 0,
) -> Judgement:
    """Compare and decide. `skipped_items` are items that neither was asked about."""
    overall = compare(items, policy.metric, subject="", confidence=policy.confidence)
    classes = tuple(
        compare(items, policy.class_metric, subject=label, confidence=policy.budget_confidence)
        for label in sorted({item.label for item in items})
    )
    lines = tuple(
        compare(of_line, policy.metric, subject=line, confidence=policy.budget_confidence)
        for line, of_line in _grouped(items, lambda item: item.line)
    )
    parts = len({item.part for item in items})
    verdict, reasons = _decide(policy, parts, overall, classes, lines)
    return Judgement(
        verdict=verdict,
        reasons=reasons,
        champion_version=champion_version,
        candidate_digest=candidate_digest,
        confidence=policy.confidence,
        budget_confidence=policy.budget_confidence,
        items=len(items),
        parts=parts,
        skipped_items=skipped_items,
        overall=overall,
        classes=classes,
        lines=lines,
    )


def compare(
    items: Sequence[JudgedItem], metric: Metric | ClassMetric, *, subject: str, confidence: float
) -> PairedComparison:
    """Measure both on the items; `subject` is the class where the metric is of one. Each end of the interval holds with
    probability `confidence`."""
    if metric is ClassMetric.RECALL:
        items = [item for item in items if item.label == subject]
    candidate = _measure(items, metric, [item.candidate for item in items], subject)
    champion = _measure(items, metric, [item.champion for item in items], subject)
    if candidate is None or champion is None:
        return PairedComparison(subject=subject, metric=metric, items=len(items), parts=_parts(items))
    by_part: dict[str, list[float]] = defaultdict(list)
    for item, ours, theirs in zip(items, candidate.influences, champion.influences, strict=True):
        by_part[item.part].append(ours - theirs)
    variance = fsum(fsum(of_part) ** 2 for of_part in by_part.values())
    gain = candidate.value - champion.value
    half = _half_width(variance, gain, candidate.parts, confidence)
    return PairedComparison(
        subject=subject,
        metric=metric,
        items=len(items),
        parts=candidate.parts,
        measured=True,
        candidate=candidate.value,
        champion=champion.value,
        difference=Interval(max(-1.0, gain - half), min(1.0, gain + half)),
    )


def _half_width(variance: float, gain: float, parts: int, confidence: float) -> float:
    """Half of the interval of a difference; none at a confidence of 0.5, where the estimate decides."""
    if confidence <= 0.5:
        return 0.0
    spread = _student(NormalDist().inv_cdf(confidence), parts - 1) * sqrt(variance)
    unseen = -log(1.0 - confidence)
    return hypot(spread, (1.0 + abs(gain)) * unseen / (parts + unseen))


def _student(z: float, freedom: int) -> float:
    """The quantile of Student's distribution where the normal one has z, by the first term of its expansion."""
    return z + (z**3 + z) / (4 * freedom)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A mean, and what each item moves it by; the influences are scaled so that their squares, added up, are an
    unbiased variance of the mean."""

    value: float
    influences: Sequence[float]
    parts: int


def _measure(
    items: Sequence[JudgedItem], metric: Metric | ClassMetric, scores: Sequence[Mapping[str, float]], subject: str
) -> _Measure | None:
    match metric:
        case Metric.ACCURACY | ClassMetric.RECALL:
            return _share_right(items, scores)
        case Metric.AUC:
            return _mean_auc(items, scores)
        case ClassMetric.F1:
            return _f1(items, scores, subject)


def _share_right(items: Sequence[JudgedItem], scores: Sequence[Mapping[str, float]]) -> _Measure | None:
    parts = _parts(items)
    if parts < 2:
        return None
    right = [float(_best(of_item) == item.label) for item, of_item in zip(items, scores, strict=True)]
    value = fsum(right) / len(items)
    scale = sqrt(parts / (parts - 1)) / len(items)
    return _Measure(value, [(one - value) * scale for one in right], parts)


def _f1(items: Sequence[JudgedItem], scores: Sequence[Mapping[str, float]], label: str) -> _Measure | None:
    """A ratio of two sums: twice what is called by the class rightly, over what is called by it and what is of it. An
    item moves it by its own share of the one less that of the other, to first order."""
    parts, of_class = _parts(items), _parts(item for item in items if item.label == label)
    if min(parts, of_class) < 2:
        return None
    called = [_best(of_item) == label for of_item in scores]
    mine = [item.label == label for item in items]
    right = [2.0 * (is_called and is_mine) for is_called, is_mine in zip(called, mine, strict=True)]
    whole = [float(is_called + is_mine) for is_called, is_mine in zip(called, mine, strict=True)]
    value = fsum(right) / fsum(whole)
    scale = sqrt(parts / (parts - 1)) / fsum(whole)
    influences = [(twice - value * one) * scale for twice, one in zip(right, whole, strict=True)]
    return _Measure(value, influences, of_class)


def _best(scores: Mapping[str, float]) -> str:
    """The class with the highest score, the first by name where several have it."""
    return min(scores, key=lambda label: (-scores[label], label), default="")


def _mean_auc(items: Sequence[JudgedItem], scores: Sequence[Mapping[str, float]]) -> _Measure | None:
    """Over every class that is there; each class and its rest need two parts."""
    labels = sorted({item.label for item in items})
    areas = [_auc(items, scores, label) for label in labels]
    known = [area for area in areas if area is not None]
    if len(labels) < 2 or len(known) < len(labels):
        return None
    influences = [fsum(of_item) / len(known) for of_item in zip(*(area.influences for area in known), strict=True)]
    return _Measure(fsum(area.value for area in known) / len(known), influences, min(area.parts for area in known))


def _auc(items: Sequence[JudgedItem], scores: Sequence[Mapping[str, float]], label: str) -> _Measure | None:
    values = [of_item.get(label, 0.0) for of_item in scores]
    mine = [item.label == label for item in items]
    parts_mine = _parts(item for item, is_mine in zip(items, mine, strict=True) if is_mine)
    parts_rest = _parts(item for item, is_mine in zip(items, mine, strict=True) if not is_mine)
    if min(parts_mine, parts_rest) < 2:
        return None
    of_class = sorted(value for value, is_mine in zip(values, mine, strict=True) if is_mine)
    of_rest = sorted(value for value, is_mine in zip(values, mine, strict=True) if not is_mine)
    placements = [
        _share_below(of_rest, value) if is_mine else 1.0 - _share_below(of_class, value)
        for value, is_mine in zip(values, mine, strict=True)
    ]
    area = fsum(place for place, is_mine in zip(placements, mine, strict=True) if is_mine) / len(of_class)
    scale_mine = sqrt(parts_mine / (parts_mine - 1)) / len(of_class)
    scale_rest = sqrt(parts_rest / (parts_rest - 1)) / len(of_rest)
    influences = [
        (place - area) * (scale_mine if is_mine else scale_rest)
        for place, is_mine in zip(placements, mine, strict=True)
    ]
    return _Measure(area, influences, min(parts_mine, parts_rest))


def _share_below(ordered: Sequence[float], value: float) -> float:
    """Share of the ordered values below this one; those equal to it count half."""
    return (bisect_left(ordered, value) + bisect_right(ordered, value)) / (2 * len(ordered))


def _parts(items: Iterable[JudgedItem]) -> int:
    return len({item.part for item in items})


def _grouped(
    items: Sequence[JudgedItem], key: Callable[[JudgedItem], str]
) -> Sequence[tuple[str, Sequence[JudgedItem]]]:
    groups: dict[str, list[JudgedItem]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return sorted(groups.items())


def _decide(
    policy: JudgementPolicy,
    parts: int,
    overall: PairedComparison,
    classes: Sequence[PairedComparison],
    lines: Sequence[PairedComparison],
) -> tuple[Verdict, tuple[str, ...]]:
    """One finding a rule; the worst decides, and its reasons come first."""
    findings = [_judge_amount(policy, parts), _judge_gain(policy, overall)]
    findings += [_judge_class(policy, one) for one in classes]
    if policy.line_budget is not None:
        judged = [line for line in lines if line.measured and line.parts >= policy.min_class_parts]
        findings += [_judge_budget(line, policy.line_budget, "line") for line in judged]
    told = [finding for finding in findings if finding is not None]
    worst = min((verdict for verdict, _ in told), key=_SEVERITY.index)
    return worst, tuple(words for verdict in _SEVERITY for found, words in told if found is verdict)


_SEVERITY = (Verdict.REJECTED, Verdict.INCONCLUSIVE, Verdict.PROPOSED)
_Finding = tuple[Verdict, str]


def _judge_amount(policy: JudgementPolicy, parts: int) -> _Finding | None:
    if parts >= policy.min_parts:
        return None
    return Verdict.INCONCLUSIVE, f"the holdout has {parts} parts that can be judged, {policy.min_parts} are needed"


def _judge_gain(policy: JudgementPolicy, overall: PairedComparison) -> _Finding:
    name = overall.metric.lower()
    if not overall.measured:
        return (
            Verdict.INCONCLUSIVE,
            f"the holdout says nothing of the {name}: it needs two parts of two classes",
        )
    numbers = f"{name} {overall.champion:.3f} to {overall.candidate:.3f}, a gain of {_interval(overall)}"
    if overall.difference.low > 0 and overall.gain >= policy.minimum_gain:
        return Verdict.PROPOSED, numbers
    if overall.difference.high <= max(0.0, policy.minimum_gain):
        return Verdict.REJECTED, f"no gain of {policy.minimum_gain:.3f}: {numbers}"
    return Verdict.INCONCLUSIVE, f"no gain is shown: {numbers}"


def _judge_class(policy: JudgementPolicy, one: PairedComparison) -> _Finding | None:
    if one.parts < policy.min_class_parts or not one.measured:
        least = max(2, policy.min_class_parts)
        return Verdict.INCONCLUSIVE, f"class {one.subject!r} has {one.parts} parts in the holdout, {least} are needed"
    return _judge_budget(one, policy.class_budgets.get(one.subject, policy.class_budget), "class")


def _judge_budget(one: PairedComparison, budget: float, kind: str) -> _Finding | None:
    if one.difference.low >= -budget - _ROUNDING:
        return None
    numbers = f"{one.metric.lower()} {one.champion:.3f} to {one.candidate:.3f}, a change of {_interval(one)}"
    if one.difference.high < -budget:
        return Verdict.REJECTED, f"{kind} {one.subject!r} loses more than {budget:.3f}: {numbers}"
    return Verdict.INCONCLUSIVE, f"{kind} {one.subject!r} may lose more than {budget:.3f}: {numbers}"


_ROUNDING = 1e-12
"""Of sums of shares: a loss of exactly the budget is within it."""


def _interval(one: PairedComparison) -> str:
    if one.difference.low == one.difference.high:
        return f"{one.gain:+.3f}"
    return f"{one.gain:+.3f} ({one.difference.low:+.3f} to {one.difference.high:+.3f})"
