"""Rollouts: started, shown and steered by operators.

What holds:
- A command, what it does to the deployment and the desired states, and its entry in the log change in one transaction,
  or not at all. Notices go out after the commit.
- A deployment has at most one active rollout and one queued behind it: a new one takes the queued one's place, so none
  waits for another that waits.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial

from controlplane import limits
from controlplane.app.audit import LogFollower
from controlplane.app.deployments import check_no_rollout, check_version
from controlplane.app.notices import Notices
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import AuditFilter, Clock, IdSource, Store, UnitOfWork
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.app.rollout_steps import RolloutChanges, RolloutSteps, Scene, Stored, plan_targets, read_scene
from controlplane.app.strategies import check_strategy
from controlplane.domain import rollout_commands as commands
from controlplane.domain.audit import AuditEvent
from controlplane.domain.deployment import Deployment
from controlplane.domain.errors import (
    FieldInvalidError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StaleWriteError,
)
from controlplane.domain.ids import DeploymentId, ModelId, RolloutId
from controlplane.domain.rollout import ENDED_STATES, Decision, Rollout, RolloutState, RolloutStrategy

Command = Callable[[Rollout, datetime], Decision]


class WhenActive(StrEnum):
    """What becomes of a new rollout and the one that moves its deployment already."""

    RULE = "RULE"
    """Queue behind one that runs or returns, take the place of one that is paused or queued."""
    REFUSE = "REFUSE"
    QUEUE = "QUEUE"
    SUPERSEDE = "SUPERSEDE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """What an operator asks for."""

    deployment_id: DeploymentId
    model_id: ModelId
    target_version: int
    strategy: RolloutStrategy
    actor: str
    """`operators/{operator}` who asks."""
    when_active: WhenActive = WhenActive.RULE
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutChange:
    """What a watcher is told: the rollout as it is, and what was decided since it was told last, oldest first."""

    rollout: Rollout
    events: Sequence[AuditEvent] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What becomes of a new rollout and those of its deployment that have not ended."""

    supersedes: tuple[Rollout, ...] = ()
    behind: Rollout | None = None


class Rollouts:
    """Starts, shows and steers rollouts. `ticks` carry them forward."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: IdSource,
        notices: Notices,
        silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX,
        deciding: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`deciding` is entered while a change is decided and announced."""
        self._store = store
        self._clock = clock
        self._ids = ids
        self._notices = notices
        self._deciding = deciding
        # New ones for each decision: they would remember every rollout for good.
        self._steps = partial(RolloutSteps, silent_seconds_max=silent_seconds_max, listening_since=clock.now())
        self._changes = RolloutChanges(clock=clock, ids=ids, notifier=notices)

    async def create(self, request: RolloutRequest) -> Rollout:
        """Start a rollout and take its first step, or queue it where `when_active` says so.

        Raises FieldInvalidError for a strategy out of bounds or a version of another model; ResourceNotFoundError for
        an unknown deployment or version; PreconditionError for a yanked version (VERSION_YANKED), when no agent could
        be moved (SELECTION_EMPTY), or when another rollout has not ended and that is to be refused (ROLLOUT_ACTIVE).
        """
        check_strategy(request.strategy)
        asked = fingerprint("rollout", repr(request))

        async def attempt() -> tuple[Rollout, Sequence[Stored]]:
            async with self._store.write() as uow:
                if resource := await find_outcome(uow, request.request_id, print_of_request=asked):
                    return await uow.rollouts.get(RolloutId(resource.removeprefix("rollouts/"))), ()
                now = self._clock.now()
                stored = await self._begin(uow, request, now)
                rollout = stored[-1].rollout
                await keep_outcome(
                    uow,
                    request.request_id,
                    print_of_request=asked,
                    resource=f"rollouts/{rollout.id}",
                    now=now,
                )
                return rollout, stored

        with self._deciding():
            rollout, stored = await retry_stale(attempt)
            self._changes.announce(*stored)
        return rollout

    async def get(self, rollout_id: RolloutId) -> Rollout:
        """Return it; raise ResourceNotFoundError."""
        async with self._store.read() as uow:
            return await uow.rollouts.get(rollout_id)

    async def list(
        self, *, deployment_id: DeploymentId | None = None, page_size: int = 0, page_token: str = ""
    ) -> Page[Rollout]:
        """Newest first."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            found = await uow.rollouts.list(
                deployment_id=deployment_id, before=str(key[0]) if key else None, limit=size + 1
            )
        return page_of(found, size, lambda rollout: encode_page_token(rollout.uid))

    async def watch(self, rollout_id: RolloutId) -> AsyncGenerator[RolloutChange, None]:
        """Yield the rollout now and after each change, each time with what was decided since, and end once it has
        ended. Changes in quick succession may come as one; the first tells everything since the rollout began."""
        with self._notices.watch_rollout(rollout_id) as changes:
            seen: int | None = None
            log = LogFollower(AuditFilter(resource=f"rollouts/{rollout_id}"))
            while True:
                async with self._store.read() as uow:
                    rollout = await uow.rollouts.get(rollout_id)
                    events = await log.look(uow, self._clock.now())
                if rollout.revision != seen or events:
                    seen = rollout.revision
                    yield RolloutChange(rollout=rollout, events=events)
                if log.has_more:
                    continue
                if rollout.state in ENDED_STATES:
                    return
                await changes.wait(timeout_seconds=limits.WATCH_LOOK_SECONDS)

    async def pause(self, rollout_id: RolloutId, *, actor: str, revision: int | None = None) -> Rollout:
        """Admit and release nothing more. This and the next five raise PreconditionError (ROLLOUT_STATE) from a state
        that does not allow it, and StaleWriteError when `revision` is given and not the current one."""
        return await self._command(rollout_id, revision, lambda it, now: commands.pause(it, now, actor=actor))

    async def resume(self, rollout_id: RolloutId, *, actor: str, revision: int | None = None) -> Rollout:
        """Go on after a pause."""
        return await self._command(rollout_id, revision, lambda it, now: commands.resume(it, now, actor=actor))

    async def abort(
        self, rollout_id: RolloutId, *, actor: str, keep: bool = False, revision: int | None = None
    ) -> Rollout:
        """End it; targets return to what they had before, or keep the version until a later rollout moves them."""
        return await self._command(
            rollout_id, revision, lambda it, now: commands.abort(it, now, actor=actor, keep=keep)
        )

    async def rollback(self, rollout_id: RolloutId, *, actor: str, revision: int | None = None) -> Rollout:
        """Return every target and track it; also of the last rollout of a deployment that succeeded."""
        async with self._store.read() as uow:
            yanked = await uow.models.list_yanked()

        def command(rollout: Rollout, now: datetime) -> Decision:
            before = (rollout.model_id, rollout.previous_version or 0)
            return commands.rollback(rollout, now, actor=actor, previous_yanked=before in yanked)

        return await self._command(rollout_id, revision, command)

    async def retry(self, rollout_id: RolloutId, *, actor: str, revision: int | None = None) -> Rollout:
        """Offer the version again to targets whose install failed."""
        return await self._command(rollout_id, revision, lambda it, now: commands.retry(it, now, actor=actor))

    async def approve(
        self, rollout_id: RolloutId, *, actor: str, wave: int | None = None, revision: int | None = None
    ) -> Rollout:
        """Let the wave that waits for it be admitted at the next tick; `wave` is the index of the one that is meant.

        Raises PreconditionError (APPROVAL_NOT_DUE, SECOND_PERSON) too.
        """
        return await self._command(
            rollout_id, revision, lambda it, now: commands.approve(it, now, actor=actor, wave=wave)
        )

    async def _begin(self, uow: UnitOfWork, request: RolloutRequest, now: datetime) -> Sequence[Stored]:
        """What was stored, the new rollout last."""
        scene = await read_scene(uow)
        deployment = await check_request(uow, request, scene)
        arrangement = arrange(request.when_active, await find_unended(uow, deployment.id), deployment.id)
        rollout_id, uid = RolloutId(self._ids.short_id()), self._ids.uid()
        stored = [
            await self._changes.store(uow, old, commands.supersede(old, rollout_id, now, actor=request.actor), now)
            for old in arrangement.supersedes
        ]
        deployment = await uow.deployments.get(deployment.id)
        if arrangement.behind is not None:
            # A write to the deployment, so that of two that ask at once the second sees the first.
            await uow.deployments.save(deployment)
            queued = commands.queue(
                deployment,
                rollout_id=rollout_id,
                uid=uid,
                target_version=request.target_version,
                strategy=request.strategy,
                behind=arrangement.behind.id,
                actor=request.actor,
                now=now,
            )
            return [*stored, await self._changes.store(uow, None, queued, now)]
        started = commands.start(
            deployment,
            rollout_id=rollout_id,
            uid=uid,
            target_version=request.target_version,
            strategy=request.strategy,
            waves=plan_targets(request.strategy, deployment, request.target_version, scene),
            actor=request.actor,
            now=now,
        )
        offered = scene.with_deployment(replace(deployment, offer=deployment.offer + started.raise_offer))
        first = await self._steps().decide(uow, offered, started.rollout, now)
        return [*stored, await self._changes.store(uow, None, started.then(first), now)]

    async def _command(self, rollout_id: RolloutId, revision: int | None, command: Command) -> Rollout:
        async def attempt() -> Stored:
            async with self._store.write() as uow:
                rollout = await uow.rollouts.get(rollout_id)
                if revision not in (None, rollout.revision):
                    raise StaleWriteError(
                        f"rollouts/{rollout_id} has changed", field="etag", remedy="read it again and decide again"
                    )
                now = self._clock.now()
                decision = command(rollout, now)
                if rollout.state is RolloutState.SUCCEEDED:
                    await _check_last_succeeded(uow, rollout)
                return await self._changes.store(uow, rollout, decision, now)

        with self._deciding():
            stored = await (retry_stale(attempt) if revision is None else attempt())
            self._changes.announce(stored)
        return stored.rollout


async def check_request(uow: UnitOfWork, request: RolloutRequest, scene: Scene) -> Deployment:
    """Return the deployment, or raise for what cannot be rolled out to it."""
    deployment = scene.deployments.get(request.deployment_id)
    if deployment is None:
        raise ResourceNotFoundError(
            f"deployments/{request.deployment_id} does not exist",
            field="rollout.deployment",
            remedy="create it first, or name one of ListDeployments",
        )
    if request.model_id != deployment.model_id:
        raise FieldInvalidError(
            f"deployments/{deployment.id} runs models/{deployment.model_id}, not models/{request.model_id}",
            field="rollout.target_version",
            remedy="name a version of the deployment's model",
        )
    await check_version(uow, deployment.model_id, request.target_version, field="rollout.target_version")
    if (request.model_id, request.target_version) in scene.yanked:
        raise PreconditionError(
            f"models/{request.model_id}/versions/{request.target_version} was yanked",
            field="rollout.target_version",
            remedy="name another version, or take the yank back first",
            reason=Reason.VERSION_YANKED,
        )
    if not scene.targets[deployment.id]:
        raise PreconditionError(
            f"deployments/{deployment.id} holds no agent that it could move with {deployment.selector!r}",
            field="rollout.deployment",
            remedy="enrol an agent that matches first, or unpin one",
            reason=Reason.SELECTION_EMPTY,
        )
    return deployment


async def find_unended(uow: UnitOfWork, deployment_id: DeploymentId) -> Sequence[Rollout]:
    """Rollouts of the deployment that have not ended, active ones first."""
    rollouts = [*await uow.rollouts.list_active(), *await uow.rollouts.list_queued()]
    return [rollout for rollout in rollouts if rollout.deployment_id == deployment_id]


def arrange(when: WhenActive, unended: Sequence[Rollout], deployment_id: DeploymentId) -> Arrangement:
    """Decide about a new rollout and those that have not ended. Raises PreconditionError (ROLLOUT_ACTIVE) where it is
    to be refused."""
    if when is WhenActive.REFUSE and unended:
        check_no_rollout(unended[0].id, deployment_id, field="rollout.deployment")
    queued = tuple(rollout for rollout in unended if rollout.state is RolloutState.QUEUED)
    active = next((rollout for rollout in unended if rollout.state is not RolloutState.QUEUED), None)
    if active is None:
        return Arrangement(supersedes=queued)
    waits = when is WhenActive.QUEUE or (when is WhenActive.RULE and active.state is not RolloutState.PAUSED)
    if waits:
        return Arrangement(supersedes=queued, behind=active)
    return Arrangement(supersedes=(active, *queued))


async def _find_active(uow: UnitOfWork, deployment_id: DeploymentId) -> RolloutId | None:
    active = await uow.rollouts.list_active()
    return next((rollout.id for rollout in active if rollout.deployment_id == deployment_id), None)


async def _check_last_succeeded(uow: UnitOfWork, rollout: Rollout) -> None:
    """Raise PreconditionError unless the deployment stands where this succeeded rollout brought it."""
    check_no_rollout(await _find_active(uow, rollout.deployment_id), rollout.deployment_id, field="name")
    before: str | None = None
    while True:
        newer = await uow.rollouts.list(
            deployment_id=rollout.deployment_id, before=before, limit=limits.PAGE_SIZE_DEFAULT
        )
        for other in newer:
            if other.id == rollout.id:
                return
            if other.state is RolloutState.SUCCEEDED:
                raise PreconditionError(
                    f"rollouts/{other.id} has moved deployments/{rollout.deployment_id} on",
                    field="name",
                    remedy=f"roll back rollouts/{other.id}, or start a rollout to version {rollout.previous_version}",
                    reason=Reason.ROLLOUT_STATE,
                )
        assert newer, "the rollout itself is in the list"
        before = newer[-1].uid
