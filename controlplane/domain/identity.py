"""Join tokens, operator tokens and agent certificates. Secrets are kept as sha256 only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.ids import AgentId, JoinTokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """Permission to enrol `uses` agents until `expire_time`."""

    id: JoinTokenId
    uid: str
    secret_sha256: str
    create_time: datetime
    expire_time: datetime
    uses: int
    used: int = 0
    labels: Mapping[str, str]
    revoked: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorToken:
    """A bearer token of the operators' API."""

    id: str
    """Of the operator: `operators/{id}` is who the audit names."""
    secret_sha256: str
    create_time: datetime
    description: str
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCertificate:
    """A certificate that the CA signed for one agent."""

    serial: str
    """Lower-case hex."""
    agent_id: AgentId
    public_key_sha256: str
    not_before: datetime
    expire_time: datetime
