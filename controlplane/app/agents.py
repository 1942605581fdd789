"""Agents, for operators: look at them, label them, and revoke them.

Labels: at enrolment those of the join token win over those that the box asked for, so that a box cannot put itself
where it does not belong. From then on they are one set, and any of them is an operator's to change: an operator is who
made the token. A box that enrols again with its key changes no label.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from controlplane.app.audit import write_down
from controlplane.app.convergence import converge
from controlplane.app.enrollment import check_labels
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import ChangeNotifier, Clock, IdSource, Store
from controlplane.app.retries import retry_stale
from controlplane.app.revocations import Revocations
from controlplane.domain.audit import Happening
from controlplane.domain.errors import FieldInvalidError, StaleWriteError
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Agent, AgentRecord
from controlplane.domain.selector import facts, is_label_key, is_reserved_key, parse_selector


class Agents:
    """The fleet as it is known. `actor` is `operators/{operator}`."""

    def __init__(
        self, *, store: Store, clock: Clock, ids: IdSource, notifier: ChangeNotifier, revocations: Revocations
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
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

    async def revoke(self, agent_id: AgentId, *, actor: str, revision: int | None = None) -> AgentRecord:
        """Refuse the agent's certificates for good, here at once and elsewhere within a second. Raises
        StaleWriteError when `revision` is given and not the current one. Revoking twice changes nothing."""

        async def attempt() -> None:
            async with self._store.write() as work:
                agent = (await work.agents.get(agent_id)).agent
                _check_revision(agent, revision)
                if not agent.revoked:
                    await work.agents.save(replace(agent, revoked=True))
                    await write_down(work, [_revoked(agent, actor)], clock=self._clock, ids=self._ids)

        await (retry_stale(attempt) if revision is None else attempt())
        self._revocations.add(agent_id)
        self._notifier.agent_revoked(agent_id)
        return await self.get(agent_id)

    async def update_labels(
        self,
        agent_id: AgentId,
        *,
        set_labels: Mapping[str, str],
        remove: Iterable[str],
        actor: str,
        revision: int | None = None,
    ) -> AgentRecord:
        """Set and remove labels, those that are not named stay; return the agent. Deployments that match anew or no
        more follow at once. What is so already changes nothing.

        Raises FieldInvalidError for labels that are none, too many, a fact's or named twice; ResourceNotFoundError;
        StaleWriteError when `revision` is given and not the current one.
        """
        removed = frozenset(remove)
        _check_change(set_labels, removed)

        async def attempt() -> tuple[AgentRecord, Sequence[AgentId]]:
            async with self._store.write() as work:
                agent = (await work.agents.get(agent_id)).agent
                _check_revision(agent, revision)
                labels = {key: value for key, value in agent.labels.items() if key not in removed} | dict(set_labels)
                check_labels({key: value for key, value in labels.items() if not is_reserved_key(key)}, field="set")
                changed: Sequence[AgentId] = ()
                if labels != dict(agent.labels):
                    await work.agents.save(replace(agent, labels=labels))
                    happening = _labelled(agent, labels, actor)
                    await write_down(work, [happening], clock=self._clock, ids=self._ids)
                    changed = await converge(work, [agent_id])
                return await work.agents.get(agent_id), changed

        record, changed = await (retry_stale(attempt) if revision is None else attempt())
        if changed:
            self._notifier.desired_changed(changed)
        return record

    async def _matching(self, selector: str, *, after: AgentId | None) -> Sequence[AgentRecord]:
        wanted = parse_selector(selector, field="selector")
        async with self._store.read() as work:
            everybody = await work.agents.list_all()
        return [
            record
            for record in everybody
            if (after is None or record.agent.id > after) and wanted.matches(facts(record))
        ]


def _check_revision(agent: Agent, revision: int | None) -> None:
    if revision not in (None, agent.revision):
        raise StaleWriteError(f"agents/{agent.id} has changed", field="etag", remedy="read it again and decide again")


def _check_change(set_labels: Mapping[str, str], removed: frozenset[str]) -> None:
    if not set_labels and not removed:
        raise FieldInvalidError("there is nothing to change", field="set", remedy="name a label to set or to remove")
    check_labels(set_labels, field="set")
    for key in sorted(removed):
        if not is_label_key(key) or is_reserved_key(key):
            raise FieldInvalidError(
                f"{key!r} is no label that could be removed", field="remove", remedy="name a key of the agent's labels"
            )
        if key in set_labels:
            raise FieldInvalidError(
                f"{key!r} is to be set and removed", field="remove", remedy="name it in one of the two"
            )


def _revoked(agent: Agent, actor: str) -> Happening:
    return Happening(actor=actor, action="agent.revoke", resource=f"agents/{agent.id}")


def _labelled(agent: Agent, labels: Mapping[str, str], actor: str) -> Happening:
    was = ",".join(f"{key}={value}" for key, value in sorted(agent.labels.items()))
    now = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return Happening(
        actor=actor,
        action="agent.label",
        resource=f"agents/{agent.id}",
        message=f"{now or 'no label'}, before: {was or 'no label'}",
        evidence={"labels": dict(sorted(labels.items())), "labels_before": dict(sorted(agent.labels.items()))},
    )
