"""Join tokens, and the first tokens of operators, which are made on the controller's own host."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.audit import write_down
from controlplane.app.enrollment import check_labels
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Clock, IdSource, Store
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import Happening, rule
from controlplane.domain.errors import FieldInvalidError, Reason, ResourceExistsError
from controlplane.domain.identity import JoinToken, OperatorToken
from controlplane.domain.ids import JoinTokenId, check_resource_id

FIRST_OPERATOR = "admin"
"""The operator that `init` makes."""
HOST = rule("host")
"""Who acts when a command of `lineside-controlplane` is given: whoever may use the controller's own host."""


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

    async def create(self, request: JoinTokenRequest, *, actor: str) -> NewJoinToken:
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
            await write_down(work, [_created(token, actor)], clock=self._clock, ids=self._ids)
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

    async def revoke(self, token_id: JoinTokenId, *, actor: str) -> JoinToken:
        """End the token before its time; agents that it enrolled stay. Revoking twice changes nothing."""

        async def attempt() -> JoinToken:
            async with self._store.write() as work:
                token = await work.tokens.get_join_token(token_id)
                if token.revoked:
                    return token
                revoked = await work.tokens.save_join_token(replace(token, revoked=True))
                await write_down(work, [_revoked(revoked, actor)], clock=self._clock, ids=self._ids)
                return revoked

        return await retry_stale(attempt)


async def create_operator_token(
    *, store: Store, clock: Clock, ids: IdSource, description: str, operator_id: str = ""
) -> str:
    """Store another operator and return the text of its token, which nothing can show again. Without an id it gets
    one by chance. Raises FieldInvalidError for an id that is none, ResourceExistsError for one that is taken."""
    checked = check_resource_id(operator_id, field="operator_id") if operator_id else ids.short_id()
    text = credentials.encode_operator_token(ids.secret())
    await _add_operator(text, checked, store=store, clock=clock, ids=ids, description=description)
    return text


async def adopt_operator_token(text: str, *, store: Store, clock: Clock, ids: IdSource, description: str) -> bool:
    """Make a token that the controller's own folder holds valid in this database, where it is not known; return
    whether it was added. One that was revoked stays so. It is the operator FIRST_OPERATOR, and where that is another
    token's, for the folder was made anew, one with a name of its own."""
    for operator_id in (FIRST_OPERATOR, f"{FIRST_OPERATOR}-{ids.short_id()}"):
        if await _is_known(text, store=store):
            return False
        try:
            await _add_operator(text, operator_id, store=store, clock=clock, ids=ids, description=description)
        except ResourceExistsError:
            # The name is another token's, or another replica has just adopted this one: look again.
            continue
        return True
    return False


async def _is_known(text: str, *, store: Store) -> bool:
    secret_sha256 = credentials.hash_secret(credentials.parse_operator_token(text))
    async with store.read() as work:
        return await work.tokens.find_operator_token(secret_sha256) is not None


async def _add_operator(
    text: str, operator_id: str, *, store: Store, clock: Clock, ids: IdSource, description: str
) -> None:
    token = OperatorToken(
        id=operator_id,
        secret_sha256=credentials.hash_secret(credentials.parse_operator_token(text)),
        create_time=clock.now(),
        description=description,
    )
    made = Happening(actor=HOST, action="operator.create", resource=f"operators/{operator_id}", message=description)
    async with store.write() as work:
        await work.tokens.add_operator_token(token)
        await write_down(work, [made], clock=clock, ids=ids)


def _created(token: JoinToken, actor: str) -> Happening:
    labels = ",".join(f"{key}={value}" for key, value in sorted(token.labels.items()))
    return Happening(
        actor=actor,
        action="token.create",
        resource=f"joinTokens/{token.id}",
        message=f"for {token.uses} agents until {token.expire_time:%Y-%m-%d %H:%M:%S} UTC, labels: {labels or 'none'}",
        evidence={"uses": token.uses, "labels": dict(sorted(token.labels.items()))},
    )


def _revoked(token: JoinToken, actor: str) -> Happening:
    return Happening(
        actor=actor,
        action="token.revoke",
        resource=f"joinTokens/{token.id}",
        message=f"it has enrolled {token.used} of {token.uses} agents",
    )


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
