"""Judgement: paired, blind to duplicates, and never sure of what it has not seen."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import comb, log, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from controlplane.domain.ids import Digest
from controlplane.domain.judgement import (
    ClassMetric,
    JudgedItem,
    Judgement,
    JudgementPolicy,
    Metric,
    Verdict,
    compare,
    judge,
)

DIGEST = Digest("sha256:" + "0" * 64)
EASY = JudgementPolicy(min_parts=2, min_class_parts=2, class_budget=1.0)
LABELS = ("a", "b", "c")
grades = st.integers(0, 8).map(lambda eighths: eighths / 8)
score_maps = st.fixed_dictionaries(dict.fromkeys(LABELS, grades))


@st.composite
def items(draw: st.DrawFn, *, least: int = 0, most: int = 40) -> list[JudgedItem]:
    parts = st.sampled_from([f"p{number}" for number in range(12)])
    one = st.builds(
        JudgedItem,
        part=parts,
        label=st.sampled_from(LABELS),
        line=st.sampled_from(["s/1", "s/2"]),
        candidate=score_maps,
        champion=score_maps,
    )
    return draw(st.lists(one, min_size=least, max_size=most))


def judged(given_items: Sequence[JudgedItem], policy: JudgementPolicy = EASY) -> Judgement:
    return judge(given_items, policy, champion_version=1, candidate_digest=DIGEST)


def binary(positive: float) -> Mapping[str, float]:
    return {"good": 1.0 - positive, "defect": positive}


def item(label: str, candidate: float, champion: float, *, part: str, line: str = "s/1") -> JudgedItem:
    return JudgedItem(part=part, label=label, line=line, candidate=binary(candidate), champion=binary(champion))


def separated(parts: int, *, candidate: float = 0.9, champion: float = 0.5) -> list[JudgedItem]:
    """Items that the candidate tells apart, and the champion not at all."""
    return [
        item(
            "defect" if number % 2 else "good", candidate if number % 2 else 1 - candidate, champion, part=f"p{number}"
        )
        for number in range(parts)
    ]


@given(items(least=2))
def test_the_area_is_that_of_scikit_learn(drawn: list[JudgedItem]) -> None:
    found = compare(drawn, Metric.AUC, subject="", confidence=0.9)
    if not found.measured:
        return
    expected = np.mean(
        [
            roc_auc_score([one.label == label for one in drawn], [one.candidate[label] for one in drawn])
            for label in sorted({one.label for one in drawn})
        ]
    )
    assert found.candidate == pytest.approx(expected, abs=1e-12)


@given(items(least=4))
def test_measures_of_a_class_are_those_of_scikit_learn(drawn: list[JudgedItem]) -> None:
    truth = [one.label for one in drawn]
    called = [min(one.candidate, key=lambda label: (-one.candidate[label], label)) for one in drawn]
    for label in sorted(set(truth)):
        for metric, oracle in ((ClassMetric.F1, f1_score), (ClassMetric.RECALL, recall_score)):
            found = compare(drawn, metric, subject=label, confidence=0.9)
            assert found.measured == (len({one.part for one in drawn if one.label == label}) >= 2)
            if found.measured:
                expected = oracle(truth, called, labels=[label], average="macro", zero_division=0.0)
                assert found.candidate == pytest.approx(expected, abs=1e-12)


def delong_variance(drawn: Sequence[JudgedItem], label: str) -> float:
    """The variance of the difference of two areas, from the definition: every pair, then two sample variances."""
    truth = np.array([one.label == label for one in drawn])
    placed = []
    for scores in ([one.candidate[label] for one in drawn], [one.champion[label] for one in drawn]):
        array = np.array(scores)
        above = array[truth][:, None] - array[~truth][None, :]
        wins = (above > 0) + 0.5 * (above == 0)
        placed.append((wins.mean(axis=1), wins.mean(axis=0)))
    of_mine, of_rest = placed[0][0] - placed[1][0], placed[0][1] - placed[1][1]
    return float(of_mine.var(ddof=1) / len(of_mine) + of_rest.var(ddof=1) / len(of_rest))


@given(st.lists(st.tuples(st.booleans(), grades, grades), min_size=6, max_size=40))
def test_the_interval_is_delongs_widened_by_what_was_not_seen(drawn: list[tuple[bool, float, float]]) -> None:
    given_items = [
        item("defect" if defect else "good", ours, theirs, part=str(number))
        for number, (defect, ours, theirs) in enumerate(drawn)
    ]
    found = compare(given_items, Metric.AUC, subject="", confidence=0.95)
    defects = sum(defect for defect, _, _ in drawn)
    assert found.measured == (min(defects, len(drawn) - defects) >= 2)
    if found.measured:
        z, rarer = NormalDist().inv_cdf(0.95), min(defects, len(drawn) - defects)
        t, unseen = z + (z**3 + z) / (4 * (rarer - 1)), (1 + abs(found.gain)) * log(20) / (rarer + log(20))
        half = sqrt(t * t * delong_variance(given_items, "defect") + unseen**2)
        assert found.difference.high == pytest.approx(min(1.0, found.gain + half), abs=1e-9)
        assert found.difference.low == pytest.approx(max(-1.0, found.gain - half), abs=1e-9)


@given(items(), st.randoms(use_true_random=False))
def test_the_order_of_the_items_is_irrelevant(drawn: list[JudgedItem], rng: random.Random) -> None:
    shuffled = rng.sample(drawn, len(drawn))
    assert judged(shuffled) == judged(drawn)


@given(items(least=2), st.sampled_from([Metric.AUC, Metric.ACCURACY]))
def test_swapped_they_differ_by_the_same_the_other_way(drawn: list[JudgedItem], metric: Metric) -> None:
    swapped = [replace(one, candidate=one.champion, champion=one.candidate) for one in drawn]
    there, back = (compare(some, metric, subject="", confidence=0.9) for some in (drawn, swapped))
    assert (back.candidate, back.champion) == (there.champion, there.candidate)
    assert back.difference.low == pytest.approx(-there.difference.high, abs=1e-12)


@given(items(least=2), st.sampled_from([Metric.AUC, Metric.ACCURACY]), st.integers(2, 4))
def test_an_image_that_is_there_more_than_once_proves_no_more(
    drawn: list[JudgedItem], metric: Metric, times: int
) -> None:
    once = compare(drawn, metric, subject="", confidence=0.95)
    often = compare(drawn * times, metric, subject="", confidence=0.95)
    assert often.difference.low == pytest.approx(once.difference.low, abs=1e-9)
    assert often.difference.high == pytest.approx(once.difference.high, abs=1e-9)


@given(items(), st.sampled_from([Metric.AUC, Metric.ACCURACY]))
def test_what_answers_the_same_is_never_proposed(drawn: list[JudgedItem], metric: Metric) -> None:
    same = [replace(one, candidate=one.champion) for one in drawn]
    assert judged(same, replace(EASY, metric=metric)).verdict is not Verdict.PROPOSED


@given(items(), st.integers(2, 30), st.integers(2, 12))
def test_too_little_evidence_never_proposes(drawn: list[JudgedItem], min_parts: int, min_class_parts: int) -> None:
    found = judged(drawn, replace(EASY, min_parts=min_parts, min_class_parts=min_class_parts))
    if found.verdict is Verdict.PROPOSED:
        assert len({one.part for one in drawn}) >= min_parts
        for label in {one.label for one in drawn}:
            assert len({one.part for one in drawn if one.label == label}) >= min_class_parts


@given(items(), grades, st.sampled_from([0.5, 0.8, 0.95]))
def test_no_class_of_a_proposal_loses_more_than_its_budget(
    drawn: list[JudgedItem], budget: float, confidence: float
) -> None:
    policy = replace(EASY, class_budget=budget, budget_confidence=confidence, metric=Metric.ACCURACY)
    found = judged(drawn, policy)
    if found.verdict is Verdict.PROPOSED:
        assert found.overall.difference.low > 0
        assert all(one.gain >= -budget - 1e-9 for one in found.classes)
        assert all(one.difference.low >= -budget - 1e-9 for one in found.classes)


def test_a_real_gain_is_proposed_with_its_numbers() -> None:
    found = judged(separated(60), JudgementPolicy())
    assert found.verdict is Verdict.PROPOSED
    assert found.overall.candidate == 1.0
    assert found.overall.champion == 0.5
    assert found.reasons == ("auc 0.500 to 1.000, a gain of +0.500 (+0.364 to +0.636)",)
    assert [one.subject for one in found.classes] == ["defect", "good"]


def test_a_gain_too_small_for_the_policy_is_not_proposed() -> None:
    assert judged(separated(60), JudgementPolicy(minimum_gain=0.7)).verdict is Verdict.REJECTED
    assert judged(separated(60), JudgementPolicy(minimum_gain=0.55)).verdict is Verdict.INCONCLUSIVE


def test_a_gain_on_few_parts_is_inconclusive_however_clear() -> None:
    found = judged(separated(28), JudgementPolicy())
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "28 parts" in found.reasons[0]


def test_a_class_that_loses_is_a_reason_to_reject_a_gain() -> None:
    """The candidate finds every defect, and calls a fifth of the good ones defect too."""
    drawn = [
        item("defect", 0.9, 0.1, part=f"d{number}") if number < 100 else
        item("good", 0.8 if number % 5 == 0 else 0.1, 0.05, part=f"g{number}")
        for number in range(200)
    ]  # fmt: skip
    policy = JudgementPolicy(metric=Metric.ACCURACY, class_metric=ClassMetric.RECALL)
    found = judged(drawn, policy)
    assert found.verdict is Verdict.REJECTED
    assert found.reasons[0].startswith("class 'good' loses more than 0.050: recall 1.000 to 0.800")
    assert judged(drawn, replace(policy, class_budgets={"good": 0.2})).verdict is Verdict.PROPOSED
    unsure = replace(policy, class_budgets={"good": 0.2}, budget_confidence=0.95)
    assert judged(drawn, unsure).verdict is Verdict.INCONCLUSIVE


def test_what_calls_everything_a_defect_keeps_no_candidate_out() -> None:
    """The champion's recall of defects is perfect, and worth nothing."""
    drawn = [
        item("defect" if number < 50 else "good", 0.9 if number < 40 else 0.1, 0.9, part=str(number))
        for number in range(150)
    ]
    assert judged(drawn, JudgementPolicy()).verdict is Verdict.PROPOSED
    by_recall = judged(drawn, JudgementPolicy(class_metric=ClassMetric.RECALL))
    assert by_recall.verdict is Verdict.REJECTED
    assert by_recall.reasons[0].startswith("class 'defect' loses more than 0.050: recall 1.000 to 0.800")


@pytest.mark.parametrize(("positives", "rest"), [(15, 15), (12, 60), (60, 60)])
def test_the_interval_of_a_difference_of_f1_misses_hardly_more_than_it_says(positives: int, rest: int) -> None:
    """Two versions that err independently, at rates that differ: the true F1 of each is known."""
    rng, rounds = random.Random(11), 400
    hits, alarms = {"ours": 0.8, "theirs": 0.7}, {"ours": 0.1, "theirs": 0.2}
    share = positives / (positives + rest)
    f1 = {
        who: 2 * share * hits[who] / (share + share * hits[who] + (1 - share) * alarms[who])
        for who in ("ours", "theirs")
    }
    truth = f1["ours"] - f1["theirs"]
    above = below = 0
    for _ in range(rounds):
        drawn = []
        for number in range(positives + rest):
            is_defect = number < positives
            ours, theirs = (rng.random() < (hits if is_defect else alarms)[who] for who in ("ours", "theirs"))
            label = "defect" if is_defect else "good"
            drawn.append(item(label, 0.9 if ours else 0.1, 0.9 if theirs else 0.1, part=str(number)))
        found = compare(drawn, ClassMetric.F1, subject="defect", confidence=0.95).difference
        above += found.low > truth
        below += found.high < truth
    # 5 % of 400, and three standard deviations of such a count.
    assert max(above, below) <= 20 + 13


def test_a_line_that_loses_is_told_and_judged_where_asked() -> None:
    drawn = [replace(one, line="s/1") for one in separated(60)]
    worse = [replace(one, line="s/2", candidate=one.champion, champion=one.candidate) for one in separated(20)]
    drawn += [replace(one, part=f"w{one.part}") for one in worse]
    policy = JudgementPolicy(class_budget=1.0)
    found = judged(drawn, policy)
    assert found.verdict is Verdict.PROPOSED
    assert [(one.subject, round(one.gain, 3)) for one in found.lines] == [("s/1", 0.5), ("s/2", -0.5)]
    assert judged(drawn, replace(policy, line_budget=0.1)).verdict is Verdict.REJECTED


def test_a_class_with_few_parts_leaves_it_open() -> None:
    drawn = [*separated(60), item("scratch", 0.1, 0.1, part="s0"), item("scratch", 0.1, 0.1, part="s1")]
    found = judged(drawn, replace(JudgementPolicy(), metric=Metric.ACCURACY))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert any("class 'scratch' has 2 parts" in reason for reason in found.reasons)


def test_an_empty_holdout_says_nothing() -> None:
    found = judged([], JudgementPolicy())
    assert found.verdict is Verdict.INCONCLUSIVE
    assert not found.overall.measured


def _tables(parts: int) -> Iterable[tuple[int, int, int]]:
    """Parts that only the candidate, only the champion, or both or none got right."""
    return ((won, lost, parts - won - lost) for won, lost in product(range(parts + 1), repeat=2) if won + lost <= parts)


def misses(parts: int, wins: float, losses: float) -> tuple[float, float]:
    """How often the true difference lies below the interval, and above it. Exact: over all tables that can come, each
    with its probability."""
    below = above = 0.0
    for won, lost, same in _tables(parts):
        ties = max(0.0, 1 - wins - losses)
        probability = comb(parts, won) * comb(parts - won, lost) * wins**won * losses**lost * ties**same
        drawn = [
            item("defect", ours, theirs, part=f"{ours}-{theirs}-{number}")
            for count, ours, theirs in ((won, 0.9, 0.1), (lost, 0.1, 0.9), (same, 0.9, 0.9))
            for number in range(count)
        ]
        found = compare(drawn, Metric.ACCURACY, subject="", confidence=0.95).difference
        below += probability * (wins - losses < found.low - 1e-9)
        above += probability * (wins - losses > found.high + 1e-9)
    return below, above


@pytest.mark.parametrize("parts", [8, 12, 30])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.25, 0.5])
def test_no_gain_looks_like_one_no_more_often_than_it_says(parts: int, share: float) -> None:
    assert misses(parts, share, share)[0] <= 0.05


@pytest.mark.parametrize("parts", [8, 12])
@pytest.mark.parametrize(("wins", "losses"), [(0.1, 0.02), (0.02, 0.15), (0.3, 0.02), (0.8, 0.2), (0.02, 0.9)])
def test_the_interval_of_a_difference_of_shares_misses_hardly_more_than_it_says(
    parts: int, wins: float, losses: float
) -> None:
    """Shares of few parts come in steps: a little more than 5 % at some of them."""
    assert max(misses(parts, wins, losses)) <= 0.07


@pytest.mark.parametrize(("defects", "good", "shift"), [(12, 12, 1.0), (10, 60, 0.8), (40, 40, 0.5)])
def test_the_interval_of_a_difference_of_areas_misses_no_more_than_it_says(
    defects: int, good: int, shift: float
) -> None:
    """Candidate and champion see the same normal quantity, each with its own noise: the true areas are known."""
    rng, rounds = random.Random(7), 400
    area = {noise: NormalDist().cdf(shift / sqrt(2 * (1 + noise * noise))) for noise in (0.5, 1.0)}
    truth = area[0.5] - area[1.0]
    above = below = 0
    for _ in range(rounds):
        drawn = []
        for number in range(defects + good):
            seen = rng.gauss(shift if number < defects else 0.0, 1.0)
            scores = [NormalDist().cdf(rng.gauss(seen, noise)) for noise in (0.5, 1.0)]
            drawn.append(item("defect" if number < defects else "good", *scores, part=str(number)))
        found = compare(drawn, Metric.AUC, subject="", confidence=0.95).difference
        above += found.low > truth
        below += found.high < truth
    # 5 % of 400, and three standard deviations of such a count.
    assert max(above, below) <= 20 + 13
