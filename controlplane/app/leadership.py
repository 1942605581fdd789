"""Leadership: of the controllers on one database, one runs the jobs.

Who holds the lease leads, and what it writes carries the lease's epoch: a controller that was stopped in mid-decision
finds on waking that its epoch is of the past, and nothing of that decision is written (`Store.write(lease=...)`). One
controller alone takes the same path: nobody contends.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog

from controlplane import limits, observability
from controlplane.app.audit import write_down
from controlplane.app.ports import Clock, IdSource, Store, UnitOfWork
from controlplane.domain.audit import Happening, rule
from controlplane.domain.errors import LeaseLostError, StaleWriteError, StorageError
from controlplane.domain.lease import Lease

LEASE_NAME = "rollouts"

log = structlog.get_logger(__name__)


class Leadership:
    """Whether this controller leads.

    `holder` is of this process alone: never one that another process, or an earlier run of this one, goes by.
    `predecessor` is the holder that ran before on the same folder and is known to be dead: what it holds is ended at
    once instead of waited for.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: IdSource,
        monotonic: Callable[[], float],
        holder: str,
        predecessor: str | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._monotonic = monotonic
        self._holder = holder
        self._predecessor = predecessor
        self._lease: Lease | None = None
        self._sure_until_seconds = 0.0
        self._turn = asyncio.Lock()

    @property
    def lease(self) -> Lease | None:
        """The lease while it is surely held: by our own monotonic clock, counted from before the database was asked,
        it cannot have run out. A process that has slept for longer does not even try."""
        return self._lease if self._monotonic() < self._sure_until_seconds else None

    async def run(self) -> None:
        """Try to lead, or stay so, until cancelled; then let the lease go."""
        try:
            while True:
                await self.renew_or_wait()
                leads = self._lease is not None
                await asyncio.sleep(limits.LEASE_RENEW_SECONDS if leads else limits.LEASE_TRY_SECONDS)
        finally:
            await self._let_go()

    async def renew_or_wait(self) -> None:
        """Take or renew the lease once. A database that cannot be used costs the lease only when it runs out."""
        try:
            await self._renew()
        except (StaleWriteError, StorageError) as error:
            # Another contender was quicker, or the database is away. That who does not lead stays so is no news.
            told = log.debug if self._lease is None and isinstance(error, StaleWriteError) else log.warning
            told(observability.LEASE_NOT_RENEWED, holder=self._holder, cause=str(error))
            if self._lease is not None and self.lease is None:
                self._lose("the lease could not be renewed in time")

    async def while_leading(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do the work if this controller leads. Where the lease is lost meanwhile, whoever leads now does it anew."""
        if self.lease is None:
            return
        try:
            await work()
        except LeaseLostError as error:
            self._lose(str(error))

    @asynccontextmanager
    async def fenced(self) -> AsyncGenerator[Lease, None]:
        """The lease for one write. Writes and renewals take turns: each changes the lease's row, and would make the
        database refuse the other. Raises LeaseLostError unless this controller leads."""
        async with self._turn:
            lease = self.lease
            if lease is None:
                raise LeaseLostError(
                    f"{self._holder} does not lead", remedy="another controller leads now: it decides anew"
                )
            yield lease

    async def _renew(self) -> None:
        async with self._turn:
            asked_seconds = self._monotonic()
            async with self._store.write() as uow:
                before = await self._replace_predecessor(uow)
                lease = await uow.leases.acquire(LEASE_NAME, holder=self._holder, ttl_seconds=limits.LEASE_SECONDS)
                is_new = lease is not None and (self._lease is None or self._lease.epoch != lease.epoch)
                if lease is not None and is_new:
                    await write_down(uow, [_taken(lease, before)], clock=self._clock, ids=self._ids)
        self._predecessor = None
        if lease is None:
            if self._lease is not None:
                self._lose("another controller holds the lease")
            return
        self._lease, self._sure_until_seconds = lease, asked_seconds + limits.LEASE_SECONDS
        if is_new:
            log.info(observability.LEADERSHIP_TAKEN, holder=lease.holder, epoch=lease.epoch)

    async def _replace_predecessor(self, uow: UnitOfWork) -> Lease | None:
        """End what a dead predecessor holds; return the lease as it was."""
        before = await uow.leases.find(LEASE_NAME)
        if before is not None and before.holder == self._predecessor:
            await uow.leases.release(before)
        return before

    def _lose(self, cause: str) -> None:
        lost, self._lease, self._sure_until_seconds = self._lease, None, 0.0
        if lost is not None:
            log.warning(observability.LEADERSHIP_LOST, holder=self._holder, epoch=lost.epoch, cause=cause)

    async def _let_go(self) -> None:
        """End the lease, so that another leads at once. Where that fails, it runs out by itself."""
        lease = self._lease
        if lease is None:
            return
        self._lose("this controller stops")
        happening = Happening(
            actor=rule("lease"),
            action="leadership.release",
            resource=f"controllers/{lease.holder}",
            reason="STOPPING",
            message=f"{lease.holder} stops and leads no more",
            evidence={"epoch": lease.epoch},
        )
        try:
            async with self._turn, self._store.write(lease=lease) as uow:
                await write_down(uow, [happening], clock=self._clock, ids=self._ids)
            async with self._store.write() as uow:
                await uow.leases.release(lease)
        except (LeaseLostError, StaleWriteError, StorageError) as error:
            log.warning(observability.LEASE_NOT_RENEWED, holder=self._holder, cause=str(error))


class FencedStore:
    """The store as a leader's jobs see it: whatever they write is refused (LeaseLostError) once another leads."""

    def __init__(self, store: Store, leadership: Leadership) -> None:
        self._store = store
        self._leadership = leadership

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._store.read()

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncGenerator[UnitOfWork, None]:
        """As `Store.write`, with the leadership's lease unless another is given."""
        async with self._leadership.fenced() as held, self._store.write(lease=lease or held) as uow:
            yield uow


def _taken(lease: Lease, before: Lease | None) -> Happening:
    """`before` is the lease as it was found: free, run out, or let go."""
    earlier = "nobody led before" if before is None else f"{before.holder} led before"
    return Happening(
        actor=rule("lease"),
        action="leadership.take",
        resource=f"controllers/{lease.holder}",
        reason="LEASE_FREE" if before is None else "LEASE_ENDED",
        message=f"{lease.holder} leads with epoch {lease.epoch}; {earlier}",
        evidence={"epoch": lease.epoch},
        related=() if before is None or before.holder == lease.holder else (f"controllers/{before.holder}",),
    )
