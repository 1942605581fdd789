"""What callers are told when the database fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from controlplane import limits
from controlplane.domain.errors import DomainError, FieldInvalidError, Reason, StaleWriteError, StorageError
from controlplane.domain.lake import ResultFilter
from controlplane.store import SqlStore, open_store
from controlplane.store.engine import open_migration_engine
from controlplane.store.refusals import translated
from tests.support.factories import SOLAR, make_agent, make_model
from tests.support.postgres import PostgresServer


def on_connect(store: SqlStore, pragma: str) -> None:
    """Execute a PRAGMA on every new connection of a SQLite store."""
    sa.event.listen(
        store._engines.reader.sync_engine, "connect", lambda connection, _record: connection.execute(pragma)
    )


async def refusal_of(attempt: Callable[[], Any]) -> DomainError:
    with pytest.raises(DomainError) as refusal:
        await attempt()
    return refusal.value


async def add_large_agent(store: SqlStore) -> None:
    async with store.write() as work:
        await work.agents.add(make_agent(labels={"note": "x" * 2_000_000}))


async def add_model(store: SqlStore) -> None:
    async with store.write() as work:
        await work.models.add(make_model())


async def find_model(store: SqlStore) -> None:
    async with store.read() as work:
        await work.models.find(SOLAR)


async def test_a_full_disk_is_refused_as_such_and_reading_goes_on(sqlite_store: SqlStore) -> None:
    on_connect(sqlite_store, "PRAGMA max_page_count = 200")
    refusal = await refusal_of(lambda: add_large_agent(sqlite_store))
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_FULL)
    assert "free space" in refusal.remedy
    await find_model(sqlite_store)
    await add_model(sqlite_store)


async def test_a_read_only_database_is_refused(sqlite_store: SqlStore) -> None:
    on_connect(sqlite_store, "PRAGMA query_only = ON")
    refusal = await refusal_of(lambda: add_model(sqlite_store))
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await find_model(sqlite_store)


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lineside.db").write_bytes(b"not a database at all" * 1000)
    store = open_store(f"sqlite:///{tmp_path / 'lineside.db'}")
    refusal = await refusal_of(lambda: find_model(store))
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await store.close()


async def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'nowhere' / 'lineside.db'}")
    refusal = await refusal_of(lambda: find_model(store))
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await store.close()


async def test_a_file_that_went_away_is_refused_and_not_made_anew(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'lineside.db'}")
    refusal = await refusal_of(lambda: add_model(store))
    assert (type(refusal), refusal.field) == (StorageError, "database_url")
    assert list(tmp_path.iterdir()) == []
    await store.close()


async def test_a_writer_of_another_process_that_never_ends_is_not_waited_for_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_migration_engine(sqlite_url)
    monkeypatch.setattr(limits, "DATABASE_WAIT_SECONDS", 0.05)
    store = open_store(sqlite_url)
    with other.begin():
        refusal = await refusal_of(lambda: add_model(store))
        await find_model(store)
    other.dispose()
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await add_model(store)
    await store.close()


async def test_more_readers_than_connections_are_refused_in_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DATABASE_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(limits, "DATABASE_CONNECTIONS_MAX", 1)
    store = open_store(sqlite_url)
    async with store.read():
        refusal = await refusal_of(lambda: find_model(store))
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await find_model(store)
    await store.close()


@pytest.mark.postgres
async def test_an_unreachable_server_is_refused(tmp_path: Path) -> None:
    store = open_store(f"postgresql://postgres@/lineside?host={tmp_path}")
    refusal = await refusal_of(lambda: find_model(store))
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await store.close()


@pytest.mark.postgres
async def test_a_server_that_ends_a_session_is_refused_once_and_found_again(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    end_every_session = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    database = postgres_url.split("/")[3].split("?")[0]
    store = open_store(postgres_url)

    async def lose_the_session() -> None:
        async with store.write() as work:
            await work.models.add(make_model())
            postgres_server.execute(end_every_session, database=database)
            await work.models.find(SOLAR)

    refusal = await refusal_of(lose_the_session)
    assert (type(refusal), refusal.reason) == (StorageError, Reason.STORAGE_UNAVAILABLE)
    await add_model(store)
    await store.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("state", "refusal_type", "reason"),
    [
        ("53100", StorageError, Reason.STORAGE_FULL),
        ("53300", StorageError, Reason.STORAGE_UNAVAILABLE),
        ("57P01", StorageError, Reason.STORAGE_UNAVAILABLE),
        ("58030", StorageError, Reason.STORAGE_UNAVAILABLE),
        ("25006", StorageError, Reason.STORAGE_UNAVAILABLE),
        ("55P03", StorageError, Reason.STORAGE_UNAVAILABLE),
        ("40001", StaleWriteError, Reason.STALE_WRITE),
        ("40P01", StaleWriteError, Reason.STALE_WRITE),
    ],
)
def test_what_postgresql_says_has_a_word_of_ours(
    postgres_url: str, state: str, refusal_type: type[DomainError], reason: Reason
) -> None:
    engine = open_migration_engine(postgres_url)
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END $$"
    with pytest.raises(refusal_type) as refusal, translated(), engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert refusal.value.reason == reason


@pytest.mark.postgres
def test_a_wrong_statement_is_a_fault_of_ours_and_not_translated(postgres_url: str) -> None:
    engine = open_migration_engine(postgres_url)
    with pytest.raises(sa.exc.ProgrammingError) as fault, translated(), engine.connect() as connection:
        connection.exec_driver_sql("SELECT nonsense")
    engine.dispose()
    assert isinstance(fault.value.orig, psycopg.errors.UndefinedColumn)


@pytest.mark.postgres
async def test_text_that_postgresql_cannot_hold_is_the_callers_fault(postgres_url: str) -> None:
    store = open_store(postgres_url)

    async def add() -> None:
        async with store.write() as work:
            await work.models.add(make_model(description="a\0b"))

    assert isinstance(await refusal_of(add), FieldInvalidError)
    await store.close()


async def test_a_page_key_that_sqlite_cannot_hold_is_the_callers_fault(sqlite_store: SqlStore) -> None:
    async def list_after() -> object:
        async with sqlite_store.read() as work:
            return await work.result_index.list(ResultFilter(), after=10**30, beyond=None, limit=10)

    refusal = await refusal_of(list_after)
    assert isinstance(refusal, FieldInvalidError)
    assert "64 bits" in str(refusal)
