"""What is kept for training, within the day's budget."""

import random
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.domain.result import SampleReason
from agent.domain.sampling import DayBudget, pick
from agent.domain.slot import SamplePolicy

TODAY = date(2026, 11, 22)
confidences = st.one_of(st.none(), st.floats(0, 1))
policies = st.builds(
    SamplePolicy,
    random_fraction=st.floats(0, 1),
    confidence_below=st.floats(0, 1),
    budget_bytes_per_day=st.integers(0, 10_000),
)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 900))), st.integers(0, 2000))
def test_the_budget_of_a_day_is_never_exceeded(spendings: list[tuple[int, int]], limit_bytes: int) -> None:
    budget, day, spent = DayBudget(day=TODAY), TODAY, {TODAY: 0}
    for days, size_bytes in spendings:
        day += timedelta(days=days)
        budget = budget.on(day)
        after = budget.spend(size_bytes, limit_bytes)
        if after is not None:
            budget = after
            spent[day] = spent.get(day, 0) + size_bytes
    assert all(total <= limit_bytes for total in spent.values())


def test_a_clock_that_goes_back_does_not_give_the_budget_again() -> None:
    spent = DayBudget(day=TODAY).spend(100, 100)
    assert spent is not None
    assert spent.on(TODAY - timedelta(days=1)).left_bytes(100) == 0


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
