"""Promotions: shown and decided by operators, carried out by the leader's ticks.

What holds:
- A tick takes each open promotion as far as it goes, from what is stored alone. The version is the one that these bytes
  are, and the rollout is asked for under an id made from the run's, so that a controller that is killed between any two
  steps publishes no second version and starts no second rollout.
- What cannot be done now (no agent matches, the object store is away) is said in the promotion's message, and is tried
  again until it is done or an operator rejects it.
"""

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from controlplane import limits, observability
from controlplane.app.audit import write_down
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.pins import check_reason
from controlplane.app.ports import Clock, IdSource, Store
from controlplane.app.registry import Registry
from controlplane.app.retries import retry_stale
from controlplane.app.rollouts import RolloutRequest, Rollouts
from controlplane.domain.errors import DomainError, LeaseLostError, StaleWriteError
from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.promotion import (
    OPEN_STATES,
    Promotion,
    PromotionState,
    PromotionStep,
    approve,
    decline,
    published,
    released,
    waits,
)

_REQUESTS = uuid.UUID("5b0c1d6e-8a0f-5c55-9d43-0c2f6b1f8e11")
"""Name space of the request ids of promotions."""

log = structlog.get_logger(__name__)


class Promotions:
    """Shows and decides."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def get(self, run_id: TrainingRunId) -> Promotion:
        """Return it; raise ResourceNotFoundError where the run was not judged."""
        async with self._store.read() as uow:
            return await uow.promotions.get(run_id)

    async def list(
        self, *, model_id: ModelId | None = None, page_size: int = 0, page_token: str = ""
    ) -> Page[Promotion]:
        """Newest first."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            found = await uow.promotions.list(model_id=model_id, before=str(key[0]) if key else None, limit=size + 1)
        return page_of(found, size, lambda promotion: encode_page_token(promotion.uid))

    async def approve(
        self, run_id: TrainingRunId, *, actor: str, reason: str = "", revision: int | None = None
    ) -> Promotion:
        """Let the candidate go out; the next tick publishes it. Raises PreconditionError (PROMOTION_STATE) unless it is
        PROPOSED, and StaleWriteError when `revision` is given and not the current one."""
        words = check_reason(reason, field="reason") if reason else ""
        return await self._decide(run_id, revision, lambda it, now: approve(it, now, actor=actor, message=words))

    async def decline(
        self, run_id: TrainingRunId, *, actor: str, reason: str, revision: int | None = None
    ) -> Promotion:
        """Let it not go out, or no further. Raises as `approve`, and FieldInvalidError without a reason."""
        words = check_reason(reason, field="reason")
        return await self._decide(run_id, revision, lambda it, now: decline(it, now, actor=actor, message=words))

    async def _decide(
        self, run_id: TrainingRunId, revision: int | None, command: Callable[[Promotion, datetime], PromotionStep]
    ) -> Promotion:
        async def attempt() -> Promotion:
            async with self._store.write() as uow:
                promotion = await uow.promotions.get(run_id)
                if revision not in (None, promotion.revision):
                    raise StaleWriteError(
                        f"{promotion.name} has changed", field="etag", remedy="read it again and decide again"
                    )
                step = command(promotion, self._clock.now())
                saved = await uow.promotions.save(step.promotion)
                await write_down(uow, step.happenings, clock=self._clock, ids=self._ids)
                return saved

        return await (retry_stale(attempt) if revision is None else attempt())


class PromotionTicks:
    """Carries out what was approved. `store`, `registry` and `rollouts` write behind the leader's fence."""

    def __init__(self, *, store: Store, registry: Registry, rollouts: Rollouts, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._registry = registry
        self._rollouts = rollouts
        self._clock = clock
        self._ids = ids
        self._next_tries: dict[TrainingRunId, datetime] = {}
        """Of promotions that could go no further: each try reads the fleet. That a restart forgets it costs one try."""

    async def tick(self) -> None:
        """Take every open promotion as far as it goes, oldest first; one that could go no further every
        PROMOTION_RETRY_SECONDS."""
        async with self._store.read() as uow:
            open_ones = await uow.promotions.list_in([PromotionState.APPROVED, PromotionState.PUBLISHED])
        now = self._clock.now()
        for promotion in open_ones:
            if now >= self._next_tries.get(promotion.run_id, now):
                await self._carry(promotion)

    async def _carry(self, promotion: Promotion) -> None:
        try:
            cause = await self._try(promotion)
            self._next_tries.pop(promotion.run_id, None)
            if cause:
                pause = timedelta(seconds=limits.PROMOTION_RETRY_SECONDS)
                self._next_tries[promotion.run_id] = self._clock.now() + pause
                await self._wait(promotion, cause)
        except StaleWriteError:
            # Somebody else was faster: the next tick looks at what there is then.
            return

    async def _try(self, promotion: Promotion) -> str:
        """Return why it goes no further; empty where nothing is left to be done."""
        try:
            if promotion.state is PromotionState.APPROVED:
                promotion = await self._publish(promotion)
            if promotion.state is PromotionState.PUBLISHED:
                await self._release(promotion)
        except (LeaseLostError, StaleWriteError):
            raise
        except DomainError as refusal:
            return str(refusal)
        return ""

    async def _publish(self, promotion: Promotion) -> Promotion:
        async with self._store.read() as uow:
            run = await uow.training_runs.get(promotion.run_id)
        assert run.candidate is not None, "what was judged has a candidate"
        version = await self._registry.publish(
            promotion.model_id,
            run.candidate.artifact,
            actor=promotion.decider,
            notes=f"trained by {run.name} ({run.trainer}) on datasets/{run.dataset_id} "
            f"from models/{run.model_id}/versions/{run.base_version}",
        )
        return await self._store_step(published(promotion, version.number, self._clock.now()))

    async def _release(self, promotion: Promotion) -> None:
        assert promotion.version is not None, "what is PUBLISHED has a version"
        assert promotion.deployment_id is not None, "without a deployment it would be RELEASED"
        assert promotion.strategy is not None, "a strategy is kept with the deployment"
        rollout = await self._rollouts.create(
            RolloutRequest(
                deployment_id=promotion.deployment_id,
                model_id=promotion.model_id,
                target_version=promotion.version,
                strategy=promotion.strategy,
                actor=promotion.decider,
                request_id=str(uuid.uuid5(_REQUESTS, promotion.uid)),
            )
        )
        await self._store_step(released(promotion, rollout.id, self._clock.now()))

    async def _store_step(self, step: PromotionStep) -> Promotion:
        async with self._store.write() as uow:
            saved = await uow.promotions.save(step.promotion)
            await write_down(uow, step.happenings, clock=self._clock, ids=self._ids)
            return saved

    async def _wait(self, promotion: Promotion, cause: str) -> None:
        """Say it once; the promotion that is written is the stored one, which may be a step further by now."""
        async with self._store.write() as uow:
            stored = await uow.promotions.get(promotion.run_id)
            said = waits(stored, cause, self._clock.now())
            if said is not stored and stored.state in OPEN_STATES:
                await uow.promotions.save(said)
                log.warning(observability.PROMOTION_WAITS, promotion=promotion.name, cause=cause)
