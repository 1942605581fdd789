"""The one way to try again after a lost race."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from controlplane import limits
from controlplane.domain.errors import StaleWriteError

T = TypeVar("T")


async def retry_stale(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return what `attempt` returns; call it again, from its first read on, when somebody else wrote in between,
    STALE_TRIES_MAX times at most. The last StaleWriteError is raised."""
    for _ in range(limits.STALE_TRIES_MAX - 1):
        try:
            return await attempt()
        except StaleWriteError:
            continue
    return await attempt()
