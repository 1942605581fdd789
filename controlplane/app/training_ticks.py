"""Carries training runs forward: queued ones begin, running ones are looked at, ended ones give their candidate.

What holds:
- Each tick recomputes from the stored runs and from what the runner says of their jobs; nothing is remembered.
- A job is started before its run says so, and under the run's own name: a controller that dies in between finds it.
- A run ends, or goes to judgement, in one transaction with its entry in the log; until then its job is kept.
"""

import asyncio
import json
import tempfile
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import assert_never

import structlog

from controlplane import limits, observability
from controlplane.app.model_files import fetch_files
from controlplane.app.ports import BlobStore, Clock, IdSource, ModelInspector, Store
from controlplane.app.ports_datasets import DatasetFolder
from controlplane.app.ports_training import JobOutcome, JobReport, JobState, TrainingJob, TrainingRunner
from controlplane.app.training import store_step
from controlplane.app.training_candidates import keep_candidate
from controlplane.domain import training_run as steps
from controlplane.domain.catalog import ModelVersion
from controlplane.domain.dataset import digest_of
from controlplane.domain.errors import (
    FieldInvalidError,
    ForbiddenError,
    LeaseLostError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StaleWriteError,
    StorageError,
)
from controlplane.domain.ids import Digest
from controlplane.domain.trainer import Trainer
from controlplane.domain.training_run import TrainingRun, TrainingState, TrainingStep

log = structlog.get_logger(__name__)

_GONE = (ResourceNotFoundError, FieldInvalidError, PreconditionError, ForbiddenError)
"""What says of inputs that they are not as they were: trying again would not help."""


class TrainingTicks:
    """One round over the runs that have not ended. `workspace` is a folder for inputs that are put together."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        datasets: DatasetFolder,
        inspector: ModelInspector,
        runner: TrainingRunner,
        trainers: Collection[Trainer],
        clock: Clock,
        ids: IdSource,
        workspace: Path,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._datasets = datasets
        self._inspector = inspector
        self._runner = runner
        self._trainers = {trainer.id: trainer for trainer in trainers}
        self._clock = clock
        self._ids = ids
        self._workspace = workspace

    async def tick(self, now: datetime) -> None:
        """Raises an ExceptionGroup of what kept runs from moving, after the others had their turn; LeaseLostError."""
        async with self._store.read() as uow:
            runs = await uow.training_runs.list_in({TrainingState.QUEUED, TrainingState.RUNNING})
        failures: list[Exception] = []
        running = [run for run in runs if run.state is TrainingState.RUNNING]
        room = limits.TRAINING_RUNS_AT_ONCE_MAX - len(running)
        trained = {run.model_id for run in running}
        for run in running:
            await self._guarded(run, now, failures)
        for run in runs:
            if run.state is TrainingState.QUEUED and room > 0 and run.model_id not in trained:
                room -= 1
                trained.add(run.model_id)
                await self._guarded(run, now, failures)
        await self._sweep({run.job_id for run in runs})
        if failures:
            raise ExceptionGroup("training runs could not be carried forward", failures)

    async def _guarded(self, run: TrainingRun, now: datetime, failures: list[Exception]) -> None:
        try:
            await (self._begin(run) if run.state is TrainingState.QUEUED else self._advance(run, now))
        except LeaseLostError:
            raise
        except StaleWriteError:
            # Somebody commanded it meanwhile; the next tick decides anew.
            log.info(observability.TRAINING_TICK_OVERTAKEN, run=run.id)
        except StorageError as error:
            # The next tick tries again; whoever looks at the run learns what it waits for.
            failures.append(error)
            with suppress(StaleWriteError, StorageError):
                await self._store_step(run, TrainingStep(run=steps.delay(run, now, message=f"it waits: {error}")))
        except Exception as error:  # noqa: BLE001 - raised by the tick, after the other runs had their turn
            failures.append(error)

    async def _begin(self, run: TrainingRun) -> None:
        trainer = self._trainers.get(run.trainer)
        if trainer is None:
            message = f"this controller has no trainer {run.trainer!r} any more"
            await self._store_step(run, steps.fail(run, self._clock.now(), reason="TRAINER_UNKNOWN", message=message))
            return
        with tempfile.TemporaryDirectory(prefix="training-", dir=self._workspace) as name:
            inputs = Path(name) / "inputs"
            try:
                await self._put_together(run, inputs)
            except _GONE as error:
                # What was there when it was asked for is gone: it will not come back by itself.
                failed = steps.fail(run, self._clock.now(), reason="INPUTS_MISSING", message=str(error))
                await self._store_step(run, failed)
                return
            warnings = await self._runner.start(TrainingJob(id=run.job_id, trainer=trainer, inputs=inputs))
        now = self._clock.now()
        await self._store_step(run, steps.begin(run, now, runner=self._runner.name, warnings=tuple(warnings)))

    async def _put_together(self, run: TrainingRun, inputs: Path) -> None:
        base = await self._find_base(run)
        for name in ("dataset", "base"):
            (inputs / name).mkdir(parents=True)
        try:
            await self._datasets.materialise(run.dataset_id, inputs / "dataset")
        except ExceptionGroup as several:
            # Contents are fetched at once; one reason is enough.
            raise several.exceptions[0] from several
        await fetch_files(self._blobs, base.artifact, inputs / "base")
        await asyncio.to_thread((inputs / "parameters.json").write_text, json.dumps(dict(run.parameters)))

    async def _advance(self, run: TrainingRun, now: datetime) -> None:
        if run.runner != self._runner.name:
            # Its machine has its own disk and its own jobs; whoever leads there ends what nobody asks for.
            report = JobReport(state=JobState.LOST, message=f"it ran at {run.runner}, which does not lead any more")
        else:
            report = await self._runner.look(run.job_id)
        match report.state:
            case JobState.RUNNING:
                if run.cancel_actor:
                    await self._runner.cancel(run.job_id)
                await self._store_step(run, TrainingStep(run=steps.report(run, report.progress, now)))
            case JobState.LOST:
                await self._store_step(run, await self._lost(run, report.message))
            case JobState.ENDED:
                await self._store_step(run, await self._ended(run, report))
            case _:
                assert_never(report.state)

    async def _lost(self, run: TrainingRun, message: str) -> TrainingStep:
        if run.cancel_actor:
            return steps.cancelled(run, self._clock.now(), actor=run.cancel_actor, log_digest=await self._keep_log(run))
        return steps.lose(run, self._clock.now(), message=message, attempts_max=limits.TRAINING_ATTEMPTS_MAX)

    async def _ended(self, run: TrainingRun, report: JobReport) -> TrainingStep:
        run = steps.report(run, report.progress, self._clock.now())
        if run.cancel_actor or report.outcome is JobOutcome.KILLED:
            return await self._lost(run, report.message)
        log_digest = await self._keep_log(run)
        if report.outcome is not JobOutcome.SUCCEEDED:
            reason = report.outcome.value if report.outcome is not None else "UNKNOWN"
            return steps.fail(run, self._clock.now(), reason=reason, message=report.message, log_digest=log_digest)
        try:
            output = await self._runner.collect(run.job_id)
            if output.declined:
                message = f"the trainer had nothing better to give: {output.declined}"
                return steps.fail(run, self._clock.now(), reason="DECLINED", message=message, log_digest=log_digest)
            base = await self._find_base(run)
            candidate = await keep_candidate(output.model_folder, base, blobs=self._blobs, inspector=self._inspector)
        except FieldInvalidError as error:
            unreadable = error.reason is Reason.MODEL_UNREADABLE
            reason = error.reason.value if unreadable else "OUTPUT_INVALID"
            return steps.fail(run, self._clock.now(), reason=reason, message=str(error), log_digest=log_digest)
        return steps.deliver(run, candidate, self._clock.now(), metrics=output.metrics, log_digest=log_digest)

    async def _find_base(self, run: TrainingRun) -> ModelVersion:
        async with self._store.read() as uow:
            return await uow.models.get_version(run.model_id, run.base_version)

    async def _keep_log(self, run: TrainingRun) -> Digest | None:
        """Put the log among the blobs; None where there is none."""
        pieces, offset_bytes = [], 0
        while piece := await self._runner.read_log(
            run.job_id, offset_bytes=offset_bytes, limit_bytes=limits.TRAINING_LOG_READ_BYTES
        ):
            pieces.append(piece)
            offset_bytes += len(piece)
        if not pieces:
            return None
        content = b"".join(pieces)
        digest = digest_of(content)
        await self._blobs.put_bytes(digest, content)
        return digest

    async def _sweep(self, wanted: set[str]) -> None:
        """Forget jobs of runs that have ended or were lost; those that run all the same are ended first."""
        for job_id in await self._runner.list_jobs():
            if job_id in wanted:
                continue
            if (await self._runner.look(job_id)).state is JobState.RUNNING:
                await self._runner.cancel(job_id)
            else:
                await self._runner.forget(job_id)

    async def _store_step(self, run: TrainingRun, step: TrainingStep) -> None:
        if step.run == run:
            return
        async with self._store.write() as uow:
            # The revision holds that nobody commanded it since it was read.
            saved = await store_step(uow, run, step, clock=self._clock, ids=self._ids)
        if saved.state is not run.state or saved.attempt != run.attempt:
            log.info(
                observability.TRAINING_MOVED,
                run=saved.id,
                model=saved.model_id,
                state=saved.state.value,
                reason=saved.reason,
                message=saved.message,
                attempt=saved.attempt,
            )
