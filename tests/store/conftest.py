"""SQL stores alone: what only a database can promise."""

from collections.abc import AsyncIterator

import pytest

from controlplane.store import SqlStore, open_store


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    """An empty store on each kind of database in turn."""
    sql_store = open_store(database_url)
    yield sql_store
    await sql_store.close()


@pytest.fixture
async def sqlite_store(sqlite_url: str) -> AsyncIterator[SqlStore]:
    """An empty store on SQLite."""
    sql_store = open_store(sqlite_url)
    yield sql_store
    await sql_store.close()
