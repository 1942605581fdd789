"""Agents and what was last heard of them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Agent, AgentRecord, Observation
from controlplane.store.mapping.inventory import agent_from_row, agent_to_row, observation_to_row, record_from_row
from controlplane.store.tables import agent as agents
from controlplane.store.tables import agent_certificate, desired_state, observation
from controlplane.store.transaction import Transaction, found


class SqlAgentRepository:
    """The AgentRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, agent: Agent) -> None:
        await self._transaction.add(agents, agent_to_row(agent), resource=f"agents/{agent.id}")

    async def get(self, agent_id: AgentId) -> AgentRecord:
        return found(await self.find(agent_id), resource=f"agents/{agent_id}")

    async def find(self, agent_id: AgentId) -> AgentRecord | None:
        row = await self._transaction.row(_select_records().where(agents.c.id == agent_id))
        return None if row is None else record_from_row(row)

    async def save(self, agent: Agent) -> Agent:
        return agent_from_row(await self._transaction.save(agents, agent_to_row(agent), resource=f"agents/{agent.id}"))

    async def list(self, *, after: AgentId | None, limit: int) -> Sequence[AgentRecord]:
        statement = _select_records().limit(limit)
        if after is not None:
            statement = statement.where(agents.c.id > after)
        return await self._transaction.mapped(statement, record_from_row)

    async def list_all(self) -> Sequence[AgentRecord]:
        return await self._transaction.mapped(_select_records(), record_from_row)

    async def list_revoked(self) -> frozenset[AgentId]:
        rows = await self._transaction.rows(sa.select(agents.c.id).where(agents.c.revoked))
        return frozenset(AgentId(row["id"]) for row in rows)

    async def record(self, observations: Sequence[Observation]) -> None:
        if not observations:
            return
        insert = self._transaction.insert(observation)
        new = insert.excluded
        statement = insert.on_conflict_do_update(
            index_elements=[observation.c.agent_id],
            set_={
                "observed": new.observed,
                "receive_time": new.receive_time,
                "host": sa.func.coalesce(new.host, observation.c.host),
                "devices": sa.func.coalesce(new.devices, observation.c.devices),
            },
        )
        # In one order everywhere, so that two writers of overlapping batches cannot deadlock.
        rows = sorted(map(observation_to_row, observations), key=lambda row: row["agent_id"])
        await self._transaction.change(statement, rows)


def _select_records() -> sa.Select[Any]:
    """Each agent with its observation, generation and newest certificate's expiry, by id."""
    expiry = (
        sa.select(sa.func.max(agent_certificate.c.expire_time))
        .where(agent_certificate.c.agent_id == agents.c.id)
        .scalar_subquery()
    )
    return (
        sa.select(
            agents,
            observation.c.observed,
            observation.c.receive_time,
            observation.c.host,
            observation.c.devices,
            desired_state.c.generation.label("desired_generation"),
            expiry.label("certificate_expire_time"),
        )
        .outerjoin(observation, observation.c.agent_id == agents.c.id)
        .outerjoin(desired_state, desired_state.c.agent_id == agents.c.id)
        .order_by(agents.c.id)
    )
