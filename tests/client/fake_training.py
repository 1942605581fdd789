"""The part of the controller in memory that trains."""

# ruff: noqa: N802 (methods of servicers are named as the contract names them)

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc
from lineside.v1 import training_run_pb2, training_service_pb2, training_service_pb2_grpc

from tests.client.fake_answers import Refusal, find, page

if TYPE_CHECKING:
    from tests.client.fake_controller import FakeController

Run = training_run_pb2.TrainingRun


class Training(training_service_pb2_grpc.TrainingServiceServicer):
    """Answers from `training_runs`, `trainers` and `training_log`. A run goes one step on each time it is read:
    through `training_steps`, then nowhere."""

    def __init__(self, fake: "FakeController", server: grpc.Server) -> None:
        self._fake = fake
        training_service_pb2_grpc.add_TrainingServiceServicer_to_server(self, server)

    def CreateTrainingRun(self, request: Any, context: Any) -> Run:
        run = Run()
        run.CopyFrom(request.training_run)
        run.name, run.state, run.attempt = f"trainingRuns/r{len(self._fake.training_runs) + 1}", Run.STATE_QUEUED, 1
        run.model = run.base_version.partition("/versions/")[0]
        self._fake.training_runs[run.name] = run
        return run

    def GetTrainingRun(self, request: Any, context: Any) -> Run:
        run: Run = find(self._fake.training_runs, request.name, context)
        if self._fake.training_steps:
            run.MergeFrom(self._fake.training_steps.pop(0))
        return run

    def ListTrainingRuns(self, request: Any, context: Any) -> training_service_pb2.ListTrainingRunsResponse:
        wanted = [run for run in self._fake.training_runs.values() if request.model in ("", run.model)]
        runs, token = page(wanted, request)
        return training_service_pb2.ListTrainingRunsResponse(training_runs=runs, next_page_token=token)

    def CancelTrainingRun(self, request: Any, context: Any) -> Run:
        run: Run = find(self._fake.training_runs, request.name, context)
        run.cancelling = True
        return run

    def RetryTrainingRun(self, request: Any, context: Any) -> Run:
        run: Run = find(self._fake.training_runs, request.name, context)
        run.state, run.attempt = Run.STATE_QUEUED, run.attempt + 1
        return run

    def ReadTrainingLog(self, request: Any, context: Any) -> Iterator[training_service_pb2.ReadTrainingLogResponse]:
        find(self._fake.training_runs, request.name, context)
        offset_bytes = 0
        for piece in self._fake.training_log:
            if isinstance(piece, Refusal):
                if request.offset_bytes <= offset_bytes:
                    self._fake.training_log.remove(piece)
                    piece.abort(context)
                continue
            if offset_bytes >= request.offset_bytes:
                yield training_service_pb2.ReadTrainingLogResponse(data=piece)
            offset_bytes += len(piece)

    def ListTrainers(self, request: Any, context: Any) -> training_service_pb2.ListTrainersResponse:
        trainers, token = page(self._fake.trainers, request)
        return training_service_pb2.ListTrainersResponse(trainers=trainers, next_page_token=token)
