"""The index of the results lake."""

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from controlplane.domain.errors import StaleWriteError
from controlplane.domain.evidence import Result
from controlplane.domain.lake import ARRIVALS_A_FILE, FIRST_ARRIVAL, ResultFilter, ResultObject, ResultSpan
from controlplane.store.mapping.lake import object_from_rows, object_to_row, scopes_to_rows
from controlplane.store.mapping.values import Row
from controlplane.store.tables import result
from controlplane.store.tables_lake import result_arrival, result_object, result_scope, result_waste
from controlplane.store.transaction import Transaction, batches


class SqlResultIndexRepository:
    """The ResultIndexRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def list(
        self,
        wanted: ResultFilter,
        *,
        after: int | None,
        beyond: int | None,
        limit: int,
        newest_first: bool = False,
    ) -> Sequence[ResultObject]:
        of = result_scope if wanted.model_id is not None or wanted.agent_id is not None else result_object
        order, end = (
            (of.c.last_arrival, of.c.first_arrival) if newest_first else (of.c.first_arrival, of.c.last_arrival)
        )
        statement = sa.select(result_object).order_by(order.desc() if newest_first else order.asc()).limit(limit)
        if of is result_scope:
            statement = statement.join_from(
                result_scope, result_object, result_scope.c.object_key == result_object.c.key
            )
        if beyond is not None:
            statement = statement.where(order < beyond if newest_first else order > beyond)
        if after is not None:
            statement = statement.where(end < after if newest_first else end > after)
        for column, value in (
            (result_scope.c.model_id, wanted.model_id),
            (result_scope.c.agent_id, wanted.agent_id),
        ):
            if value is not None:
                statement = statement.where(column == value)
        if wanted.version is not None:
            statement = statement.where(_has_version(of, wanted.version))
        if wanted.part_id:
            statement = statement.where(
                result_object.c.first_part <= wanted.part_id, result_object.c.last_part >= wanted.part_id
            )
        return await self._objects(statement)

    async def list_span(self, span: ResultSpan, *, limit: int) -> Sequence[ResultObject]:
        statement = sa.select(result_object).order_by(result_object.c.end_time.desc()).limit(limit)
        if span.start_time is not None:
            statement = statement.where(result_object.c.end_time >= span.start_time)
        if span.end_time is not None:
            statement = statement.where(result_object.c.start_time < span.end_time)
        if span.model_id is not None:
            of_model = [result_scope.c.object_key == result_object.c.key, result_scope.c.model_id == span.model_id]
            if span.versions:
                of_model.append(result_scope.c.version.in_(sorted(span.versions)))
            statement = statement.where(sa.select(sa.literal(1)).where(*of_model).exists())
        return await self._objects(statement)

    async def list_unmerged(self, *, level: int, created_before: datetime, limit: int) -> Sequence[ResultObject]:
        return await self._objects(
            sa.select(result_object)
            .where(result_object.c.level == level, result_object.c.create_time < created_before)
            .order_by(result_object.c.folder, result_object.c.create_time)
            .limit(limit)
        )

    async def list_expired(self, *, created_before: datetime, limit: int) -> Sequence[ResultObject]:
        return await self._objects(
            sa.select(result_object)
            .where(result_object.c.create_time < created_before)
            .order_by(result_object.c.create_time)
            .limit(limit)
        )

    async def known(self, keys: Collection[str]) -> frozenset[str]:
        found: set[str] = set()
        for asked in batches(sorted(keys)):
            statement = sa.select(result_object.c.key).where(result_object.c.key.in_(asked))
            found.update(key for (key,) in await self._transaction.tuples(statement))
        return frozenset(found)

    async def add(self, objects: Sequence[ResultObject]) -> None:
        """Each with the arrivals that it has."""
        await self._transaction.insert_all(result_object, [object_to_row(one) for one in objects])
        await self._transaction.insert_all(result_scope, [row for one in objects for row in scopes_to_rows(one)])

    async def draw_arrival(self) -> int:
        """Return the first of ARRIVALS_A_FILE numbers that were never used."""
        row = await self._transaction.row(
            self._transaction.insert(result_arrival).values().returning(result_arrival.c.number)
        )
        assert row is not None
        await self._transaction.change(sa.delete(result_arrival).where(result_arrival.c.number == row["number"]))
        return FIRST_ARRIVAL + int(row["number"]) * ARRIVALS_A_FILE

    async def replace(self, before: Sequence[ResultObject], after: Sequence[ResultObject], *, now: datetime) -> None:
        keys = [one.key for one in before]
        removed = 0
        for asked in batches(keys):
            await self._transaction.change(sa.delete(result_scope).where(result_scope.c.object_key.in_(asked)))
            removed += await self._transaction.change(sa.delete(result_object).where(result_object.c.key.in_(asked)))
        if removed != len(keys):
            raise StaleWriteError("files of results were merged or removed meanwhile", remedy="list them again")
        await self.add(after)
        await self._transaction.insert_all(result_waste, [{"key": key, "create_time": now} for key in keys])

    async def list_waste(self, *, before: datetime, limit: int) -> Sequence[str]:
        statement = (
            sa.select(result_waste.c.key)
            .where(result_waste.c.create_time < before)
            .order_by(result_waste.c.create_time)
            .limit(limit)
        )
        return [key for (key,) in await self._transaction.tuples(statement)]

    async def forget_waste(self, keys: Collection[str]) -> None:
        for asked in batches(sorted(keys)):
            await self._transaction.change(sa.delete(result_waste).where(result_waste.c.key.in_(asked)))

    async def move_rows(self, results: Sequence[tuple[int, Result]], objects: Sequence[ResultObject]) -> None:
        removed = 0
        for asked in batches([arrival for arrival, _ in results]):
            removed += await self._transaction.change(sa.delete(result).where(result.c.arrival.in_(asked)))
        if removed != len(results):
            raise StaleWriteError("rows of results were moved meanwhile", remedy="list them again")
        await self.add(objects)

    async def _objects(self, statement: sa.Select[Any]) -> Sequence[ResultObject]:
        rows = await self._transaction.rows(statement)
        keys = list(dict.fromkeys(row["key"] for row in rows))
        scopes: dict[str, Sequence[Row]] = {}
        for asked in batches(keys):
            of_these = (
                sa.select(result_scope)
                .where(result_scope.c.object_key.in_(asked))
                .order_by(
                    result_scope.c.object_key,
                    result_scope.c.agent_id,
                    result_scope.c.model_id,
                    result_scope.c.version,
                )
            )
            for key, group in groupby(await self._transaction.rows(of_these), lambda row: str(row["object_key"])):
                scopes[key] = list(group)
        by_key = {row["key"]: row for row in rows}
        return [object_from_rows(by_key[key], scopes.get(key, ())) for key in keys]


def _has_version(of: sa.Table, version: int) -> sa.ColumnElement[bool]:
    if of is result_scope:
        return result_scope.c.version == version
    return (
        sa.select(sa.literal(1))
        .where(result_scope.c.object_key == result_object.c.key, result_scope.c.version == version)
        .exists()
    )
