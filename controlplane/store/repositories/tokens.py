"""Join tokens and operator tokens."""

from collections.abc import Sequence

import sqlalchemy as sa

from controlplane.domain.identity import JoinToken, OperatorToken
from controlplane.domain.ids import JoinTokenId
from controlplane.store.mapping.identity import (
    join_token_from_row,
    join_token_to_row,
    operator_token_from_row,
    operator_token_to_row,
)
from controlplane.store.tables import join_token as join_tokens
from controlplane.store.tables import operator_token as operator_tokens
from controlplane.store.transaction import Transaction, found


class SqlTokenRepository:
    """The TokenRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add_join_token(self, token: JoinToken) -> None:
        await self._transaction.add(join_tokens, join_token_to_row(token), resource=f"joinTokens/{token.id}")

    async def get_join_token(self, token_id: JoinTokenId) -> JoinToken:
        return found(await self.find_join_token(token_id), resource=f"joinTokens/{token_id}")

    async def find_join_token(self, token_id: JoinTokenId) -> JoinToken | None:
        row = await self._transaction.row(sa.select(join_tokens).where(join_tokens.c.id == token_id))
        return None if row is None else join_token_from_row(row)

    async def save_join_token(self, token: JoinToken) -> JoinToken:
        row = join_token_to_row(token)
        return join_token_from_row(await self._transaction.save(join_tokens, row, resource=f"joinTokens/{token.id}"))

    async def list_join_tokens(self, *, before: str | None, limit: int) -> Sequence[JoinToken]:
        statement = sa.select(join_tokens).order_by(join_tokens.c.uid.desc()).limit(limit)
        if before is not None:
            statement = statement.where(join_tokens.c.uid < before)
        return [join_token_from_row(row) for row in await self._transaction.rows(statement)]

    async def add_operator_token(self, token: OperatorToken) -> None:
        await self._transaction.add(operator_tokens, operator_token_to_row(token), resource=f"operators/{token.id}")

    async def find_operator_token(self, secret_sha256: str) -> OperatorToken | None:
        row = await self._transaction.row(
            sa.select(operator_tokens).where(operator_tokens.c.secret_sha256 == secret_sha256)
        )
        return None if row is None else operator_token_from_row(row)

    async def get_operator_token(self, operator_id: str) -> OperatorToken:
        row = await self._transaction.row(sa.select(operator_tokens).where(operator_tokens.c.id == operator_id))
        return operator_token_from_row(found(row, resource=f"operators/{operator_id}"))

    async def revoke_operator_token(self, operator_id: str) -> OperatorToken:
        await self._transaction.execute(
            sa.update(operator_tokens).where(operator_tokens.c.id == operator_id).values(revoked=True)
        )
        return await self.get_operator_token(operator_id)

    async def list_operator_tokens(self, *, after: str | None, limit: int) -> Sequence[OperatorToken]:
        statement = sa.select(operator_tokens).order_by(operator_tokens.c.id).limit(limit)
        if after is not None:
            statement = statement.where(operator_tokens.c.id > after)
        return [operator_token_from_row(row) for row in await self._transaction.rows(statement)]
