"""Who calls: operators by bearer token, agents by certificate.

A guard admits a call before its servicer runs; the servicer then asks `current_operator()` or
`current_agent()`. Names in requests are never believed: an agent acts as the agent of its certificate only.
Both guards answer from caches that are bounded in size and age, so that a call costs no query.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Protocol

import grpc

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.batching import SharedReads
from controlplane.app.ports import Clock, Store
from controlplane.app.revocations import Revocations, certificate_invalid
from controlplane.domain.identity import AgentCertificate, OperatorToken
from controlplane.domain.ids import AgentId

Context = grpc.aio.ServicerContext[Any, Any]


PeerParser = Callable[[bytes], AgentCertificate]
"""Reads the PEM of a certificate that TLS has verified; raises CredentialError (CERTIFICATE_INVALID)."""

_peer: ContextVar[AgentCertificate] = ContextVar("peer")
_operator: ContextVar[OperatorToken] = ContextVar("operator")


def current_agent() -> AgentId:
    """Return the agent that calls. A programmer's error outside of a call that AgentGuard admitted."""
    return _peer.get().agent_id


def current_certificate() -> AgentCertificate:
    """Return the certificate by which the agent called."""
    return _peer.get()


def current_operator() -> OperatorToken:
    """Return the token of the operator that calls. A programmer's error elsewhere."""
    return _operator.get()


def current_actor() -> str:
    """Return who calls as the audit names him, `operators/{operator}`. A programmer's error elsewhere."""
    return f"operators/{_operator.get().id}"


class Guard(Protocol):
    """Admits calls."""

    async def admit(self, context: Context) -> None:
        """Remember who calls for the length of the call; raise CredentialError or ForbiddenError."""
        ...


class Anyone:
    """Admits every call: enrolment, whose credential is in the request, and health."""

    async def admit(self, context: Context) -> None:
        """Admit."""


class OperatorGuard:
    """Admits who holds an operator token. A token that was revoked is refused within OPERATOR_TOKEN_AGE_SECONDS."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[OperatorToken, datetime]] = {}

    async def admit(self, context: Context) -> None:
        _operator.set(await self._find(_bearer(context)))

    async def _find(self, secret: str) -> OperatorToken:
        secret_sha256 = credentials.hash_secret(secret)
        known = self._known.get(secret_sha256)
        now = self._clock.now()
        if known and now - known[1] < timedelta(seconds=limits.OPERATOR_TOKEN_AGE_SECONDS):
            return known[0]
        async with self._store.read() as work:
            token = await work.tokens.find_operator_token(secret_sha256)
        if token is None or token.revoked or not credentials.secrets_match(secret, token.secret_sha256):
            self._known.pop(secret_sha256, None)
            raise credentials.operator_token_invalid()
        if len(self._known) >= limits.OPERATOR_TOKENS_CACHED_MAX:
            self._known.clear()
        self._known[secret_sha256] = (token, now)
        return token


def _bearer(context: Context) -> str:
    metadata: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and value.lower().startswith("bearer "):
            return credentials.parse_operator_token(value[len("bearer ") :].strip())
    raise credentials.operator_token_invalid()


class AgentGuard:
    """Admits agents whose certificate the CA signed, the store knows, and nobody revoked."""

    def __init__(self, *, store: Store, revocations: Revocations, parse_peer: PeerParser) -> None:
        self._store = store
        self._revocations = revocations
        self._parse_peer = parse_peer
        self._known: dict[bytes, AgentCertificate] = {}
        self._reads = SharedReads(self._read_all)

    async def admit(self, context: Context) -> None:
        peer = await self._identify(context)
        await self._revocations.check(peer)
        _peer.set(peer)

    async def _identify(self, context: Context) -> AgentCertificate:
        pem = _certificate_pem(context)
        if known := self._known.get(pem):
            return known
        peer = self._parse_peer(pem)
        certificate = await self._reads.find(peer.serial)
        if certificate is None or certificate.agent_id != peer.agent_id:
            raise certificate_invalid("the controller has no record of this certificate")
        if len(self._known) >= limits.PEERS_CACHED_MAX:
            self._known.clear()
        self._known[pem] = peer
        return peer

    async def _read_all(self, serials: Collection[str]) -> Mapping[str, AgentCertificate]:
        async with self._store.read() as work:
            return await work.certificates.find_all(serials)


def _certificate_pem(context: Context) -> bytes:
    pems = (context.auth_context() or {}).get("x509_pem_cert")
    if not pems:
        raise certificate_invalid("no client certificate")
    return next(iter(pems))
