"""Promotions and training policies in memory."""

from collections.abc import Collection, Sequence

from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.domain.training_policy import TrainingPolicy
from tests.support.memory_tables import Tables, add_row, found, save_row


class MemoryPromotions:
    """The PromotionRepository over the tables in memory."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.promotions

    async def add(self, promotion: Promotion) -> None:
        add_row(self._rows, promotion.run_id, promotion, resource=promotion.name, unique=("uid",))

    async def get(self, run_id: TrainingRunId) -> Promotion:
        return found(self._rows.get(run_id), f"trainingRuns/{run_id}/promotion")

    async def find(self, run_id: TrainingRunId) -> Promotion | None:
        return self._rows.get(run_id)

    async def find_version(self, model_id: ModelId, version: int) -> Promotion | None:
        made = (one for one in self._rows.values() if (one.model_id, one.version) == (model_id, version))
        return min(made, key=lambda one: one.uid, default=None)

    async def save(self, promotion: Promotion) -> Promotion:
        return save_row(self._rows, promotion.run_id, promotion, resource=promotion.name)

    async def list(self, *, model_id: ModelId | None, before: str | None, limit: int) -> Sequence[Promotion]:
        newest_first = sorted(self._rows.values(), key=lambda one: one.uid, reverse=True)
        wanted = [one for one in newest_first if model_id in (None, one.model_id)]
        return [one for one in wanted if before is None or one.uid < before][:limit]

    async def list_in(self, states: Collection[PromotionState]) -> Sequence[Promotion]:
        return sorted((one for one in self._rows.values() if one.state in states), key=lambda one: one.uid)


class MemoryTrainingPolicies:
    """The TrainingPolicyRepository over the tables in memory."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.training_policies

    async def add(self, policy: TrainingPolicy) -> None:
        add_row(self._rows, policy.model_id, policy, resource=policy.name)

    async def get(self, model_id: ModelId) -> TrainingPolicy:
        return found(self._rows.get(model_id), f"models/{model_id}/trainingPolicy")

    async def find(self, model_id: ModelId) -> TrainingPolicy | None:
        return self._rows.get(model_id)

    async def save(self, policy: TrainingPolicy) -> TrainingPolicy:
        return save_row(self._rows, policy.model_id, policy, resource=policy.name)

    async def list(self, *, after: ModelId | None, limit: int) -> Sequence[TrainingPolicy]:
        return [self._rows[key] for key in sorted(self._rows) if after is None or key > after][:limit]
