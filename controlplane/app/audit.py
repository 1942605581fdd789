"""The log of decisions. What decides writes its happenings in its own transaction: both are kept, or neither."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from controlplane import limits
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import AuditFilter, Clock, IdSource, Store, UnitOfWork
from controlplane.domain.audit import AuditEvent, Happening


async def write_down(uow: UnitOfWork, happenings: Iterable[Happening], *, clock: Clock, ids: IdSource) -> None:
    """Add the happenings, in order, within the caller's write transaction."""
    now = clock.now()
    events = [AuditEvent(id=ids.uid(), create_time=now, happening=happening) for happening in happenings]
    if events:
        await uow.audit.add(events)


class LogFollower:
    """What came into the log since the last look, each event once.

    Ids rise with time within one controller alone: another may commit an event under a smaller id than one that was
    told already. So the last WATCH_LATE_SECONDS are read again at each look.
    """

    def __init__(self, wanted: AuditFilter) -> None:
        self._wanted = wanted
        self._floor: str | None = None
        """Nothing comes any more at or before this id."""
        self._told = frozenset[str]()
        """Ids above the floor."""
        self.has_more = False
        """The last look ended at its bound."""

    async def look(self, uow: UnitOfWork, now: datetime) -> Sequence[AuditEvent]:
        """At most WATCH_EVENTS_MAX events, in the order of their ids."""
        most = limits.WATCH_EVENTS_MAX
        found = await uow.audit.list(self._wanted, after=self._floor, limit=most, oldest_first=True)
        fresh = [event for event in found if event.id not in self._told]
        self.has_more = len(found) == most
        settled = now - timedelta(seconds=limits.WATCH_LATE_SECONDS)
        # Where more follows than one look reads, the whole page is settled: else it would be read for ever.
        done = [event.id for event in found if self.has_more or event.create_time < settled]
        self._floor = done[-1] if done else self._floor
        self._told = frozenset(event.id for event in found if self._floor is None or event.id > self._floor)
        return fresh


class Audit:
    """Shows what was decided."""

    def __init__(self, *, store: Store) -> None:
        self._store = store

    async def list(
        self, wanted: AuditFilter, *, page_size: int = 0, page_token: str = "", oldest_first: bool = False
    ) -> Page[AuditEvent]:
        """Newest first unless asked otherwise."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            found = await uow.audit.list(
                wanted, after=str(key[0]) if key else None, limit=size + 1, oldest_first=oldest_first
            )
        return page_of(found, size, lambda event: encode_page_token(event.id))
