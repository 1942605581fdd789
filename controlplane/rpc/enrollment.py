"""EnrollmentService."""

from lineside.v1 import endpoints_pb2, enrollment_service_pb2, enrollment_service_pb2_grpc

from controlplane.app.enrollment import Enrollment, EnrollmentRequest
from controlplane.app.ports import Clock
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.times import time_to_proto


class EnrollmentServicer(enrollment_service_pb2_grpc.EnrollmentServiceServicer):
    """How a box becomes an agent."""

    def __init__(self, enrollment: Enrollment, *, endpoints: endpoints_pb2.Endpoints, clock: Clock) -> None:
        self._enrollment = enrollment
        self._clock = clock
        self._endpoints = endpoints

    async def EnrollAgent(
        self, request: enrollment_service_pb2.EnrollAgentRequest, context: Context
    ) -> enrollment_service_pb2.EnrollAgentResponse:
        signed = await self._enrollment.enroll(
            EnrollmentRequest(
                token=request.token,
                agent_id=request.agent_id,
                labels=dict(request.labels),
                csr_der=request.csr_der,
            )
        )
        return enrollment_service_pb2.EnrollAgentResponse(
            agent=f"agents/{signed.certificate.agent_id}",
            certificate_pem=signed.certificate_pem,
            ca_certificate_pem=signed.ca_certificate_pem,
            expire_time=time_to_proto(signed.certificate.expire_time),
            endpoints=self._endpoints,
        )

    async def GetEndpoints(
        self, request: enrollment_service_pb2.GetEndpointsRequest, context: Context
    ) -> enrollment_service_pb2.GetEndpointsResponse:
        return enrollment_service_pb2.GetEndpointsResponse(
            endpoints=self._endpoints, controller_time=time_to_proto(self._clock.now())
        )
