"""The log of decisions. What decides writes its happenings in its own transaction: both are kept, or neither."""

from collections.abc import Iterable

from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import AuditFilter, Clock, IdSource, Store, UnitOfWork
from controlplane.domain.audit import AuditEvent, Happening


async def write_down(uow: UnitOfWork, happenings: Iterable[Happening], *, clock: Clock, ids: IdSource) -> None:
    """Add the happenings, in order, within the caller's write transaction."""
    now = clock.now()
    events = [AuditEvent(id=ids.uid(), create_time=now, happening=happening) for happening in happenings]
    if events:
        await uow.audit.add(events)


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
