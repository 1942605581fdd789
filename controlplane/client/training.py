"""Training runs: start them, follow them, end them."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import grpc
from google.protobuf.struct_pb2 import Struct
from lineside.v1 import training_run_pb2, training_service_pb2, training_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import InvalidInputError, UnreachableError, WaitTimeoutError
from controlplane.client.names import dataset_name, model_name, training_run_name, version_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Backoff, Repeat

TrainingRun: TypeAlias = training_run_pb2.TrainingRun
ENDED = frozenset({TrainingRun.STATE_SUCCEEDED, TrainingRun.STATE_FAILED, TrainingRun.STATE_CANCELLED})
"""States in which a run stays unless somebody acts."""


class Training:
    """Calls of TrainingService. Runs are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = training_service_pb2_grpc.TrainingServiceStub(connection.api)

    def start(
        self,
        model: str,
        *,
        dataset: str,
        version: int | None = None,
        trainer: str = "head",
        parameters: Mapping[str, Any] | None = None,
    ) -> TrainingRun:
        """Queue a run that starts from `version` of the model, its newest without one. `parameters` are what the
        trainer is told: any JSON. Raises InvalidInputError where they are none."""
        run = training_run_pb2.TrainingRun(
            base_version=version_name(model, version) if version is not None else model_name(model),
            dataset=dataset_name(dataset),
            trainer=trainer,
            parameters=_struct(parameters or {}),
        )
        request = training_service_pb2.CreateTrainingRunRequest(training_run=run, request_id=str(uuid.uuid4()))
        return self._connection.call(self._stub.CreateTrainingRun, request)

    def get(self, run: str) -> TrainingRun:
        """Return a run."""
        request = training_service_pb2.GetTrainingRunRequest(name=training_run_name(run))
        return self._connection.call(self._stub.GetTrainingRun, request)

    def list(self, *, model: str = "", limit: int | None = None) -> Iterator[TrainingRun]:
        """Yield runs, newest first, those of a model when it is given."""

        def fetch(size: int, token: str) -> tuple[list[TrainingRun], str]:
            request = training_service_pb2.ListTrainingRunsRequest(
                model=model_name(model) if model else "", page_size=size, page_token=token
            )
            page = self._connection.call(self._stub.ListTrainingRuns, request)
            return [*page.training_runs], page.next_page_token

        return iterate(fetch, limit=limit)

    def trainers(self, *, limit: int | None = None) -> Iterator[training_run_pb2.Trainer]:
        """Yield the controller's trainers, by id."""

        def fetch(size: int, token: str) -> tuple[list[training_run_pb2.Trainer], str]:
            request = training_service_pb2.ListTrainersRequest(page_size=size, page_token=token)
            page = self._connection.call(self._stub.ListTrainers, request)
            return [*page.trainers], page.next_page_token

        return iterate(fetch, limit=limit)

    def cancel(self, run: str) -> TrainingRun:
        """End a run that has not ended."""
        request = training_service_pb2.CancelTrainingRunRequest(name=training_run_name(run))
        return self._connection.call(self._stub.CancelTrainingRun, request)

    def retry(self, run: str) -> TrainingRun:
        """Queue a failed or cancelled run again."""
        request = training_service_pb2.RetryTrainingRunRequest(name=training_run_name(run))
        return self._connection.call(self._stub.RetryTrainingRun, request, repeat=Repeat.LOST_RACE)

    def log(self, run: str, *, follow: bool = False) -> Iterator[bytes]:
        """Yield the log; with `follow` until the trainer is needed no longer, opening the stream again where it
        breaks. Raises UnreachableError when the controller stays away."""
        offset_bytes = 0
        backoff = Backoff(self._connection.pacing, budget_seconds=limits.TRANSFER_RETRY_SECONDS)
        while True:
            request = training_service_pb2.ReadTrainingLogRequest(
                name=training_run_name(run), offset_bytes=offset_bytes, follow=follow
            )
            try:
                for piece in self._connection.receive(
                    self._stub.ReadTrainingLog, request, deadline_seconds=limits.WATCH_SECONDS
                ):
                    backoff.reset()
                    offset_bytes += len(piece.data)
                    yield piece.data
            except UnreachableError as error:
                if error.code != grpc.StatusCode.DEADLINE_EXCEEDED.name and not backoff.wait():
                    raise
            else:
                return

    def wait(
        self,
        run: str,
        *,
        timeout_seconds: float | None = None,
        until: Callable[[TrainingRun], bool] = lambda run: run.state in ENDED,
        changed: Callable[[TrainingRun], None] = lambda _: None,
    ) -> TrainingRun:
        """Return the run when `until` holds of it, which is when it has ended unless said otherwise; `changed` is told
        of each other state in between. Raises WaitTimeoutError."""
        pacing = self._connection.pacing
        end = None if timeout_seconds is None else pacing.clock() + timeout_seconds
        seen: TrainingRun | None = None
        while True:
            found = self.get(run)
            if found != seen:
                changed(found)
                seen = found
            if until(found) or found.state in ENDED:
                return found
            if end is not None and pacing.clock() + limits.TRAINING_LOOK_SECONDS > end:
                raise WaitTimeoutError(
                    f"{run} has not ended in {timeout_seconds:g} s",
                    field="timeout",
                    remedy=f"go on with `lineside training log {run} --follow`",
                )
            pacing.sleep(limits.TRAINING_LOOK_SECONDS)


def _struct(parameters: Mapping[str, Any]) -> Struct:
    message = Struct()
    try:
        message.update(parameters)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the parameters are no JSON: {error}", field="parameters", remedy="give numbers, texts, lists and objects"
        ) from error
    return message
