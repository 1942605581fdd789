"""How long to wait before trying again: full jitter under a growing, capped bound."""

import random


def delay_seconds(
    attempt: int, *, rng: random.Random, first_seconds: float, max_seconds: float, growth: float = 2.0
) -> float:
    """Seconds to wait before try `attempt + 1`, where `attempt` (from 1) tries have failed in a row.

    Drawn evenly from [0, bound), where each failure multiplies the bound by `growth` up to `max_seconds`: a fleet that
    lost its controller at one moment does not come back at one moment.
    """
    assert attempt >= 1
    assert 1.0 < growth <= 2.0
    exponent = min(attempt - 1, 62)  # more would overflow some day, and a bound this far has reached its cap
    return rng.random() * min(max_seconds, first_seconds * growth**exponent)
