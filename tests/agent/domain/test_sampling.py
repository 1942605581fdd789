"""What is kept for training, within the day's budget."""

import random
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.result import SampleReason
from agent.domain.sampling import BEHIND_SECONDS_MAX, RENEWAL_SECONDS_MIN, DayBudget, pick
from agent.domain.slot import SamplePolicy

TODAY = date(2026, 11, 22)
confidences = st.one_of(st.none(), st.floats(0, 1))
policies = st.builds(
    SamplePolicy,
    random_fraction=st.floats(0, 1),
    confidence_below=st.floats(0, 1),
    budget_bytes_per_day=st.integers(0, 10_000),
)


HOUR = 3600.0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 900))), st.integers(0, 2000))
def test_the_budget_of_a_day_is_never_exceeded(spendings: list[tuple[float, int]], limit_bytes: int) -> None:
    budget, hours, spent = DayBudget(day=TODAY), 0.0, {TODAY: 0}
    for passed_hours, size_bytes in spendings:
        hours += passed_hours
        day = TODAY + timedelta(days=int(hours // 24))
        budget = budget.on(day, now_seconds=hours * HOUR)
        after = budget.spend(size_bytes, limit_bytes)
        if after is not None:
            budget = after
            spent[day] = spent.get(day, 0) + size_bytes
    assert all(total <= limit_bytes for total in spent.values())


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(-4000, 4000)), max_size=60))
def test_whatever_the_clock_says_a_budget_is_given_only_so_often(looks: list[tuple[float, int]]) -> None:
    budget, now_seconds, given_bytes = DayBudget(day=TODAY), 0.0, 0
    for passed_hours, days in looks:
        now_seconds += passed_hours * HOUR
        budget = budget.on(TODAY + timedelta(days=days), now_seconds=now_seconds)
        after = budget.spend(100, 100)
        if after is not None:
            budget, given_bytes = after, given_bytes + 100
    assert given_bytes <= 100 * (2 + now_seconds // RENEWAL_SECONDS_MIN)


def test_a_clock_that_goes_back_does_not_give_the_budget_again() -> None:
    spent = DayBudget(day=TODAY).spend(100, 100)
    assert spent is not None
    yesterday = spent.on(TODAY - timedelta(days=1), now_seconds=0.0)
    assert yesterday.left_bytes(100) == 0
    later = yesterday.on(TODAY - timedelta(days=1), now_seconds=BEHIND_SECONDS_MAX)
    assert later.left_bytes(100) == 0


def test_a_clock_that_was_years_ahead_ends_sampling_for_no_longer_than_a_day() -> None:
    ahead = DayBudget(day=TODAY + timedelta(days=3650)).spend(100, 100)
    assert ahead is not None
    mended = ahead.on(TODAY, now_seconds=0.0).on(TODAY, now_seconds=2 * HOUR)
    assert mended.left_bytes(100) == 0
    assert mended.on(TODAY + timedelta(days=1), now_seconds=24 * HOUR).left_bytes(100) == 100


def test_a_box_that_starts_in_the_year_2000_until_it_is_told_the_time_gets_no_second_budget() -> None:
    spent = DayBudget(day=TODAY).spend(100, 100)
    assert spent is not None
    started = spent.on(date(2000, 1, 1), now_seconds=0.0).on(TODAY, now_seconds=300.0)
    assert started.left_bytes(100) == 0


@given(policies, st.lists(confidences), st.integers())
def test_the_same_seed_picks_the_same(policy: SamplePolicy, seen: list[float | None], seed: int) -> None:
    one, other = random.Random(seed), random.Random(seed)
    assert [pick(policy, each, one, 1) for each in seen] == [pick(policy, each, other, 1) for each in seen]


@given(policies, confidences, st.integers())
def test_nothing_is_picked_without_budget(policy: SamplePolicy, confidence: float | None, seed: int) -> None:
    assert pick(policy, confidence, random.Random(seed), 0) is None


def test_doubt_is_the_reason_rather_than_chance() -> None:
    policy = SamplePolicy(random_fraction=1.0, confidence_below=0.6, budget_bytes_per_day=1)
    assert pick(policy, 0.5, random.Random(0), 1) is SampleReason.LEAST_CONFIDENCE
    assert pick(policy, 0.6, random.Random(0), 1) is SampleReason.RANDOM
    assert pick(policy, None, random.Random(0), 1) is SampleReason.RANDOM


def test_the_fraction_is_kept_at_random() -> None:
    policy = SamplePolicy(random_fraction=0.1, confidence_below=0.0, budget_bytes_per_day=1)
    rng = random.Random(3)
    picked = sum(pick(policy, 0.9, rng, 1) is SampleReason.RANDOM for _ in range(10_000))
    assert 900 < picked < 1100
