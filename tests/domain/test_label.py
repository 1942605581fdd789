"""What annotators say together."""

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import LabelId
from controlplane.domain.label import Consensus, ConsensusState, Label, LabeledRegion, agree, opinions_of
from tests.support.dataset_factories import make_label
from tests.support.factories import after_seconds

CRACK = LabeledRegion(label="crack", x=0.1, y=0.1, width=0.4, height=0.4)


def said(*opinions: tuple[str, str], adjudicates: int = -1) -> list[Label]:
    """Labels in the order in which they came; the one at `adjudicates` does."""
    return [
        make_label(id=f"{index:04}", annotator=annotator, label=label, adjudicates=index == adjudicates)
        for index, (annotator, label) in enumerate(opinions)
    ]


def outcome(consensus: Consensus) -> tuple[ConsensusState, str]:
    return consensus.state, consensus.label


AGREED, CONFLICT = ConsensusState.AGREED, ConsensusState.CONFLICT


@pytest.mark.parametrize(
    ("opinions", "expected"),
    [
        ([("anna", "crack")], (AGREED, "crack")),
        ([("anna", "crack"), ("bea", "crack")], (AGREED, "crack")),
        ([("anna", "crack"), ("bea", "good")], (CONFLICT, "")),
        ([("anna", "crack"), ("bea", "crack"), ("carl", "good")], (AGREED, "crack")),
        ([("anna", "crack"), ("bea", "crack"), ("carl", "crack"), ("d", "good"), ("e", "good")], (CONFLICT, "")),
        ([("anna", "crack"), ("bea", "good"), ("anna", "good")], (AGREED, "good")),
    ],
)
def test_two_of_three_and_the_newest_of_each(
    opinions: list[tuple[str, str]], expected: tuple[ConsensusState, str]
) -> None:
    assert outcome(agree(said(*opinions))) == expected


def test_a_share_may_be_asked_for() -> None:
    labels = said(("anna", "crack"), ("bea", "crack"), ("carl", "good"))
    assert agree(labels, agreement_percent=67).state is CONFLICT
    assert agree(labels, agreement_percent=1).label == "crack"


def test_a_tie_is_a_conflict_however_little_agreement_is_asked_for() -> None:
    assert agree(said(("anna", "crack"), ("bea", "good")), agreement_percent=1).state is CONFLICT


def test_who_adjudicates_ends_a_conflict_until_somebody_adjudicates_again() -> None:
    opinions = (("anna", "crack"), ("bea", "good"), ("lead", "good"), ("carl", "crack"), ("dora", "crack"))
    consensus = agree(said(*opinions, adjudicates=2))
    assert (*outcome(consensus), consensus.adjudicated) == (AGREED, "good", True)
    assert [label.annotator for label in consensus.supporters] == ["lead"]
    later = make_label(id="9", annotator="anna", label="crack", adjudicates=True)
    assert outcome(agree([*said(*opinions, adjudicates=2), later])) == (AGREED, "crack")


names = st.sampled_from(["anna", "bea", "carl"])
histories = st.lists(st.tuples(names, st.sampled_from(["good", "crack", "dust"])), min_size=1, max_size=6)


@given(histories, st.integers(min_value=-1, max_value=5))
def test_the_order_of_arrival_decides_nothing(history: list[tuple[str, str]], adjudicates: int) -> None:
    labels = said(*history, adjudicates=adjudicates)
    together = agree(labels)
    assert all(agree(list(order)) == together for order in list(permutations(labels))[:24])


@given(histories)
def test_a_class_that_holds_was_said_by_a_majority_of_newest_labels(history: list[tuple[str, str]]) -> None:
    together = agree(said(*history))
    newest = dict(history)
    if together.state is AGREED:
        share = sum(label == together.label for label in newest.values()) / len(newest)
        assert share * 100 >= 66
        assert {label.annotator for label in together.supporters} == {
            who for who, label in newest.items() if label == together.label
        }
    else:
        assert (together.label, together.regions, together.supporters) == ("", (), ())
    assert [opinion.annotator for opinion in opinions_of(together.opinions)] == sorted(newest)


def test_regions_of_those_who_agree_must_be_the_same() -> None:
    nearly = replace(CRACK, x=0.14)
    elsewhere = replace(CRACK, x=0.5)
    first, second = said(("anna", "crack"), ("bea", "crack"))

    def drawn(ours: LabeledRegion, theirs: tuple[LabeledRegion, ...]) -> Consensus:
        return agree([replace(first, regions=(ours,)), replace(second, regions=theirs)])

    assert drawn(CRACK, (nearly,)).regions == (nearly,)
    assert drawn(CRACK, ()).regions == (CRACK,)
    for other in ((elsewhere,), (CRACK, elsewhere), (replace(CRACK, label="dust"),)):
        assert drawn(CRACK, other).state is CONFLICT


@pytest.mark.parametrize(
    "numbers",
    [
        (-0.1, 0, 0.5, 0.5), (0, 0, 1.1, 0.5), (0.6, 0, 0.5, 0.5), (0, 0, 0, 0.5), (0, 0.5, 0.5, -0.1),
        (float("nan"), 0, 0.1, 0.1), (0, 0, float("inf"), 0.1),
    ],
)  # fmt: skip
def test_a_region_lies_inside_the_picture(numbers: tuple[float, float, float, float]) -> None:
    x, y, width, height = numbers
    with pytest.raises(FieldInvalidError) as refusal:
        LabeledRegion(label="crack", x=x, y=y, width=width, height=height)
    assert (refusal.value.field, bool(refusal.value.remedy)) == ("regions", True)


def test_says_the_same_looks_at_what_is_said_and_by_whom() -> None:
    label = make_label()
    assert label.says_the_same(replace(label, id=LabelId("later"), create_time=after_seconds(9), source="b.csv"))
    for other in (
        replace(label, label="crack"),
        replace(label, annotator="bea"),
        replace(label, adjudicates=True),
        replace(label, regions=(CRACK,)),
    ):
        assert not label.says_the_same(other)
