"""The Open Inference Protocol over gRPC: a bounded pool of threads, which costs less per image than grpc.aio."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from agent import limits
from agent.app.serving import InferenceAnswer, Serving
from agent.domain.errors import AgentError, Reason, RequestError
from agent.rpc import inference_documents as documents
from agent.rpc.inference_address import split_address
from agent.rpc.inference_convert import InferCall, answer_to_message, call_from_message, parse_version
from agent.rpc.inference_errors import RefusalInterceptor, abort_internal, refusal_status
from agent.rpc.inference_unserved import Unserved, cuda_region_not_found, unserved
from agent.rpc.shared_memory import Region, SharedMemory

SERVICE_NAME = "inference.GRPCInferenceService"


class InferenceServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Loading, tracing, logging and CUDA memory are refused with what to do instead; the rest is served."""

    def __init__(self, serving: Serving, shared: SharedMemory, *, streams_max: int) -> None:
        self._serving = serving
        self._shared = shared
        # A stream holds a thread for as long as it is open: some must be left for everybody else.
        self._streams = threading.BoundedSemaphore(streams_max)

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.ServerReadyResponse(ready=self._serving.ready)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            self._serving.model(request.name, parse_version(request.version))
        except RequestError as error:
            if error.reason is Reason.INPUT_INVALID:
                raise
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        document = documents.server_document(shared_memory=self._shared.enabled)
        return json_format.ParseDict(document, service_pb2.ServerMetadataResponse())

    def ModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = self._serving.model(request.name, parse_version(request.version))
        return json_format.ParseDict(documents.metadata_document(model), service_pb2.ModelMetadataResponse())

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = self._serving.model(request.name, parse_version(request.version))
        document = {"config": documents.config_document(model)}
        return json_format.ParseDict(document, service_pb2.ModelConfigResponse())

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = self._serving.statistics(request.name or None, parse_version(request.version))
        document = {"model_stats": [documents.statistics_document(each) for each in found]}
        return json_format.ParseDict(document, service_pb2.ModelStatisticsResponse())

    def RepositoryIndex(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = documents.index_documents(self._serving.models(), self._serving.pending(), ready=request.ready)
        return json_format.ParseDict({"models": found}, service_pb2.RepositoryIndexResponse())

    def SystemSharedMemoryStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = {region.name: documents.region_document(region) for region in self._shared.regions(request.name)}
        return json_format.ParseDict({"regions": found}, service_pb2.SystemSharedMemoryStatusResponse())

    def SystemSharedMemoryRegister(self, request: Any, context: grpc.ServicerContext) -> Any:
        region = Region(name=request.name, key=request.key, offset=request.offset, byte_size=request.byte_size)
        self._shared.register(region)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._shared.unregister(request.name)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def CudaSharedMemoryStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name:
            raise cuda_region_not_found(request.name)
        return service_pb2.CudaSharedMemoryStatusResponse()

    def CudaSharedMemoryRegister(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise unserved(Unserved.CUDA)

    def CudaSharedMemoryUnregister(self, request: Any, context: grpc.ServicerContext) -> Any:
        return service_pb2.CudaSharedMemoryUnregisterResponse()

    def RepositoryModelLoad(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise unserved(Unserved.LOADING)

    def RepositoryModelUnload(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise unserved(Unserved.LOADING)

    def TraceSetting(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise unserved(Unserved.TRACING)

    def LogSettings(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise unserved(Unserved.LOGGING)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._infer(request, context)

    def ModelStreamInfer(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Answers in order; a refused request is answered with its error, and the stream goes on."""
        if not self._streams.acquire(blocking=False):
            full = RequestError("too many streams", remedy="use ModelInfer", reason=Reason.QUEUE_FULL)
            context.abort_with_status(refusal_status(full))
        try:
            for request in request_iterator:
                yield self._stream_answer(request, context)
        finally:
            self._streams.release()

    def _stream_answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            answer = self._infer(request, context)
        except AgentError as error:
            refused = service_pb2.ModelInferResponse(id=request.id, model_name=request.model_name)
            return service_pb2.ModelStreamInferResponse(error_message=str(error), infer_response=refused)
        except Exception as error:  # noqa: BLE001 - the last line of defence: logged with an id
            abort_internal(context, error)
        return service_pb2.ModelStreamInferResponse(infer_response=answer)

    def _infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            call = call_from_message(request, self._shared)
        except RequestError as error:
            self._serving.count_refused(request.model_name, error.reason)
            raise
        seconds_left = context.time_remaining()
        answer = answer_call(self._serving, call, peer=context.peer(), seconds_left=seconds_left)
        return answer_to_message(answer, call, self._shared)


def answer_call(serving: Serving, call: InferCall, *, peer: str, seconds_left: float | None = None) -> InferenceAnswer:
    """The use case, called with what was parsed. `peer` is the connection, `seconds_left` until the caller gives up."""
    deadlines = [each for each in (call.told.deadline_seconds, seconds_left) if each is not None]
    return serving.infer(
        call.slot,
        call.version,
        call.inputs,
        part_id=call.part_id,
        request_id=call.request_id,
        requested_outputs=call.requested_outputs,
        application=call.told.application or peer,
        lot=call.told.lot,
        deadline_seconds=min(deadlines, default=None),
    )


def start_grpc_server(
    serving: Serving,
    address: str,
    *,
    shared: SharedMemory,
    socket: Path | None = None,
    interceptors: Sequence[grpc.ServerInterceptor] = (),
    workers: int = limits.INFERENCE_WORKERS,
    calls_max: int = limits.INFERENCE_CALLS_MAX,
    message_bytes_max: int = limits.INFERENCE_MESSAGE_BYTES_MAX,
) -> tuple[grpc.Server, int]:
    """A started server and its port (address port 0 takes a free one), which also listens on the Unix socket; stop it
    with `server.stop(grace)`. Raises RequestError for a bad address, RuntimeError where the address is taken."""
    split_address(address)
    server = grpc.server(
        ThreadPoolExecutor(max_workers=workers, thread_name_prefix="inference-grpc"),
        interceptors=[*interceptors, RefusalInterceptor()],
        maximum_concurrent_rpcs=calls_max,
        options=[
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", message_bytes_max),
            ("grpc.so_reuseport", 0),
        ],
    )
    servicer = InferenceServicer(serving, shared, streams_max=max(1, workers // 2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(_health_of(serving), server)
    port = server.add_insecure_port(address)
    if socket is not None:
        server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server, port


def _health_of(serving: Serving) -> Any:
    """Health that follows the slots: SERVING while at least one answers."""
    servicer = health.HealthServicer()

    def follow() -> None:
        state = health_pb2.HealthCheckResponse
        servicer.set(SERVICE_NAME, state.SERVING if serving.ready else state.NOT_SERVING)
        servicer.set("", state.SERVING)

    serving.subscribe(follow)
    follow()
    return servicer
