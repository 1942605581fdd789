"""How a box becomes an agent: a join token and a request for its key go up, a certificate comes back."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from lineside.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc

from agent import limits
from agent.app.ports import RenewedCertificate
from agent.config import Endpoints
from agent.domain.errors import EnrollmentError
from agent.rpc.channel import open_channel
from agent.rpc.controller import resolve_endpoints
from agent.rpc.refusals import enrollment_error

_PREFIX = "lsj1."


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """A join token as text, and the CA that it pins."""

    text: str
    ca_pem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """What the controller answered."""

    agent: str
    """Resource name, `agents/{agent}`."""
    certificate: RenewedCertificate
    endpoints: Endpoints


def parse_join_token(text: str) -> JoinToken:
    """Raises EnrollmentError (field "--token") for a text that is no join token."""
    text = text.strip()
    try:
        if not text.startswith(_PREFIX):
            raise ValueError(f"it does not begin with {_PREFIX}")
        body = text.removeprefix(_PREFIX)
        value = json.loads(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
        certificate = x509.load_der_x509_certificate(base64.b64decode(value["ca"], validate=True))
    except (ValueError, KeyError, TypeError) as error:
        raise EnrollmentError(
            f"this is no join token: {error}",
            field="--token",
            remedy="paste the whole line that `lineside tokens create` printed",
        ) from error
    return JoinToken(text=text, ca_pem=certificate.public_bytes(Encoding.PEM))


async def enroll(
    controller: str, token: JoinToken, *, agent: str, labels: Mapping[str, str], csr_der: bytes
) -> Enrolled:
    """Raises EnrollmentError saying what the controller refused, or that it cannot be reached."""
    request = enrollment_service_pb2.EnrollAgentRequest(
        token=token.text, agent_id=agent, labels=dict(labels), csr_der=csr_der
    )
    async with open_channel(controller, ca_pem=token.ca_pem) as channel:
        stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
        try:
            response = await stub.EnrollAgent(request, timeout=limits.RPC_SECONDS_MAX)
        except grpc.aio.AioRpcError as error:
            raise enrollment_error(error, controller, now=datetime.now(UTC)) from error
    certificate = RenewedCertificate(
        certificate_pem=response.certificate_pem, ca_certificate_pem=response.ca_certificate_pem
    )
    endpoints = resolve_endpoints(response.endpoints, api=controller)
    return Enrolled(agent=response.agent, certificate=certificate, endpoints=endpoints)
