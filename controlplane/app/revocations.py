"""Which agents are revoked, known without a query a call.

A revocation takes effect in the process that made it at once (`add`), and in every other within
`limits.REVOCATION_AGE_SECONDS` (`current` reads the store again). One read serves all callers that wait.
"""

import asyncio
from datetime import datetime, timedelta

from controlplane import limits
from controlplane.app.ports import Clock, Store
from controlplane.domain.errors import ForbiddenError, Reason
from controlplane.domain.ids import AgentId


class Revocations:
    """The revoked agents as of at most REVOCATION_AGE_SECONDS ago."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._revoked: frozenset[AgentId] = frozenset()
        self._read_time: datetime | None = None
        self._reading = asyncio.Lock()

    async def check(self, agent_id: AgentId) -> None:
        """Raise ForbiddenError (AGENT_REVOKED) if the agent is revoked."""
        if agent_id in await self._current():
            raise revoked(agent_id)

    def add(self, agent_id: AgentId) -> None:
        """Take note of a revocation that has just been committed."""
        self._revoked |= {agent_id}

    async def _current(self) -> frozenset[AgentId]:
        if not self._is_fresh():
            async with self._reading:
                if not self._is_fresh():
                    await self._read()
        return self._revoked

    def _is_fresh(self) -> bool:
        if self._read_time is None:
            return False
        return self._clock.now() - self._read_time < timedelta(seconds=limits.REVOCATION_AGE_SECONDS)

    async def _read(self) -> None:
        read_time = self._clock.now()
        async with self._store.read() as work:
            # Nobody is ever un-revoked, so a notice that came during the read is kept.
            self._revoked |= await work.agents.list_revoked()
        self._read_time = read_time


def revoked(agent_id: AgentId) -> ForbiddenError:
    """The refusal of a revoked agent."""
    return ForbiddenError(
        f"agents/{agent_id} is revoked", remedy="enrol the box under another name", reason=Reason.AGENT_REVOKED
    )
