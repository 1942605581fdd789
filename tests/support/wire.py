"""The wire as a bare gRPC client sees it: boxes with keys of their own, channels, and refusals taken apart.

Made of `cryptography` and `grpc` alone, so that a test of the controller proves what any client would meet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from lineside.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc

_NAME_OVERRIDE = (("grpc.ssl_target_name_override", "controlplane.lineside.internal"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refused call, taken apart."""

    code: grpc.StatusCode
    reason: str
    field: str
    remedy: str
    message: str


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Take the error's `google.rpc.Status` apart; a refusal by gRPC itself has no reason."""
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return Refusal(
        code=error.code(),
        reason=info.reason,
        field=info.metadata.get("field", ""),
        remedy=info.metadata.get("remedy", ""),
        message=error.details() or "",
    )


@dataclass(slots=True, kw_only=True)
class Box:
    """A box with a key of its own, which becomes an agent by `enroll`."""

    name: str
    ca_certificate: bytes
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: bytes = b""

    def csr(self) -> bytes:
        """A certificate request in DER."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whatever")])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.DER)

    async def enroll(
        self, api: str, token: str, *, labels: Mapping[str, str] | None = None
    ) -> enrollment_service_pb2.EnrollAgentResponse:
        """Call EnrollAgent and keep the certificate."""
        async with self.tls_channel(api) as channel:
            stub: Any = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
            response: enrollment_service_pb2.EnrollAgentResponse = await stub.EnrollAgent(
                enrollment_service_pb2.EnrollAgentRequest(
                    token=token, agent_id=self.name, labels=labels or {}, csr_der=self.csr()
                ),
                timeout=20,
            )
        self.certificate = response.certificate_pem.encode()
        return response

    def tls_channel(self, address: str) -> grpc.aio.Channel:
        """A channel that pins the CA and shows no certificate."""
        return tls_channel(address, self.ca_certificate)

    def mtls_channel(self, address: str) -> grpc.aio.Channel:
        """A channel that shows this box's certificate."""
        credentials = grpc.ssl_channel_credentials(self.ca_certificate, self.key_pem(), self.certificate)
        return grpc.aio.secure_channel(address, credentials, options=_NAME_OVERRIDE)

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def tls_channel(address: str, ca_certificate: bytes) -> grpc.aio.Channel:
    """A channel that pins the CA and shows no certificate."""
    return grpc.aio.secure_channel(
        address, grpc.ssl_channel_credentials(ca_certificate), options=(*_NAME_OVERRIDE, _ANY_SIZE)
    )


_ANY_SIZE = ("grpc.max_send_message_length", -1)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Metadata of an operator's call."""
    return (("authorization", f"Bearer {token}"),)


async def refused(call: Any) -> Refusal:
    """Await a call that must be refused."""
    try:
        answer: Message = await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"it was answered: {answer}")
