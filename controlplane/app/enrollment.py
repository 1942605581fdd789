"""Enrolment: a join token and a key become an agent with a certificate; and renewal of that certificate.

Rules kept:
- A token enrols exactly `uses` new agents, however many try at once.
- The same key under the same name gets a new certificate and takes no use: a lost answer costs nothing.
- A name belongs to the key that enrolled it, for good. A revoked agent's name is never enrolled again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.convergence import converge
from controlplane.app.ports import (
    CertificateAuthority,
    ChangeNotifier,
    Clock,
    IdSource,
    SignedCertificate,
    Store,
    UnitOfWork,
)
from controlplane.app.retries import retry_stale
from controlplane.app.revocations import revoked
from controlplane.domain.errors import CredentialError, FieldInvalidError, Reason, ResourceExistsError
from controlplane.domain.identity import JoinToken
from controlplane.domain.ids import AgentId, check_resource_id
from controlplane.domain.inventory import Agent, AgentRecord
from controlplane.domain.selector import is_label_key, is_label_value, is_reserved_key


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollmentRequest:
    """What a box asks for. `token` is the join token's text."""

    token: str
    agent_id: str
    labels: Mapping[str, str]
    csr_der: bytes


class Enrollment:
    """Makes agents of boxes."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: IdSource,
        authority: CertificateAuthority,
        notifier: ChangeNotifier,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._authority = authority
        self._notifier = notifier

    async def enroll(self, request: EnrollmentRequest) -> SignedCertificate:
        """Return a certificate for the named agent, which exists from now on.

        Raises CredentialError (JOIN_TOKEN_INVALID, _EXPIRED, _EXHAUSTED), FieldInvalidError (agent_id, labels,
        csr_der), ResourceExistsError when another key holds the name, ForbiddenError (AGENT_REVOKED).
        """
        presented = credentials.parse_join_token(request.token)
        agent_id = AgentId(check_resource_id(request.agent_id, field="agent_id"))
        check_labels(request.labels, field="labels")
        key_sha256 = self._authority.public_key_sha256(request.csr_der)

        async def attempt() -> SignedCertificate:
            now = self._clock.now()
            async with self._store.write() as work:
                token = await _admit(work, presented, now=now)
                record = await work.agents.find(agent_id)
                if record is None:
                    await self._add(work, token, agent_id=agent_id, labels=request.labels, now=now)
                else:
                    await _check_same_box(work, record, key_sha256=key_sha256)
                signed = self._authority.sign(request.csr_der, agent_id=agent_id, now=now)
                await work.certificates.add(signed.certificate)
                changed = await converge(work, [agent_id]) if record is None else ()
            self._notifier.desired_changed(changed)
            return signed

        return await retry_stale(attempt)

    async def renew(self, agent_id: AgentId, csr_der: bytes) -> SignedCertificate:
        """Return a certificate for a new key of the calling agent. The old one stays good until it expires, so a
        lost answer costs nothing. Raises FieldInvalidError (csr_der), ForbiddenError (AGENT_REVOKED)."""
        signed = self._authority.sign(csr_der, agent_id=agent_id, now=self._clock.now())

        async def attempt() -> SignedCertificate:
            async with self._store.write() as work:
                if (await work.agents.get(agent_id)).agent.revoked:
                    raise revoked(agent_id)
                await work.certificates.add(signed.certificate)
            return signed

        return await retry_stale(attempt)

    async def _add(
        self, work: UnitOfWork, token: JoinToken, *, agent_id: AgentId, labels: Mapping[str, str], now: datetime
    ) -> None:
        if token.used >= token.uses:
            raise CredentialError(
                f"the join token has enrolled all {token.uses} agents that it may",
                field="token",
                remedy="create another one with `lineside tokens create`",
                reason=Reason.JOIN_TOKEN_EXHAUSTED,
            )
        await work.tokens.save_join_token(replace(token, used=token.used + 1))
        await work.agents.add(
            Agent(id=agent_id, uid=self._ids.uid(), create_time=now, labels={**labels, **token.labels})
        )


def check_labels(labels: Mapping[str, str], *, field: str) -> None:
    """Raise FieldInvalidError unless each label is one that selectors can name, and there are few enough."""
    if len(labels) > limits.LABELS_MAX:
        raise FieldInvalidError(
            f"{len(labels)} labels are too many", field=field, remedy=f"use at most {limits.LABELS_MAX}"
        )
    for key, value in labels.items():
        if is_reserved_key(key):
            raise FieldInvalidError(
                f"{key!r} is a fact that the controller knows by itself", field=field, remedy="choose another key"
            )
        if not is_label_key(key) or not is_label_value(value):
            raise FieldInvalidError(
                f"{key}={value} is not a label",
                field=field,
                remedy="use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
            )


async def _admit(work: UnitOfWork, presented: credentials.JoinTokenText, *, now: datetime) -> JoinToken:
    token = await work.tokens.find_join_token(presented.id)
    if token is None or token.revoked or not credentials.secrets_match(presented.secret, token.secret_sha256):
        raise credentials.join_token_invalid()
    if token.expire_time <= now:
        raise CredentialError(
            f"the join token expired at {token.expire_time:%Y-%m-%d %H:%M:%S} UTC",
            field="token",
            remedy="create another one with `lineside tokens create`",
            reason=Reason.JOIN_TOKEN_EXPIRED,
        )
    return token


async def _check_same_box(work: UnitOfWork, record: AgentRecord, *, key_sha256: str) -> None:
    agent_id = record.agent.id
    if await work.certificates.find_by_key(agent_id, key_sha256) is None:
        raise ResourceExistsError(
            f"agents/{agent_id} is enrolled with another key",
            field="agent_id",
            remedy="choose another name, or enrol from the folder that holds this agent's key",
        )
    if record.agent.revoked:
        raise revoked(agent_id)
