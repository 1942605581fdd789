"""The desired state that each agent was last given."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import sqlalchemy as sa

from controlplane.domain.assignment import DesiredState
from controlplane.domain.ids import AgentId, Digest
from controlplane.store.mapping.assignment import desired_from_rows, desired_to_row, desired_to_slot_rows
from controlplane.store.tables import desired_slot, desired_state, version_blob
from controlplane.store.transaction import Transaction, batches, stale


class SqlDesiredStateRepository:
    """The DesiredStateRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def list_all(self) -> Mapping[AgentId, DesiredState]:
        states = await self._transaction.rows(sa.select(desired_state).order_by(desired_state.c.agent_id))
        slots = await self._transaction.rows(
            sa.select(desired_slot).order_by(desired_slot.c.agent_id, desired_slot.c.model_id)
        )
        slots_by_agent = {agent_id: list(rows) for agent_id, rows in groupby(slots, key=itemgetter("agent_id"))}
        return {
            AgentId(row["agent_id"]): desired_from_rows(row, slots_by_agent.get(row["agent_id"], ())) for row in states
        }

    async def find(self, agent_id: AgentId) -> DesiredState | None:
        row = await self._transaction.row(sa.select(desired_state).where(desired_state.c.agent_id == agent_id))
        if row is None:
            return None
        slots = await self._transaction.rows(
            sa.select(desired_slot).where(desired_slot.c.agent_id == agent_id).order_by(desired_slot.c.model_id)
        )
        return desired_from_rows(row, slots)

    async def save(self, states: Sequence[DesiredState]) -> None:
        if not states:
            return
        # In one order everywhere, so that two writers of overlapping sets cannot deadlock.
        ordered = sorted(states, key=lambda state: state.agent_id)
        insert = self._transaction.insert(desired_state)
        statement = insert.on_conflict_do_update(
            index_elements=[desired_state.c.agent_id],
            set_={"generation": insert.excluded.generation},
            where=insert.excluded.generation > desired_state.c.generation,
        )
        if await self._transaction.change(statement, [desired_to_row(state) for state in ordered]) != len(ordered):
            raise stale("the desired state of an agent")
        for batch in batches(state.agent_id for state in ordered):
            await self._transaction.execute(sa.delete(desired_slot).where(desired_slot.c.agent_id.in_(batch)))
        await self._transaction.insert_all(
            desired_slot, [row for state in ordered for row in desired_to_slot_rows(state)]
        )

    async def is_assigned(self, agent_id: AgentId, blob: Digest) -> bool:
        state = await self.find(agent_id)
        needed = [(slot.slot, number) for slot in state.slots for number in slot.versions] if state is not None else []
        if not needed:
            return False
        versions = (
            sa.and_(version_blob.c.model_id == model_id, version_blob.c.number == number) for model_id, number in needed
        )
        statement = sa.select(sa.literal(1)).where(version_blob.c.digest == blob, sa.or_(*versions)).limit(1)
        return await self._transaction.scalar(statement) is not None
