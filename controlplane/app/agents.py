"""Agents, for operators: look at them, and revoke them."""

from collections.abc import Sequence
from dataclasses import replace

from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import ChangeNotifier, Store
from controlplane.app.retries import retry_stale
from controlplane.app.revocations import Revocations
from controlplane.domain.errors import StaleWriteError
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.selector import facts, parse_selector


class Agents:
    """The fleet as it is known."""

    def __init__(self, *, store: Store, notifier: ChangeNotifier, revocations: Revocations) -> None:
        self._store = store
        self._notifier = notifier
        self._revocations = revocations

    async def get(self, agent_id: AgentId) -> AgentRecord:
        """Return the agent; raise ResourceNotFoundError."""
        async with self._store.read() as work:
            return await work.agents.get(agent_id)

    async def list(self, *, page_size: int, page_token: str, selector: str) -> Page[AgentRecord]:
        """Return a page by id of the agents that match the selector, of all when it is empty."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        after = AgentId(str(key[0])) if key else None
        if selector.strip():
            found = await self._matching(selector, after=after)
        else:
            async with self._store.read() as work:
                found = await work.agents.list(after=after, limit=size + 1)
        items = found[:size]
        return Page(items, encode_page_token(items[-1].agent.id) if len(found) > size else "")

    async def revoke(self, agent_id: AgentId, *, revision: int | None) -> AgentRecord:
        """Refuse the agent's certificates for good, here at once and elsewhere within a second. Raises
        StaleWriteError when `revision` is given and not the current one. Revoking twice changes nothing."""

        async def attempt() -> None:
            async with self._store.write() as work:
                agent = (await work.agents.get(agent_id)).agent
                if revision not in (None, agent.revision):
                    raise StaleWriteError(
                        f"agents/{agent_id} has changed", field="etag", remedy="read it again and decide again"
                    )
                if not agent.revoked:
                    await work.agents.save(replace(agent, revoked=True))

        await (retry_stale(attempt) if revision is None else attempt())
        self._revocations.add(agent_id)
        self._notifier.agent_revoked(agent_id)
        return await self.get(agent_id)

    async def _matching(self, selector: str, *, after: AgentId | None) -> Sequence[AgentRecord]:
        wanted = parse_selector(selector, field="selector")
        async with self._store.read() as work:
            everybody = await work.agents.list_all()
        return [
            record
            for record in everybody
            if (after is None or record.agent.id > after) and wanted.matches(facts(record))
        ]
