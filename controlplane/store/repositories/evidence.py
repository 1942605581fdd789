"""Metric windows and the index of the results that belong to them, each batch stored once."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby

import sqlalchemy as sa

from controlplane.app.ports import WindowPlace
from controlplane.domain.distribution import add_shadow_tallies, add_tallies
from controlplane.domain.evidence import EvidenceBatch, InferenceCount, MetricWindow, Result, ShadowTally, Tally
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.lake import ARRIVALS_A_FILE, ResultFilter, ResultObject
from controlplane.store.mapping.evidence import (
    batch_to_row,
    placed_window_from_row,
    result_from_row,
    shadow_tally_from_row,
    shadow_window_to_row,
    tally_from_row,
    window_to_row,
)
from controlplane.store.repositories.result_index import SqlResultIndexRepository
from controlplane.store.tables import evidence_batch, metric_window, result, shadow_window
from controlplane.store.transaction import Transaction, batches

_ARRIVAL_LOCK = 0x4C53_4152
"""Key of PostgreSQL's advisory lock on the numbering of arrivals ("LSAR")."""


class SqlEvidenceRepository:
    """The EvidenceRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, batch: EvidenceBatch, objects: Sequence[ResultObject] = ()) -> bool:
        if self._transaction.is_postgresql:
            # Numbers are drawn before they are seen: without a queue, a reader that follows the arrivals would pass
            # number 8 and never see 7, whose transaction committed later. SQLite has one writer anyway.
            await self._transaction.scalar(sa.select(sa.func.pg_advisory_xact_lock(_ARRIVAL_LOCK)))
        if not await self._transaction.insert_once(evidence_batch, batch_to_row(batch)):
            return False
        windows = [
            window_to_row(window, window_index=index, receive_time=batch.receive_time)
            for index, window in enumerate(batch.windows)
        ]
        shadow_windows = [
            shadow_window_to_row(window, window_index=index, receive_time=batch.receive_time)
            for index, window in enumerate(batch.shadow_windows)
        ]
        await self._transaction.insert_all(metric_window, windows)
        await self._transaction.insert_all(shadow_window, shadow_windows)
        await self._add_objects(objects)
        return True

    async def has(self, agent_id: AgentId, batch: int) -> bool:
        statement = sa.select(sa.literal(1)).where(
            evidence_batch.c.agent_id == agent_id, evidence_batch.c.batch == batch
        )
        return await self._transaction.scalar(statement) is not None

    async def _add_objects(self, objects: Sequence[ResultObject]) -> None:
        index = SqlResultIndexRepository(self._transaction)
        for one in objects:
            assert one.rows <= ARRIVALS_A_FILE
            first = await index.draw_arrival()
            await index.add([replace(one, first_arrival=first, last_arrival=first + one.rows - 1)])

    async def list_results(
        self, wanted: ResultFilter, *, after: int | None, limit: int, newest_first: bool = False
    ) -> Sequence[tuple[int, Result]]:
        order = result.c.arrival.desc() if newest_first else result.c.arrival.asc()
        statement = sa.select(result).order_by(order).limit(limit)
        if after is not None:
            statement = statement.where(result.c.arrival < after if newest_first else result.c.arrival > after)
        for column, value in (
            (result.c.model_id, wanted.model_id),
            (result.c.version, wanted.version),
            (result.c.agent_id, wanted.agent_id),
            (result.c.part_id, wanted.part_id),
        ):
            if value is not None:
                statement = statement.where(column == value)
        return [(row["arrival"], result_from_row(row)) for row in await self._transaction.rows(statement)]

    async def list_windows(
        self,
        model_id: ModelId,
        *,
        start_time: datetime | None,
        end_time: datetime | None,
        after: WindowPlace | None,
        limit: int,
    ) -> Sequence[tuple[WindowPlace, MetricWindow]]:
        place = (
            metric_window.c.start_time,
            metric_window.c.agent_id,
            metric_window.c.batch,
            metric_window.c.window_index,
        )
        statement = sa.select(metric_window).where(metric_window.c.model_id == model_id).order_by(*place).limit(limit)
        if after is not None:
            # The first part alone is what an index can seek by.
            statement = statement.where(metric_window.c.start_time >= after[0], sa.tuple_(*place) > after)
        if start_time is not None:
            statement = statement.where(metric_window.c.end_time > start_time)
        if end_time is not None:
            statement = statement.where(metric_window.c.start_time < end_time)
        return await self._transaction.mapped(statement, placed_window_from_row)

    async def count_dropped(self, model_id: ModelId) -> int:
        of_model = (
            sa.select(sa.literal(1))
            .where(
                metric_window.c.agent_id == evidence_batch.c.agent_id,
                metric_window.c.batch == evidence_batch.c.batch,
                metric_window.c.model_id == model_id,
            )
            .exists()
        )
        statement = sa.select(sa.func.coalesce(sa.func.sum(evidence_batch.c.dropped_results), 0)).where(
            evidence_batch.c.dropped_results > 0, of_model
        )
        return int(await self._transaction.scalar(statement))

    async def count_inferences(
        self, model_id: ModelId, version: int, *, received_since: datetime, received_before: datetime | None = None
    ) -> Sequence[InferenceCount]:
        statement = (
            sa.select(
                metric_window.c.agent_id,
                sa.func.sum(metric_window.c.inference_count).label("inferences"),
                sa.func.sum(metric_window.c.error_count).label("errors"),
                sa.func.max(metric_window.c.receive_time).label("last_receive_time"),
            )
            .where(*_of_version(model_id, version), *_received(metric_window, received_since, received_before))
            .group_by(metric_window.c.agent_id)
            .order_by(metric_window.c.agent_id)
        )
        return [
            InferenceCount(
                agent_id=AgentId(row["agent_id"]),
                inferences=int(row["inferences"]),
                errors=int(row["errors"]),
                last_receive_time=row["last_receive_time"],
            )
            for row in await self._transaction.rows(statement)
        ]

    async def tally(
        self,
        model_id: ModelId,
        version: int,
        *,
        received_since: datetime,
        received_before: datetime | None = None,
        agent_ids: Collection[AgentId] | None = None,
    ) -> Sequence[Tally]:
        statement = (
            sa.select(metric_window)
            .where(*_of_version(model_id, version), *_received(metric_window, received_since, received_before))
            .order_by(metric_window.c.agent_id)
        )
        found: list[Tally] = []
        for asked in [None] if agent_ids is None else batches(sorted(agent_ids)):
            chosen = statement if asked is None else statement.where(metric_window.c.agent_id.in_(asked))
            rows = await self._transaction.mapped(chosen, tally_from_row)
            found += [add_tallies(tallies, agent_id=agent_id) for agent_id, tallies in groupby(rows, _agent_of)]
        return found

    async def tally_shadow(
        self, model_id: ModelId, candidate_version: int, *, received_since: datetime
    ) -> Sequence[ShadowTally]:
        statement = (
            sa.select(shadow_window)
            .where(
                shadow_window.c.model_id == model_id,
                shadow_window.c.candidate_version == candidate_version,
                *_received(shadow_window, received_since, None),
            )
            .order_by(shadow_window.c.agent_id)
        )
        rows = await self._transaction.mapped(statement, shadow_tally_from_row)
        return [add_shadow_tallies(tallies, agent_id=agent_id) for agent_id, tallies in groupby(rows, _agent_of)]


def _agent_of(tally: Tally | ShadowTally) -> AgentId:
    return tally.agent_id


def _of_version(model_id: ModelId, version: int) -> tuple[sa.ColumnElement[bool], ...]:
    return (metric_window.c.model_id == model_id, metric_window.c.version == version)


def _received(table: sa.Table, since: datetime, before: datetime | None) -> tuple[sa.ColumnElement[bool], ...]:
    bounds = (table.c.receive_time >= since,)
    return bounds if before is None else (*bounds, table.c.receive_time < before)
