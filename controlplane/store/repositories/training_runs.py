"""Training runs."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa

from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.training_run import TrainingRun, TrainingState
from controlplane.store.mapping.training_run import training_run_from_row, training_run_to_row
from controlplane.store.tables_training import training_run as runs
from controlplane.store.transaction import Transaction, found


class SqlTrainingRunRepository:
    """The TrainingRunRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, run: TrainingRun) -> None:
        await self._transaction.add(runs, training_run_to_row(run), resource=run.name)

    async def get(self, run_id: TrainingRunId) -> TrainingRun:
        row = await self._transaction.row(sa.select(runs).where(runs.c.id == run_id))
        return training_run_from_row(found(row, resource=f"trainingRuns/{run_id}"))

    async def save(self, run: TrainingRun) -> TrainingRun:
        row = training_run_to_row(run)
        return training_run_from_row(await self._transaction.save(runs, row, resource=run.name))

    async def list(self, *, model_id: ModelId | None, before: str | None, limit: int) -> Sequence[TrainingRun]:
        statement = sa.select(runs).order_by(runs.c.uid.desc()).limit(limit)
        if model_id is not None:
            statement = statement.where(runs.c.model_id == model_id)
        if before is not None:
            statement = statement.where(runs.c.uid < before)
        return [training_run_from_row(row) for row in await self._transaction.rows(statement)]

    async def list_in(self, states: Collection[TrainingState]) -> Sequence[TrainingRun]:
        words = sorted(state.value for state in states)
        statement = sa.select(runs).where(runs.c.state.in_(words)).order_by(runs.c.uid)
        return [training_run_from_row(row) for row in await self._transaction.rows(statement)]
