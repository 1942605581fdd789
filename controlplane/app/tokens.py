"""Join tokens, and the operators' own tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.enrollment import check_labels
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Clock, IdSource, Store
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.domain.errors import FieldInvalidError, Reason, ResourceExistsError
from controlplane.domain.identity import JoinToken, OperatorToken
from controlplane.domain.ids import JoinTokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenRequest:
    """What an operator asks for."""

    uses: int
    ttl: timedelta
    labels: Mapping[str, str]
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJoinToken:
    """A join token with its text, which is shown this once."""

    token: JoinToken
    text: str


class JoinTokens:
    """Permissions to enrol."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource, ca_certificate_der: bytes) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._ca_certificate_der = ca_certificate_der

    async def create(self, request: JoinTokenRequest) -> NewJoinToken:
        """Return a new token. Raises FieldInvalidError for bad uses, ttl or labels, and ResourceExistsError
        (REQUEST_ID_REUSED) for a request id that was used: the secret cannot be shown again."""
        _check(request)
        now, secret = self._clock.now(), self._ids.secret()
        token = JoinToken(
            id=JoinTokenId(self._ids.short_id()),
            uid=self._ids.uid(),
            secret_sha256=credentials.hash_secret(secret),
            create_time=now,
            expire_time=now + request.ttl,
            uses=request.uses,
            labels=dict(request.labels),
        )
        print_of_request = fingerprint("join_token", request.uses, request.ttl, sorted(request.labels.items()))
        async with self._store.write() as work:
            if await find_outcome(work, request.request_id, print_of_request=print_of_request):
                raise ResourceExistsError(
                    "this request has made its token, whose secret was shown once",
                    field="request_id",
                    remedy="send a new request id, and revoke the token that was lost",
                    reason=Reason.REQUEST_ID_REUSED,
                )
            await work.tokens.add_join_token(token)
            resource = f"joinTokens/{token.id}"
            await keep_outcome(work, request.request_id, print_of_request=print_of_request, resource=resource, now=now)
        text = credentials.encode_join_token(
            credentials.JoinTokenText(id=token.id, secret=secret, ca_certificate_der=self._ca_certificate_der)
        )
        return NewJoinToken(token=token, text=text)

    async def list(self, *, page_size: int, page_token: str) -> Page[JoinToken]:
        """Return a page of tokens without their secrets, newest first."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as work:
            found = await work.tokens.list_join_tokens(before=str(key[0]) if key else None, limit=size + 1)
        items = found[:size]
        return Page(items, encode_page_token(items[-1].uid) if len(found) > size else "")

    async def revoke(self, token_id: JoinTokenId) -> JoinToken:
        """End the token before its time; agents that it enrolled stay. Revoking twice changes nothing."""

        async def attempt() -> JoinToken:
            async with self._store.write() as work:
                token = await work.tokens.get_join_token(token_id)
                return token if token.revoked else await work.tokens.save_join_token(replace(token, revoked=True))

        return await retry_stale(attempt)


async def create_operator_token(*, store: Store, clock: Clock, ids: IdSource, description: str) -> str:
    """Store a new operator token and return its text, which nothing can show again."""
    text = credentials.encode_operator_token(ids.secret())
    await adopt_operator_token(text, store=store, clock=clock, ids=ids, description=description)
    return text


async def adopt_operator_token(text: str, *, store: Store, clock: Clock, ids: IdSource, description: str) -> bool:
    """Make a token that the controller's own folder holds valid in this database, where it is not known; return
    whether it was added. One that was revoked stays so."""
    secret_sha256 = credentials.hash_secret(credentials.parse_operator_token(text))
    async with store.read() as work:
        if await work.tokens.find_operator_token(secret_sha256) is not None:
            return False
    token = OperatorToken(
        id=ids.short_id(), secret_sha256=secret_sha256, create_time=clock.now(), description=description
    )
    async with store.write() as work:
        await work.tokens.add_operator_token(token)
    return True


def _check(request: JoinTokenRequest) -> None:
    if not 1 <= request.uses <= limits.JOIN_TOKEN_USES_MAX:
        raise FieldInvalidError(
            f"{request.uses} uses are not possible",
            field="join_token.uses",
            remedy=f"use 1 to {limits.JOIN_TOKEN_USES_MAX}",
        )
    if not timedelta(0) < request.ttl <= limits.JOIN_TOKEN_TTL_MAX:
        raise FieldInvalidError(
            f"a token cannot live for {request.ttl}",
            field="join_token.ttl",
            remedy=f"use more than 0 seconds and at most {limits.JOIN_TOKEN_TTL_MAX.days} days",
        )
    check_labels(request.labels, field="join_token.labels")
