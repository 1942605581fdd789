"""gRPC servers: TLS or mTLS, bounds, health, reflection. Both processes of the controller build theirs here."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from controlplane import limits, observability
from controlplane.config import Address
from controlplane.rpc.authentication import Anyone, Guard
from controlplane.rpc.interceptors import Boundary

HEALTH_SERVICE: Final = str(health.SERVICE_NAME)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFiles:
    """Where the server's key, its certificate and the CA's certificate lie, in PEM."""

    key: Path
    certificate: Path
    ca_certificate: Path

    @classmethod
    def within(cls, pki_dir: Path) -> "KeyFiles":
        return cls(key=pki_dir / "server.key", certificate=pki_dir / "server.pem", ca_certificate=pki_dir / "ca.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One port and what it serves. `register` adds the servicers; `services` are their full names."""

    name: str
    keys: KeyFiles
    mutual: bool
    """Ask for a client certificate of our CA and refuse the handshake without one."""
    guard: Guard
    services: tuple[str, ...]
    register: Callable[[grpc.aio.Server], None]
    guards: Mapping[str, Guard] = field(default_factory=lambda: MappingProxyType({}))
    """Services with another guard than `guard`."""
    reflect: bool = False
    interceptors: tuple[grpc.aio.ServerInterceptor, ...] = ()
    """Around the guard."""
    connection_age_max: timedelta = limits.CONNECTION_AGE_MAX
    """An agent has to shake hands anew after it, so that an expired certificate does not live on."""
    connection_grace: timedelta = limits.CONNECTION_GRACE


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that is bound to `address`; it answers once it has been told to `serve`."""

    listener: Listener
    server: grpc.aio.Server
    address: Address
    health: health.aio.HealthServicer

    async def serve(self) -> None:
        """Answer calls from now on, those that have waited since `bind` included."""
        await self.server.start()
        for service in ("", *self.listener.services):
            await self.health.set(service, health_pb2.HealthCheckResponse.SERVING)
        log.info(
            observability.LISTENING, listener=self.listener.name, address=str(self.address), mutual=self.listener.mutual
        )

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, let calls under way end within the grace, then cut them off."""
        await self.health.enter_graceful_shutdown()
        await self.server.stop(grace_seconds)


async def start(listener: Listener, address: Address, *, fall_back: bool = False) -> Running:
    """Bind and serve; see `bind`."""
    running = await bind(listener, address, fall_back=fall_back)
    await running.serve()
    return running


async def bind(listener: Listener, address: Address, *, fall_back: bool = False) -> Running:
    """Bind without answering. A taken port is tried again for BIND_RETRY_SECONDS, since a killed predecessor may
    still hold it; then any free port is taken if `fall_back`, else OSError says which port is taken."""
    server = grpc.aio.server(
        interceptors=[
            *listener.interceptors,
            Boundary(guard=listener.guard, guards={**listener.guards, **_public_guards()}),
        ],
        options=_options(listener),
    )
    listener.register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    if listener.reflect:
        reflection.enable_server_reflection((*listener.services, HEALTH_SERVICE, reflection.SERVICE_NAME), server)
    bound = await _bind(server, listener, address, fall_back=fall_back)
    return Running(listener=listener, server=server, address=bound, health=health_servicer)


def _public_guards() -> dict[str, Guard]:
    """Health and the contract itself are no secrets."""
    return {HEALTH_SERVICE: Anyone(), str(reflection.SERVICE_NAME): Anyone()}


def _options(listener: Listener) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        # Two servers on one port would share its calls at random; a taken port must be an error.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
        ("grpc.max_concurrent_streams", limits.STREAMS_PER_CONNECTION_MAX),
        # Without these a reconnect storm of a fleet is dropped by half.
        ("grpc.server.max_pending_requests", limits.PENDING_REQUESTS_MAX),
        ("grpc.server.max_pending_requests_hard_limit", limits.PENDING_REQUESTS_HARD_MAX),
        ("grpc.keepalive_time_ms", _ms(limits.KEEPALIVE_INTERVAL)),
        ("grpc.keepalive_timeout_ms", _ms(limits.KEEPALIVE_TIMEOUT)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(limits.CLIENT_PING_INTERVAL_MIN)),
    ]
    if listener.mutual:
        options += [
            ("grpc.max_connection_age_ms", _ms(listener.connection_age_max)),
            ("grpc.max_connection_age_grace_ms", _ms(listener.connection_grace)),
        ]
    return options


def _ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)


def _credentials(listener: Listener) -> grpc.ServerCredentials:
    """Credentials that follow the files: a certificate that was issued anew serves from the next handshake on."""
    files = listener.keys
    seen = files.certificate.stat().st_mtime_ns

    # The stubs do not know that None means "no change".
    def fetch() -> Any:
        nonlocal seen
        stamp = files.certificate.stat().st_mtime_ns
        if stamp == seen:
            return None
        seen = stamp
        return _read(files)

    return grpc.dynamic_ssl_server_credentials(_read(files), fetch, require_client_authentication=listener.mutual)


def _read(files: KeyFiles) -> grpc.ServerCertificateConfiguration:
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=files.ca_certificate.read_bytes())


async def _bind(server: grpc.aio.Server, listener: Listener, address: Address, *, fall_back: bool) -> Address:
    deadline = time.monotonic() + limits.BIND_RETRY_SECONDS
    while True:
        try:
            return _add_port(server, listener, address)
        except RuntimeError as error:
            if time.monotonic() < deadline:
                await asyncio.sleep(limits.BIND_RETRY_INTERVAL_SECONDS)
            elif fall_back:
                return _add_port(server, listener, address.with_port(0))
            else:
                raise OSError(f"cannot listen on {address}: {error}") from error


def _add_port(server: grpc.aio.Server, listener: Listener, address: Address) -> Address:
    # New credentials for each try: gRPC uses up their first configuration, also where the port is taken.
    return address.with_port(server.add_secure_port(str(address), _credentials(listener)))
