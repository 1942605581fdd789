"""Training runs in memory."""

from collections.abc import Collection, Sequence

from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.training_run import TrainingRun, TrainingState
from tests.support.memory_tables import Tables, add_row, found, save_row


class MemoryTrainingRuns:
    """The TrainingRunRepository over the tables in memory."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.training_runs

    async def add(self, run: TrainingRun) -> None:
        add_row(self._rows, run.id, run, resource=run.name, unique=("uid",))

    async def get(self, run_id: TrainingRunId) -> TrainingRun:
        return found(self._rows.get(run_id), f"trainingRuns/{run_id}")

    async def save(self, run: TrainingRun) -> TrainingRun:
        return save_row(self._rows, run.id, run, resource=run.name)

    async def list(self, *, model_id: ModelId | None, before: str | None, limit: int) -> Sequence[TrainingRun]:
        newest_first = sorted(self._rows.values(), key=lambda run: run.uid, reverse=True)
        return [
            run
            for run in newest_first
            if (model_id is None or run.model_id == model_id) and (before is None or run.uid < before)
        ][:limit]

    async def list_in(self, states: Collection[TrainingState]) -> Sequence[TrainingRun]:
        return sorted((run for run in self._rows.values() if run.state in states), key=lambda run: run.uid)
