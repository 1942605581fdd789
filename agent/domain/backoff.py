"""How long to wait before trying again: full jitter under a doubling, capped bound."""

import random


def delay_seconds(attempt: int, *, rng: random.Random, first_seconds: float, max_seconds: float) -> float:
    """Seconds to wait before try `attempt + 1`, where `attempt` (from 1) tries have failed in a row.

    Drawn evenly from [0, bound): a fleet that lost its controller at one moment does not come back at one moment.
    """
    assert attempt >= 1
    exponent = min(attempt - 1, 62)  # beyond this a float would overflow long after the cap was reached
    return rng.random() * min(max_seconds, first_seconds * 2.0**exponent)
