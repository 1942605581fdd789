"""Drifts, and the batches that wait to be looked at."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import groupby

import sqlalchemy as sa

from controlplane.app.ports_drift import DriftFilter, DriftKey, NewBatch
from controlplane.domain.drift import Drift, DriftState
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId, ModelId
from controlplane.store.mapping.drift import drift_from_row, drift_to_row
from controlplane.store.mapping.evidence import window_from_row
from controlplane.store.mapping.values import Row
from controlplane.store.tables import metric_window
from controlplane.store.tables_drift import drift as drifts
from controlplane.store.tables_drift import drift_inbox as inbox
from controlplane.store.transaction import Transaction, batches, stale

_KEY = (drifts.c.agent_id, drifts.c.model_id, drifts.c.version)
_FLAGGED = (drifts.c.state == DriftState.DRIFTED.value, drifts.c.serving)


class SqlDriftRepository:
    """The DriftRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def note(self, agent_id: AgentId, batch: int) -> None:
        await self._transaction.insert_all(inbox, [{"agent_id": agent_id, "batch": batch}])

    async def list_new(self, *, agents: int, limit: int) -> Sequence[NewBatch]:
        longest = (
            sa.select(inbox.c.agent_id).group_by(inbox.c.agent_id).order_by(sa.func.min(inbox.c.arrival)).limit(agents)
        )
        of_them = sa.select(inbox).where(inbox.c.agent_id.in_(longest)).order_by(inbox.c.arrival).limit(limit)
        chosen = of_them.subquery()
        place = (metric_window.c.agent_id == chosen.c.agent_id) & (metric_window.c.batch == chosen.c.batch)
        statement = (
            sa.select(chosen.c.arrival, metric_window)
            .select_from(chosen.outerjoin(metric_window, place))
            .order_by(chosen.c.arrival, metric_window.c.window_index)
        )
        found = await self._transaction.mapped(statement, _placed)
        return [
            NewBatch(arrival, tuple(window for _, window in placed if window is not None))
            for arrival, placed in groupby(found, key=lambda one: one[0])
        ]

    async def done(self, arrivals: Collection[int]) -> None:
        for batch in batches(sorted(arrivals)):
            await self._transaction.execute(sa.delete(inbox).where(inbox.c.arrival.in_(batch)))

    async def forget_new(self, *, keep: int) -> int:
        newest = await self._transaction.scalar(sa.select(sa.func.max(inbox.c.arrival)))
        if newest is None:
            return 0
        return await self._transaction.change(sa.delete(inbox).where(inbox.c.arrival <= newest - keep))

    async def list_slots(self, slots: Collection[tuple[AgentId, ModelId]]) -> Sequence[Drift]:
        found: list[Drift] = []
        for batch in batches(sorted(slots)):
            statement = sa.select(drifts).where(sa.tuple_(*_KEY[:2]).in_(batch)).order_by(*_KEY)
            found += await self._transaction.mapped(statement, drift_from_row)
        return found

    async def list_serving(self, agent_ids: Iterable[AgentId]) -> Sequence[Drift]:
        found: list[Drift] = []
        for batch in batches(sorted(set(agent_ids))):
            statement = sa.select(drifts).where(*_FLAGGED, drifts.c.agent_id.in_(batch)).order_by(*_KEY)
            found += await self._transaction.mapped(statement, drift_from_row)
        return found

    async def list_flagged(self, model_id: ModelId | None = None) -> Sequence[Drift]:
        statement = sa.select(drifts).where(*_FLAGGED).order_by(*_KEY)
        if model_id is not None:
            statement = statement.where(drifts.c.model_id == model_id)
        return await self._transaction.mapped(statement, drift_from_row)

    async def list(self, wanted: DriftFilter, *, after: DriftKey | None, limit: int) -> Sequence[Drift]:
        statement = sa.select(drifts).order_by(*_KEY).limit(limit)
        if after is not None:
            statement = statement.where(sa.tuple_(*_KEY) > after)
        for column, value in (
            (drifts.c.model_id, wanted.model_id),
            (drifts.c.agent_id, wanted.agent_id),
            (drifts.c.state, wanted.state.value if wanted.state is not None else None),
            (drifts.c.serving, wanted.serving),
        ):
            if value is not None:
                statement = statement.where(column == value)
        return await self._transaction.mapped(statement, drift_from_row)

    async def find(self, agent_id: AgentId, model_id: ModelId, version: int | None) -> Drift | None:
        statement = sa.select(drifts).where(drifts.c.agent_id == agent_id, drifts.c.model_id == model_id)
        which = drifts.c.serving if version is None else drifts.c.version == version
        row = await self._transaction.row(statement.where(which))
        return None if row is None else drift_from_row(row)

    async def save(self, changed: Sequence[Drift]) -> None:
        if not changed:
            return
        # In one order everywhere, so that two writers of overlapping sets cannot deadlock.
        ordered = sorted(changed, key=lambda one: (one.agent_id, one.model_id, one.version))
        rows = [{**drift_to_row(one), "revision": one.revision + 1} for one in ordered]
        insert = self._transaction.insert(drifts)
        columns = {column.name: insert.excluded[column.name] for column in drifts.c if not column.primary_key}
        statement = insert.on_conflict_do_update(
            index_elements=list(drifts.primary_key),
            set_=columns,
            where=drifts.c.revision == insert.excluded.revision - 1,
        )
        if await self._transaction.change(statement, rows) != len(rows):
            raise stale("the drift of a slot")

    async def remove(self, keys: Collection[DriftKey]) -> None:
        for batch in batches(sorted(keys)):
            await self._transaction.execute(sa.delete(drifts).where(sa.tuple_(*_KEY).in_(batch)))

    async def list_windows(
        self,
        agent_id: AgentId,
        model_id: ModelId,
        *,
        start_time: datetime,
        end_time: datetime,
        limit: int,
    ) -> Sequence[MetricWindow]:
        statement = (
            sa.select(metric_window)
            .where(
                metric_window.c.agent_id == agent_id,
                metric_window.c.model_id == model_id,
                metric_window.c.end_time > start_time,
                metric_window.c.start_time < end_time,
            )
            .order_by(metric_window.c.start_time.desc(), metric_window.c.batch.desc(), metric_window.c.window_index)
            .limit(limit)
        )
        return (await self._transaction.mapped(statement, window_from_row))[::-1]


def _placed(row: Row) -> tuple[int, MetricWindow | None]:
    """The window of a batch that has none, or is no longer there, is None."""
    return row["arrival"], None if row["window_index"] is None else window_from_row(row)
