"""Intervals hold the truth at every look."""

import random
from math import comb, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.interval import (
    Side,
    distribution_error,
    mix_error,
    more_needed,
    rate_interval,
    share_interval,
    share_side,
)

limits = st.sampled_from([0.001, 0.01, 0.05, 0.3, 0.5, 0.9])
MISS = 0.01
SEEDS = 300


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, int]:
    total = draw(st.integers(1, 40) | st.sampled_from([500, 3_000, 100_000]))
    return draw(st.integers(0, min(total, 60)) | st.just(total)), total


@given(shares(), limits)
def test_the_interval_holds_what_was_seen_and_agrees_with_the_side(share: tuple[int, int], limit: float) -> None:
    count, total = share
    found = share_interval(count, total, limit=limit, miss=MISS)
    assert 0 <= found.low <= count / total <= found.high <= 1
    assert found.side(limit) is share_side(count, total, limit=limit, miss=MISS)


@given(shares(), limits)
def test_one_more_never_speaks_for_a_smaller_share(share: tuple[int, int], limit: float) -> None:
    count, total = share
    order = [Side.BELOW, Side.OPEN, Side.ABOVE]
    if count < total:
        before, after = (share_side(seen, total, limit=limit, miss=MISS) for seen in (count, count + 1))
        assert order.index(after) >= order.index(before)


@given(shares(), limits)
def test_what_is_needed_is_enough_and_no_more(share: tuple[int, int], limit: float) -> None:
    count, total = share
    more = more_needed(count, total, limit=limit, miss=MISS)
    assert share_side(count, total + more, limit=limit, miss=MISS) is Side.BELOW
    if more:
        assert share_side(count, total + more - 1, limit=limit, miss=MISS) is not Side.BELOW


@pytest.mark.parametrize(("count", "side"), [(0, Side.OPEN), (1, Side.ABOVE)])
def test_a_limit_of_nothing_allows_none(count: int, side: Side) -> None:
    assert share_side(count, 10_000, limit=0.0, miss=MISS) is side
    assert share_side(count, 1, limit=1.0, miss=MISS) is Side.BELOW


@pytest.mark.parametrize(
    ("limit", "needed"), [(0.001, 5876), (0.005, 1174), (0.01, 586), (0.02, 292), (0.05, 116), (0.1, 57)]
)
def test_what_a_pass_without_an_error_takes_is_known(limit: float, needed: int) -> None:
    assert more_needed(0, 0, limit=limit, miss=MISS) == needed
    assert needed < 1.34 * log(MISS) / log(1 - limit), "the price of looking at every second is about a third"


def misses(share: float, *, seeds: int, inferences: int) -> int:
    """In how many seeded runs the interval leaves the true share out at any look."""
    missed = 0
    for seed in range(seeds):
        rng = random.Random(seed)
        errors = 0
        for total in range(1, inferences + 1):
            errors += rng.random() < share
            if share_side(errors, total, limit=share, miss=MISS) is not Side.OPEN:
                missed += 1
                break
    return missed


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_the_true_share_stays_inside_at_all_looks_together(share: float) -> None:
    expected = SEEDS * MISS
    assert misses(share, seeds=SEEDS, inferences=2_000) <= expected + 3


def test_an_interval_for_one_look_would_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first property would see if the evidence were that of one look."""

    def one_look(count: int, total: int, *, limit: float, miss: float) -> Side:
        tail = sum(comb(total, k) * limit**k * (1 - limit) ** (total - k) for k in range(count, min(total, count + 30)))
        return Side.ABOVE if tail < miss else Side.OPEN

    monkeypatch.setitem(misses.__globals__, "share_side", one_look)
    assert misses(0.05, seeds=60, inferences=400) > 60 * MISS + 1


@pytest.mark.parametrize("rate", [0.2, 5.0])
def test_the_true_rate_stays_inside_at_all_looks_together(rate: float) -> None:
    missed = 0
    for seed in range(100):
        rng = random.Random(seed)
        seconds = 0.0
        for count in range(1, 400):
            seconds += rng.expovariate(rate)
            found = rate_interval(count, seconds, guess=2 * rate, miss=MISS)
            assert found.low <= count / seconds <= found.high
            if not found.low <= rate <= found.high:
                missed += 1
                break
    assert missed <= 3


def test_no_time_says_nothing_of_a_rate() -> None:
    assert rate_interval(0, 0.0, guess=1.0, miss=MISS).low == 0
    assert rate_interval(0, 100.0, guess=1.0, miss=MISS).high < 0.2


@pytest.mark.parametrize("mix", [(1,) * 20, (1, 9), (1, 2, 3, 4)])
def test_the_true_mix_stays_within_the_error_at_all_looks_together(mix: tuple[int, ...]) -> None:
    missed = 0
    truth = [part / sum(mix) for part in mix]
    for seed in range(60):
        rng = random.Random(seed)
        seen = [0] * len(mix)
        for total in range(1, 1_200):
            seen[rng.choices(range(len(mix)), mix)[0]] += 1
            shares = [count / total for count in seen]
            steps = [sum(shares[: k + 1]) - sum(truth[: k + 1]) for k in range(len(mix))]
            variation = sum(abs(one - other) for one, other in zip(shares, truth, strict=True)) / 2
            far = max(map(abs, steps)) > distribution_error(total, miss=MISS)
            if far or variation > mix_error(total, len(mix), miss=MISS):
                missed += 1
                break
    assert missed <= 1


def test_errors_shrink_with_the_samples() -> None:
    for error in (distribution_error, lambda samples, miss: mix_error(samples, 5, miss=miss)):
        found = [error(samples, miss=MISS) for samples in (0, 1, 10, 100, 1_000, 10_000, 100_000)]
        assert found == sorted(found, reverse=True)
        assert found[0] == 1.0
        assert found[-1] < 0.03
