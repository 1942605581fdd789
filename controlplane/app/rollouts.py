"""Rollouts: started and steered by operators, carried forward by ticks.

What holds:
- A tick reads what is stored, takes each rollout one `domain.rollout.step` on and stores the outcome; a tick
  that finds nothing new writes nothing. Whatever a crash cut short, the next tick does.
- A rollout, its deployment and the desired states change in one transaction, or not at all.
- Notices go out after the commit. They only hurry: a lost one costs time.
"""

import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import structlog

from controlplane import limits, observability
from controlplane.app.convergence import converge
from controlplane.app.deployments import check_no_rollout, check_version
from controlplane.app.notices import Notices
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import Clock, IdSource, Store, UnitOfWork
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.domain import rollout as machine
from controlplane.domain.assignment import select_targets
from controlplane.domain.deployment import Deployment
from controlplane.domain.errors import (
    FieldInvalidError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StaleWriteError,
)
from controlplane.domain.gate import GatePolicy, evaluate
from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId
from controlplane.domain.inventory import AgentRecord
from controlplane.domain.progress import Sight, observe, pool_evidence
from controlplane.domain.rollout import ACTIVE_STATES, Decision, Rollout, RolloutState, RolloutStrategy
from controlplane.domain.wave import enlist, plan_waves

log = structlog.get_logger(__name__)


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
    when_active: WhenActive = WhenActive.RULE
    actor: str = ""
    """`operators/{operator}` who asks."""
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fleet:
    """What every rollout is judged against, read once a transaction."""

    records: Mapping[AgentId, AgentRecord]
    deployments: Mapping[DeploymentId, Deployment]
    held: Mapping[DeploymentId, Sequence[AgentId]]


class Rollouts:
    """Starts, shows, steers and carries forward rollouts."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ids: IdSource,
        notices: Notices,
        silent_seconds_max: float = limits.AGENT_SILENT_SECONDS_MAX,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._notices = notices
        self._silent_seconds_max = silent_seconds_max
        self._listening_since = clock.now()

    async def create(self, request: RolloutRequest) -> Rollout:
        """Start a rollout: its first wave is admitted at once.

        Raises FieldInvalidError for a strategy out of bounds or a version of another model; ResourceNotFoundError for
        an unknown deployment or version; PreconditionError while another rollout moves the deployment
        (ROLLOUT_ACTIVE), or when no agent matches it (SELECTION_EMPTY).
        """
        _check_strategy(request.strategy)
        asked = fingerprint("rollout", repr(request))

        async def attempt() -> tuple[Rollout, Sequence[AgentId]]:
            async with self._store.write() as uow:
                if resource := await find_outcome(uow, request.request_id, print_of_request=asked):
                    return await uow.rollouts.get(RolloutId(resource.removeprefix("rollouts/"))), ()
                decision = await self._begin(uow, request)
                rollout = decision.rollout
                await uow.rollouts.add(rollout)
                await keep_outcome(
                    uow,
                    request.request_id,
                    print_of_request=asked,
                    resource=f"rollouts/{rollout.id}",
                    now=rollout.create_time,
                )
                return rollout, await _settle(uow, decision, rollout.create_time)

        rollout, changed = await retry_stale(attempt)
        self._announce(rollout, changed)
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

    async def watch(self, rollout_id: RolloutId) -> AsyncGenerator[Rollout, None]:
        """Yield the rollout now and after each change, and end once it has ended. Changes in quick succession
        may come as one."""
        with self._notices.watch_rollout(rollout_id) as changes:
            seen: int | None = None
            while True:
                rollout = await self.get(rollout_id)
                if rollout.revision != seen:
                    seen = rollout.revision
                    yield rollout
                if rollout.state not in ACTIVE_STATES:
                    return
                await changes.wait(timeout_seconds=limits.WATCH_LOOK_SECONDS)

    async def pause(self, rollout_id: RolloutId, *, revision: int | None = None) -> Rollout:
        """Admit nothing more. This and the next four raise PreconditionError (ROLLOUT_STATE) from a state that
        does not allow it, and StaleWriteError when `revision` is given and not the current one."""
        return await self._command(rollout_id, revision, machine.pause)

    async def resume(self, rollout_id: RolloutId, *, revision: int | None = None) -> Rollout:
        """Go on after a pause."""
        return await self._command(rollout_id, revision, machine.resume)

    async def abort(self, rollout_id: RolloutId, *, revision: int | None = None) -> Rollout:
        """End it; targets return by the deployment's standing intent."""
        return await self._command(rollout_id, revision, machine.abort)

    async def rollback(self, rollout_id: RolloutId, *, revision: int | None = None) -> Rollout:
        """Return every target and track it; also of the last rollout of a deployment that succeeded."""
        return await self._command(rollout_id, revision, machine.rollback)

    async def retry(self, rollout_id: RolloutId, *, revision: int | None = None) -> Rollout:
        """Offer the version again to targets whose install failed."""
        return await self._command(rollout_id, revision, machine.retry)

    async def tick(self, now: datetime) -> None:
        """Carry every active rollout forward by one step.

        A rollout that fails to be carried does not hold up the others: what went wrong is raised at the end,
        together, as an ExceptionGroup.
        """
        async with self._store.read() as uow:
            active = await uow.rollouts.list_active()
            if not active:
                return
            fleet = await _read_fleet(uow)
            moving = [
                rollout.id for rollout in active if (await self._decide(uow, rollout, fleet, now)).rollout != rollout
            ]
        failures: list[Exception] = []
        for rollout_id in moving:
            try:
                await self._advance(rollout_id, now)
            except StaleWriteError:
                log.info(observability.ROLLOUT_TICK_OVERTAKEN, rollout=rollout_id)
            except Exception as error:  # noqa: BLE001 - raised below, after the other rollouts had their turn
                failures.append(error)
        if failures:
            raise ExceptionGroup("rollouts could not be carried forward", failures)

    async def _begin(self, uow: UnitOfWork, request: RolloutRequest) -> Decision:
        fleet = await _read_fleet(uow)
        deployment = fleet.deployments.get(request.deployment_id)
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
        check_no_rollout(await _find_active(uow, deployment.id), deployment.id, field="rollout.deployment")
        targets = fleet.held[deployment.id]
        if not targets:
            raise PreconditionError(
                f"deployments/{deployment.id} matches no agent with {deployment.selector!r}",
                field="rollout.deployment",
                remedy="enrol an agent that matches first",
                reason=Reason.SELECTION_EMPTY,
            )
        uid = self._ids.uid()
        return machine.start(
            deployment,
            rollout_id=RolloutId(self._ids.short_id()),
            uid=uid,
            target_version=request.target_version,
            strategy=request.strategy,
            waves=plan_waves(request.strategy.waves, targets, seed=uid),
            now=self._clock.now(),
        )

    async def _command(
        self, rollout_id: RolloutId, revision: int | None, command: Callable[[Rollout, datetime], Decision]
    ) -> Rollout:
        async def attempt() -> tuple[Rollout, Sequence[AgentId]]:
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
                return await _store(uow, rollout, decision, now)

        stored, changed = await (retry_stale(attempt) if revision is None else attempt())
        self._announce(stored, changed)
        return stored

    async def _advance(self, rollout_id: RolloutId, now: datetime) -> None:
        async with self._store.write() as uow:
            rollout = await uow.rollouts.get(rollout_id)
            decision = await self._decide(uow, rollout, await _read_fleet(uow), now)
            if decision.rollout == rollout:
                return
            stored, changed = await _store(uow, rollout, decision, now)
        self._announce(stored, changed)

    async def _decide(self, uow: UnitOfWork, rollout: Rollout, fleet: _Fleet, now: datetime) -> Decision:
        """What the rollout's next step is, by everything that is stored."""
        if rollout.state not in ACTIVE_STATES:
            return Decision(rollout=rollout)
        held = fleet.held[rollout.deployment_id]
        if rollout.state is RolloutState.RUNNING:
            waves = enlist(rollout.waves, held)
            rollout = rollout if waves == rollout.waves else replace(rollout, waves=waves, update_time=now)
        sight = Sight(
            targets={agent_id: fleet.records[agent_id] for agent_id in held},
            offer=fleet.deployments[rollout.deployment_id].offer,
            now=now,
            silent_seconds_max=self._silent_seconds_max,
            listening_since=self._listening_since,
        )
        wave, verdict = machine.open_wave(rollout), None
        if wave is not None:
            assert wave.admit_time is not None, "an admitted wave knows since when"
            counts = await uow.evidence.count_inferences(
                rollout.model_id, rollout.target_version, received_since=wave.admit_time
            )
            evidence = pool_evidence(rollout, wave, sight, counts)
            strategy = rollout.strategy
            verdict = evaluate(strategy.gate, evidence, bake_seconds=strategy.bake_seconds, now=now)
        return machine.step(rollout, observe(rollout, sight), verdict, now)

    def _announce(self, rollout: Rollout, changed: Sequence[AgentId]) -> None:
        log.info(
            observability.ROLLOUT_MOVED,
            rollout=rollout.id,
            deployment=rollout.deployment_id,
            state=rollout.state,
            reason=rollout.reason,
            message=rollout.message,
            revision=rollout.revision,
        )
        self._notices.rollout_changed(rollout.id)
        if changed:
            log.info(observability.DESIRED_CHANGED, agents=len(changed))
            self._notices.desired_changed(changed)


async def _read_fleet(uow: UnitOfWork) -> _Fleet:
    records, deployments = await uow.agents.list_all(), await uow.deployments.list_all()
    return _Fleet(
        records={record.agent.id: record for record in records},
        deployments={deployment.id: deployment for deployment in deployments},
        held=select_targets(records, deployments),
    )


async def _find_active(uow: UnitOfWork, deployment_id: DeploymentId) -> RolloutId | None:
    active = await uow.rollouts.list_active()
    return next((rollout.id for rollout in active if rollout.deployment_id == deployment_id), None)


async def _store(
    uow: UnitOfWork, before: Rollout, decision: Decision, now: datetime
) -> tuple[Rollout, Sequence[AgentId]]:
    """Apply a decision within the transaction; return the stored rollout and whose desired state changed."""
    stored = before if decision.rollout == before else await uow.rollouts.save(decision.rollout)
    return stored, await _settle(uow, decision, now)


async def _settle(uow: UnitOfWork, decision: Decision, now: datetime) -> Sequence[AgentId]:
    if decision.set_version is not None or decision.raise_offer:
        deployment = await uow.deployments.get(decision.rollout.deployment_id)
        version = decision.set_version.version if decision.set_version is not None else deployment.version
        offer = deployment.offer + decision.raise_offer
        await uow.deployments.save(replace(deployment, version=version, offer=offer, update_time=now))
    return await converge(uow)


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


def _check_strategy(strategy: RolloutStrategy) -> None:
    if not (math.isfinite(strategy.bake_seconds) and 0 <= strategy.bake_seconds <= limits.BAKE_SECONDS_MAX):
        raise FieldInvalidError(
            f"a wave cannot bake for {strategy.bake_seconds:g} s",
            field="rollout.strategy.bake",
            remedy=f"use 0 to {limits.BAKE_SECONDS_MAX:.0f} s",
        )
    _check_gate(strategy.gate)


def _check_gate(gate: GatePolicy) -> None:
    for name, number, largest in (
        ("min_inferences", gate.min_inferences, limits.GATE_COUNT_MAX),
        ("max_errors_per_mille", gate.max_errors_per_mille, 1000),
        ("max_failed_installs", gate.max_failed_installs, limits.GATE_COUNT_MAX),
    ):
        if not 0 <= number <= largest:
            raise FieldInvalidError(
                f"{number} is out of bounds", field=f"rollout.strategy.gate.{name}", remedy=f"use 0 to {largest}"
            )
