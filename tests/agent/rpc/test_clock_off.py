"""A box whose clock is outside the controller's certificate: it says so, and how to mend it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lineside.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc

from agent.domain.errors import CLOCK_FIELD, Reason
from agent.rpc.channel import SERVER_NAME, open_channel
from agent.rpc.refusals import controller_error, enrollment_error

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


Key = ec.EllipticCurvePrivateKey


def certificate(key: Key, ca: Key, begin: datetime, end: datetime) -> bytes:
    """Of `key`, signed by `ca`, in PEM; the CA's own where both are one."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca" if key is ca else "controller")]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=key is ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
    )
    return builder.sign(ca, hashes.SHA256()).public_bytes(Encoding.PEM)


@asynccontextmanager
async def listener(begin: datetime, end: datetime) -> AsyncIterator[tuple[str, bytes]]:
    """Its address and CA; its certificate is valid from `begin` to `end`."""
    ca, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    server = grpc.aio.server()
    credentials = grpc.ssl_server_credentials([(key_pem, certificate(key, ca, begin, end))])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}", certificate(ca, ca, NOW - 9000 * DAY, NOW + 9000 * DAY)
    finally:
        await server.stop(None)


async def call(channel: grpc.aio.Channel) -> None:
    stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
    await stub.GetEndpoints(enrollment_service_pb2.GetEndpointsRequest(), timeout=20)


@pytest.mark.parametrize(
    ("begin", "end", "what"),
    [(NOW - 400 * DAY, NOW - 300 * DAY, "has expired"), (NOW + 300 * DAY, NOW + 400 * DAY, "is not valid yet")],
)
async def test_a_certificate_outside_its_time_names_the_clock(begin: datetime, end: datetime, what: str) -> None:
    async with listener(begin, end) as (address, ca_pem), open_channel(address, ca_pem=ca_pem) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(channel)
    error = controller_error(failure.value)
    assert (error.field, error.reason, error.retryable) == (CLOCK_FIELD, Reason.CONTROLLER_UNAVAILABLE, True)
    assert what in error.message
    assert "CERTIFICATE" in error.message
    assert "set the clock" in error.remedy
    refused = enrollment_error(failure.value, address, now=NOW)
    assert what in refused.message
    assert str(NOW.year) in refused.message
    assert "set the clock" in refused.remedy


async def test_another_failure_to_connect_names_no_clock() -> None:
    async with (
        listener(NOW - DAY, NOW + DAY) as (address, _),
        listener(NOW - DAY, NOW + DAY) as (_, other_ca_pem),
        open_channel(address, ca_pem=other_ca_pem) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call(channel)
    assert controller_error(failure.value).field == ""
