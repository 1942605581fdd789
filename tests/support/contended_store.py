"""Stores in which somebody else is faster."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from controlplane.app.ports import Store, UnitOfWork
from controlplane.domain.errors import StaleWriteError
from controlplane.domain.lease import Lease


class ContendedStore:
    """The first `losses` writes are undone at their end, as a database that serializes undoes them."""

    def __init__(self, store: Store, *, losses: int) -> None:
        self._store = store
        self.losses = losses

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._store.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        async with self._store.write(lease=lease) as work:
            yield work
            if self.losses > 0:
                self.losses -= 1
                raise StaleWriteError("another writer changed what this one read")


class OvertakenStore:
    """Somebody else writes right before the first write."""

    def __init__(self, store: Store, overtake: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._overtake: Callable[[], Awaitable[None]] | None = overtake

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._store.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        overtake, self._overtake = self._overtake, None
        if overtake is not None:
            await overtake()
        async with self._store.write(lease=lease) as work:
            yield work
