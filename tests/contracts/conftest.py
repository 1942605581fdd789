"""The implementations that every contract is run over."""

from collections.abc import AsyncIterator

import pytest

from controlplane.app.ports import Store
from controlplane.store import open_store
from tests.support.memory_store import MemoryStore


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """An empty store, of each implementation in turn."""
    if request.param == "memory":
        yield MemoryStore()
        return
    sql_store = open_store(request.getfixturevalue(f"{request.param}_url"))
    yield sql_store
    await sql_store.close()
