"""What every runner of trainers does."""

import asyncio
from pathlib import Path

import pytest

from controlplane.app.ports_training import JobOutcome, JobReport, JobState, TrainingJob, TrainingRunner
from controlplane.training.local_runner import LocalRunner
from tests.support.training import MemoryRunner
from tests.training.trainers import trainer

WORK = 'print("started"); progress(0.5, "half")\nwhile not (output / "go").exists(): time.sleep(0.02)\ndeliver(auc=0.9)'


class Bench:
    """A runner, and what lets its one trainer finish."""

    def __init__(self, runner: TrainingRunner, folder: Path) -> None:
        self.runner = runner
        self._folder = folder

    def job(self, job_id: str = "run-1") -> TrainingJob:
        inputs = self._folder / f"inputs-{job_id}"
        for name in ("dataset", "base"):
            (inputs / name).mkdir(parents=True)
        (inputs / "base" / "model.xml").write_text("<net/>")
        (inputs / "parameters.json").write_text("{}")
        return TrainingJob(id=job_id, trainer=trainer(WORK), inputs=inputs)

    async def let_finish(self, job_id: str = "run-1") -> None:
        if isinstance(self.runner, MemoryRunner):
            self.runner.finish(job_id, b"<net/>", metrics={"auc": 0.9})
        else:
            (self._folder / "jobs" / job_id / "output" / "go").touch()

    async def ended(self, job_id: str = "run-1") -> JobReport:
        async with asyncio.timeout(60):
            while (report := await self.runner.look(job_id)).state is JobState.RUNNING:
                await asyncio.to_thread(Path.cwd)
        return report


@pytest.fixture(params=["memory", "local"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    folder = tmp_path / "jobs"
    runner: TrainingRunner = MemoryRunner(folder) if request.param == "memory" else LocalRunner(folder, name="here")
    return Bench(runner, tmp_path)


async def test_a_job_runs_and_its_output_is_collected(bench: Bench) -> None:
    await bench.runner.start(bench.job())
    assert (await bench.runner.look("run-1")).state is JobState.RUNNING
    await bench.let_finish()
    report = await bench.ended()
    assert (report.state, report.outcome) == (JobState.ENDED, JobOutcome.SUCCEEDED)
    output = await bench.runner.collect("run-1")
    assert dict(output.metrics) == {"auc": 0.9}
    assert [path.name for path in output.model_folder.iterdir()] == ["model.xml"]


async def test_a_job_that_is_there_is_not_started_again(bench: Bench) -> None:
    job = bench.job()
    await bench.runner.start(job)
    await bench.runner.start(job)
    await bench.let_finish()
    await bench.ended()
    await bench.runner.start(job)
    assert (await bench.runner.look("run-1")).state is JobState.ENDED
    log = await bench.runner.read_log("run-1", offset_bytes=0, limit_bytes=1000)
    assert log == b"started\n"
    assert await bench.runner.read_log("run-1", offset_bytes=3, limit_bytes=2) == b"rt"
    assert await bench.runner.read_log("run-1", offset_bytes=len(log), limit_bytes=10) == b""


async def test_a_cancelled_job_ends_and_is_forgotten(bench: Bench) -> None:
    await bench.runner.start(bench.job())
    await bench.runner.forget("run-1")
    assert await bench.runner.list_jobs() == ["run-1"]
    await bench.runner.cancel("run-1")
    assert (await bench.ended()).outcome is JobOutcome.CANCELLED
    await bench.runner.forget("run-1")
    assert await bench.runner.list_jobs() == []


async def test_a_job_that_nobody_knows_is_lost(bench: Bench) -> None:
    assert (await bench.runner.look("run-9")).state is JobState.LOST
    await bench.runner.cancel("run-9")
    await bench.runner.forget("run-9")
    assert await bench.runner.read_log("run-9", offset_bytes=0, limit_bytes=10) == b""
    assert await bench.runner.list_jobs() == []
