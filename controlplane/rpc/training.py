"""TrainingService."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from lineside.v1 import training_run_pb2, training_service_pb2, training_service_pb2_grpc

from controlplane.app.training import Training
from controlplane.rpc.authentication import Context, current_actor
from controlplane.rpc.convert.etags import parse_etag
from controlplane.rpc.convert.names import parse_model_name, parse_training_run_name
from controlplane.rpc.convert.training import (
    trainer_to_proto,
    training_request_from_proto,
    training_run_to_proto,
)


class TrainingServicer(training_service_pb2_grpc.TrainingServiceServicer):
    """Training runs, for operators."""

    def __init__(self, training: Training) -> None:
        self._training = training

    async def CreateTrainingRun(
        self, request: training_service_pb2.CreateTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        wanted = training_request_from_proto(request, actor=current_actor())
        return training_run_to_proto(await self._training.create(wanted))

    async def GetTrainingRun(
        self, request: training_service_pb2.GetTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        return training_run_to_proto(await self._training.get(parse_training_run_name(request.name, field="name")))

    async def ListTrainingRuns(
        self, request: training_service_pb2.ListTrainingRunsRequest, context: Context
    ) -> training_service_pb2.ListTrainingRunsResponse:
        page = await self._training.list(
            model_id=parse_model_name(request.model, field="model") if request.model else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return training_service_pb2.ListTrainingRunsResponse(
            training_runs=map(training_run_to_proto, page.items), next_page_token=page.next_token
        )

    async def CancelTrainingRun(
        self, request: training_service_pb2.CancelTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        run_id = parse_training_run_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return training_run_to_proto(await self._training.cancel(run_id, actor=current_actor(), revision=revision))

    async def RetryTrainingRun(
        self, request: training_service_pb2.RetryTrainingRunRequest, context: Context
    ) -> training_run_pb2.TrainingRun:
        run_id = parse_training_run_name(request.name, field="name")
        revision = parse_etag(request.etag)
        return training_run_to_proto(await self._training.retry(run_id, actor=current_actor(), revision=revision))

    async def ReadTrainingLog(
        self, request: training_service_pb2.ReadTrainingLogRequest, context: Context
    ) -> AsyncIterator[training_service_pb2.ReadTrainingLogResponse]:
        run_id = parse_training_run_name(request.name, field="name")
        pieces = self._training.read_log(run_id, offset_bytes=request.offset_bytes, follow=request.follow)
        async with aclosing(pieces):
            async for piece in pieces:
                yield training_service_pb2.ReadTrainingLogResponse(data=piece)

    async def ListTrainers(
        self, request: training_service_pb2.ListTrainersRequest, context: Context
    ) -> training_service_pb2.ListTrainersResponse:
        page = self._training.list_trainers(page_size=request.page_size, page_token=request.page_token)
        return training_service_pb2.ListTrainersResponse(
            trainers=map(trainer_to_proto, page.items), next_page_token=page.next_token
        )
