"""Pins: an operator holds a slot of an agent on a version, whatever deployments and rollouts say."""

from collections.abc import Iterable, Sequence

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.convergence import converge
from controlplane.app.deployments import check_not_yanked, check_version
from controlplane.app.ports import ChangeNotifier, Clock, IdSource, Store, UnitOfWork
from controlplane.app.retries import retry_stale
from controlplane.app.revocations import revoked
from controlplane.domain.assignment import find_contenders, holders
from controlplane.domain.audit import Happening
from controlplane.domain.errors import FieldInvalidError, PreconditionError, Reason, ResourceNotFoundError
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.pin import Pin


class Pins:
    """Sets, ends and shows pins."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource, notifier: ChangeNotifier) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._notifier = notifier

    async def pin(self, agent_id: AgentId, model_id: ModelId, version: int, *, reason: str, actor: str) -> AgentRecord:
        """Hold the slot on the version, in place of an earlier pin of it; return the agent. The same pin with the same
        reason changes nothing.

        Raises FieldInvalidError without a reason; ResourceNotFoundError for an unknown agent or version; ForbiddenError
        (AGENT_REVOKED); PreconditionError where no deployment of the model holds the agent (NOT_HELD), and for a
        yanked version (VERSION_YANKED).
        """
        words = check_reason(reason, field="reason")

        async def attempt() -> tuple[AgentRecord, Sequence[AgentId]]:
            async with self._store.write() as uow:
                await _check_held(uow, await uow.agents.get(agent_id), model_id)
                await check_version(uow, model_id, version, field="model_version")
                await check_not_yanked(uow, model_id, version, field="model_version")
                before = next((pin for pin in await uow.pins.list([agent_id]) if pin.model_id == model_id), None)
                changed: Sequence[AgentId] = ()
                if before is None or (before.version, before.reason) != (version, words):
                    pin = Pin(
                        agent_id=agent_id,
                        model_id=model_id,
                        version=version,
                        reason=words,
                        create_time=self._clock.now(),
                        actor=actor,
                    )
                    await uow.pins.put(pin)
                    await write_down(uow, [_pinned(pin, before)], clock=self._clock, ids=self._ids)
                    changed = await converge(uow, [agent_id])
                return await uow.agents.get(agent_id), changed

        return await self._told(*await retry_stale(attempt))

    async def unpin(self, agent_id: AgentId, model_id: ModelId, *, actor: str) -> AgentRecord:
        """End the pin; the slot follows its deployment again. Raises ResourceNotFoundError for an unknown agent, and
        where there is no pin."""

        async def attempt() -> tuple[AgentRecord, Sequence[AgentId]]:
            async with self._store.write() as uow:
                await uow.agents.get(agent_id)
                before = next((pin for pin in await uow.pins.list([agent_id]) if pin.model_id == model_id), None)
                if before is None:
                    raise ResourceNotFoundError(
                        f"agents/{agent_id} has no pin of models/{model_id}",
                        field="model",
                        remedy="name the model of one of its pins",
                    )
                await uow.pins.remove(agent_id, model_id)
                await write_down(uow, [_unpinned(before, actor)], clock=self._clock, ids=self._ids)
                changed = await converge(uow, [agent_id])
                return await uow.agents.get(agent_id), changed

        return await self._told(*await retry_stale(attempt))

    async def list(self, agent_ids: Iterable[AgentId]) -> Sequence[Pin]:
        """Return the pins of these agents, by agent, then model."""
        async with self._store.read() as uow:
            return await uow.pins.list(agent_ids)

    async def _told(self, record: AgentRecord, changed: Sequence[AgentId]) -> AgentRecord:
        if changed:
            self._notifier.desired_changed(changed)
        return record


def check_reason(reason: str, *, field: str) -> str:
    """Return the words of a reason; raise FieldInvalidError without any, or with too many."""
    words = reason.strip()
    if not words or len(words) > limits.REASON_CHARS_MAX or "\0" in words:
        raise FieldInvalidError(
            "there is no reason" if not words else "the reason cannot be kept",
            field=field,
            remedy=f"say why in 1 to {limits.REASON_CHARS_MAX} characters: whoever asks later reads it",
        )
    return words


async def _check_held(uow: UnitOfWork, record: AgentRecord, model_id: ModelId) -> None:
    agent_id = record.agent.id
    if record.agent.revoked:
        raise revoked(agent_id)
    contenders = find_contenders([record], await uow.deployments.list_all())[agent_id]
    if model_id not in holders(contenders):
        raise PreconditionError(
            f"no deployment of models/{model_id} matches agents/{agent_id}",
            field="model_version",
            remedy=f"see `lineside agents explain {agent_id}`, then label the agent or create a deployment for it",
            reason=Reason.NOT_HELD,
        )


def _pinned(pin: Pin, before: Pin | None) -> Happening:
    return Happening(
        actor=pin.actor,
        action="agent.pin",
        resource=f"agents/{pin.agent_id}",
        message=f"models/{pin.model_id} at version {pin.version}: {pin.reason}",
        evidence={"version": pin.version, "version_before": before.version if before is not None else None},
        related=(f"models/{pin.model_id}", f"models/{pin.model_id}/versions/{pin.version}"),
    )


def _unpinned(pin: Pin, actor: str) -> Happening:
    return Happening(
        actor=actor,
        action="agent.unpin",
        resource=f"agents/{pin.agent_id}",
        message=f"models/{pin.model_id} was pinned at version {pin.version} by {pin.actor}: {pin.reason}",
        evidence={"version_before": pin.version},
        related=(f"models/{pin.model_id}", f"models/{pin.model_id}/versions/{pin.version}"),
    )
