"""FleetService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from lineside.v1 import endpoints_pb2, fleet_service_pb2, fleet_service_pb2_grpc

from controlplane.app.enrollment import Enrollment
from controlplane.app.fleet import Fleet, SyncAnswer, SyncMessage
from controlplane.rpc.authentication import Context, current_agent, current_certificate
from controlplane.rpc.convert.agents import check_device_count, device_from_proto, host_from_proto
from controlplane.rpc.convert.slots import DesiredStateWriter, ObservedStateReader
from controlplane.rpc.convert.times import seconds_to_proto, time_to_proto


class FleetServicer(fleet_service_pb2_grpc.FleetServiceServicer):
    """The agents' control channel."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        enrollment: Enrollment,
        endpoints: endpoints_pb2.Endpoints,
        sync_interval_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._enrollment = enrollment
        self._endpoints = endpoints
        self._sync_interval = seconds_to_proto(sync_interval_seconds)
        self._desired_states = DesiredStateWriter()

    async def Sync(
        self, request_iterator: AsyncIterator[fleet_service_pb2.SyncRequest], context: Context
    ) -> AsyncIterator[fleet_service_pb2.SyncResponse]:
        reader = ObservedStateReader()
        read = partial(_message_from_proto, reader=reader)
        endpoints: endpoints_pb2.Endpoints | None = self._endpoints
        async with aclosing(self._fleet.sync(current_certificate(), request_iterator, read)) as answers:
            async for answer in answers:
                yield self._answer_to_proto(answer, endpoints)
                endpoints = None

    async def RenewCertificate(
        self, request: fleet_service_pb2.RenewCertificateRequest, context: Context
    ) -> fleet_service_pb2.RenewCertificateResponse:
        signed = await self._enrollment.renew(current_agent(), request.csr_der)
        return fleet_service_pb2.RenewCertificateResponse(
            certificate_pem=signed.certificate_pem,
            ca_certificate_pem=signed.ca_certificate_pem,
            expire_time=time_to_proto(signed.certificate.expire_time),
        )

    def _answer_to_proto(
        self, answer: SyncAnswer, endpoints: endpoints_pb2.Endpoints | None
    ) -> fleet_service_pb2.SyncResponse:
        return fleet_service_pb2.SyncResponse(
            desired_state=self._desired_states.write(answer.desired) if answer.desired else None,
            sync_interval=self._sync_interval,
            endpoints=endpoints,
            controller_time=time_to_proto(answer.controller_time),
            generation=answer.generation,
            report_jitter=seconds_to_proto(answer.report_jitter_seconds) if answer.report_jitter_seconds else None,
        )


def _message_from_proto(request: fleet_service_pb2.SyncRequest, reader: ObservedStateReader) -> SyncMessage:
    check_device_count(len(request.devices))
    has_host = request.HasField("host")
    return SyncMessage(
        observed=reader.read(request.observed_state),
        host=host_from_proto(request.host) if has_host else None,
        devices=tuple(map(device_from_proto, request.devices)) if has_host else None,
    )
