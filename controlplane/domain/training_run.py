"""Training runs: from a frozen dataset and a base version to a candidate that waits for judgement.

    QUEUED --> RUNNING --> JUDGING --> SUCCEEDED
      | ^         |           |
      | '--(lost)-+--> FAILED <'          CANCELLED: from each state that has not ended
      '--------------> FAILED             FAILED, CANCELLED --(retry)--> QUEUED

What holds:
- An attempt has one job, named by the run and the number of the attempt; the attempts of a run never overlap.
- A candidate is there exactly in JUDGING and SUCCEEDED, and in a run that was cancelled or failed in judgement.
- What a trainer reports (progress, metrics) is shown, and nothing is decided by it.
- Every change of state comes with the happening that says who or which rule decided it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.audit import Happening, Json, rule
from controlplane.domain.catalog import Artifact, ModelSignature
from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.ids import DatasetId, Digest, ModelId, TrainingRunId


class TrainingState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    JUDGING = "JUDGING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED_STATES = frozenset({TrainingState.SUCCEEDED, TrainingState.FAILED, TrainingState.CANCELLED})
RETRIED_STATES = frozenset({TrainingState.FAILED, TrainingState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a trainer last said of itself."""

    fraction: float
    """From 0 to 1."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What a trainer made: its blobs are stored and OpenVINO has read them, but it is no version yet."""

    artifact: Artifact
    signature: ModelSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One run; see the module for its states."""

    id: TrainingRunId
    uid: str
    create_time: datetime
    update_time: datetime
    model_id: ModelId
    base_version: int
    dataset_id: DatasetId
    trainer: str
    creator: str
    """`operators/{operator}` or `rules/{rule}`."""
    parameters: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    state: TrainingState = TrainingState.QUEUED
    reason: str = ""
    """One stable UPPER_SNAKE word: of a failure what failed, of a success how it was judged."""
    message: str = ""
    attempt: int = 1
    runner: str = ""
    """Which runner has the job of this attempt; empty before it was started."""
    start_time: datetime | None = None
    """Of this attempt."""
    end_time: datetime | None = None
    progress: Progress | None = None
    warnings: tuple[str, ...] = ()
    reported_metrics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    candidate: Candidate | None = None
    cancel_actor: str = ""
    """Who asked to end it, while its trainer still runs."""
    log_digest: Digest | None = None
    """The log of the last attempt that ended, kept as a blob."""
    revision: int = 0

    @property
    def name(self) -> str:
        return f"trainingRuns/{self.id}"

    @property
    def job_id(self) -> str:
        """Of this attempt; a runner is asked for the same job however often."""
        return f"{self.id}-{self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep:
    """A run as it is to be stored, and what is to be written down of it."""

    run: TrainingRun
    happenings: tuple[Happening, ...] = ()


RUNNER = rule("training")
"""The actor that stands for what a trainer or its runner did."""


def begin(run: TrainingRun, now: datetime, *, runner: str, warnings: tuple[str, ...]) -> TrainingStep:
    """The trainer of this attempt was started."""
    _check(run, TrainingState.QUEUED)
    begun = replace(
        run,
        state=TrainingState.RUNNING,
        reason="",
        message="",
        runner=runner,
        start_time=now,
        update_time=now,
        progress=None,
        warnings=_joined(run.warnings, warnings),
    )
    return TrainingStep(run=begun, happenings=(_happening(begun, RUNNER, "begin"),))


def report(run: TrainingRun, progress: Progress | None, now: datetime) -> TrainingRun:
    """Keep what the trainer says of itself; the same run where that is nothing new."""
    _check(run, TrainingState.RUNNING)
    if progress is None or progress == run.progress:
        return run
    return replace(run, progress=progress, update_time=now)


def delay(run: TrainingRun, now: datetime, *, message: str) -> TrainingRun:
    """Say why the run does not move, though nothing is wrong with it; the same run where that is said already."""
    _check(run, TrainingState.QUEUED, TrainingState.RUNNING)
    return run if run.message == message else replace(run, message=message, update_time=now)


def deliver(
    run: TrainingRun, candidate: Candidate, now: datetime, *, metrics: Mapping[str, float], log_digest: Digest | None
) -> TrainingStep:
    """The candidate is stored and waits for judgement."""
    _check(run, TrainingState.RUNNING)
    delivered = replace(
        run,
        state=TrainingState.JUDGING,
        reason="",
        message="",
        candidate=candidate,
        reported_metrics=metrics,
        log_digest=log_digest or run.log_digest,
        update_time=now,
    )
    return TrainingStep(
        run=delivered,
        happenings=(_happening(delivered, RUNNER, "deliver", evidence={"digest": candidate.artifact.digest}),),
    )


def judged(run: TrainingRun, now: datetime, *, reason: str, message: str, actor: str) -> TrainingStep:
    """The candidate was judged; `reason` says how."""
    _check(run, TrainingState.JUDGING)
    return _end(run, now, TrainingState.SUCCEEDED, reason=reason, message=message, actor=actor, action="judge")


def fail(
    run: TrainingRun, now: datetime, *, reason: str, message: str, log_digest: Digest | None = None
) -> TrainingStep:
    """There will be no version of this attempt."""
    _check(run, TrainingState.QUEUED, TrainingState.RUNNING, TrainingState.JUDGING)
    kept = replace(run, log_digest=log_digest or run.log_digest)
    return _end(kept, now, TrainingState.FAILED, reason=reason, message=message, actor=RUNNER, action="fail")


def lose(run: TrainingRun, now: datetime, *, message: str, attempts_max: int) -> TrainingStep:
    """The job ended without a word of its own: the machine was restarted, or somebody killed it. The run is queued
    again as another attempt, `attempts_max` in all."""
    _check(run, TrainingState.RUNNING)
    if run.attempt >= attempts_max:
        return fail(run, now, reason="LOST", message=f"{message}; attempt {run.attempt} of {attempts_max}")
    lost = _again(run, now, warnings=_joined(run.warnings, (f"attempt {run.attempt} was lost: {message}",)))
    return TrainingStep(run=lost, happenings=(_happening(lost, RUNNER, "lose", message=message),))


def cancel(run: TrainingRun, now: datetime, *, actor: str) -> TrainingStep:
    """End the run; where its trainer runs, note that it is to be ended. A second time changes nothing."""
    if run.state is TrainingState.CANCELLED or run.cancel_actor:
        return TrainingStep(run=run)
    _check(run, TrainingState.QUEUED, TrainingState.RUNNING, TrainingState.JUDGING)
    if run.state is TrainingState.RUNNING:
        noted = replace(run, cancel_actor=actor, update_time=now)
        return TrainingStep(run=noted, happenings=(_happening(noted, actor, "cancel"),))
    return cancelled(run, now, actor=actor)


def cancelled(run: TrainingRun, now: datetime, *, actor: str, log_digest: Digest | None = None) -> TrainingStep:
    """The trainer runs no more, or never did."""
    _check(run, TrainingState.QUEUED, TrainingState.RUNNING, TrainingState.JUDGING)
    kept = replace(run, log_digest=log_digest or run.log_digest, cancel_actor="")
    message = f"cancelled by {actor}"
    return _end(kept, now, TrainingState.CANCELLED, reason="CANCELLED", message=message, actor=actor, action="end")


def retry(run: TrainingRun, now: datetime, *, actor: str) -> TrainingStep:
    """Queue a failed or cancelled run again, as another attempt."""
    _check(run, *RETRIED_STATES)
    queued = replace(_again(run, now, warnings=()), candidate=None, reported_metrics=MappingProxyType({}))
    return TrainingStep(run=queued, happenings=(_happening(queued, actor, "retry"),))


def started(run: TrainingRun) -> Happening:
    """What is written down of a new run."""
    return _happening(run, run.creator, "create")


def _again(run: TrainingRun, now: datetime, *, warnings: tuple[str, ...]) -> TrainingRun:
    return replace(
        run,
        state=TrainingState.QUEUED,
        reason="",
        message="",
        attempt=run.attempt + 1,
        runner="",
        start_time=None,
        end_time=None,
        progress=None,
        warnings=warnings,
        cancel_actor="",
        update_time=now,
    )


def _end(
    run: TrainingRun, now: datetime, state: TrainingState, *, reason: str, message: str, actor: str, action: str
) -> TrainingStep:
    ended = replace(run, state=state, reason=reason, message=message, end_time=now, update_time=now)
    return TrainingStep(run=ended, happenings=(_happening(ended, actor, action, message=message),))


def _joined(before: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return before + tuple(words for words in more if words not in before)


def _happening(
    run: TrainingRun,
    actor: str,
    action: str,
    *,
    message: str = "",
    evidence: Mapping[str, Json] = MappingProxyType({}),
) -> Happening:
    return Happening(
        actor=actor,
        action=f"training.{action}",
        resource=run.name,
        reason=run.reason,
        message=message,
        evidence={"attempt": run.attempt, "trainer": run.trainer, **evidence},
        related=(
            f"models/{run.model_id}",
            f"models/{run.model_id}/versions/{run.base_version}",
            f"datasets/{run.dataset_id}",
        ),
    )


def _check(run: TrainingRun, *states: TrainingState) -> None:
    if run.state not in states:
        raise PreconditionError(
            f"{run.name} is {run.state}",
            field="name",
            remedy=f"this needs a run that is {' or '.join(sorted(states))}",
            reason=Reason.TRAINING_STATE,
        )
