"""Training runs: asked for, shown and ended by operators and by triggers. `training_ticks` carries them forward.

What holds:
- A run is of one model: its base version and its dataset are that model's.
- A command and its entry in the log change in one transaction, or not at all.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import BlobStore, Clock, IdSource, Store, UnitOfWork
from controlplane.app.ports_training import TrainingRunner
from controlplane.app.requests import find_outcome, fingerprint, keep_outcome
from controlplane.app.retries import retry_stale
from controlplane.domain import training_run as steps
from controlplane.domain.audit import Json
from controlplane.domain.errors import (
    FieldInvalidError,
    LimitExceededError,
    PreconditionError,
    Reason,
    ResourceNotFoundError,
    StaleWriteError,
)
from controlplane.domain.ids import DatasetId, ModelId, TrainingRunId
from controlplane.domain.trainer import Trainer
from controlplane.domain.training_run import TrainingRun, TrainingState, TrainingStep

Command = Callable[[TrainingRun, datetime], TrainingStep]
_BEFORE_THE_END = frozenset({TrainingState.QUEUED, TrainingState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What is asked for."""

    model_id: ModelId
    base_version: int
    """0 means the newest."""
    dataset_id: DatasetId
    trainer: str
    actor: str
    """`operators/{operator}` or `rules/{rule}`."""
    parameters: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    request_id: str = ""


class Training:
    """Starts, shows and ends runs."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        clock: Clock,
        ids: IdSource,
        runner: TrainingRunner,
        trainers: Sequence[Trainer],
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._ids = ids
        self._runner = runner
        self._trainers = {trainer.id: trainer for trainer in trainers}

    async def create(self, request: TrainingRequest) -> TrainingRun:
        """Queue a run; it begins at a tick.

        Raises FieldInvalidError for a trainer that is not there, parameters out of bounds, or another model's dataset;
        ResourceNotFoundError for an unknown version or dataset; PreconditionError (VERSION_YANKED);
        LimitExceededError.
        """
        self._check_trainer(request.trainer)
        check_parameters(request.parameters)
        asked = fingerprint("training_run", repr(request))

        async def attempt() -> TrainingRun:
            async with self._store.write() as uow:
                if resource := await find_outcome(uow, request.request_id, print_of_request=asked):
                    return await uow.training_runs.get(TrainingRunId(resource.removeprefix("trainingRuns/")))
                await _check_room(uow)
                base_version = await _find_base(uow, request)
                await _check_dataset(uow, request)
                now = self._clock.now()
                run = TrainingRun(
                    id=TrainingRunId(self._ids.short_id()),
                    uid=self._ids.uid(),
                    create_time=now,
                    update_time=now,
                    model_id=request.model_id,
                    base_version=base_version,
                    dataset_id=request.dataset_id,
                    trainer=request.trainer,
                    parameters=request.parameters,
                    creator=request.actor,
                )
                await uow.training_runs.add(run)
                await write_down(uow, [steps.started(run)], clock=self._clock, ids=self._ids)
                await keep_outcome(uow, request.request_id, print_of_request=asked, resource=run.name, now=now)
                return run

        return await retry_stale(attempt)

    async def get(self, run_id: TrainingRunId) -> TrainingRun:
        async with self._store.read() as uow:
            return await uow.training_runs.get(run_id)

    async def list(
        self, *, model_id: ModelId | None = None, page_size: int = 0, page_token: str = ""
    ) -> Page[TrainingRun]:
        """Newest first."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as uow:
            runs = await uow.training_runs.list(model_id=model_id, before=str(key[0]) if key else None, limit=size + 1)
        return page_of(runs, size, lambda run: encode_page_token(run.uid))

    def list_trainers(self, *, page_size: int = 0, page_token: str = "") -> Page[Trainer]:
        """By id."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        wanted = [self._trainers[name] for name in sorted(self._trainers) if not key or name > str(key[0])]
        return page_of(wanted[: size + 1], size, lambda trainer: encode_page_token(trainer.id))

    async def cancel(self, run_id: TrainingRunId, *, actor: str, revision: int | None = None) -> TrainingRun:
        """End a run that has not ended; its trainer is told at the next tick. Raises PreconditionError
        (TRAINING_STATE)."""
        return await self._command(run_id, revision, lambda run, now: steps.cancel(run, now, actor=actor))

    async def retry(self, run_id: TrainingRunId, *, actor: str, revision: int | None = None) -> TrainingRun:
        """Queue a failed or cancelled run again. Raises PreconditionError (TRAINING_STATE)."""
        return await self._command(run_id, revision, lambda run, now: steps.retry(run, now, actor=actor))

    async def read_log(
        self, run_id: TrainingRunId, *, offset_bytes: int = 0, follow: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the log of the newest attempt from the offset on; with `follow` until the trainer is needed no longer,
        and from its beginning where another attempt starts meanwhile."""
        if offset_bytes < 0:
            raise FieldInvalidError("an offset cannot be negative", field="offset_bytes", remedy="begin at 0")
        attempt = (await self.get(run_id)).attempt
        while True:
            run = await self.get(run_id)
            if run.attempt != attempt:
                attempt, offset_bytes = run.attempt, 0
            piece = await self._read_piece(run, offset_bytes)
            if piece:
                offset_bytes += len(piece)
                yield piece
            elif not follow or run.state not in _BEFORE_THE_END:
                return
            else:
                await asyncio.sleep(limits.TRAINING_LOG_LOOK_SECONDS)

    async def _read_piece(self, run: TrainingRun, offset_bytes: int) -> bytes:
        """From the runner while it has the job, then from what was kept."""
        if run.runner == self._runner.name:
            piece = await self._runner.read_log(
                run.job_id, offset_bytes=offset_bytes, limit_bytes=limits.TRAINING_LOG_READ_BYTES
            )
            if piece:
                return piece
        if run.log_digest is None or run.state in _BEFORE_THE_END:
            return b""
        if offset_bytes >= await self._blobs.size(run.log_digest):
            return b""
        async for chunk in self._blobs.read(run.log_digest, offset_bytes=offset_bytes):
            return chunk[: limits.TRAINING_LOG_READ_BYTES]
        return b""

    async def _command(self, run_id: TrainingRunId, revision: int | None, command: Command) -> TrainingRun:
        async def attempt() -> TrainingRun:
            async with self._store.write() as uow:
                run = await uow.training_runs.get(run_id)
                if revision not in (None, run.revision):
                    raise StaleWriteError(f"{run.name} has changed", field="etag", remedy="read it again, decide again")
                step = command(run, self._clock.now())
                return await store_step(uow, run, step, clock=self._clock, ids=self._ids)

        return await (retry_stale(attempt) if revision is None else attempt())

    def _check_trainer(self, name: str) -> None:
        if name not in self._trainers:
            raise FieldInvalidError(
                f"this controller has no trainer {name[:100]!r}",
                field="training_run.trainer",
                remedy=f"name one of {', '.join(sorted(self._trainers))}",
            )


async def store_step(
    uow: UnitOfWork, run: TrainingRun, step: TrainingStep, *, clock: Clock, ids: IdSource
) -> TrainingRun:
    """Store what a step made of the run, with its happenings, within the caller's transaction; nothing where it made
    nothing."""
    if step.run == run:
        return run
    saved = await uow.training_runs.save(step.run)
    await write_down(uow, step.happenings, clock=clock, ids=ids)
    return saved


def check_parameters(parameters: Mapping[str, Json]) -> None:
    """Raise FieldInvalidError unless they can be kept."""
    text = json.dumps(dict(parameters))
    if len(text) > limits.TRAINING_PARAMETERS_BYTES_MAX or "\\u0000" in text:
        raise FieldInvalidError(
            "the parameters cannot be kept",
            field="training_run.parameters",
            remedy=f"give at most {limits.TRAINING_PARAMETERS_BYTES_MAX} bytes of JSON without NUL",
        )


async def _check_room(uow: UnitOfWork) -> None:
    if len(await uow.training_runs.list_in({TrainingState.QUEUED})) >= limits.TRAINING_RUNS_QUEUED_MAX:
        raise LimitExceededError(
            f"{limits.TRAINING_RUNS_QUEUED_MAX} runs wait already", remedy="cancel some, or wait until they have run"
        )


async def _find_base(uow: UnitOfWork, request: TrainingRequest) -> int:
    model = await uow.models.get(request.model_id)
    number = request.base_version or model.latest_version
    if number == 0:
        raise ResourceNotFoundError(
            f"models/{model.id} has no version",
            field="training_run.base_version",
            remedy="publish one first: a run starts from it",
        )
    version = await uow.models.get_version(request.model_id, number)
    if version.yank is not None:
        raise PreconditionError(
            f"{version.name} was yanked: {version.yank.reason}",
            field="training_run.base_version",
            remedy="start from another version",
            reason=Reason.VERSION_YANKED,
        )
    return number


async def _check_dataset(uow: UnitOfWork, request: TrainingRequest) -> None:
    dataset = await uow.datasets.get(request.dataset_id)
    if dataset.model_id != request.model_id:
        raise FieldInvalidError(
            f"datasets/{dataset.id} is of models/{dataset.model_id}, not of models/{request.model_id}",
            field="training_run.dataset",
            remedy="freeze a dataset of the model that is trained",
        )
