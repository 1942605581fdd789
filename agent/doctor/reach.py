"""Checks of the way to the controller, listener by listener: name, port, TLS against our CA, login, and the clock."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
from lineside.v1 import (
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    fleet_service_pb2_grpc,
)

from agent import limits
from agent.app.ports import Identity
from agent.config import Endpoints
from agent.doctor.finding import Finding, fail, warn, well
from agent.domain.errors import ControllerError, Reason
from agent.rpc.channel import SERVER_NAME, open_channel
from agent.rpc.inference_address import split_address
from agent.rpc.refusals import controller_error

_EXPIRED, _NOT_YET_VALID = 10, 9
"""X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL."""
_SET_CLOCK = "set the clock of this box, for example: timedatectl set-ntp true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One listener. `pki` is the folder of key and certificate where it asks for them."""

    name: str
    address: str
    ca_pem: bytes
    pki: Path | None = None


def check_reach(endpoints: Endpoints, identity: Identity, pki: Path, *, now: datetime) -> Iterator[Finding]:
    """Every listener; then, where they can be reached, whether the controller takes us for its agent, and the clock."""
    routes = (
        Route(name="api", address=endpoints.api, ca_pem=identity.ca_pem),
        Route(name="fleet", address=endpoints.fleet, ca_pem=identity.ca_pem, pki=pki),
        Route(name="bytes", address=endpoints.agent_bytes, ca_pem=identity.ca_pem, pki=pki),
    )
    reached = set()
    for route in routes:
        finding = check_route(route, now=now)
        yield finding
        if not finding.remedy:
            reached.add(route.name)
    if "fleet" in reached:
        yield asyncio.run(check_admission(endpoints.fleet, identity))
    if "api" in reached:
        yield asyncio.run(check_clock(endpoints.api, identity.ca_pem))


def check_route(route: Route, *, now: datetime) -> Finding:
    """Name, connection and handshake."""
    check, address = f"controller {route.name}", route.address
    host, port = split_address(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return fail(
            check,
            f"the name {host} is not known: {error.strerror}",
            f"mend the box's DNS (see /etc/resolv.conf), or add {host} to /etc/hosts",
        )
    try:
        with socket.create_connection((host, port), timeout=limits.DOCTOR_REACH_SECONDS_MAX) as raw:
            return _shake_hands(raw, route, check, now=now)
    except TimeoutError:
        return fail(check, f"{address} does not answer", "let firewalls between pass this port (TCP), both ways")
    except OSError as error:
        return fail(
            check,
            f"{address} takes no connection: {error.strerror or error}",
            "see that the controller runs and listens there: lineside-controlplane serve --listen ...",
        )


def _shake_hands(raw: socket.socket, route: Route, check: str, *, now: datetime) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=route.ca_pem.decode())
    context.set_alpn_protocols(["h2"])
    try:
        if route.pki is not None:
            context.load_cert_chain(route.pki / "certificate.pem", route.pki / "key.pem")
        with context.wrap_socket(raw, server_hostname=SERVER_NAME):
            return well(check, f"{route.address} answers with a certificate of our CA")
    except ssl.SSLCertVerificationError as error:
        return _bad_certificate(check, route.address, error, now=now)
    except ssl.SSLError as error:
        return fail(
            check,
            f"{route.address} does not shake hands: {error.reason or error}",
            "see that this is the controller's port and that nothing between breaks TLS open",
        )


def _bad_certificate(check: str, address: str, error: ssl.SSLCertVerificationError, *, now: datetime) -> Finding:
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        return fail(
            check,
            f"the certificate of {address}: {error.verify_message}; this box says it is {now:%Y-%m-%d %H:%M} UTC",
            f"{_SET_CLOCK}; where it is right, start the controller anew: it renews its certificate",
        )
    return fail(
        check,
        f"{address} has no certificate of our CA: {error.verify_message}",
        "see that the address is this agent's controller's; after a move to another one, enrol into a new folder",
    )


async def check_admission(fleet: str, identity: Identity) -> Finding:
    """Whether the controller takes the certificate: a stream on which nothing is said ends well."""
    check = "admission"
    async with open_channel(fleet, ca_pem=identity.ca_pem, identity=identity) as channel:
        call = fleet_service_pb2_grpc.FleetServiceStub(channel).Sync(timeout=limits.DOCTOR_REACH_SECONDS_MAX)
        try:
            await call.done_writing()
            await call.read()
            code, details = await call.code(), await call.details()
        except grpc.aio.AioRpcError as error:
            return _not_admitted(check, controller_error(error))
        if code is not grpc.StatusCode.OK:
            ended = grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), details=details
            )
            return _not_admitted(check, controller_error(ended))
    return well(check, "the controller takes the certificate")


def _not_admitted(check: str, error: ControllerError) -> Finding:
    if error.reason is Reason.AGENT_REVOKED:
        return fail(
            check,
            "the controller has revoked this agent",
            "if that was a mistake, create a token (`lineside tokens create`) and enrol into a new folder",
        )
    return fail(
        check,
        f"the controller refuses: {error.message}",
        "look at the controller's log; enrol anew where it does not know this agent",
    )


async def check_clock(api: str, ca_pem: bytes) -> Finding:
    """Our clock against the controller's, half of the call's time off at most."""
    check = "clock"
    async with open_channel(api, ca_pem=ca_pem) as channel:
        stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
        try:
            response = await stub.GetEndpoints(
                enrollment_service_pb2.GetEndpointsRequest(), timeout=limits.DOCTOR_REACH_SECONDS_MAX
            )
        except grpc.aio.AioRpcError as error:
            lost = controller_error(error)
            return warn(check, f"the controller does not tell its time: {lost.message}", "look at the controller's log")
    if not response.HasField("controller_time"):
        return well(check, "it agrees with the certificates; this controller does not tell its time")
    offset_seconds = (datetime.now(UTC) - response.controller_time.ToDatetime(tzinfo=UTC)).total_seconds()
    return judge_clock(offset_seconds)


def judge_clock(offset_seconds: float) -> Finding:
    """`offset_seconds` is how far this box is ahead of the controller."""
    check, off = "clock", abs(offset_seconds)
    text = f"{off:.1f} s {'ahead of' if offset_seconds > 0 else 'behind'} the controller's"
    if off > limits.DOCTOR_CLOCK_SECONDS_MAX:
        return fail(check, text, f"{_SET_CLOCK} (on whichever of the two is wrong)")
    if off > limits.DOCTOR_CLOCK_SECONDS_TOLERATED:
        return warn(check, text, f"{_SET_CLOCK}: times of results mislead")
    return well(check, text)
