"""What every store keeps of training runs."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.training_run import Progress, TrainingState
from tests.support.factories import after_seconds, digest_of
from tests.support.training import make_candidate, make_run


async def test_a_run_comes_back_as_it_was_stored(store: Store) -> None:
    run = make_run(
        state=TrainingState.JUDGING,
        reason="R",
        message="m",
        attempt=2,
        runner="here",
        start_time=after_seconds(1),
        end_time=after_seconds(2),
        progress=Progress(fraction=0.5, message="half"),
        warnings=("w",),
        parameters=MappingProxyType({"newest_weight": 4, "labels": ["a", "b"], "x": None}),
        reported_metrics=MappingProxyType({"auc": 0.9}),
        candidate=make_candidate(),
        cancel_actor="operators/o",
        log_digest=digest_of(b"log"),
    )
    async with store.write() as work:
        await work.training_runs.add(run)
        await work.training_runs.add(make_run("r2"))
    async with store.read() as work:
        assert await work.training_runs.get(run.id) == run
        assert await work.training_runs.get(TrainingRunId("r2")) == make_run("r2")
        with pytest.raises(ResourceNotFoundError, match="trainingRuns/r3"):
            await work.training_runs.get(TrainingRunId("r3"))


async def test_identities_are_taken_once_and_revisions_counted(store: Store) -> None:
    run = make_run()
    async with store.write() as work:
        await work.training_runs.add(run)
    with pytest.raises(ResourceExistsError):
        async with store.write() as work:
            await work.training_runs.add(run)
    async with store.write() as work:
        assert await work.training_runs.save(replace(run, message="new")) == replace(run, message="new", revision=1)
    with pytest.raises(StaleWriteError):
        async with store.write() as work:
            await work.training_runs.save(replace(run, message="late"))


async def test_lists_are_newest_first_and_those_in_a_state_oldest_first(store: Store) -> None:
    runs = [
        make_run("r1", uid="u1"),
        make_run("r3", uid="u3", model_id=ModelId("other")),
        make_run("r2", uid="u2", state=TrainingState.RUNNING),
        make_run("r4", uid="u4", state=TrainingState.FAILED),
    ]
    async with store.write() as work:
        for run in runs:
            await work.training_runs.add(run)
    async with store.read() as work:
        listed = await work.training_runs.list(model_id=None, before=None, limit=3)
        assert [run.id for run in listed] == ["r4", "r3", "r2"]
        rest = await work.training_runs.list(model_id=ModelId("solar"), before="u4", limit=9)
        assert [run.id for run in rest] == ["r2", "r1"]
        unended = await work.training_runs.list_in({TrainingState.QUEUED, TrainingState.RUNNING})
        assert [run.id for run in unended] == ["r1", "r2", "r3"]
        assert await work.training_runs.list_in(()) == []
