"""Deployments: standing intent, created and ended by operators, moved by rollouts alone.

What decides is written to the log of decisions in the same transaction; `actor` is `operators/{operator}`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.convergence import converge, read_standing
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import ChangeNotifier, Clock, IdSource, Store, UnitOfWork
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.domain.assignment import assign
from controlplane.domain.audit import Happening
from controlplane.domain.deployment import Deployment, RuntimePolicy, SamplePolicy
from controlplane.domain.deployment_conditions import find_reach
from controlplane.domain.errors import (
    FieldInvalidError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StaleWriteError,
)
from controlplane.domain.ids import DeploymentId, ModelId, RolloutId, check_resource_id
from controlplane.domain.result_policy import ResultPolicy
from controlplane.domain.selector import Selector, facts, parse_selector

_DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRequest:
    """What an operator asks for."""

    deployment_id: str
    model_id: ModelId
    version: int | None
    selector: str
    runtime_policy: RuntimePolicy
    sample_policy: SamplePolicy
    result_policy: ResultPolicy = field(default_factory=ResultPolicy)
    priority: int = 0
    allow_empty: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """A deployment and how the fleet stands to it."""

    deployment: Deployment
    active_rollout: RolloutId | None
    matched_agents: int
    """Agents that it holds: those that match, but for agents that a deployment of the model with a higher priority
    holds, or an older one."""
    converged_agents: int
    """Of those, agents that serve exactly what they should."""


class Deployments:
    """Creates, shows and ends deployments."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource, notifier: ChangeNotifier) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._notifier = notifier

    async def create(self, request: DeploymentRequest, *, actor: str) -> DeploymentView:
        """Return a new deployment; agents that match get their slots at once.

        Raises FieldInvalidError for a bad id, selector (SELECTOR_INVALID), device or priority; ResourceNotFoundError
        for an unknown model or version; ResourceExistsError; PreconditionError for a yanked version (VERSION_YANKED),
        when no agent matches (SELECTION_EMPTY) and that was not allowed, or when another deployment of the model with
        the same priority matches one of the agents (DEPLOYMENT_OVERLAP).
        """
        check_resource_id(request.deployment_id, field="deployment_id")
        selector = _check_selector(request.selector)
        _check_devices(request.runtime_policy.devices)
        _check_priority(request.priority)
        asked = fingerprint("deployment", repr(request))

        async def attempt() -> DeploymentView:
            async with self._store.write() as uow:
                if resource := await find_outcome(uow, request.request_id, print_of_request=asked):
                    first = await uow.deployments.get(DeploymentId(resource.removeprefix("deployments/")))
                    return (await _views(uow, [first]))[0]
                await _check_model(uow, request)
                deployment = self._new(request)
                # Before the selection is judged, so that a taken name is called that and not an overlap with itself.
                await uow.deployments.add(deployment)
                await _check_selection(uow, request, selector)
                await keep_outcome(
                    uow,
                    request.request_id,
                    print_of_request=asked,
                    resource=f"deployments/{deployment.id}",
                    now=deployment.create_time,
                )
                await write_down(uow, [_created(deployment, actor)], clock=self._clock, ids=self._ids)
                changed = await converge(uow)
                view = (await _views(uow, [deployment]))[0]
            self._notifier.desired_changed(changed)
            return view

        return await retry_stale(attempt)

    async def get(self, deployment_id: DeploymentId) -> DeploymentView:
        """Return it; raise ResourceNotFoundError."""
        async with self._store.read() as uow:
            return (await _views(uow, [await uow.deployments.get(deployment_id)]))[0]

    async def list(self, *, page_size: int = 0, page_token: str = "") -> Page[DeploymentView]:
        """By id."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            found = await uow.deployments.list(after=DeploymentId(str(key[0])) if key else None, limit=size + 1)
            views = await _views(uow, found)
        return page_of(views, size, lambda view: encode_page_token(view.deployment.id))

    async def delete(self, deployment_id: DeploymentId, *, actor: str, revision: int | None = None) -> DeploymentView:
        """End it and return it as it was; its slots are unloaded, or go to the next deployment that matches.

        Raises StaleWriteError when `revision` is given and not the current one, PreconditionError
        (ROLLOUT_ACTIVE) while a rollout moves it or waits to.
        """

        async def attempt() -> DeploymentView:
            async with self._store.write() as uow:
                deployment = await uow.deployments.get(deployment_id)
                if revision not in (None, deployment.revision):
                    raise StaleWriteError(
                        f"deployments/{deployment_id} has changed",
                        field="etag",
                        remedy="read it again and decide again",
                    )
                view = (await _views(uow, [deployment]))[0]
                queued = [one.id for one in await uow.rollouts.list_queued() if one.deployment_id == deployment_id]
                check_no_rollout(view.active_rollout or next(iter(queued), None), deployment_id, field="name")
                await uow.deployments.delete(deployment)
                await write_down(uow, [_deleted(view, actor)], clock=self._clock, ids=self._ids)
                changed = await converge(uow)
            self._notifier.desired_changed(changed)
            return view

        return await (retry_stale(attempt) if revision is None else attempt())

    def _new(self, request: DeploymentRequest) -> Deployment:
        now = self._clock.now()
        return Deployment(
            id=DeploymentId(request.deployment_id),
            uid=self._ids.uid(),
            create_time=now,
            update_time=now,
            model_id=request.model_id,
            version=request.version,
            selector=request.selector.strip(),
            runtime_policy=request.runtime_policy,
            sample_policy=request.sample_policy,
            result_policy=request.result_policy,
            priority=request.priority,
        )


def _created(deployment: Deployment, actor: str) -> Happening:
    version = f"version {deployment.version}" if deployment.version is not None else "no version yet"
    return Happening(
        actor=actor,
        action="deployment.create",
        resource=f"deployments/{deployment.id}",
        message=f"models/{deployment.model_id} at {version} on {deployment.selector}",
        evidence={
            "selector": deployment.selector,
            "version": deployment.version,
            "priority": deployment.priority,
        },
        related=(f"models/{deployment.model_id}",),
    )


def _deleted(view: DeploymentView, actor: str) -> Happening:
    deployment = view.deployment
    return Happening(
        actor=actor,
        action="deployment.delete",
        resource=f"deployments/{deployment.id}",
        message=f"models/{deployment.model_id} on {deployment.selector}: it held {view.matched_agents} agents",
        evidence={
            "selector": deployment.selector,
            "version": deployment.version,
            "priority": deployment.priority,
            "matched_agents": view.matched_agents,
        },
        related=(f"models/{deployment.model_id}",),
    )


def check_no_rollout(active: RolloutId | None, deployment_id: DeploymentId, *, field: str) -> None:
    """Raise PreconditionError (ROLLOUT_ACTIVE) naming the rollout that moves the deployment now."""
    if active is not None:
        raise PreconditionError(
            f"rollouts/{active} moves deployments/{deployment_id} now",
            field=field,
            remedy="wait until it has ended, or abort it",
            reason=Reason.ROLLOUT_ACTIVE,
        )


def _check_selector(text: str) -> Selector:
    field = "deployment.selector"
    if len(text) > limits.SELECTOR_CHARS_MAX:
        raise FieldInvalidError(
            f"{len(text)} characters are too many",
            field=field,
            remedy=f"use at most {limits.SELECTOR_CHARS_MAX}, for example by a label that the agents share",
            reason=Reason.SELECTOR_INVALID,
        )
    return parse_selector(text, field=field)


def _check_devices(devices: Sequence[str]) -> None:
    wrong = next((device for device in devices if not _DEVICE.fullmatch(device)), None)
    if wrong is not None or len(devices) > limits.POLICY_DEVICES_MAX:
        raise FieldInvalidError(
            f"{wrong!r} is not a device" if wrong is not None else f"{len(devices)} devices are too many",
            field="deployment.runtime_policy.devices",
            remedy=f"name at most {limits.POLICY_DEVICES_MAX} as OpenVINO does, for example CPU, GPU.0, NPU",
        )


def _check_priority(priority: int) -> None:
    if abs(priority) > limits.DEPLOYMENT_PRIORITY_MAX:
        raise FieldInvalidError(
            f"{priority} is out of bounds",
            field="deployment.priority",
            remedy=f"use -{limits.DEPLOYMENT_PRIORITY_MAX} to {limits.DEPLOYMENT_PRIORITY_MAX}",
        )


async def _check_model(uow: UnitOfWork, request: DeploymentRequest) -> None:
    if await uow.models.find(request.model_id) is None:
        raise ResourceNotFoundError(
            f"models/{request.model_id} does not exist",
            field="deployment.model",
            remedy="publish the model first, or name one of ListModels",
        )
    if request.version is not None:
        await check_version(uow, request.model_id, request.version, field="deployment.model_version")
        await check_not_yanked(uow, request.model_id, request.version, field="deployment.model_version")


async def check_version(uow: UnitOfWork, model_id: ModelId, number: int, *, field: str) -> None:
    """Raise ResourceNotFoundError when the model has no such version."""
    if (model_id, number) not in await uow.models.get_versions([(model_id, number)]):
        raise ResourceNotFoundError(
            f"models/{model_id}/versions/{number} does not exist",
            field=field,
            remedy="publish it first, or name one of ListModelVersions",
        )


async def check_not_yanked(uow: UnitOfWork, model_id: ModelId, number: int, *, field: str) -> None:
    """Raise PreconditionError (VERSION_YANKED) when the version, which exists, is forbidden to further agents."""
    yank = (await uow.models.get_version(model_id, number)).yank
    if yank is not None:
        raise PreconditionError(
            f"models/{model_id}/versions/{number} was yanked by {yank.actor}: {yank.reason}",
            field=field,
            remedy=f"name another version, or allow it again with `lineside models unyank {model_id}:{number}`",
            reason=Reason.VERSION_YANKED,
        )


async def _check_selection(uow: UnitOfWork, request: DeploymentRequest, selector: Selector) -> None:
    matching = {
        record.agent.id: facts(record)
        for record in await uow.agents.list_all()
        if not record.agent.revoked and selector.matches(facts(record))
    }
    if not matching and not request.allow_empty:
        raise PreconditionError(
            f"no agent matches {str(selector)!r}",
            field="deployment.selector",
            remedy="compare it with the labels of ListAgents, or set allow_empty",
            reason=Reason.SELECTION_EMPTY,
        )
    for other in await uow.deployments.list_all():
        rival = (other.model_id, other.priority) == (request.model_id, request.priority)
        if not rival or other.id == request.deployment_id:
            continue
        others = parse_selector(other.selector, field="selector")
        shared = next((agent for agent in sorted(matching) if others.matches(matching[agent])), None)
        if shared is not None:
            raise PreconditionError(
                f"deployments/{other.id} of the same priority already runs models/{request.model_id} on "
                f"agents/{shared}",
                field="deployment.selector",
                remedy=f"narrow the selector, give another priority, move deployments/{other.id} by a rollout, or "
                "delete it",
                reason=Reason.DEPLOYMENT_OVERLAP,
            )


async def _views(uow: UnitOfWork, deployments: Sequence[Deployment]) -> Sequence[DeploymentView]:
    if not deployments:
        return ()
    standing = await read_standing(uow)
    reach = find_reach(standing, assign(standing))
    moved_by = {rollout.deployment_id: rollout.id for rollout in standing.rollouts}
    return [
        DeploymentView(
            deployment=deployment,
            active_rollout=moved_by.get(deployment.id),
            matched_agents=len(reach[deployment.id].held),
            converged_agents=len(reach[deployment.id].converged),
        )
        for deployment in deployments
    ]
