"""`app.ports.Controller` over gRPC with mTLS.

Sync and evidence share one channel to the fleet listener; bytes (artifacts, samples) have a channel of their own to a
listener of its own, so that neither waits for the other. Every failure of a call leaves here as ControllerError.

A Sync stream and a transfer of bytes dial whenever nothing is connected: each is begun by a loop that waits with
jitter. Evidence rides on the connection of Sync and fails at once where there is none.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import grpc
import grpc.aio
from lineside.v1 import (
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    endpoints_pb2,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    evidence_service_pb2,
    evidence_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    sample_upload_service_pb2_grpc,
)

from agent import limits
from agent.app.ports import Certificates, EvidenceBatch, RenewedCertificate, SpooledSample, SyncReply
from agent.app.result_columns import ResultFile, result_files
from agent.config import Endpoints
from agent.domain.device import Device, Host
from agent.domain.errors import ControllerError
from agent.domain.slot import ObservedState
from agent.rpc import convert
from agent.rpc.call_traces import NO_TRACES, CallTraces
from agent.rpc.channel import has_failed, open_channel
from agent.rpc.refusals import controller_error
from agent.rpc.result_uploads import ResultUploads

_Answer = TypeVar("_Answer")


class GrpcController:
    """One per agent, in one event loop. `close` at the end."""

    def __init__(
        self,
        endpoints: Endpoints,
        certificates: Certificates,
        *,
        agent: str,
        on_endpoints: Callable[[Endpoints], None] = lambda _: None,
        traces: CallTraces = NO_TRACES,
    ) -> None:
        """`agent` is the id under which results are reported. `on_endpoints` is told when the controller names other
        endpoints than those known."""
        self._traces = traces
        self._endpoints = endpoints
        self._certificates = certificates
        self._on_endpoints = on_endpoints
        self._fleet: grpc.aio.Channel | None = None
        self._bytes: grpc.aio.Channel | None = None
        self._agent = agent
        # Until the controller says what it takes: results in rows, which every one takes.
        self._takes_files = self._takes_uploads = False
        self._uploads = ResultUploads()
        self._leaving: set[asyncio.Task[None]] = set()

    # --- app.ports.Controller ---

    @asynccontextmanager
    async def sync(self) -> AsyncIterator["GrpcSyncStream"]:
        if self._fleet is not None and has_failed(self._fleet):
            self._leave(self._fleet)
            self._fleet = None
        # Of a stream that lasts for hours the trace shows how it came about: it ends with the first answer.
        with self._traces.call("FleetService/Sync") as trace:
            call = fleet_service_pb2_grpc.FleetServiceStub(self._fleet_channel()).Sync(metadata=trace.metadata)
            try:
                yield GrpcSyncStream(call, self._learn, on_answer=trace.end)
            finally:
                call.cancel()

    async def read_blob(self, digest: str, *, offset_bytes: int) -> AsyncIterator[bytes]:
        request = artifact_service_pb2.ReadBlobRequest(digest=digest, offset_bytes=offset_bytes)
        call = artifact_service_pb2_grpc.ArtifactServiceStub(self._bytes_channel()).ReadBlob(request)
        try:
            while True:
                try:
                    async with asyncio.timeout(limits.READ_IDLE_SECONDS_MAX):
                        with _failures():
                            response = await call.read()
                except TimeoutError as error:
                    raise ControllerError(f"no byte came for {limits.READ_IDLE_SECONDS_MAX:.0f} s") from error
                if not isinstance(response, artifact_service_pb2.ReadBlobResponse):
                    return
                yield response.data
        finally:
            call.cancel()

    async def report_evidence(self, batch: EvidenceBatch) -> None:
        files = await self._result_files(batch)
        request = await asyncio.to_thread(convert.evidence_request, batch, files=files)
        stub = evidence_service_pb2_grpc.EvidenceServiceStub(self._fleet_channel())
        with self._traces.call("EvidenceService/ReportEvidence") as trace:
            response = await _answer(
                stub.ReportEvidence(request, timeout=limits.UPLOAD_SECONDS_MAX, metadata=trace.metadata)
            )
        self._takes_files = response.result_files_supported
        self._takes_uploads = response.uploads_supported

    async def _result_files(self, batch: EvidenceBatch) -> Sequence[evidence_service_pb2.ResultFile]:
        """The results in columns, where the controller takes them so and they are enough to be worth it."""
        if not self._takes_files or len(batch.results) < limits.COLUMNS_RESULTS_MIN:
            return ()
        files = await asyncio.to_thread(result_files, batch.results, agent=self._agent, batch=batch.number)
        if len(files) > limits.RESULT_FILES_MAX:
            return ()  # a clock that jumped over many days
        keys = await self._uploaded(batch.number, files) if self._takes_uploads else [""] * len(files)
        return [
            evidence_service_pb2.ResultFile(
                digest=file.digest,
                size_bytes=len(file.content),
                row_count=file.rows,
                content=b"" if key else file.content,
                upload_key=key,
            )
            for file, key in zip(files, keys, strict=True)
        ]

    async def _uploaded(self, batch: int, files: Sequence[ResultFile]) -> Sequence[str]:
        """Put the files into the object store; return their keys, "" for those that go with the report."""
        if not self._uploads.wanted(max(len(file.content) for file in files)):
            return [""] * len(files)
        request = evidence_service_pb2.CreateResultUploadsRequest(
            batch=batch, files=[evidence_service_pb2.PlannedResultFile(day=file.day.isoformat()) for file in files]
        )
        stub = evidence_service_pb2_grpc.EvidenceServiceStub(self._fleet_channel())
        try:
            response = await _answer(stub.CreateResultUploads(request, timeout=limits.RPC_SECONDS_MAX))
        except ControllerError as error:
            self._uploads.rest(error)
            return [""] * len(files)
        if len(response.uploads) != len(files):
            return [""] * len(files)
        return [
            upload.key if await self._uploads.put(upload.url, file.content, headers=upload.headers) else ""
            for upload, file in zip(response.uploads, files, strict=True)
        ]

    async def upload_sample(self, sample: SpooledSample) -> None:
        stub = sample_upload_service_pb2_grpc.SampleUploadServiceStub(self._bytes_channel())
        request = convert.sample_request(sample)
        with self._traces.call("SampleUploadService/UploadSample") as trace:
            await _answer(stub.UploadSample(request, timeout=limits.UPLOAD_SECONDS_MAX, metadata=trace.metadata))

    async def locate(self) -> None:
        ca_pem = self._certificates.read().ca_pem
        async with open_channel(self._endpoints.api, ca_pem=ca_pem) as channel:
            stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
            request = enrollment_service_pb2.GetEndpointsRequest()
            response = await _answer(stub.GetEndpoints(request, timeout=limits.RPC_SECONDS_MAX))
        self._learn(response.endpoints)

    async def renew_certificate(self, csr_der: bytes) -> RenewedCertificate:
        stub = fleet_service_pb2_grpc.FleetServiceStub(self._fleet_channel())
        request = fleet_service_pb2.RenewCertificateRequest(csr_der=csr_der)
        with self._traces.call("FleetService/RenewCertificate") as trace:
            response = await _answer(
                stub.RenewCertificate(request, timeout=limits.RPC_SECONDS_MAX, metadata=trace.metadata)
            )
        return RenewedCertificate(
            certificate_pem=response.certificate_pem, ca_certificate_pem=response.ca_certificate_pem
        )

    async def reconnect(self) -> None:
        # A stream that is open ends within the grace and comes back over a new channel, as after any other loss.
        self._leave(self._fleet)
        self._leave(self._bytes)
        self._fleet = self._bytes = None

    async def close(self) -> None:
        channels, self._fleet, self._bytes = (self._fleet, self._bytes), None, None
        for task in self._leaving:
            task.cancel()
        for channel in channels:
            if channel is not None:
                await channel.close()
        await self._uploads.close()

    # --- within ---

    def _fleet_channel(self) -> grpc.aio.Channel:
        if self._fleet is None:
            self._fleet = self._open(self._endpoints.fleet)
            # Another controller may be at the other end, of another release.
            self._takes_files = self._takes_uploads = False
        return self._fleet

    def _bytes_channel(self) -> grpc.aio.Channel:
        if self._bytes is not None and has_failed(self._bytes):
            self._leave(self._bytes)
            self._bytes = None
        if self._bytes is None:
            self._bytes = self._open(self._endpoints.agent_bytes)
        return self._bytes

    def _open(self, target: str) -> grpc.aio.Channel:
        identity = self._certificates.read()
        return open_channel(target, ca_pem=identity.ca_pem, identity=identity)

    def _learn(self, message: endpoints_pb2.Endpoints) -> None:
        """Use these endpoints from the next call on; a channel to a listener that has moved is left."""
        known = self._endpoints
        found = resolve_endpoints(message, api=known.api)
        if found == known:
            return
        self._endpoints = found
        if found.fleet != known.fleet:
            self._leave(self._fleet)
            self._fleet = None
        if found.agent_bytes != known.agent_bytes:
            self._leave(self._bytes)
            self._bytes = None
        self._on_endpoints(found)

    def _leave(self, channel: grpc.aio.Channel | None) -> None:
        if channel is not None:
            task = asyncio.create_task(_close(channel, grace_seconds=limits.RECONNECT_GRACE_SECONDS))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


class GrpcSyncStream:
    """`app.ports.SyncStream` over one call."""

    def __init__(
        self,
        call: "grpc.aio.StreamStreamCall[fleet_service_pb2.SyncRequest, fleet_service_pb2.SyncResponse]",
        on_endpoints: Callable[[endpoints_pb2.Endpoints], None],
        *,
        on_answer: Callable[[], None],
    ) -> None:
        self._call = call
        self._on_answer = on_answer
        self._on_endpoints = on_endpoints

    async def send(self, state: ObservedState, *, host: Host | None, devices: Sequence[Device] | None) -> None:
        request = convert.sync_request(state, host=host, devices=devices)
        with _failures():
            try:
                await self._call.write(request)
            except asyncio.InvalidStateError as error:
                raise await self._ended() from error

    async def receive(self) -> SyncReply:
        with _failures():
            response = await self._call.read()
            if not isinstance(response, fleet_service_pb2.SyncResponse):
                raise await self._ended()
        self._on_answer()
        if response.HasField("endpoints"):
            self._on_endpoints(response.endpoints)
        return convert.sync_reply(response)

    async def _ended(self) -> ControllerError:
        """Why the stream is over, once its status has come."""
        error = grpc.aio.AioRpcError(
            await self._call.code(),
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            details=await self._call.details(),
        )
        if error.code() is grpc.StatusCode.OK:
            return ControllerError("the controller ended the stream")
        return controller_error(error)


def resolve_endpoints(message: endpoints_pb2.Endpoints, *, api: str) -> Endpoints:
    """The endpoints, where an empty host means the host by which the API was reached. A listener that is not named
    stays where the API is."""
    host = api.rpartition(":")[0]

    def resolved(endpoint: str) -> str:
        return f"{host}{endpoint}" if endpoint.startswith(":") else endpoint or api

    # The API's own address stays as it was given: it is the one that works from this box.
    return Endpoints(api=api, fleet=resolved(message.fleet), agent_bytes=resolved(message.agent_bytes))


async def _answer(call: Awaitable[_Answer]) -> _Answer:
    with _failures():
        return await call


@contextmanager
def _failures() -> Iterator[None]:
    """Turn every way in which a call fails into ControllerError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise controller_error(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # Nobody cancelled us: grpc.aio reports so a call whose channel we have left.
        raise ControllerError("the channel was left for a new one") from error


async def _close(channel: grpc.aio.Channel, *, grace_seconds: float) -> None:
    await channel.close(grace_seconds)
