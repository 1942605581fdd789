"""Triggers: runs that begin by themselves, as the training policies say.

What holds:
- A tick decides from what is stored. A controller that is killed between freezing the dataset and asking for the run
  asks again at its next tick, under the same request id: there is one run.
- A dataset that any run of the model had is not trained on again: new opinions that change no label are no new set.
"""

import uuid

import structlog

from controlplane import limits, observability
from controlplane.app.datasets import Datasets
from controlplane.app.ports import Clock, Store, UnitOfWork
from controlplane.app.training import Training, TrainingRequest
from controlplane.app.training_policies import read_facts
from controlplane.domain.dataset import Dataset
from controlplane.domain.errors import (
    DomainError,
    LeaseLostError,
    LimitExceededError,
    ResourceNotFoundError,
    StaleWriteError,
    StorageError,
)
from controlplane.domain.ids import DatasetId, ModelId
from controlplane.domain.training_policy import POLICY, TrainingPolicy, TriggerFacts, TriggerFinding, find_trigger

_REQUESTS = uuid.UUID("0f6a4c7e-51b2-5f0a-8a55-7d2e1c9b3a40")
"""Name space of the request ids of triggered runs."""

_PASSING = (StorageError, LimitExceededError, StaleWriteError)
"""Refusals that pass by themselves: the next tick tries again."""

log = structlog.get_logger(__name__)


class TrainingTriggers:
    """Looks at every policy, for the leader. What it writes is the same whoever writes it: a dataset is its content, a
    run is asked for once a dataset."""

    def __init__(self, *, store: Store, datasets: Datasets, training: Training, clock: Clock) -> None:
        self._store = store
        self._datasets = datasets
        self._training = training
        self._clock = clock
        self._barren: dict[ModelId, TriggerFacts] = {}
        """Facts from which nothing new came of a model: freezing a dataset is not tried again until they change. That
        a restart forgets it costs one try."""

    async def tick(self) -> None:
        """Start what is due, a run a model at most."""
        after: ModelId | None = None
        while True:
            async with self._store.read() as uow:
                policies = await uow.training_policies.list(after=after, limit=limits.PAGE_SIZE_DEFAULT)
            for policy in policies:
                await self._look(policy)
            if len(policies) < limits.PAGE_SIZE_DEFAULT:
                return
            after = policies[-1].model_id

    async def _look(self, policy: TrainingPolicy) -> None:
        async with self._store.read() as uow:
            facts = await read_facts(uow, policy)
        finding = find_trigger(policy, facts, self._clock.now())
        if finding.trigger is None or self._barren.get(policy.model_id) == facts:
            return
        try:
            started = await self._start(policy, finding)
        except LeaseLostError:
            raise
        except DomainError as refusal:
            log.warning(observability.TRIGGER_WAITS, model=policy.model_id, cause=str(refusal))
            started = isinstance(refusal, _PASSING)
        if not started:
            # Nothing new, or a refusal that other facts alone can end.
            self._barren[policy.model_id] = facts

    async def _start(self, policy: TrainingPolicy, finding: TriggerFinding) -> bool:
        """Whether there is a new run."""
        dataset = await self._datasets.freeze(
            policy.model_id, rule=policy.dataset_rule, actor=POLICY, description=f"{finding.trigger}: {finding.message}"
        )
        async with self._store.read() as uow:
            if await _was_trained_on(uow, policy.model_id, dataset.id):
                return False
            base_version = await _base_version(uow, policy)
        run = await self._training.create(_request(policy, dataset, base_version))
        log.info(observability.TRAINING_TRIGGERED, run=run.name, trigger=finding.trigger, cause=finding.message)
        return True


def _request(policy: TrainingPolicy, dataset: Dataset, base_version: int) -> TrainingRequest:
    return TrainingRequest(
        model_id=policy.model_id,
        base_version=base_version,
        dataset_id=dataset.id,
        trainer=policy.trainer,
        actor=POLICY,
        parameters=policy.parameters,
        request_id=str(uuid.uuid5(_REQUESTS, dataset.id)),
    )


async def _was_trained_on(uow: UnitOfWork, model_id: ModelId, dataset_id: DatasetId) -> bool:
    before: str | None = None
    while runs := await uow.training_runs.list(model_id=model_id, before=before, limit=limits.PAGE_SIZE_DEFAULT):
        if any(run.dataset_id == dataset_id for run in runs):
            return True
        before = runs[-1].uid
    return False


async def _base_version(uow: UnitOfWork, policy: TrainingPolicy) -> int:
    """What the policy's deployment runs; else 0, the newest."""
    if policy.deployment_id is None:
        return 0
    try:
        return (await uow.deployments.get(policy.deployment_id)).version or 0
    except ResourceNotFoundError:
        return 0
