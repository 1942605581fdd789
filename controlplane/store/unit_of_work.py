"""Units of work, opened by intent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from controlplane import limits
from controlplane.app.ports import UnitOfWork
from controlplane.domain.errors import StaleWriteError, StorageError
from controlplane.domain.lease import Lease
from controlplane.store.engine import Engines, open_engines
from controlplane.store.refusals import translated
from controlplane.store.repositories.agents import SqlAgentRepository
from controlplane.store.repositories.audit import SqlAuditRepository
from controlplane.store.repositories.certificates import SqlCertificateRepository
from controlplane.store.repositories.datasets import (
    SqlDatasetRepository,
    SqlLabelRepository,
    SqlPictureRepository,
)
from controlplane.store.repositories.deployments import SqlDeploymentRepository
from controlplane.store.repositories.desired import SqlDesiredStateRepository
from controlplane.store.repositories.drifts import SqlDriftRepository
from controlplane.store.repositories.evidence import SqlEvidenceRepository
from controlplane.store.repositories.judging import SqlPromotionRepository, SqlTrainingPolicyRepository
from controlplane.store.repositories.leases import SqlLeaseRepository, lost
from controlplane.store.repositories.models import SqlModelRepository
from controlplane.store.repositories.pins import SqlPinRepository
from controlplane.store.repositories.requests import SqlRequestRepository
from controlplane.store.repositories.result_index import SqlResultIndexRepository
from controlplane.store.repositories.rollouts import SqlRolloutRepository
from controlplane.store.repositories.samples import SqlSampleRepository
from controlplane.store.repositories.tokens import SqlTokenRepository
from controlplane.store.repositories.training_runs import SqlTrainingRunRepository
from controlplane.store.row_cache import FleetCache
from controlplane.store.transaction import Transaction


class SqlUnitOfWork:
    """Repositories over one transaction; belongs to one task."""

    def __init__(self, transaction: Transaction, cache: FleetCache) -> None:
        self.models = SqlModelRepository(transaction)
        self.agents = SqlAgentRepository(transaction, cache.records, cache.slot_texts)
        self.certificates = SqlCertificateRepository(transaction)
        self.tokens = SqlTokenRepository(transaction)
        self.deployments = SqlDeploymentRepository(transaction)
        self.rollouts = SqlRolloutRepository(transaction, cache.active)
        self.desired = SqlDesiredStateRepository(transaction, cache.desired)
        self.drifts = SqlDriftRepository(transaction)
        self.evidence = SqlEvidenceRepository(transaction)
        self.result_index = SqlResultIndexRepository(transaction)
        self.samples = SqlSampleRepository(transaction)
        self.labels = SqlLabelRepository(transaction)
        self.datasets = SqlDatasetRepository(transaction)
        self.pictures = SqlPictureRepository(transaction)
        self.requests = SqlRequestRepository(transaction)
        self.pins = SqlPinRepository(transaction)
        self.audit = SqlAuditRepository(transaction)
        self.leases = SqlLeaseRepository(transaction)
        self.training_runs = SqlTrainingRunRepository(transaction)
        self.promotions = SqlPromotionRepository(transaction)
        self.training_policies = SqlTrainingPolicyRepository(transaction)


class SqlStore:
    """The Store over a SQL database. Belongs to one event loop; several processes may open the same database."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._cache = FleetCache()
        engines.on_connect(self._cache.clear)
        # Tasks that fight for SQLite's lock sleep and poll, an order of magnitude slower than a queue.
        self._turn: asyncio.Lock | None = asyncio.Lock() if engines.one_writer else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[UnitOfWork]:
        """A transaction that sees one snapshot and is always rolled back."""
        with translated():
            async with self._engines.reader.connect() as connection:
                await connection.begin()
                # Closing a connection rolls back what it began.
                yield SqlUnitOfWork(Transaction(connection), self._cache)

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[UnitOfWork]:
        """A transaction that commits when the block ends and rolls back when it raises. Never open one inside
        another: the inner waits for the outer until it gives up. With a lease, the last statement before the commit
        sees that it is held still."""
        async with self._writing():
            cache = self._cache.for_writer()
            try:
                with translated():
                    async with self._engines.writer.begin() as connection:
                        work = SqlUnitOfWork(Transaction(connection), cache)
                        yield work
                        if lease is not None:
                            await work.leases.fence(lease)
            except StaleWriteError as error:
                # What PostgreSQL says where another took the lease, or renewed it, since the transaction began.
                if lease is not None and not await self._is_held(lease):
                    raise lost(lease) from error
                raise
            cache.publish()

    async def connect(self) -> None:
        """Open every connection. Each new one makes the cache forget the fleet: better now than when many are busy."""
        with translated():
            async with AsyncExitStack() as connections:
                for _ in range(limits.DATABASE_CONNECTIONS_MAX):
                    await connections.enter_async_context(self._engines.reader.connect())

    async def close(self) -> None:
        """Close every connection; units of work that are still open fail."""
        await self._engines.dispose()

    async def _is_held(self, lease: Lease) -> bool:
        with translated():
            async with self._engines.reader.connect() as connection:
                await connection.begin()
                return await SqlLeaseRepository(Transaction(connection)).is_held(lease)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        if self._turn is None:
            yield
            return
        try:
            async with asyncio.timeout(limits.DATABASE_WAIT_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise StorageError("the database has been busy with other writes", remedy="try again") from None
        try:
            yield
        finally:
            self._turn.release()


def open_store(database_url: str) -> SqlStore:
    """Open `sqlite:///path` or `postgresql://...`, which `migrate` brought to the newest schema. Connects when first
    used; raises FieldInvalidError (field "database_url") for any other URL."""
    return SqlStore(open_engines(database_url))
