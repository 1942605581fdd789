"""Rollouts."""

from collections.abc import Sequence

import sqlalchemy as sa

from controlplane.domain.ids import DeploymentId, RolloutId
from controlplane.domain.rollout import Rollout, RolloutState
from controlplane.store.mapping.rollout import rollout_from_row, rollout_to_row
from controlplane.store.tables import rollout as rollouts
from controlplane.store.transaction import Transaction, found

_ACTIVE = (RolloutState.RUNNING.value, RolloutState.PAUSED.value, RolloutState.ROLLING_BACK.value)


class SqlRolloutRepository:
    """The RolloutRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, rollout: Rollout) -> None:
        await self._transaction.add(rollouts, rollout_to_row(rollout), resource=f"rollouts/{rollout.id}")

    async def get(self, rollout_id: RolloutId) -> Rollout:
        row = await self._transaction.row(sa.select(rollouts).where(rollouts.c.id == rollout_id))
        return rollout_from_row(found(row, resource=f"rollouts/{rollout_id}"))

    async def save(self, rollout: Rollout) -> Rollout:
        row = rollout_to_row(rollout)
        return rollout_from_row(await self._transaction.save(rollouts, row, resource=f"rollouts/{rollout.id}"))

    async def list(self, *, deployment_id: DeploymentId | None, before: str | None, limit: int) -> Sequence[Rollout]:
        statement = sa.select(rollouts).order_by(rollouts.c.uid.desc()).limit(limit)
        if deployment_id is not None:
            statement = statement.where(rollouts.c.deployment_id == deployment_id)
        if before is not None:
            statement = statement.where(rollouts.c.uid < before)
        return [rollout_from_row(row) for row in await self._transaction.rows(statement)]

    async def list_active(self) -> Sequence[Rollout]:
        return await self._list_in(_ACTIVE)

    async def list_queued(self) -> Sequence[Rollout]:
        return await self._list_in((RolloutState.QUEUED.value,))

    async def _list_in(self, states: tuple[str, ...]) -> Sequence[Rollout]:
        """Oldest first."""
        statement = sa.select(rollouts).where(rollouts.c.state.in_(states)).order_by(rollouts.c.uid)
        return [rollout_from_row(row) for row in await self._transaction.rows(statement)]
