"""Full jitter under a doubling, capped bound."""

import random

from hypothesis import given
from hypothesis import strategies as st

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
