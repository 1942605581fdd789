"""Agents that are enrolled for real, each with a key of its own, and run nothing."""

import asyncio
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lineside.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc

SERVER_NAME = "controlplane.lineside.internal"
OPTIONS = [
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
ENROLLED_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where agents go, each "host:port"."""

    fleet: str
    agent_bytes: str


def enroll(operator_file: Path, *, token: str, names: Sequence[str], folder: Path) -> Endpoints:
    """Enrol each name; leave `folder`/ca.pem, NAME.key and NAME.pem."""
    operator = tomllib.loads(operator_file.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_text(operator["ca_certificate"])
    return asyncio.run(_enroll(operator, token, names, folder))


def credentials(folder: Path, name: str) -> grpc.ChannelCredentials:
    """What the agent shows and trusts."""
    return grpc.ssl_channel_credentials(
        root_certificates=(folder / "ca.pem").read_bytes(),
        private_key=(folder / f"{name}.key").read_bytes(),
        certificate_chain=(folder / f"{name}.pem").read_bytes(),
    )


async def _enroll(operator: Mapping[str, str], token: str, names: Sequence[str], folder: Path) -> Endpoints:
    trusted = grpc.ssl_channel_credentials(root_certificates=operator["ca_certificate"].encode())
    slots = asyncio.Semaphore(ENROLLED_AT_ONCE)
    async with grpc.aio.secure_channel(operator["controller"], trusted, options=OPTIONS) as channel:
        stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)

        async def enroll_one(name: str) -> None:
            key = ec.generate_private_key(ec.SECP256R1())
            request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
            async with slots:
                answer = await stub.EnrollAgent(
                    enrollment_service_pb2.EnrollAgentRequest(
                        token=token, agent_id=name, csr_der=request.public_bytes(serialization.Encoding.DER)
                    )
                )
            (folder / f"{name}.pem").write_text(answer.certificate_pem)
            plain = serialization.NoEncryption()
            pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
            (folder / f"{name}.key").write_bytes(pem)

        await asyncio.gather(*map(enroll_one, names))
        answer = await stub.GetEndpoints(enrollment_service_pb2.GetEndpointsRequest())
    host = operator["controller"].rpartition(":")[0]
    found = answer.endpoints
    return Endpoints(fleet=_with_host(found.fleet, host), agent_bytes=_with_host(found.agent_bytes, host))


def _with_host(endpoint: str, host: str) -> str:
    return f"{host}{endpoint}" if endpoint.startswith(":") else endpoint
