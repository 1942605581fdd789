"""The desired state that each agent was last given."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from controlplane import limits
from controlplane.domain.assignment import DesiredSlot, DesiredState
from controlplane.domain.ids import AgentId, Digest
from controlplane.store.mapping.assignment import (
    desired_from_rows,
    desired_to_row,
    desired_to_slot_rows,
    slot_from_row,
)
from controlplane.store.mapping.values import Row
from controlplane.store.row_cache import RowCache
from controlplane.store.tables import desired_slot, desired_state, version_blob
from controlplane.store.transaction import Transaction, batches, stale


class SqlDesiredStateRepository:
    """The DesiredStateRepository over SQL."""

    def __init__(self, transaction: Transaction, cache: RowCache[AgentId, DesiredState]) -> None:
        self._transaction = transaction
        self._cache = cache

    async def list_all(self) -> Mapping[AgentId, DesiredState]:
        rows = await self._transaction.tuples(_SELECT_GENERATIONS)
        self._cache.retain([row[0] for row in rows])
        return await self._complete(rows)

    async def list(self, agent_ids: Iterable[AgentId]) -> Mapping[AgentId, DesiredState]:
        rows: list[tuple[Any, ...]] = []
        for batch in batches(agent_ids):
            rows += await self._transaction.tuples(_SELECT_GENERATIONS.where(desired_state.c.agent_id.in_(batch)))
        return await self._complete(rows)

    async def _complete(self, rows: Sequence[tuple[Any, ...]]) -> Mapping[AgentId, DesiredState]:
        """The states of (agent, generation); those that are not known are decoded."""
        states: dict[AgentId, DesiredState] = {}
        unknown: dict[AgentId, int] = {}
        for row in rows:
            agent_id, generation = AgentId(row[0]), row[1]
            known = self._cache.find_at(agent_id, generation)
            if known is not None:
                states[agent_id] = known
            else:
                unknown[agent_id] = generation
        slots = await self._read_slots(tuple(unknown), everything=len(unknown) > len(rows) // 2)
        for agent_id, generation in unknown.items():
            own = tuple(slots.get(agent_id, ()))
            states[agent_id] = DesiredState(agent_id=agent_id, generation=generation, slots=own)
            self._cache.keep(agent_id, generation, states[agent_id])
        return states

    async def _read_slots(
        self, agent_ids: Sequence[AgentId], *, everything: bool
    ) -> Mapping[AgentId, Sequence[DesiredSlot]]:
        """The slots of these agents, each agent's by model. Where most of the fleet is wanted, all are read."""
        if everything and len(agent_ids) > limits.DATABASE_BATCH_MAX:
            rows = list(await self._transaction.tuples(_SELECT_SLOTS))
        else:
            rows = []
            for batch in batches(agent_ids):
                rows += await self._transaction.tuples(_SELECT_SLOTS.where(desired_slot.c.agent_id.in_(batch)))
        slots: dict[AgentId, list[DesiredSlot]] = {}
        alike: dict[tuple[Any, ...], DesiredSlot] = {}
        for count, (agent_id, *columns) in enumerate(rows, start=1):
            if count % limits.SLOT_ROWS_A_TURN == 0:
                # The event loop has its turn.
                await asyncio.sleep(0)
            # Most agents of a deployment should run the same: what is written alike is read once.
            written = tuple(columns)
            slot = alike.get(written)
            if slot is None:
                slot = alike[written] = slot_from_row(_parse(written))
            slots.setdefault(AgentId(agent_id), []).append(slot)
        return slots

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
        await self._save_slots(ordered)
        for state in ordered:
            self._cache.keep(state.agent_id, state.generation, state)

    async def _save_slots(self, states: Sequence[DesiredState]) -> None:
        """Write the slots that differ: a rollout changes one of many. Where the state before is not known, all."""
        unknown = []
        removed: list[dict[str, Any]] = []
        written: list[dict[str, Any]] = []
        alike: dict[int, tuple[DesiredSlot, list[AgentId]]] = {}
        for state in states:
            known = self._cache.find_at(state.agent_id, state.generation - 1)
            if known is None:
                unknown.append(state.agent_id)
                written += desired_to_slot_rows(state)
                continue
            before = {slot.slot: slot for slot in known.slots}
            for slot in state.slots:
                old = before.pop(slot.slot, None)
                if old is None:
                    written += desired_to_slot_rows(replace(state, slots=(slot,)))
                elif old != slot:
                    # The same object, as a rule, for every agent of a wave.
                    alike.setdefault(id(slot), (slot, []))[1].append(state.agent_id)
            removed += ({"agent": state.agent_id, "model": model_id} for model_id in before)
        for batch in batches(unknown):
            await self._transaction.execute(sa.delete(desired_slot).where(desired_slot.c.agent_id.in_(batch)))
        if removed:
            await self._transaction.change(_DELETE_SLOT, removed)
        if written:
            insert = self._transaction.insert(desired_slot)
            columns = {column.name: insert.excluded[column.name] for column in desired_slot.c if not column.primary_key}
            await self._transaction.change(
                insert.on_conflict_do_update(index_elements=list(desired_slot.primary_key), set_=columns), written
            )
        for slot, agent_ids in alike.values():
            await self._move_slot(slot, agent_ids)

    async def _move_slot(self, slot: DesiredSlot, agent_ids: Sequence[AgentId]) -> None:
        """Write a slot that these agents have in another form. Their states are locked, in order, by now."""
        row = desired_to_slot_rows(DesiredState(agent_id=agent_ids[0], generation=0, slots=(slot,)))[0]
        statement = sa.update(desired_slot).where(desired_slot.c.model_id == slot.slot)
        statement = statement.values({name: row[name] for name in row.keys() - {"agent_id", "model_id"}})
        for batch in batches(agent_ids):
            if await self._transaction.change(statement.where(desired_slot.c.agent_id.in_(batch))) != len(batch):
                raise stale("the desired state of an agent")

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


_SELECT_GENERATIONS = sa.select(desired_state.c.agent_id, desired_state.c.generation).order_by(desired_state.c.agent_id)
"""A generation rises exactly when the slots change, so it tells whether a state is known."""
_SLOT_COLUMNS = tuple(column for column in desired_slot.c if column is not desired_slot.c.agent_id)
_SELECT_SLOTS = sa.select(
    desired_slot.c.agent_id,
    *(
        sa.cast(column, sa.Text()).label(column.name) if isinstance(column.type, sa.JSON) else column
        for column in _SLOT_COLUMNS
    ),
).order_by(desired_slot.c.agent_id, desired_slot.c.model_id)
"""JSON as it is written: to parse the policies of each agent costs more than all the rest."""


def _parse(written: tuple[Any, ...]) -> Row:
    """A row of _SELECT_SLOTS but for its agent, with its JSON parsed."""
    return {
        column.name: json.loads(value) if isinstance(column.type, sa.JSON) and value is not None else value
        for column, value in zip(_SLOT_COLUMNS, written, strict=True)
    }


_DELETE_SLOT = sa.delete(desired_slot).where(
    desired_slot.c.agent_id == sa.bindparam("agent"), desired_slot.c.model_id == sa.bindparam("model")
)
