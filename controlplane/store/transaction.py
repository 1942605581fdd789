"""One transaction as repositories see it: statements in, rows out, and the rules of `ports.py` on identity
and revision."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError, ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.store.mapping.values import Row

T = TypeVar("T")


class Transaction:
    """An open transaction of one task."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.is_postgresql = connection.dialect.name == "postgresql"

    async def rows(self, statement: sa.Select[Any]) -> Sequence[Row]:
        """Every row."""
        return await self.mapped(statement, lambda row: row)

    async def mapped(self, statement: sa.Select[Any], map_row: Callable[[Row], T]) -> list[T]:
        """Every row, mapped. The event loop has its turn in between: decoding a whole fleet at once would hold up
        every stream for as long as it takes."""
        result = (await self._execute(statement)).mappings()
        items: list[T] = []
        for rows in result.partitions(limits.DATABASE_ROWS_A_TURN):
            # SQLAlchemy's row mappings take columns for keys too, which makes them another type than ours.
            items += map(map_row, cast("Sequence[Row]", rows))
            if len(rows) == limits.DATABASE_ROWS_A_TURN:
                await asyncio.sleep(0)
        return items

    async def tuples(self, statement: sa.Select[Any]) -> Sequence[tuple[Any, ...]]:
        """Every row as it comes, for many small ones: a mapping for each would cost more than to read it."""
        return cast("Sequence[tuple[Any, ...]]", (await self._execute(statement)).all())

    async def row(self, statement: sa.Select[Any] | sa.UpdateBase) -> Row | None:
        """The first row, or None."""
        return cast("Row | None", (await self._execute(statement)).mappings().first())

    async def scalar(self, statement: sa.Select[Any]) -> Any:
        """The first column of the first row, or None."""
        return (await self._execute(statement)).scalar()

    async def change(self, statement: sa.UpdateBase, rows: Sequence[Mapping[str, Any]] | None = None) -> int:
        """Execute for each of `rows`, or once; return how many rows of the database it touched."""
        # Without the option SQLAlchemy does not keep the count of an INSERT.
        return (await self._execute(statement.execution_options(preserve_rowcount=True), rows)).rowcount

    async def execute(self, statement: sa.Executable) -> None:
        """Execute for its effect."""
        await self._execute(statement)

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that can say ON CONFLICT."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)

    async def insert_once(self, table: sa.Table, row: Mapping[str, Any]) -> bool:
        """Insert, or return False where any identity of the row is taken. Other than a refused INSERT, it leaves
        PostgreSQL's transaction usable."""
        return await self.change(self.insert(table).values(**row).on_conflict_do_nothing()) == 1

    async def add(self, table: sa.Table, row: Mapping[str, Any], *, resource: str, field: str = "") -> None:
        """Insert; raise ResourceExistsError where an identity is taken. `field` is where a caller names it."""
        if not await self.insert_once(table, row):
            raise ResourceExistsError(f"{resource} exists already", field=field, remedy="choose another name")

    async def insert_all(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert in order, in one executemany."""
        if rows:
            await self.change(sa.insert(table), rows)

    async def save(self, table: sa.Table, row: Mapping[str, Any], *, resource: str) -> dict[str, Any]:
        """Write the whole row with its revision + 1 and return it so, if the stored revision is the row's; else
        raise StaleWriteError."""
        saved = {**row, "revision": row["revision"] + 1}
        matches = sa.and_(table.c.id == row["id"], table.c.revision == row["revision"])
        if await self.change(sa.update(table).where(matches).values(saved)) != 1:
            raise stale(resource)
        return saved

    async def _execute(
        self, statement: sa.Executable, rows: Sequence[Mapping[str, Any]] | None = None
    ) -> sa.CursorResult[Any]:
        try:
            return await self._connection.execute(statement, rows)
        except OverflowError as error:
            raise FieldInvalidError("a number is beyond 64 bits", remedy="use a smaller one") from error


def found(value: T | None, *, resource: str) -> T:
    """Return the value, or raise ResourceNotFoundError where there is none."""
    if value is None:
        collection = resource.split("/")[-2]
        raise ResourceNotFoundError(
            f"{resource} does not exist", field="name", remedy=f"list the {collection} and name one of them"
        )
    return value


def stale(resource: str) -> StaleWriteError:
    """The refusal of a write that came too late."""
    return StaleWriteError(
        f"{resource} was changed by somebody else", field="etag", remedy="read it again, then repeat"
    )


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Split into lists no longer than a statement may name values."""
    rest = iter(items)
    while batch := list(islice(rest, limits.DATABASE_BATCH_MAX)):
        yield batch
