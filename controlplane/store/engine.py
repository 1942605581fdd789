"""Engines for SQLite and PostgreSQL, with their transactions begun as DESIGN and FACTS ask.

SQLite: the driver's own transactions are off (`isolation_level=None`) and each begins by hand: a writer with
BEGIN IMMEDIATE, so that it holds the write lock before it reads what it will change (a deferred transaction loses
updates silently); a reader with BEGIN, which sees one snapshot and in WAL mode neither waits nor is waited for.

PostgreSQL: writers are SERIALIZABLE, so that a decision made from rows that another writer changes meanwhile is
refused (as the one SQLite writer would have seen the change); readers see one snapshot (REPEATABLE READ).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError, StorageError
from controlplane.store.mapping.values import encode_json

_BEGIN_OPTION = "lineside_begin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Two views of one pool of connections: what differs is how a transaction begins."""

    reader: AsyncEngine
    writer: AsyncEngine
    one_writer: bool
    """Whether the database lets one writer in at a time, so that a process should queue its own."""

    def on_connect(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each new connection: behind it may be a database restored from a backup."""
        sa.event.listen(self.reader.sync_engine, "connect", lambda _connection, _record: listener())

    async def dispose(self) -> None:
        """Close every connection."""
        await self.reader.dispose()


def parse_database_url(database_url: str) -> URL:
    """Return the URL without a driver. Raises FieldInvalidError unless it is `sqlite:///path` or `postgresql://...`."""
    try:
        url = make_url(database_url)
    except sa.exc.ArgumentError:
        raise _bad_url("this is not a URL") from None
    match url.get_backend_name():
        case "sqlite" if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
            return url.set(drivername="sqlite")
        case "sqlite":
            raise _bad_url("a database in memory is lost with its process")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql")
        case other:
            raise _bad_url(f"{other!r} is no database that Lineside keeps its state in")


def open_engines(database_url: str) -> Engines:
    """Make the engines of a process. Nothing is connected yet."""
    url = parse_database_url(database_url)
    if url.drivername == "sqlite":
        engine = _sqlite_engine(url)
        return Engines(
            reader=engine, writer=engine.execution_options(**{_BEGIN_OPTION: "BEGIN IMMEDIATE"}), one_writer=True
        )
    engine = _postgresql_engine(url)
    return Engines(
        reader=engine.execution_options(isolation_level="REPEATABLE READ"),
        writer=engine.execution_options(isolation_level="SERIALIZABLE"),
        one_writer=False,
    )


def open_migration_engine(database_url: str) -> sa.Engine:
    """A synchronous engine of one connection at a time, for Alembic, whose transactions begin as writers."""
    url = parse_database_url(database_url)
    if url.drivername == "postgresql":
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), poolclass=sa.pool.NullPool)
    engine = sa.create_engine(
        url.set(drivername="sqlite+pysqlite"),
        poolclass=sa.pool.NullPool,
        connect_args=_sqlite_connect_args(),
    ).execution_options(**{_BEGIN_OPTION: "BEGIN IMMEDIATE"})
    # Foreign keys stay off: a batch migration drops and re-creates tables that others refer to.
    sa.event.listen(engine, "connect", lambda connection, _record: _set_pragmas(connection, foreign_keys=False))
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=limits.DATABASE_CONNECTIONS_MAX,
        max_overflow=0,
        json_serializer=encode_json,
        pool_timeout=limits.DATABASE_WAIT_SECONDS,
        connect_args=_sqlite_connect_args(),
    )
    sa.event.listen(
        engine.sync_engine, "connect", lambda connection, _record: _set_pragmas(connection, foreign_keys=True)
    )
    sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
    sa.event.listen(engine.sync_engine, "do_connect", lambda *_arguments: _check_file(url))
    return engine


def _postgresql_engine(url: URL) -> AsyncEngine:
    options = (
        f"-c lock_timeout={limits.DATABASE_WAIT_SECONDS * 1000:.0f}"
        f" -c idle_in_transaction_session_timeout={limits.DATABASE_IDLE_SECONDS * 1000:.0f}"
    )
    given = url.query.get("options", "")
    return create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=limits.DATABASE_CONNECTIONS_MAX,
        max_overflow=0,
        json_serializer=encode_json,
        pool_timeout=limits.DATABASE_WAIT_SECONDS,
        # A restarted server is found out before a use case is, for 0.1 ms a transaction.
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": limits.DATABASE_CONNECT_SECONDS,
            "options": f"{options} {given if isinstance(given, str) else ' '.join(given)}".strip(),
        },
    )


def _sqlite_connect_args() -> dict[str, Any]:
    # `timeout` is SQLite's busy timeout: how long BEGIN IMMEDIATE waits for a writer in another process.
    return {"isolation_level": None, "timeout": limits.DATABASE_WAIT_SECONDS}


def _set_pragmas(dbapi_connection: Any, *, foreign_keys: bool) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL syncs the log at every commit. NORMAL would survive kill -9 too, but not a power cut, and an agent deletes
    # its spool once we have acknowledged a batch.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
    cursor.close()


def _check_file(url: URL) -> None:
    """Raise StorageError where the file is missing: SQLite would make an empty database of it."""
    path = Path(url.database or "")
    if not path.exists():
        raise StorageError(
            f"{path} does not exist", field="database_url", remedy="migrate it first, or see to the disk"
        )


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN_OPTION, "BEGIN"))


def sqlite_path(database_url: str) -> Path | None:
    """Path of the database's file; None for PostgreSQL."""
    url = parse_database_url(database_url)
    return Path(url.database) if url.drivername == "sqlite" and url.database else None


def _bad_url(message: str) -> FieldInvalidError:
    return FieldInvalidError(
        message, field="database_url", remedy="use sqlite:///PATH or postgresql://USER@HOST/DATABASE"
    )
