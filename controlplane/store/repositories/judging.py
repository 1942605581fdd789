"""Promotions and training policies."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from controlplane.domain.errors import ResourceNotFoundError
from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.domain.training_policy import TrainingPolicy
from controlplane.store.mapping.judgement import promotion_from_row, promotion_to_row
from controlplane.store.mapping.training_policy import policy_from_row, policy_to_row
from controlplane.store.tables_judging import promotion as promotions
from controlplane.store.tables_judging import training_policy as policies
from controlplane.store.transaction import Transaction


class SqlPromotionRepository:
    """The PromotionRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, promotion: Promotion) -> None:
        await self._transaction.add(promotions, promotion_to_row(promotion), resource=promotion.name)

    async def get(self, run_id: TrainingRunId) -> Promotion:
        promotion = await self.find(run_id)
        if promotion is None:
            raise ResourceNotFoundError(
                f"trainingRuns/{run_id}/promotion does not exist",
                field="name",
                remedy="list the promotions, or wait until the run was judged",
            )
        return promotion

    async def find(self, run_id: TrainingRunId) -> Promotion | None:
        row = await self._transaction.row(sa.select(promotions).where(promotions.c.id == run_id))
        return None if row is None else promotion_from_row(row)

    async def find_version(self, model_id: ModelId, version: int) -> Promotion | None:
        of_version = sa.and_(promotions.c.model_id == model_id, promotions.c.version == version)
        row = await self._transaction.row(sa.select(promotions).where(of_version).order_by(promotions.c.uid).limit(1))
        return None if row is None else promotion_from_row(row)

    async def save(self, promotion: Promotion) -> Promotion:
        row = promotion_to_row(promotion)
        return promotion_from_row(await self._transaction.save(promotions, row, resource=promotion.name))

    async def list(self, *, model_id: ModelId | None, before: str | None, limit: int) -> Sequence[Promotion]:
        statement = sa.select(promotions).order_by(promotions.c.uid.desc()).limit(limit)
        if model_id is not None:
            statement = statement.where(promotions.c.model_id == model_id)
        if before is not None:
            statement = statement.where(promotions.c.uid < before)
        return await self._transaction.mapped(statement, promotion_from_row)

    async def list_in(self, states: Collection[PromotionState]) -> Sequence[Promotion]:
        wanted = promotions.c.state.in_(sorted(states))
        return await self._transaction.mapped(
            sa.select(promotions).where(wanted).order_by(promotions.c.uid), promotion_from_row
        )


class SqlTrainingPolicyRepository:
    """The TrainingPolicyRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, policy: TrainingPolicy) -> None:
        await self._transaction.add(policies, policy_to_row(policy), resource=policy.name)

    async def get(self, model_id: ModelId) -> TrainingPolicy:
        policy = await self.find(model_id)
        if policy is None:
            raise ResourceNotFoundError(
                f"models/{model_id} has no training policy",
                field="name",
                remedy=f"give it one with `lineside training policy set {model_id}`",
            )
        return policy

    async def find(self, model_id: ModelId) -> TrainingPolicy | None:
        row = await self._transaction.row(sa.select(policies).where(policies.c.id == model_id))
        return None if row is None else policy_from_row(row)

    async def save(self, policy: TrainingPolicy) -> TrainingPolicy:
        return policy_from_row(await self._transaction.save(policies, policy_to_row(policy), resource=policy.name))

    async def list(self, *, after: ModelId | None, limit: int) -> Sequence[TrainingPolicy]:
        statement = sa.select(policies).order_by(policies.c.id).limit(limit)
        if after is not None:
            statement = statement.where(policies.c.id > after)
        return await self._transaction.mapped(statement, policy_from_row)
