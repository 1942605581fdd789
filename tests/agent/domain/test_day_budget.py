"""What a slot keeps of a day, whatever the box's clock says."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.domain.day_budget import (
    BEHIND_SECONDS_MAX,
    BURST_SHARE,
    CHANCE_SHARE,
    LABELS_MAX,
    RENEWAL_SECONDS_MIN,
    VALUABLE_MIN,
    DayBudget,
    Spent,
    share_of_day,
)
from agent.domain.slot import SamplePolicy

TODAY = date(2026, 11, 22)


def policy(**overrides: Any) -> SamplePolicy:
    return SamplePolicy(**({"random_fraction": 0.0, "confidence_below": 0.6, "budget_bytes_per_day": 100} | overrides))


def spend(budget: DayBudget, size_bytes: int, limit_bytes: int) -> DayBudget | None:
    """The budget afterwards, None where it does not suffice."""
    if budget.lacks(policy(budget_bytes_per_day=limit_bytes), size_bytes=size_bytes) is not None:
        return None
    return budget.spend(size_bytes, "ok")


def is_full(budget: DayBudget) -> bool:
    return budget.lacks(policy(budget_bytes_per_day=100)) is Spent.BYTES


HOUR = 3600.0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 900))), st.integers(0, 2000))
def test_the_budget_of_a_day_is_never_exceeded(spendings: list[tuple[float, int]], limit_bytes: int) -> None:
    budget, hours, spent = DayBudget(day=TODAY), 0.0, {TODAY: 0}
    for passed_hours, size_bytes in spendings:
        hours += passed_hours
        day = TODAY + timedelta(days=int(hours // 24))
        budget = budget.on(day, now_seconds=hours * HOUR)
        after = spend(budget, size_bytes, limit_bytes)
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
        after = spend(budget, 100, 100)
        if after is not None:
            budget, given_bytes = after, given_bytes + 100
    assert given_bytes <= 100 * (2 + now_seconds // RENEWAL_SECONDS_MIN)


def test_a_clock_that_goes_back_does_not_give_the_budget_again() -> None:
    spent = spend(DayBudget(day=TODAY), 100, 100)
    assert spent is not None
    yesterday = spent.on(TODAY - timedelta(days=1), now_seconds=0.0)
    assert is_full(yesterday)
    later = yesterday.on(TODAY - timedelta(days=1), now_seconds=BEHIND_SECONDS_MAX)
    assert is_full(later)


def test_a_clock_that_was_years_ahead_ends_sampling_for_no_longer_than_a_day() -> None:
    ahead = spend(DayBudget(day=TODAY + timedelta(days=3650)), 100, 100)
    assert ahead is not None
    mended = ahead.on(TODAY, now_seconds=0.0).on(TODAY, now_seconds=2 * HOUR)
    assert is_full(mended)
    assert not is_full(mended.on(TODAY + timedelta(days=1), now_seconds=24 * HOUR))


def test_a_box_that_starts_in_the_year_2000_until_it_is_told_the_time_gets_no_second_budget() -> None:
    spent = spend(DayBudget(day=TODAY), 100, 100)
    assert spent is not None
    started = spent.on(date(2000, 1, 1), now_seconds=0.0).on(TODAY, now_seconds=300.0)
    assert is_full(started)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 40))
def test_neither_budget_is_exceeded_and_a_part_is_left_for_chance(by_chance: list[bool], images_max: int) -> None:
    asked = policy(random_fraction=0.01, budget_bytes_per_day=2000, budget_images_per_day=images_max)
    budget, kept = DayBudget(day=TODAY), {True: 0, False: 0}
    for chance in by_chance:
        if budget.lacks(asked, size_bytes=100, by_chance=chance) is None:
            budget = budget.spend(100, "ok")
            kept[chance] += 1
    assert budget.spent_images <= images_max
    assert budget.spent_bytes <= 2000
    assert kept[False] <= max(1, round(0.95 * images_max))


def test_it_is_said_which_budget_is_spent() -> None:
    asked = policy(budget_images_per_day=1, budget_bytes_per_day=1000)
    assert DayBudget(day=TODAY).lacks(asked, size_bytes=1001) is Spent.BYTES
    assert DayBudget(day=TODAY).spend(1, "ok").lacks(asked) is Spent.IMAGES
    assert DayBudget(day=TODAY).spend(1, "ok").lacks(policy(budget_bytes_per_day=1000)) is None


def test_a_quota_is_of_its_label_or_of_every_label_that_is_not_named() -> None:
    asked = policy(class_quota_per_day={"crack": 2, "": 1})
    budget = DayBudget(day=TODAY).spend(1, "crack").spend(1, "ok")
    assert budget.quota_left(asked, "crack")
    assert not budget.quota_left(asked, "ok")
    assert budget.quota_left(asked, "scratch")
    assert not budget.spend(1, "crack").quota_left(asked, "crack")
    assert not DayBudget(day=TODAY).quota_left(policy(class_quota_per_day={"crack": 2}), "ok")


def test_labels_that_a_model_makes_up_do_not_grow_without_bound() -> None:
    budget = DayBudget(day=TODAY)
    for number in range(LABELS_MAX + 50):
        budget = budget.spend(1, str(number))
    assert len(budget.label_counts) <= LABELS_MAX + 1
    assert sum(budget.label_counts.values()) == LABELS_MAX + 50


# --- pace ---

BUDGET_BYTES = 10_000
HOURS = 24
Offer = tuple[float, int, bool, float]
"""Share of the day that has passed, size, whether by chance, value."""
offers = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 400), st.booleans(), st.floats(0, 1)), max_size=150).map(
    sorted
)
paced_policies = st.builds(
    policy,
    random_fraction=st.sampled_from([0.0, 0.01, 1.0]),
    budget_bytes_per_day=st.just(BUDGET_BYTES),
    budget_images_per_day=st.integers(0, 60),
)


def at(budget: DayBudget, passed: float) -> DayBudget:
    return budget.on(TODAY, now_seconds=passed * 86_400, passed=passed)


def take(budget: DayBudget, asked: SamplePolicy, offer: Offer) -> DayBudget:
    """The budget after the offer, the same where it was refused."""
    passed, size_bytes, chance, value = offer
    now = at(budget, passed)
    refused = now.lacks(asked, size_bytes=size_bytes, by_chance=chance, value=value)
    return now if refused else now.spend(size_bytes, "ok")


@given(offers, paced_policies)
def test_whatever_comes_when_half_of_what_is_yet_to_come_is_left(offered: list[Offer], asked: SamplePolicy) -> None:
    budget = DayBudget(day=TODAY)
    for offer in offered:
        budget = take(budget, asked, offer)
        left = (1 - BURST_SHARE) * (1 - offer[0]) / 2
        assert budget.spent_bytes <= BUDGET_BYTES * (1 - left) + 1e-6
        if asked.budget_images_per_day:
            assert budget.spent_images <= max(1, round(asked.budget_images_per_day * (1 - left)))
    assert budget.spent_bytes <= BUDGET_BYTES
    assert budget.spent_images <= asked.budget_images_per_day or not asked.budget_images_per_day


@given(offers, paced_policies)
def test_what_is_not_especially_valuable_keeps_to_the_pace(offered: list[Offer], asked: SamplePolicy) -> None:
    budget = DayBudget(day=TODAY)
    for passed, size_bytes, _, value in offered:
        budget = take(budget, asked, (passed, size_bytes, False, value * VALUABLE_MIN * 0.999))
        assert budget.spent_bytes <= BUDGET_BYTES * (BURST_SHARE + (1 - BURST_SHARE) * passed) + 1e-6


@given(offers, paced_policies, st.tuples(st.floats(0, 1), st.integers(1, 400), st.booleans(), st.floats(0, 1)))
def test_later_and_more_valuable_is_never_worse_and_at_its_end_the_day_is_not_paced(
    offered: list[Offer], asked: SamplePolicy, last: Offer
) -> None:
    budget = DayBudget(day=TODAY)
    passed, size_bytes, chance, value = last
    for offer in offered:
        budget = take(budget, asked, offer)

    def lacks(*, passed: float, value: float) -> Spent | None:
        return at(budget, passed).lacks(asked, size_bytes=size_bytes, by_chance=chance, value=value)

    if lacks(passed=passed, value=value) is None:
        assert lacks(passed=passed, value=1.0) is None
        assert lacks(passed=(1 + passed) / 2, value=value) is None
    assert lacks(passed=1.0, value=value) is not Spent.PACE
    assert (lacks(passed=1.0, value=value) is None) == (lacks(passed=1.0, value=0.0) is None)


def flooded(budget: DayBudget, asked: SamplePolicy, *, passed: float, value: float) -> DayBudget:
    """The budget once nothing more is taken of what others than chance offer."""
    for _ in range(BUDGET_BYTES // 100 + 1):
        budget = take(budget, asked, (passed, 100, False, value))
    return budget


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10).map(sorted), st.floats(0, 1))
def test_chance_finds_room_at_any_hour_whatever_others_take(floods: list[tuple[float, float]], value: float) -> None:
    asked = policy(random_fraction=0.01, budget_bytes_per_day=BUDGET_BYTES)
    budget = DayBudget(day=TODAY)
    room = int(CHANCE_SHARE * BURST_SHARE * BUDGET_BYTES)
    for passed, worth in floods:
        budget = flooded(budget, asked, passed=passed, value=worth)
        assert at(budget, passed).lacks(asked, size_bytes=room, by_chance=True, value=value) is None


def test_a_third_may_be_spent_at_once() -> None:
    asked = policy(budget_bytes_per_day=BUDGET_BYTES)
    assert flooded(DayBudget(day=TODAY), asked, passed=0.0, value=0.0).spent_bytes == 3300


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_line_that_could_spend_the_budget_each_hour_is_left_some_in_every_hour(value: float) -> None:
    asked, budget = policy(budget_bytes_per_day=BUDGET_BYTES), DayBudget(day=TODAY)
    spent = []
    for hour in range(HOURS):
        before = budget.spent_bytes
        for _ in range(BUDGET_BYTES // 10):
            budget = take(budget, asked, ((hour + 1) / HOURS, 10, False, value))
        spent.append(budget.spent_bytes - before)
    assert budget.spent_bytes == BUDGET_BYTES
    even = BUDGET_BYTES / HOURS
    assert min(spent) > even * (1 - BURST_SHARE) * (0.45 if value >= VALUABLE_MIN else 0.95)


def test_the_share_of_a_day_is_of_its_utc_day() -> None:
    assert share_of_day(datetime(2026, 11, 22, tzinfo=UTC)) == 0.0
    assert share_of_day(datetime(2026, 11, 22, 18, tzinfo=UTC)) == 0.75
    assert share_of_day(datetime(2026, 11, 22, 2, tzinfo=timezone(timedelta(hours=8)))) == 0.75
