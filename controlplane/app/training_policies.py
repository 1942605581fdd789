"""Training policies: set and shown by operators, and what is known of a model when its triggers are looked at."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from cronsim import CronSim

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.drift_flags import find_flagged
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import Clock, IdSource, Store, UnitOfWork
from controlplane.app.retries import retry_stale
from controlplane.app.strategies import STRATEGY, check_strategy
from controlplane.app.training import check_parameters
from controlplane.app.windows import check_cron, parse_zone
from controlplane.domain.audit import Happening
from controlplane.domain.errors import FieldInvalidError, StaleWriteError
from controlplane.domain.ids import ModelId
from controlplane.domain.judgement import JudgementPolicy
from controlplane.domain.promotion import OPEN_STATES
from controlplane.domain.training_policy import TrainingPolicy, TriggerFacts, TriggerFinding, find_trigger
from controlplane.domain.training_run import ENDED_STATES, TrainingRun, TrainingState

POLICY_FIELD = "training_policy"
_UNENDED = frozenset(TrainingState) - ENDED_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerView:
    """What the triggers of a model say, and from what."""

    finding: TriggerFinding
    facts: TriggerFacts


class TrainingPolicies:
    """Sets, shows and explains."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource, trainers: Collection[str]) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._trainers = frozenset(trainers)

    async def get(self, model_id: ModelId) -> TrainingPolicy:
        """Return it; raise ResourceNotFoundError where the model has none."""
        async with self._store.read() as uow:
            return await uow.training_policies.get(model_id)

    async def list(self, *, page_size: int = 0, page_token: str = "") -> Page[TrainingPolicy]:
        """By model."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            found = await uow.training_policies.list(after=ModelId(str(key[0])) if key else None, limit=size + 1)
        return page_of(found, size, lambda policy: encode_page_token(policy.model_id))

    async def put(self, policy: TrainingPolicy, *, revision: int | None = None) -> TrainingPolicy:
        """Set the policy of its model, with the time of now; the same policy changes nothing.

        Raises FieldInvalidError for what is out of bounds, ResourceNotFoundError for an unknown model or deployment,
        and StaleWriteError when `revision` is given and not the current one.
        """
        self._check(policy)

        async def attempt() -> TrainingPolicy:
            async with self._store.write() as uow:
                await uow.models.get(policy.model_id)
                await _check_deployment(uow, policy)
                before = await uow.training_policies.find(policy.model_id)
                if revision is not None and revision != (before.revision if before is not None else -1):
                    raise StaleWriteError(
                        f"{policy.name} has changed", field="etag", remedy="read it again, set it again"
                    )
                if before is not None and _same(policy, before):
                    return before
                timed = replace(policy, update_time=self._clock.now(), revision=before.revision if before else 0)
                saved = timed
                if before is None:
                    await uow.training_policies.add(timed)
                else:
                    saved = await uow.training_policies.save(timed)
                await write_down(uow, [_was_set(saved)], clock=self._clock, ids=self._ids)
                return saved

        return await (retry_stale(attempt) if revision is None else attempt())

    async def explain(self, model_id: ModelId) -> TriggerView:
        """Say which trigger would fire now, and why the others do not."""
        now = self._clock.now()
        async with self._store.read() as uow:
            policy = await uow.training_policies.get(model_id)
            facts = await read_facts(uow, policy)
        return TriggerView(finding=find_trigger(policy, facts, now), facts=facts)

    def _check(self, policy: TrainingPolicy) -> None:
        if policy.trainer not in self._trainers:
            raise FieldInvalidError(
                f"this controller has no trainer {policy.trainer[:100]!r}",
                field=f"{POLICY_FIELD}.trainer",
                remedy=f"name one of {', '.join(sorted(self._trainers))}",
            )
        check_parameters(policy.parameters)
        parse_zone(policy.time_zone, field=f"{POLICY_FIELD}.time_zone")
        if policy.cron:
            check_cron(policy.cron, field=f"{POLICY_FIELD}.cron")
        _check_bounds(_counts(policy))
        _check_bounds(_shares(policy.judgement))
        try:
            check_strategy(policy.strategy)
        except FieldInvalidError as refusal:
            within = refusal.field.replace(STRATEGY, f"{POLICY_FIELD}.strategy", 1)
            raise FieldInvalidError(refusal.message, field=within, remedy=refusal.remedy) from refusal


async def read_facts(uow: UnitOfWork, policy: TrainingPolicy) -> TriggerFacts:
    """What is stored that decides about the policy's triggers."""
    model_id = policy.model_id
    unended = [run for run in await uow.training_runs.list_in(_UNENDED) if run.model_id == model_id]
    proposals = [one for one in await uow.promotions.list_in(OPEN_STATES) if one.model_id == model_id]
    last = next(iter(await uow.training_runs.list(model_id=model_id, before=None, limit=1)), None)
    since = await _labels_since(uow, last)
    begun = policy.update_time if last is None else max(policy.update_time, last.create_time)
    drifted = await find_flagged(uow, model_id) if policy.on_drift else ()
    return TriggerFacts(
        labels=await uow.labels.count_samples(model_id),
        new_labels=await uow.labels.count_samples(model_id, since=since),
        unended_run=unended[0].name if unended else "",
        open_proposal=f"trainingRuns/{proposals[0].run_id}" if proposals else "",
        last_run_time=last.create_time if last is not None else None,
        cron_time=next_time(policy, begun),
        drifted=tuple(sorted({f"agents/{drift.agent_id}" for drift in drifted})),
    )


def next_time(policy: TrainingPolicy, after: datetime) -> datetime | None:
    """The first time after this one that the policy's `cron` names; None without one."""
    if not policy.cron:
        return None
    zone = parse_zone(policy.time_zone, field=f"{POLICY_FIELD}.time_zone")
    named = next(CronSim(policy.cron, after.astimezone(zone)), None)
    return None if named is None else named.astimezone(after.tzinfo)


async def _labels_since(uow: UnitOfWork, last: TrainingRun | None) -> datetime | None:
    """From when on a label is new: what was labelled before the dataset of the last run was frozen is in it."""
    return None if last is None else (await uow.datasets.get(last.dataset_id)).create_time


async def _check_deployment(uow: UnitOfWork, policy: TrainingPolicy) -> None:
    if policy.deployment_id is None:
        return
    deployment = await uow.deployments.get(policy.deployment_id)
    if deployment.model_id != policy.model_id:
        raise FieldInvalidError(
            f"deployments/{deployment.id} runs models/{deployment.model_id}",
            field=f"{POLICY_FIELD}.deployment",
            remedy=f"name a deployment of models/{policy.model_id}",
        )


_Bound = tuple[str, float, float, float]
"""Field, what was asked for, least and most."""


def _counts(policy: TrainingPolicy) -> Iterable[_Bound]:
    labels_max = limits.POLICY_LABELS_MAX
    yield "min_new_labels", policy.min_new_labels, 0, labels_max
    yield "drift_min_new_labels", policy.drift_min_new_labels, 1, labels_max
    yield "minimum_interval", policy.minimum_interval_seconds, 0, limits.POLICY_INTERVAL_SECONDS_MAX
    yield "judgement.min_parts", policy.judgement.min_parts, 2, limits.HOLDOUT_ITEMS_MAX
    yield "judgement.min_class_parts", policy.judgement.min_class_parts, 2, limits.HOLDOUT_ITEMS_MAX


def _shares(judgement: JudgementPolicy) -> Iterable[_Bound]:
    yield "judgement.minimum_gain", judgement.minimum_gain, 0, 1
    yield "judgement.confidence", judgement.confidence, 0.5, limits.JUDGEMENT_CONFIDENCE_MAX
    yield "judgement.budget_confidence", judgement.budget_confidence, 0.5, limits.JUDGEMENT_CONFIDENCE_MAX
    yield "judgement.class_budget", judgement.class_budget, 0, 1
    if judgement.line_budget is not None:
        yield "judgement.line_budget", judgement.line_budget, 0, 1
    for label, budget in judgement.class_budgets.items():
        yield f"judgement.class_budgets[{label[:100]!r}]", budget, 0, 1


def _check_bounds(bounds: Iterable[_Bound]) -> None:
    for name, number, least, most in bounds:
        if not (math.isfinite(number) and least <= number <= most):
            raise FieldInvalidError(
                f"{number:.15g} is out of bounds",
                field=f"{POLICY_FIELD}.{name}",
                remedy=f"use {least:.15g} to {most:.15g}",
            )


def _same(new: TrainingPolicy, before: TrainingPolicy) -> bool:
    return before == replace(new, update_time=before.update_time, actor=before.actor, revision=before.revision)


def _was_set(policy: TrainingPolicy) -> Happening:
    triggers = [
        f"cron {policy.cron!r}" if policy.cron else "",
        f"{policy.min_new_labels} new labels" if policy.min_new_labels else "",
        "drift" if policy.on_drift else "",
    ]
    return Happening(
        actor=policy.actor,
        action="training_policy.set",
        resource=policy.name,
        message=", ".join(filter(None, triggers)) or "no triggers",
        evidence={"trainer": policy.trainer, "approval": policy.approval, "suspended": policy.suspended},
        related=(f"models/{policy.model_id}",)
        + ((f"deployments/{policy.deployment_id}",) if policy.deployment_id is not None else ()),
    )
