"""Pins."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.pin import Pin
from controlplane.store.mapping.pin import pin_from_row, pin_to_row
from controlplane.store.tables import pin as pins
from controlplane.store.transaction import Transaction, batches


class SqlPinRepository:
    """The PinRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def put(self, pin: Pin) -> None:
        insert = self._transaction.insert(pins)
        new = insert.excluded
        await self._transaction.execute(
            insert.values(**pin_to_row(pin)).on_conflict_do_update(
                index_elements=[pins.c.agent_id, pins.c.model_id],
                set_={
                    "version": new.version,
                    "reason": new.reason,
                    "create_time": new.create_time,
                    "actor": new.actor,
                },
            )
        )

    async def remove(self, agent_id: AgentId, model_id: ModelId) -> bool:
        statement = sa.delete(pins).where(pins.c.agent_id == agent_id, pins.c.model_id == model_id)
        return await self._transaction.change(statement) == 1

    async def list_all(self) -> Sequence[Pin]:
        rows = await self._transaction.rows(sa.select(pins).order_by(pins.c.agent_id, pins.c.model_id))
        return [pin_from_row(row) for row in rows]

    async def list(self, agent_ids: Iterable[AgentId]) -> Sequence[Pin]:
        found: list[Pin] = []
        for batch in batches(sorted(set(agent_ids))):
            statement = sa.select(pins).where(pins.c.agent_id.in_(batch)).order_by(pins.c.agent_id, pins.c.model_id)
            found += [pin_from_row(row) for row in await self._transaction.rows(statement)]
        return found
