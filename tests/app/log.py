"""What tests read in the log of decisions."""

from controlplane.app.ports import AuditFilter, Store
from controlplane.domain.audit import Happening


async def happenings_of(store: Store, resource: str) -> list[Happening]:
    """What was done to the resource, oldest first."""
    async with store.read() as work:
        events = await work.audit.list(AuditFilter(resource=resource), after=None, limit=100, oldest_first=True)
    return [event.happening for event in events]


async def actions_of(store: Store, resource: str) -> list[tuple[str, str]]:
    """Who did what to the resource, oldest first."""
    return [(happening.actor, happening.action) for happening in await happenings_of(store, resource)]
