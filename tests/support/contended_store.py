"""A store in which somebody else is always faster, for a while."""

from collections.abc import AsyncIterator
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
