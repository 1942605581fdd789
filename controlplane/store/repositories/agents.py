"""Agents and what was last heard of them."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from controlplane import limits
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Agent, AgentRecord, Observation
from controlplane.store.mapping.inventory import (
    SlotTexts,
    agent_from_row,
    agent_to_row,
    observation_to_row,
    record_from_row,
)
from controlplane.store.row_cache import RowCache
from controlplane.store.tables import agent as agents
from controlplane.store.tables import agent_certificate, desired_state, observation
from controlplane.store.transaction import Transaction, batches, found


class SqlAgentRepository:
    """The AgentRepository over SQL."""

    def __init__(self, transaction: Transaction, cache: RowCache[AgentId, AgentRecord], texts: SlotTexts) -> None:
        self._transaction = transaction
        self._cache = cache
        self._texts = texts

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
        versions = _versions(await self._transaction.tuples(_SELECT_VERSIONS))
        self._cache.retain(versions)
        return await self._complete(versions)

    async def list_of(self, agent_ids: Iterable[AgentId]) -> Sequence[AgentRecord]:
        versions: dict[AgentId, tuple[Any, ...]] = {}
        for batch in batches(sorted(set(agent_ids))):
            versions |= _versions(await self._transaction.tuples(_SELECT_VERSIONS.where(agents.c.id.in_(batch))))
        return await self._complete(versions)

    async def _complete(self, versions: Mapping[AgentId, tuple[Any, ...]]) -> Sequence[AgentRecord]:
        """The agents at these versions, in their order; those that are not known are decoded."""
        records: dict[AgentId, AgentRecord] = {}
        unknown: list[AgentId] = []
        for agent_id, version in versions.items():
            record = self._recall(agent_id, version)
            if record is None:
                unknown.append(agent_id)
            else:
                records[agent_id] = record
        async for record in self._read(
            unknown, everything=len(unknown) > max(len(versions) // 2, limits.DATABASE_BATCH_MAX)
        ):
            agent_id = record.agent.id
            self._cache.keep(agent_id, versions[agent_id], record)
            records[agent_id] = record
        return [records[agent_id] for agent_id in versions]

    def _recall(self, agent_id: AgentId, version: tuple[Any, ...]) -> AgentRecord | None:
        """The agent at this version, where what has to be decoded is known."""
        same = self._cache.find_at(agent_id, version)
        if same is not None:
            return same
        entry = self._cache.find(agent_id)
        if entry is None:
            return None
        known, record = entry
        assert isinstance(known, tuple)
        if known[:_DECODED] != version[:_DECODED]:
            return None
        record = _with_state(record, version)
        self._cache.keep(agent_id, version, record)
        return record

    async def _read(self, agent_ids: Sequence[AgentId], *, everything: bool) -> AsyncIterator[AgentRecord]:
        """Decode these agents. Where most are wanted, all are read in one go."""
        if everything:
            wanted = set(agent_ids)
            for record in await self._transaction.mapped(_select_records(), record_from_row):
                if record.agent.id in wanted:
                    yield record
            return
        for batch in batches(agent_ids):
            statement = _select_records().where(agents.c.id.in_(batch))
            for record in await self._transaction.mapped(statement, record_from_row):
                yield record

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
                "change": observation.c.change + 1,
            },
        )
        # In one order everywhere, so that two writers of overlapping batches cannot deadlock.
        rows = [
            observation_to_row(one, self._texts)
            for one in sorted(observations, key=lambda observation: observation.agent_id)
        ]
        await self._transaction.change(statement, rows)
        await self._keep(observations)

    async def _keep(self, observations: Sequence[Observation]) -> None:
        """Keep what was just written: to decode it again would cost more than the write."""
        written = {one.agent_id: one for one in observations}
        known = {agent_id: entry for agent_id in written if (entry := self._cache.find(agent_id)) is not None}
        for batch in batches(sorted(known)):
            rows = await self._transaction.tuples(_SELECT_CHANGES.where(observation.c.agent_id.in_(batch)))
            for agent_id, change, receive_time in rows:
                before, record = known[agent_id]
                assert isinstance(before, tuple)
                uid, revision, change_before, _, *state = before
                if change == (0 if change_before is None else change_before + 1):
                    seen = _merge(written[agent_id], record.observation)
                    version = (uid, revision, change, receive_time, *state)
                    self._cache.keep(agent_id, version, replace(record, observation=seen))


_EXPIRY = (
    sa.select(sa.func.max(agent_certificate.c.expire_time))
    .where(agent_certificate.c.agent_id == agents.c.id)
    .scalar_subquery()
)
_SELECT_VERSIONS = (
    sa.select(
        agents.c.id,
        agents.c.uid,
        agents.c.revision,
        observation.c.change,
        # As the driver gives it: it is compared and never read. A controller of the release before does not count
        # changes.
        sa.type_coerce(observation.c.receive_time, sa.Text()),
        sa.type_coerce(_EXPIRY, sa.Text()),
        desired_state.c.generation,
    )
    .outerjoin(observation, observation.c.agent_id == agents.c.id)
    .outerjoin(desired_state, desired_state.c.agent_id == agents.c.id)
    .order_by(agents.c.id)
)
"""What tells whether the record of an agent has changed, by id."""
_SELECT_CHANGES = sa.select(
    observation.c.agent_id, observation.c.change, sa.type_coerce(observation.c.receive_time, sa.Text())
)
"""What an observation changes of a version. A writer that read the whole version would read what rollouts write, which
read what it writes: PostgreSQL would refuse one of the two, and of a large fleet always the rollout."""
_DECODED = 5
"""Parts of a version, in front, after which a record has to be decoded anew; the last, the generation of the desired
state, is part of it itself."""


def _with_state(record: AgentRecord, version: tuple[Any, ...]) -> AgentRecord:
    """The record with what its version is itself."""
    return replace(record, desired_generation=version[_DECODED] or 0)


def _merge(observation: Observation, before: Observation | None) -> Observation:
    """The observation as the row keeps it: with host and devices of the one before where it leaves them out."""
    if before is None:
        return observation
    return replace(
        observation,
        host=observation.host if observation.host is not None else before.host,
        devices=observation.devices if observation.devices is not None else before.devices,
    )


def _versions(rows: Iterable[tuple[Any, ...]]) -> dict[AgentId, tuple[Any, ...]]:
    """What _SELECT_VERSIONS found, by agent."""
    return {AgentId(row[0]): tuple(row[1:]) for row in rows}


def _select_records() -> sa.Select[Any]:
    """Each agent with its observation, generation and newest certificate's expiry, by id."""
    return (
        sa.select(
            agents,
            observation.c.observed,
            observation.c.receive_time,
            observation.c.host,
            observation.c.devices,
            desired_state.c.generation.label("desired_generation"),
            _EXPIRY.label("certificate_expire_time"),
        )
        .outerjoin(observation, observation.c.agent_id == agents.c.id)
        .outerjoin(desired_state, desired_state.c.agent_id == agents.c.id)
        .order_by(agents.c.id)
    )
