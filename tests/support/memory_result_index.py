"""The ResultIndexRepository in memory."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from controlplane.domain.errors import StaleWriteError
from controlplane.domain.evidence import Result
from controlplane.domain.lake import ARRIVALS_A_FILE, FIRST_ARRIVAL, ResultFilter, ResultObject, ResultSpan
from tests.support.memory_tables import Tables


class MemoryResultIndex:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def add(self, objects: Sequence[ResultObject]) -> None:
        """As they arrive now."""
        for one in objects:
            number = self._tables.arrivals["number"] = self._tables.arrivals.get("number", 0) + 1
            first = FIRST_ARRIVAL + number * ARRIVALS_A_FILE
            self._tables.result_objects[one.key] = replace(one, first_arrival=first, last_arrival=first + one.rows - 1)

    async def list(
        self,
        wanted: ResultFilter,
        *,
        after: int | None,
        beyond: int | None,
        limit: int,
        newest_first: bool = False,
    ) -> Sequence[ResultObject]:
        sign = -1 if newest_first else 1

        def place(one: ResultObject) -> int:
            return sign * (one.last_arrival if newest_first else one.first_arrival)

        def end(one: ResultObject) -> int:
            return sign * (one.first_arrival if newest_first else one.last_arrival)

        ordered = sorted(filter(lambda one: may_hold(one, wanted), self._tables.result_objects.values()), key=place)
        return [
            one
            for one in ordered
            if (beyond is None or place(one) > sign * beyond) and (after is None or end(one) > sign * after)
        ][:limit]

    async def list_span(self, span: ResultSpan, *, limit: int) -> Sequence[ResultObject]:
        found = [
            one
            for one in self._tables.result_objects.values()
            if (span.start_time is None or one.end_time >= span.start_time)
            and (span.end_time is None or one.start_time < span.end_time)
            and (
                span.model_id is None
                or any(
                    scope.model_id == span.model_id and (not span.versions or scope.version in span.versions)
                    for scope in one.scopes
                )
            )
        ]
        return sorted(found, key=lambda one: one.end_time, reverse=True)[:limit]

    async def list_unmerged(self, *, level: int, created_before: datetime, limit: int) -> Sequence[ResultObject]:
        found = [one for one in self._created_before(created_before) if one.level == level]
        return sorted(found, key=lambda one: (one.folder, one.create_time))[:limit]

    async def list_expired(self, *, created_before: datetime, limit: int) -> Sequence[ResultObject]:
        return sorted(self._created_before(created_before), key=lambda one: one.create_time)[:limit]

    async def known(self, keys: Collection[str]) -> frozenset[str]:
        return frozenset(keys) & frozenset(self._tables.result_objects)

    async def replace(self, before: Sequence[ResultObject], after: Sequence[ResultObject], *, now: datetime) -> None:
        objects = self._tables.result_objects
        if any(one.key not in objects for one in before):
            raise StaleWriteError("merged or removed meanwhile")
        for one in before:
            del objects[one.key]
            self._tables.result_waste[one.key] = now
        objects |= {one.key: one for one in after}

    async def list_waste(self, *, before: datetime, limit: int) -> Sequence[str]:
        waste = sorted((time, key) for key, time in self._tables.result_waste.items() if time < before)
        return [key for _, key in waste[:limit]]

    async def forget_waste(self, keys: Collection[str]) -> None:
        for key in keys:
            self._tables.result_waste.pop(key, None)

    async def move_rows(self, results: Sequence[tuple[int, Result]], objects: Sequence[ResultObject]) -> None:
        rows = self._tables.result_rows
        if any(arrival not in rows for arrival, _ in results):
            raise StaleWriteError("moved meanwhile")
        for arrival, _ in results:
            del rows[arrival]
        self._tables.result_objects |= {one.key: one for one in objects}

    def _created_before(self, time: datetime) -> Sequence[ResultObject]:
        return [one for one in self._tables.result_objects.values() if one.create_time < time]


def may_hold(one: ResultObject, wanted: ResultFilter) -> bool:
    return any(
        wanted.model_id in (None, scope.model_id)
        and wanted.version in (None, scope.version)
        and wanted.agent_id in (None, scope.agent_id)
        for scope in one.scopes
    ) and (not wanted.part_id or one.first_part <= wanted.part_id <= one.last_part)
