"""Labels: what annotators say of samples, and what they say together.

Rules kept here:
- A label never changes. The newest of each annotator is his opinion; what he said before stays on record.
- The newest label that adjudicates holds against every opinion.
- Otherwise a class holds when at least `agreement_percent` of the annotators gave it and no other class has as many.
  Anything else is a conflict, which no dataset takes.
- Regions hold when those who agree on the class drew the same ones, within `REGION_OVERLAP_MIN`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import LabelId, ModelId, SampleId

AGREEMENT_PERCENT_DEFAULT = 66
"""Two of three; with two annotators, both."""
REGION_OVERLAP_MIN = 0.5
"""Intersection over union from which two regions are drawn around the same thing; what detection benchmarks take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledRegion:
    """A region and its class; shares of the picture's width and height, from the left and the top."""

    label: str
    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        numbers = (self.x, self.y, self.width, self.height)
        # A millionth over the edge is how pixels became shares, no slip.
        inside = all(map(math.isfinite, numbers)) and self.x >= 0 and self.y >= 0
        if not inside or self.x + self.width > 1 + 1e-6 or self.y + self.height > 1 + 1e-6:
            raise FieldInvalidError(
                f"a region at ({self.x:g}, {self.y:g}) of {self.width:g} x {self.height:g} is not inside the picture",
                field="regions",
                remedy="write shares of the picture's width and height, 0 to 1, from the left and the top",
            )
        if self.width <= 0 or self.height <= 0:
            raise FieldInvalidError(
                f"a region of {self.width:g} x {self.height:g} has no area",
                field="regions",
                remedy="draw it anew, or leave it out",
            )

    def overlap(self, other: "LabeledRegion") -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.width * self.height + other.width * other.height - width * height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What one annotator said of one sample."""

    id: LabelId
    """Sorts by time."""
    model_id: ModelId
    sample_id: SampleId
    annotator: str
    create_time: datetime
    label: str
    """Class of the whole sample."""
    regions: tuple[LabeledRegion, ...] = ()
    source: str = ""
    adjudicates: bool = False

    def says_the_same(self, other: "Label") -> bool:
        """Whether `other` repeats it: the same annotator says nothing else of the same sample."""
        return (self.sample_id, self.annotator, self.label, self.regions, self.adjudicates) == (
            other.sample_id,
            other.annotator,
            other.label,
            other.regions,
            other.adjudicates,
        )


class ConsensusState(StrEnum):
    AGREED = "AGREED"
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """What the annotators of one sample say together."""

    sample_id: SampleId
    state: ConsensusState
    label: str
    """Empty in a conflict."""
    regions: tuple[LabeledRegion, ...]
    opinions: tuple[Label, ...]
    """The newest label of each annotator, by annotator."""
    supporters: tuple[Label, ...]
    """Those of the opinions that say what holds; none in a conflict."""
    adjudicated: bool


def opinions_of(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Return the newest label of each annotator, by annotator. `labels` are of one sample, in any order.

    A newest label that adjudicates is its annotator's opinion, too.
    """
    newest: dict[str, Label] = {}
    for label in labels:
        known = newest.get(label.annotator)
        if known is None or label.id > known.id:
            newest[label.annotator] = label
    return tuple(newest[annotator] for annotator in sorted(newest))


def agree(labels: Sequence[Label], *, agreement_percent: int = AGREEMENT_PERCENT_DEFAULT) -> Consensus:
    """Return what holds of one sample by all its labels, at least one, in any order."""
    opinions = opinions_of(labels)
    verdicts = [label for label in labels if label.adjudicates]
    if verdicts:
        verdict = max(verdicts, key=lambda label: label.id)
        return _agreed(opinions, (verdict,), adjudicated=True)
    votes = Counter(opinion.label for opinion in opinions).most_common()
    top, count = votes[0]
    tied = len(votes) > 1 and votes[1][1] == count
    supporters = tuple(opinion for opinion in opinions if opinion.label == top)
    if tied or count * 100 < agreement_percent * len(opinions) or not _drew_the_same(supporters):
        return Consensus(
            sample_id=opinions[0].sample_id,
            state=ConsensusState.CONFLICT,
            label="",
            regions=(),
            opinions=opinions,
            supporters=(),
            adjudicated=False,
        )
    return _agreed(opinions, supporters, adjudicated=False)


def _agreed(opinions: tuple[Label, ...], supporters: tuple[Label, ...], *, adjudicated: bool) -> Consensus:
    drawn = [label for label in supporters if label.regions]
    return Consensus(
        sample_id=supporters[0].sample_id,
        state=ConsensusState.AGREED,
        label=supporters[0].label,
        regions=max(drawn, key=lambda label: label.id).regions if drawn else (),
        opinions=opinions,
        supporters=supporters,
        adjudicated=adjudicated,
    )


def _drew_the_same(supporters: Sequence[Label]) -> bool:
    """Whether all who drew any regions drew the same; who drew none only said the class."""
    drawn = [label.regions for label in supporters if label.regions]
    return all(_same_regions(drawn[0], regions) for regions in drawn[1:])


def _same_regions(first: Sequence[LabeledRegion], second: Sequence[LabeledRegion]) -> bool:
    """Whether each region of the one has its own in the other, of its class and nearly its place."""
    left = list(second)
    for region in first:
        best = max(left, key=lambda other: (other.label == region.label, region.overlap(other)), default=None)
        if best is None or best.label != region.label or region.overlap(best) < REGION_OVERLAP_MIN:
            return False
        left.remove(best)
    return not left
