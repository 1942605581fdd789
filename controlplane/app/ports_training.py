"""What training needs from outside, as Protocols; `ports.py` says what holds for every repository."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.trainer import Trainer
from controlplane.domain.training_run import Progress, TrainingRun, TrainingState


class TrainingRunRepository(Protocol):
    """Training runs."""

    async def add(self, run: TrainingRun) -> None: ...
    async def get(self, run_id: TrainingRunId) -> TrainingRun:
        """Resource "trainingRuns/{id}"."""
        ...

    async def save(self, run: TrainingRun) -> TrainingRun: ...
    async def list(self, *, model_id: ModelId | None, before: str | None, limit: int) -> Sequence[TrainingRun]:
        """Newest first, by uid."""
        ...

    async def list_in(self, states: Collection[TrainingState]) -> Sequence[TrainingRun]:
        """Every run in one of these states, oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One attempt as a runner is asked for it."""

    id: str
    """The same job has the same id, a resource id; whoever asks again gets the job that is there."""
    trainer: Trainer
    inputs: Path
    """A folder with `dataset/`, `base/` and `parameters.json`, which the runner takes over."""


class JobState(StrEnum):
    RUNNING = "RUNNING"
    ENDED = "ENDED"
    LOST = "LOST"
    """It runs no more and nobody saw it end, or this runner has no such job."""


class JobOutcome(StrEnum):
    """How a job ended; `JobReport.message` says it in words."""

    SUCCEEDED = "SUCCEEDED"
    CRASHED = "CRASHED"
    """It exited with another status than 0, or a signal of its own making ended it."""
    KILLED = "KILLED"
    """Somebody else killed it: an operator, or a system that is out of memory."""
    TIME_LIMIT = "TIME_LIMIT"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    OUTPUT_LIMIT = "OUTPUT_LIMIT"
    CANCELLED = "CANCELLED"
    NOT_STARTED = "NOT_STARTED"
    """The command could not be executed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a runner knows of a job."""

    state: JobState
    outcome: JobOutcome | None = None
    """Of a job that ENDED."""
    message: str = ""
    progress: Progress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutput:
    """What a job that SUCCEEDED left."""

    model_folder: Path
    """The job's own, in which nobody writes any more. Plain files alone."""
    metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    declined: str = ""
    """Why there is no model, of a trainer that had nothing better to give."""


class TrainingRunner(Protocol):
    """Runs jobs: a local process now, a cluster's job API as well. It remembers everything by itself, so that a
    controller that was killed finds its jobs again by their ids."""

    @property
    def name(self) -> str:
        """Of this runner: a job is looked for where it was started."""
        ...

    async def start(self, job: TrainingJob) -> Sequence[str]:
        """Start the job, unless there is one of that id; return warnings for the operator: limits that cannot be held
        here. Raises StorageError when it cannot be started now."""
        ...

    async def look(self, job_id: str) -> JobReport: ...
    async def cancel(self, job_id: str) -> None:
        """Have it ended; `look` says when it has. Nothing for a job that has ended or is not known."""
        ...

    async def collect(self, job_id: str) -> JobOutput:
        """Return the output of a job that SUCCEEDED. Raises FieldInvalidError, whose message is for whoever wrote the
        trainer, when it is not as the contract says."""
        ...

    async def read_log(self, job_id: str, *, offset_bytes: int, limit_bytes: int) -> bytes:
        """Return what stands in the log from the offset on, empty at its end and for a job that is not known."""
        ...

    async def forget(self, job_id: str) -> None:
        """Remove everything of a job that does not run; nothing for a job that is not known."""
        ...

    async def list_jobs(self) -> Sequence[str]:
        """Ids of every job that is not forgotten."""
        ...
