"""Full jitter under a growing, capped bound."""

import random

from hypothesis import given
from hypothesis import strategies as st

from agent import limits
from agent.domain.backoff import delay_seconds


@given(st.integers(1, 10_000), st.integers())
def test_a_delay_is_never_above_its_bound(attempt: int, seed: int) -> None:
    seconds = delay_seconds(attempt, rng=random.Random(seed), first_seconds=0.5, max_seconds=30.0)
    assert 0 <= seconds <= min(30.0, 0.5 * 2 ** min(attempt - 1, 20))


def test_the_same_seed_waits_the_same() -> None:
    one, other = random.Random(7), random.Random(7)
    assert [delay_seconds(n, rng=one, first_seconds=1, max_seconds=9) for n in range(1, 9)] == [
        delay_seconds(n, rng=other, first_seconds=1, max_seconds=9) for n in range(1, 9)
    ]


def test_a_fleet_that_was_lost_at_once_does_not_return_at_once() -> None:
    rng = random.Random(1)
    delays = [delay_seconds(5, rng=rng, first_seconds=0.5, max_seconds=30.0) for _ in range(1000)]
    assert min(delays) < 0.5
    assert max(delays) > 7


def return_seconds(outage_seconds: float, rng: random.Random) -> float:
    """How long after the end of an outage an agent dials that began to try at its begin."""
    seconds, failures = 0.0, 0
    while seconds < outage_seconds:
        failures += 1
        seconds += delay_seconds(
            failures,
            rng=rng,
            first_seconds=limits.BACKOFF_FIRST_SECONDS,
            max_seconds=limits.BACKOFF_MAX_SECONDS,
            growth=limits.RECONNECT_GROWTH,
        )
    return seconds - outage_seconds


def test_a_restart_of_the_controller_is_hardly_seen() -> None:
    rng = random.Random(1)
    returns = sorted(return_seconds(5.0, rng) for _ in range(1000))
    assert returns[500] < 1.0
    assert returns[990] < 2.5


def test_a_fleet_comes_back_from_a_long_outage_over_the_whole_bound() -> None:
    rng = random.Random(1)
    returns = [return_seconds(600.0, rng) for _ in range(5000)]
    assert max(returns) <= limits.BACKOFF_MAX_SECONDS
    busiest = max(sum(second <= each < second + 1 for each in returns) for second in range(15))
    assert busiest < 5000 / 5, "no second sees more than a fifth of the fleet"


def test_an_agent_that_tries_for_days_still_waits_its_bound() -> None:
    assert delay_seconds(10**6, rng=random.Random(1), first_seconds=0.5, max_seconds=15.0, growth=1.15) < 15.0
