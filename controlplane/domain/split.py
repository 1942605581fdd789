"""Splits: which of a dataset's items a trainer sees, and which are kept to judge it.

Rules kept here:
- A group is never on two sides. A group joins what shows the same thing: items of one part, of one content, and
  pictures whose difference hashes are near each other; joined by joined.
- A group that was never in a dataset falls to its side by a keyed hash of its least atom: the same items fall the
  same way whatever came before them and in whatever order.
- What was once held out is held out for good, and what a trainer was once given is never held out: an item keeps its
  side over all datasets of its model. Whoever brings it may give it its side: a version that came from elsewhere was
  fitted on something too. Where new items join groups of both sides, nobody who is not held out already is
  in the dataset: a trainer would learn what it is judged by, or be judged by what it learnt.
"""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from controlplane.domain.ids import Digest, SampleId

HASH_BITS = 256
"""Of a picture's difference hash: 16 x 16 comparisons of neighbours."""


class Split(StrEnum):
    TRAIN = "TRAIN"
    VALIDATION = "VALIDATION"
    HOLDOUT = "HOLDOUT"


TRAINING_SPLITS = frozenset({Split.TRAIN, Split.VALIDATION})
"""What a trainer is given."""


class Side(StrEnum):
    """Where an item is for good."""

    TRAINING = "TRAINING"
    HOLDOUT = "HOLDOUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What decides of a sample where it falls."""

    sample_id: SampleId
    digest: Digest
    part_id: str = ""
    """Empty where it is not known."""
    difference_hash: int | None = None
    """None where the content is no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitMember:
    """A sample that has a side, by a dataset that held it or by its import."""

    candidate: Candidate
    side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """How groups fall."""

    key: str
    """Of the hash; one for each model, for good."""
    holdout_percent: int = 20
    validation_percent: int = 10
    near_duplicate_distance: int = 10
    """Differing bits of HASH_BITS up to which two pictures are near duplicates; 0 joins equal hashes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where one sample falls."""

    split: Split | None
    """None: it belongs to groups of both sides and is left out."""
    group: str
    """The same for samples of one group, in one split."""


def assign(
    candidates: Iterable[Candidate], members: Sequence[SplitMember], rule: SplitRule
) -> Mapping[SampleId, Assignment]:
    """Return where each candidate falls. `members` are all that have a side already."""
    ordered = sorted(candidates, key=lambda candidate: candidate.sample_id)
    known = {candidate.sample_id for candidate in ordered}
    sides = {member.candidate.sample_id: member.side for member in members}
    absent = [member.candidate for member in members if member.candidate.sample_id not in known]
    assigned: dict[SampleId, Assignment] = {}
    for group in group_candidates([*ordered, *absent], distance=rule.near_duplicate_distance):
        name, fresh = _name_and_split(group, rule)
        met = {sides[candidate.sample_id] for candidate in group if candidate.sample_id in sides}
        for candidate in group:
            if candidate.sample_id in known:
                split = _split_of(sides.get(candidate.sample_id), met, fresh=fresh, name=name, rule=rule)
                assigned[candidate.sample_id] = Assignment(split=split, group=name)
    return assigned


def group_candidates(candidates: Sequence[Candidate], *, distance: int) -> Sequence[Sequence[Candidate]]:
    """Return the groups, each a list of those that are joined, in the order of their first members."""
    parents = list(range(len(candidates)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    def join(first: int, second: int) -> None:
        low, high = sorted((root(first), root(second)))
        parents[high] = low

    seen: dict[str, int] = {}
    hashes: dict[int, int] = {}
    for index, candidate in enumerate(candidates):
        for atom in _atoms(candidate):
            join(seen.setdefault(atom, index), index)
        if candidate.difference_hash is not None:
            join(hashes.setdefault(candidate.difference_hash, index), index)
    for first, second in near_pairs(sorted(hashes), distance=distance):
        join(hashes[first], hashes[second])
    groups: dict[int, list[Candidate]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        groups[root(index)].append(candidate)
    return list(groups.values())


def near_pairs(hashes: Sequence[int], *, distance: int) -> Iterable[tuple[int, int]]:
    """Yield pairs of different hashes that differ in at most `distance` bits, each at least once.

    Of `distance` + 1 bands of bits two such hashes have at least one in common, so that only hashes that share a band
    are compared.
    """
    if distance <= 0:
        return
    bands = distance + 1
    width = -(-HASH_BITS // bands)
    for band in range(bands):
        mask = ((1 << width) - 1) << (band * width)
        buckets: dict[int, list[int]] = defaultdict(list)
        for value in hashes:
            buckets[value & mask].append(value)
        for bucket in buckets.values():
            for index, first in enumerate(bucket):
                for second in bucket[index + 1 :]:
                    if (first ^ second).bit_count() <= distance:
                        yield first, second


def _atoms(candidate: Candidate) -> tuple[str, ...]:
    return (candidate.digest, f"part:{candidate.part_id}") if candidate.part_id else (candidate.digest,)


def _name_and_split(group: Sequence[Candidate], rule: SplitRule) -> tuple[str, Split]:
    """The group's name, and where it falls if it is new. Parts name a group before contents do: a picture that is
    taken of the part later leaves it where it is."""
    parts = [f"part:{candidate.part_id}" for candidate in group if candidate.part_id]
    atom = min(parts, default="") or min(candidate.digest for candidate in group)
    share = _share(rule.key, atom)
    if share < rule.holdout_percent:
        split = Split.HOLDOUT
    else:
        split = Split.VALIDATION if share < rule.holdout_percent + rule.validation_percent else Split.TRAIN
    return hashlib.sha256(atom.encode()).hexdigest()[:16], split


def _share(key: str, atom: str) -> float:
    """A number from 0 up to 100, even over atoms, that nobody chooses."""
    drawn = hmac.digest(key.encode(), atom.encode(), "sha256")
    return int.from_bytes(drawn[:8]) / 2**64 * 100


def _split_of(own: Side | None, met: set[Side], *, fresh: Split, name: str, rule: SplitRule) -> Split | None:
    """Where a member of a group falls: `own` is its side already, `met` are those of the whole group."""
    if not met:
        return fresh
    if own is Side.HOLDOUT or met == {Side.HOLDOUT}:
        return Split.HOLDOUT
    if met == {Side.TRAINING}:
        return fresh if fresh is not Split.HOLDOUT else _training_split(name, rule)
    return None


def _training_split(name: str, rule: SplitRule) -> Split:
    """Of a group that stays in training though its hash would hold it out now."""
    rest = 100 - rule.holdout_percent
    drawn = _share(rule.key, f"training:{name}")
    return Split.VALIDATION if rest and drawn * rest / 100 < rule.validation_percent else Split.TRAIN
