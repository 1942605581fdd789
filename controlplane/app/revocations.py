"""Whether an agent's certificate may still be used, known without a query a call.

A revocation takes effect in the process that made it at once (`add`), and in every other within
`limits.REVOCATION_AGE_SECONDS` (`check` reads the store again). One read serves all callers that wait.
"""

import asyncio
from datetime import datetime, timedelta

from controlplane import limits
from controlplane.app.ports import Clock, Store
from controlplane.domain.errors import CredentialError, ForbiddenError, Reason
from controlplane.domain.identity import AgentCertificate
from controlplane.domain.ids import AgentId


class Revocations:
    """The revoked agents as of at most REVOCATION_AGE_SECONDS ago."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._revoked: frozenset[AgentId] = frozenset()
        self._read_time: datetime | None = None
        self._reading = asyncio.Lock()

    async def check(self, certificate: AgentCertificate) -> None:
        """Raise CredentialError (CERTIFICATE_INVALID) if it has expired, ForbiddenError (AGENT_REVOKED) if its
        agent is revoked. TLS looks at a certificate once; streams ask this at each message."""
        if certificate.expire_time <= self._clock.now():
            raise certificate_invalid("the certificate has expired")
        if not self._is_fresh():
            await self._refresh()
        if certificate.agent_id in self._revoked:
            raise revoked(certificate.agent_id)

    def add(self, agent_id: AgentId) -> None:
        """Take note of a revocation that has just been committed."""
        self._revoked |= {agent_id}

    def _is_fresh(self) -> bool:
        if self._read_time is None:
            return False
        return self._clock.now() - self._read_time < timedelta(seconds=limits.REVOCATION_AGE_SECONDS)

    async def _refresh(self) -> None:
        async with self._reading:
            if self._is_fresh():
                return
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


def certificate_invalid(message: str) -> CredentialError:
    """The refusal of a certificate."""
    return CredentialError(
        message, remedy="enrol with a join token of this controller", reason=Reason.CERTIFICATE_INVALID
    )
