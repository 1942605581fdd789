"""Rollouts."""

from collections.abc import Sequence

import sqlalchemy as sa

from controlplane.domain.ids import DeploymentId, RolloutId
from controlplane.domain.rollout import Rollout, RolloutState
from controlplane.store.mapping.rollout import rollout_from_row, rollout_to_row
from controlplane.store.row_cache import RowCache
from controlplane.store.tables import rollout as rollouts
from controlplane.store.transaction import Transaction, batches, found

_ACTIVE = (RolloutState.RUNNING.value, RolloutState.PAUSED.value, RolloutState.ROLLING_BACK.value)
_SELECT_ACTIVE = (
    sa.select(rollouts.c.id, rollouts.c.uid, rollouts.c.revision)
    .where(rollouts.c.state.in_(_ACTIVE))
    .order_by(rollouts.c.uid)
)
"""Oldest first."""


class SqlRolloutRepository:
    """The RolloutRepository over SQL."""

    def __init__(self, transaction: Transaction, cache: RowCache[RolloutId, Rollout]) -> None:
        """`cache` is of the active ones."""
        self._transaction = transaction
        self._cache = cache

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
        rows = await self._transaction.tuples(_SELECT_ACTIVE)
        # A revision is written once, so it tells whether a rollout is known.
        versions = {RolloutId(row[0]): tuple(row[1:]) for row in rows}
        self._cache.retain(versions)
        known = {rollout_id: self._cache.find_at(rollout_id, version) for rollout_id, version in versions.items()}
        unknown = [rollout_id for rollout_id, rollout in known.items() if rollout is None]
        for batch in batches(unknown):
            for row in await self._transaction.rows(sa.select(rollouts).where(rollouts.c.id.in_(batch))):
                rollout = known[RolloutId(row["id"])] = rollout_from_row(row)
                self._cache.keep(rollout.id, versions[rollout.id], rollout)
        return [rollout for rollout in known.values() if rollout is not None]

    async def list_queued(self) -> Sequence[Rollout]:
        """Oldest first."""
        queued = rollouts.c.state == RolloutState.QUEUED.value
        statement = sa.select(rollouts).where(queued).order_by(rollouts.c.uid)
        return [rollout_from_row(row) for row in await self._transaction.rows(statement)]
