"""Leases, by the database's clock.

A lease is free once its `expire_time` is not after the clock. Every new holder, and one that comes back to a lease that
ran out, gets a higher epoch; only a renewal in time keeps it.
"""

import sqlalchemy as sa

from controlplane.domain.errors import LeaseLostError
from controlplane.domain.lease import Lease
from controlplane.store.tables import UtcTime
from controlplane.store.tables import lease as leases
from controlplane.store.transaction import Transaction


class SqlLeaseRepository:
    """The LeaseRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def acquire(self, name: str, *, holder: str, ttl_seconds: float) -> Lease | None:
        now = self._clock()
        insert = self._transaction.insert(leases).values(
            name=name, holder=holder, epoch=1, expire_time=self._clock(ttl_seconds)
        )
        new, held = insert.excluded, leases.c.expire_time > now
        statement = insert.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={
                "holder": new.holder,
                "epoch": sa.case((held, leases.c.epoch), else_=leases.c.epoch + 1),
                "expire_time": new.expire_time,
            },
            where=sa.or_(leases.c.holder == holder, sa.not_(held)),
        ).returning(leases)
        row = await self._transaction.row(statement)
        return None if row is None else Lease(**row)

    async def release(self, lease: Lease) -> None:
        await self._transaction.execute(sa.update(leases).where(self._is_held(lease)).values(expire_time=self._clock()))

    async def find(self, name: str) -> Lease | None:
        row = await self._transaction.row(sa.select(leases).where(leases.c.name == name))
        return None if row is None else Lease(**row)

    async def is_held(self, lease: Lease) -> bool:
        """Whether the holder has it now, with its epoch."""
        return await self._transaction.scalar(sa.select(leases.c.name).where(self._is_held(lease))) is not None

    async def fence(self, lease: Lease) -> None:
        """Raise LeaseLostError unless the lease is held now, and keep others from taking it until this transaction
        ends: the row is written, not only read."""
        statement = sa.update(leases).where(self._is_held(lease)).values(epoch=leases.c.epoch)
        if await self._transaction.change(statement) != 1:
            raise lost(lease)

    def _is_held(self, lease: Lease) -> sa.ColumnElement[bool]:
        return sa.and_(
            leases.c.name == lease.name,
            leases.c.holder == lease.holder,
            leases.c.epoch == lease.epoch,
            leases.c.expire_time > self._clock(),
        )

    def _clock(self, plus_seconds: float = 0.0) -> sa.ColumnElement[object]:
        """The database's time as the statement runs, and not as its transaction began."""
        if self._transaction.is_postgresql:
            return sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, 0, 0, plus_seconds)
        # As SQLAlchemy writes times on SQLite: text of fixed width that sorts as time.
        text = sa.func.strftime("%Y-%m-%d %H:%M:%f000", "now", f"{plus_seconds:+.3f} seconds")
        return sa.type_coerce(text, UtcTime())


def lost(lease: Lease) -> LeaseLostError:
    """The refusal of what a controller decided while it led."""
    return LeaseLostError(
        f"{lease.holder} does not hold the lease {lease.name!r} with epoch {lease.epoch} any more",
        remedy="another controller leads now: it decides anew",
    )
