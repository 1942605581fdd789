"""Operators: who may use the operators' API. Each has a bearer token of its own, so that the log names people."""

from dataclasses import dataclass

from controlplane import limits
from controlplane.app import credentials
from controlplane.app.audit import write_down
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import Clock, IdSource, Store, UnitOfWork
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import Happening
from controlplane.domain.errors import FieldInvalidError, PreconditionError, Reason, ResourceExistsError
from controlplane.domain.identity import OperatorToken
from controlplane.domain.ids import check_resource_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOperator:
    """An operator with the text of its token, which is shown this once."""

    operator: OperatorToken
    text: str


class Operators:
    """Creates, lists and revokes operators."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def create(self, operator_id: str, *, description: str = "", actor: str) -> NewOperator:
        """Return a new operator. Raises FieldInvalidError for an id that is none or a description that is too long,
        ResourceExistsError when the name is taken, also by one that was revoked: the log goes on naming him."""
        check_resource_id(operator_id, field="operator_id")
        _check_description(description)
        text = credentials.encode_operator_token(self._ids.secret())
        operator = OperatorToken(
            id=operator_id,
            secret_sha256=credentials.hash_secret(credentials.parse_operator_token(text)),
            create_time=self._clock.now(),
            description=description,
        )

        async def attempt() -> None:
            async with self._store.write() as uow:
                await _add(uow, operator)
                await write_down(uow, [_created(operator, actor)], clock=self._clock, ids=self._ids)

        await retry_stale(attempt)
        return NewOperator(operator=operator, text=text)

    async def list(self, *, page_size: int = 0, page_token: str = "") -> Page[OperatorToken]:
        """By id, revoked ones too."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            found = await uow.tokens.list_operator_tokens(after=str(key[0]) if key else None, limit=size + 1)
        return page_of(found, size, lambda operator: encode_page_token(operator.id))

    async def revoke(self, operator_id: str, *, actor: str) -> OperatorToken:
        """Refuse the operator's token for good, everywhere within OPERATOR_TOKEN_AGE_SECONDS. Revoking twice changes
        nothing. Raises ResourceNotFoundError, and PreconditionError (LAST_OPERATOR) where nobody else is left."""

        async def attempt() -> OperatorToken:
            async with self._store.write() as uow:
                operator = await uow.tokens.get_operator_token(operator_id)
                if operator.revoked:
                    return operator
                if not await _is_anybody_else(uow, operator_id):
                    raise PreconditionError(
                        f"operators/{operator_id} is the last one: nobody could come in any more",
                        field="name",
                        remedy="create another one first",
                        reason=Reason.LAST_OPERATOR,
                    )
                operator = await uow.tokens.revoke_operator_token(operator_id)
                await write_down(uow, [_revoked(operator, actor)], clock=self._clock, ids=self._ids)
                return operator

        return await retry_stale(attempt)


async def _add(uow: UnitOfWork, operator: OperatorToken) -> None:
    try:
        await uow.tokens.add_operator_token(operator)
    except ResourceExistsError as error:
        raise ResourceExistsError(
            f"operators/{operator.id} exists already", field="operator_id", remedy="choose another name"
        ) from error


async def _is_anybody_else(uow: UnitOfWork, operator_id: str) -> bool:
    after: str | None = None
    while True:
        page = await uow.tokens.list_operator_tokens(after=after, limit=limits.PAGE_SIZE_MAX)
        if any(other.id != operator_id and not other.revoked for other in page):
            return True
        if len(page) < limits.PAGE_SIZE_MAX:
            return False
        after = page[-1].id


def _check_description(description: str) -> None:
    if len(description) > limits.DESCRIPTION_CHARS_MAX or "\0" in description:
        raise FieldInvalidError(
            "the description cannot be kept",
            field="operator.description",
            remedy=f"use at most {limits.DESCRIPTION_CHARS_MAX} characters, none of them NUL",
        )


def _created(operator: OperatorToken, actor: str) -> Happening:
    return Happening(
        actor=actor, action="operator.create", resource=f"operators/{operator.id}", message=operator.description
    )


def _revoked(operator: OperatorToken, actor: str) -> Happening:
    return Happening(
        actor=actor, action="operator.revoke", resource=f"operators/{operator.id}", message=operator.description
    )
