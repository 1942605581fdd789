"""The log of decisions."""

from collections.abc import Sequence

import sqlalchemy as sa

from controlplane.app.ports import AuditFilter
from controlplane.domain.audit import AuditEvent
from controlplane.store.mapping.audit import event_from_row, event_to_resource_rows, event_to_row
from controlplane.store.tables import audit_event, audit_resource
from controlplane.store.transaction import Transaction


class SqlAuditRepository:
    """The AuditRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, events: Sequence[AuditEvent]) -> None:
        await self._transaction.insert_all(audit_event, [event_to_row(event) for event in events])
        await self._transaction.insert_all(
            audit_resource, [row for event in events for row in event_to_resource_rows(event)]
        )

    async def list(
        self, wanted: AuditFilter, *, after: str | None, limit: int, oldest_first: bool = False
    ) -> Sequence[AuditEvent]:
        statement = sa.select(audit_event)
        # The key that is ordered by is the one of the index that is searched: the page is read off it.
        key: sa.ColumnElement[str] = audit_event.c.id
        if wanted.resource is not None:
            statement = statement.join(audit_resource, audit_resource.c.event_id == audit_event.c.id)
            statement = statement.where(audit_resource.c.resource == wanted.resource)
            key = audit_resource.c.event_id
        if after is not None:
            statement = statement.where(key > after if oldest_first else key < after)
        statement = statement.where(*_conditions(wanted)).order_by(key.asc() if oldest_first else key.desc())
        return [event_from_row(row) for row in await self._transaction.rows(statement.limit(limit))]


def _conditions(wanted: AuditFilter) -> list[sa.ColumnElement[bool]]:
    columns = audit_event.c
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.actor is not None:
        conditions.append(columns.actor == wanted.actor)
    if wanted.action is not None and wanted.action.endswith("."):
        # "/" is the character after ".": everything that begins so, as a range of an index.
        conditions += [columns.action >= wanted.action, columns.action < f"{wanted.action[:-1]}/"]
    elif wanted.action is not None:
        conditions.append(columns.action == wanted.action)
    if wanted.start_time is not None:
        conditions.append(columns.create_time >= wanted.start_time)
    if wanted.end_time is not None:
        conditions.append(columns.create_time < wanted.end_time)
    return conditions
