"""Groups stay on one side, for good."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.ids import Digest, SampleId
from controlplane.domain.split import (
    HASH_BITS,
    TRAINING_SPLITS,
    Assignment,
    Candidate,
    Side,
    Split,
    SplitMember,
    SplitRule,
    assign,
    group_candidates,
    near_pairs,
)

RULE = SplitRule(key="models/solar", holdout_percent=40, validation_percent=20, near_duplicate_distance=3)


def candidate(number: int, *, part: str = "", content: str = "", bits: int | None = None) -> Candidate:
    return Candidate(
        sample_id=SampleId(f"s-{number}"),
        digest=Digest(content or f"content-{number}"),
        part_id=part,
        difference_hash=bits,
    )


def kept(candidates: Sequence[Candidate], assigned: Mapping[SampleId, Assignment]) -> list[SplitMember]:
    """What a dataset keeps of its items."""
    return [
        SplitMember(candidate=one, side=Side.HOLDOUT if falls.split is Split.HOLDOUT else Side.TRAINING)
        for one in candidates
        if (falls := assigned[one.sample_id]).split is not None
    ]


@st.composite
def worlds(draw: st.DrawFn) -> list[list[Candidate]]:
    """Rounds of samples that were labelled so far; parts, contents and near duplicates recur, and labels get lost."""
    seed = draw(st.integers(min_value=0, max_value=1 << 30))
    rng = random.Random(seed)
    centres = [rng.getrandbits(HASH_BITS) for _ in range(8)]

    def sample(number: int) -> Candidate:
        # Two of one cluster are 0, 2 or more bits apart: near, and far but joined by others.
        bits = rng.choice(centres) ^ (1 << rng.randrange(6)) ^ (1 << rng.randrange(6, 9))
        return candidate(
            number,
            part=rng.choice(["", "", "p-1", "p-2", "p-3", f"p-{number}"]),
            content=rng.choice(["", "", f"c-{rng.randrange(6)}"]),
            bits=rng.choice([None, rng.getrandbits(HASH_BITS), bits]),
        )

    count = draw(st.integers(min_value=1, max_value=24))
    samples = [sample(number) for number in range(count)]
    rounds = draw(st.integers(min_value=1, max_value=4))
    shown = sorted(rng.randrange(1, count + 1) for _ in range(rounds))
    return [[one for one in samples[:limit] if rng.random() < 0.8] for limit in shown]


def related(first: Candidate, second: Candidate) -> bool:
    """By the rule as a person would say it, without any of the code's short cuts."""
    if first.digest == second.digest or (first.part_id and first.part_id == second.part_id):
        return True
    if first.difference_hash is None or second.difference_hash is None:
        return False
    return (first.difference_hash ^ second.difference_hash).bit_count() <= RULE.near_duplicate_distance


@given(worlds())
def test_no_two_items_that_show_the_same_are_in_different_splits(world: list[list[Candidate]]) -> None:
    members: list[SplitMember] = []
    for candidates in world:
        assigned = assign(candidates, members, RULE)
        for first, second in combinations(candidates, 2):
            splits = {assigned[first.sample_id].split, assigned[second.sample_id].split} - {None}
            if related(first, second):
                assert len(splits) <= 1
        known = {member.candidate.sample_id for member in members}
        members += [one for one in kept(candidates, assigned) if one.candidate.sample_id not in known]


@given(worlds())
def test_what_was_held_out_is_held_out_for_good_and_never_was_trained_on(world: list[list[Candidate]]) -> None:
    members: list[SplitMember] = []
    trained: list[Candidate] = []
    held: list[Candidate] = []
    for candidates in world:
        assigned = assign(candidates, members, RULE)
        assert assigned.keys() == {one.sample_id for one in candidates}
        for one in candidates:
            split = assigned[one.sample_id].split
            trained += [one] if split in TRAINING_SPLITS else []
            held += [one] if split is Split.HOLDOUT else []
            if one in held:
                assert split is Split.HOLDOUT, "once held out, always"
        known = {member.candidate.sample_id for member in members}
        members += [one for one in kept(candidates, assigned) if one.candidate.sample_id not in known]
        assert not {one.sample_id for one in trained} & {one.sample_id for one in held}
        assert not {one.digest for one in trained} & {one.digest for one in held}
        assert not {one.part_id for one in trained} & {one.part_id for one in held} - {""}


@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_in_which_samples_came_decides_nothing(world: list[list[Candidate]], rng: random.Random) -> None:
    (candidates, *_) = world
    shuffled = rng.sample(candidates, len(candidates))
    assert assign(candidates, (), RULE) == assign(shuffled, (), RULE)


@given(worlds())
def test_the_same_again_falls_the_same_way(world: list[list[Candidate]]) -> None:
    (candidates, *_) = world
    before = assign(candidates, (), RULE)
    assert assign(candidates, kept(candidates, before), RULE) == before


def test_shares_are_as_asked_for_and_new_parts_move_nobody() -> None:
    candidates = [candidate(number, part=f"cell-{number}") for number in range(4000)]
    assigned = assign(candidates, (), RULE)
    shares = Counter(falls.split for falls in assigned.values())
    assert abs(shares[Split.HOLDOUT] / 4000 - 0.4) < 0.03
    assert abs(shares[Split.VALIDATION] / 4000 - 0.2) < 0.03
    more = [*candidates, *(candidate(number, part=f"cell-{number}") for number in range(4000, 4500))]
    later = assign(more, (), RULE)
    assert all(later[one.sample_id] == assigned[one.sample_id] for one in candidates)


def fallen(*, to: Side) -> Candidate:
    """A part that the hash puts on this side by itself."""
    for number in range(1000):
        one = candidate(number, part=f"cell-{number}")
        if (assign([one], (), RULE)[one.sample_id].split is Split.HOLDOUT) == (to is Side.HOLDOUT):
            return one
    raise AssertionError("no part falls there")


def test_a_planted_duplicate_follows_the_original_to_its_side() -> None:
    """Of a held-out part another picture comes, then a copy of it as an unknown part, and one that is nearly it."""
    original = fallen(to=Side.HOLDOUT)
    rest = [candidate(number + 2000, part=f"other-{number}") for number in range(50)]
    members = kept([original], assign([original], (), RULE))
    planted = [
        candidate(5001, part=original.part_id, bits=0b1111),
        candidate(5002, content=original.digest),
        candidate(5003, bits=0b1100),
    ]
    assigned = assign([*rest, *planted], members, RULE)
    assert {assigned[one.sample_id].split for one in planted} == {Split.HOLDOUT}
    assert any(assigned[one.sample_id].split in TRAINING_SPLITS for one in rest)


def test_what_joins_both_sides_is_left_out_and_so_is_what_was_trained_on() -> None:
    held, trained = fallen(to=Side.HOLDOUT), fallen(to=Side.TRAINING)
    members = kept([held, trained], assign([held, trained], (), RULE))
    link = candidate(9000, part=held.part_id, content=trained.digest)
    assigned = assign([held, trained, link], members, RULE)
    splits = {name: assigned[one.sample_id].split for name, one in (("h", held), ("t", trained), ("l", link))}
    assert splits == {"h": Split.HOLDOUT, "t": None, "l": None}


def test_a_larger_holdout_takes_nothing_that_was_trained_on() -> None:
    candidates = [candidate(number) for number in range(200)]
    members = kept(candidates, assign(candidates, (), SplitRule(key="k", holdout_percent=0)))
    later = assign(candidates, members, SplitRule(key="k", holdout_percent=90, validation_percent=5))
    assert Split.HOLDOUT not in {falls.split for falls in later.values()}


@given(
    st.lists(st.integers(min_value=0, max_value=(1 << 16) - 1), max_size=40, unique=True),
    st.integers(min_value=0, max_value=7),
)
def test_near_pairs_are_all_pairs_within_the_distance(values: list[int], distance: int) -> None:
    spread = [value << 120 for value in values]
    found = {frozenset(pair) for pair in near_pairs(spread, distance=distance)}
    expected = {frozenset(pair) for pair in combinations(spread, 2) if (pair[0] ^ pair[1]).bit_count() <= distance}
    assert found == expected


def test_groups_join_what_others_join() -> None:
    chain = [candidate(1, part="a", bits=0b0), candidate(2, bits=0b11, content="x"), candidate(3, content="x")]
    apart = candidate(4, part="b", bits=1 << 200 | 0b1111111)
    assert [len(group) for group in group_candidates([*chain, apart], distance=2)] == [3, 1]
    assert [len(group) for group in group_candidates([*chain, apart], distance=0)] == [1, 2, 1]


def test_a_part_falls_as_its_id_says_whichever_pictures_of_it_there_are() -> None:
    alone = {part: assign([candidate(1, part=part)], (), RULE)[SampleId("s-1")] for part in map(str, range(40))}
    for part, falls in alone.items():
        several = [candidate(number, part=part) for number in range(2, 5)]
        assert set(assign(several, (), RULE).values()) == {falls}
