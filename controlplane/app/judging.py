"""Judging: the candidate of a run against the champion, on the holdout that no trainer has seen.

What holds:
- Nothing that a trainer claims is believed: both are asked about every item, here, in the same way.
- A tick judges what waits, from what is stored alone. A controller that is killed in the middle of it judges anew, and
  the run gets one judgement: run and promotion are written together.
- A candidate that cannot be asked fails its run, saying why. A store that cannot be used decides nothing: the next tick
  tries again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from controlplane import limits, observability
from controlplane.app.asking import ask
from controlplane.app.audit import write_down
from controlplane.app.ports import BlobStore, Clock, IdSource, Store, UnitOfWork
from controlplane.app.ports_datasets import HoldoutReader
from controlplane.app.ports_judging import Evaluator
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import Happening
from controlplane.domain.catalog import Artifact, ModelVersion
from controlplane.domain.dataset import DatasetItem
from controlplane.domain.errors import FieldInvalidError, PreconditionError, ResourceNotFoundError, StorageError
from controlplane.domain.ids import TrainingRunId
from controlplane.domain.judgement import JudgedItem, Judgement, JudgementPolicy, judge
from controlplane.domain.promotion import PromotionState, decline, propose
from controlplane.domain.training_policy import POLICY, TrainingPolicy
from controlplane.domain.training_run import TrainingRun, TrainingState, fail, judged

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What is to be judged, and by what."""

    run: TrainingRun
    champion: ModelVersion
    policy: TrainingPolicy | None


class _UnusableError(Exception):
    """One of the two cannot be asked: the run fails with this reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Judging:
    """Judges runs in JUDGING. `store` is the leader's; `workspace` is a folder for the files of models."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        holdouts: HoldoutReader,
        evaluator: Evaluator,
        clock: Clock,
        ids: IdSource,
        workspace: Path,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._holdouts = holdouts
        self._evaluator = evaluator
        self._clock = clock
        self._ids = ids
        self._workspace = workspace

    async def tick(self) -> None:
        """Judge every run that waits for it, oldest first."""
        async with self._store.read() as uow:
            waiting = await uow.training_runs.list_in([TrainingState.JUDGING])
        for run in waiting:
            await self._judge(run)

    async def _judge(self, run: TrainingRun) -> None:
        try:
            case = await self._case(run)
            judgement = await self._measure(case)
        except (StorageError, PreconditionError) as error:
            # The disk or the object store is away, or is to be restored.
            log.warning(observability.JUDGEMENT_WAITS, run=run.name, cause=str(error))
        except _UnusableError as unusable:
            await self._fail(run, unusable)
        else:
            await self._store_judgement(case, judgement)

    async def _case(self, run: TrainingRun) -> _Case:
        """The champion is what the policy's deployment runs, else what the run began from."""
        async with self._store.read() as uow:
            policy = await uow.training_policies.find(run.model_id)
            number = run.base_version
            if policy is not None and policy.deployment_id is not None:
                number = await _deployed(uow, policy) or number
            try:
                champion = await uow.models.get_version(run.model_id, number)
            except ResourceNotFoundError as error:
                raise _UnusableError("CHAMPION_UNUSABLE", str(error)) from error
        return _Case(run=run, champion=champion, policy=policy)

    async def _measure(self, case: _Case) -> Judgement:
        candidate = case.run.candidate
        assert candidate is not None, "a run in JUDGING has a candidate"
        try:
            items = await self._holdouts.holdout(case.run.dataset_id)
        except ResourceNotFoundError as error:
            raise _UnusableError("DATASET_MISSING", str(error)) from error
        # By digest: which items are left out of a very large holdout is chance, and the same each time.
        items = sorted(items, key=lambda item: item.digest)[: limits.HOLDOUT_ITEMS_MAX]
        champion = await self._ask(case.champion.artifact, items, "CHAMPION_UNUSABLE")
        ours = await self._ask(candidate.artifact, items, "CANDIDATE_UNUSABLE")
        _check_classes(items, ours)
        both = [
            _judged_item(item, mine, theirs)
            for item, mine, theirs in zip(items, ours, champion, strict=True)
            if mine is not None and theirs is not None
        ]
        # Seconds of arithmetic for the largest holdouts: the event loop goes on meanwhile.
        return await asyncio.to_thread(
            judge,
            both,
            case.policy.judgement if case.policy is not None else JudgementPolicy(),
            champion_version=case.champion.number,
            candidate_digest=candidate.artifact.digest,
            skipped_items=len(items) - len(both),
        )

    async def _ask(
        self, artifact: Artifact, items: Sequence[DatasetItem], reason: str
    ) -> Sequence[Mapping[str, float] | None]:
        """What the model says of each item. Raises _UnusableError with the reason where it cannot be asked."""
        try:
            return await ask(
                artifact,
                items,
                labels={item.label for item in items},
                blobs=self._blobs,
                evaluator=self._evaluator,
                workspace=self._workspace,
            )
        except (FieldInvalidError, ResourceNotFoundError) as error:
            raise _UnusableError(reason, str(error)) from error

    async def _store_judgement(self, case: _Case, judgement: Judgement) -> None:
        async def attempt() -> None:
            async with self._store.write() as uow:
                run = await _still_judging(uow, case.run.id)
                if run is None:
                    return
                now = self._clock.now()
                proposal = propose(run, judgement, case.policy, uid=self._ids.uid(), now=now)
                ended = judged(run, now, reason=judgement.verdict, message="; ".join(judgement.reasons), actor=POLICY)
                replaced = await self._replace_open(uow, run)
                await uow.promotions.add(proposal.promotion)
                await uow.training_runs.save(ended.run)
                happenings = [*replaced, *ended.happenings, *proposal.happenings]
                await write_down(uow, happenings, clock=self._clock, ids=self._ids)

        await retry_stale(attempt)

    async def _replace_open(self, uow: UnitOfWork, run: TrainingRun) -> Sequence[Happening]:
        """Decline what was proposed of the model before: a person is asked about the newest judgement alone."""
        happenings: list[Happening] = []
        for earlier in await uow.promotions.list_in([PromotionState.PROPOSED]):
            if earlier.model_id == run.model_id:
                step = decline(earlier, self._clock.now(), actor=POLICY, message=f"{run.name} was judged after it")
                await uow.promotions.save(step.promotion)
                happenings += step.happenings
        return happenings

    async def _fail(self, run: TrainingRun, unusable: _UnusableError) -> None:
        async def attempt() -> None:
            async with self._store.write() as uow:
                waiting = await _still_judging(uow, run.id)
                if waiting is not None:
                    step = fail(waiting, self._clock.now(), reason=unusable.reason, message=unusable.message)
                    await uow.training_runs.save(step.run)
                    await write_down(uow, step.happenings, clock=self._clock, ids=self._ids)

        await retry_stale(attempt)


async def _deployed(uow: UnitOfWork, policy: TrainingPolicy) -> int | None:
    """What the policy's deployment runs; None where there is no such deployment any more, or no version yet."""
    assert policy.deployment_id is not None
    try:
        return (await uow.deployments.get(policy.deployment_id)).version
    except ResourceNotFoundError:
        return None


async def _still_judging(uow: UnitOfWork, run_id: TrainingRunId) -> TrainingRun | None:
    """The run, unless somebody ended it meanwhile."""
    run = await uow.training_runs.get(run_id)
    return run if run.state is TrainingState.JUDGING else None


def _judged_item(item: DatasetItem, candidate: Mapping[str, float], champion: Mapping[str, float]) -> JudgedItem:
    return JudgedItem(
        part=item.group or item.part_id or item.sample_id,
        label=item.label,
        line="/".join(place for place in (item.site, item.line) if place),
        candidate=candidate,
        champion=champion,
    )


def _check_classes(items: Sequence[DatasetItem], scores: Sequence[Mapping[str, float] | None]) -> None:
    """A candidate that has none of the labels was trained on other ones, or names them otherwise: no number would mean
    anything."""
    labels = {item.label for item in items}
    known = {label for of_item in scores if of_item is not None for label in of_item}
    if labels and known and not labels & known:
        raise _UnusableError(
            "CANDIDATE_UNUSABLE",
            f"the candidate's classes are {', '.join(sorted(known)[:5])}, and the holdout's labels "
            f"{', '.join(sorted(labels)[:5])}; write the dataset's labels into rt_info's model_info/labels",
        )
