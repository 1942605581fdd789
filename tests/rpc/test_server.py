"""The boundary and the servers themselves, around servicers made for the test."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from controlplane import limits
from controlplane.config import Address, Settings
from controlplane.domain.errors import CredentialError, LimitExceededError
from controlplane.identity.authority import LocalAuthority
from controlplane.rpc import server
from controlplane.rpc.authentication import Anyone, Context
from tests.rpc.conftest import ANY_PORT, Served
from tests.support.wire import refused, tls_channel

Code = grpc.StatusCode


@dataclass
class Misbehaving:
    """A servicer whose every method goes wrong in its own way."""

    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def crash(self, request: bytes, context: Context) -> bytes:
        raise RuntimeError("the password is swordfish")

    async def refuse(self, request: bytes, context: Context) -> bytes:
        raise LimitExceededError("too many", field="count", remedy="send fewer")

    async def stream_then_refuse(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        yield b"one"
        raise LimitExceededError("too many")

    async def stream_then_crash(self, request: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for message in request:
            yield message
        raise RuntimeError("the password is swordfish")

    async def stream_for_ever(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    def register(self, to: grpc.aio.Server) -> None:
        handlers: dict[str, Any] = {
            "Crash": grpc.unary_unary_rpc_method_handler(_any(self.crash)),
            "Refuse": grpc.unary_unary_rpc_method_handler(_any(self.refuse)),
            "StreamThenRefuse": grpc.unary_stream_rpc_method_handler(_any(self.stream_then_refuse)),
            "StreamThenCrash": grpc.stream_stream_rpc_method_handler(_any(self.stream_then_crash)),
            "StreamForEver": grpc.unary_stream_rpc_method_handler(_any(self.stream_for_ever)),
        }
        to.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Misbehaving", handlers),))


def _any(behaviour: Callable[..., Any]) -> Any:
    return behaviour


class Nobody:
    """A guard that admits no call."""

    async def admit(self, context: Context) -> None:
        raise CredentialError("nobody may")


def make_listener(settings: Settings, servicer: Misbehaving, **changes: Any) -> server.Listener:
    values: dict[str, Any] = {
        "name": "test",
        "keys": server.KeyFiles.within(settings.pki_dir),
        "mutual": False,
        "guard": Anyone(),
        "services": ("test.Misbehaving",),
        "register": servicer.register,
    }
    return server.Listener(**(values | changes))


@pytest.fixture
def servicer() -> Misbehaving:
    return Misbehaving()


@pytest.fixture
async def channel(settings: Settings, servicer: Misbehaving) -> AsyncIterator[Any]:
    running = await server.start(make_listener(settings, servicer), ANY_PORT)
    ca = (settings.pki_dir / "ca.pem").read_bytes()
    async with tls_channel(str(running.address), ca) as channel:
        yield channel
    await running.stop(0)


async def test_a_crash_tells_an_id_that_stands_in_the_log_and_nothing_else(
    channel: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = await refused(channel.unary_unary("/test.Misbehaving/Crash")(b""))
    assert (refusal.code, refusal.reason) == (Code.INTERNAL, "")
    found = re.fullmatch(r"the controller failed; its log names the cause under id ([0-9a-f]{32})", refusal.message)
    assert found
    log = capsys.readouterr().out
    assert found[1] in log
    assert "swordfish" in log


async def test_a_refusal_carries_its_details(channel: Any) -> None:
    refusal = await refused(channel.unary_unary("/test.Misbehaving/Refuse")(b""))
    assert (refusal.code, refusal.reason) == (Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert (refusal.field, refusal.remedy, refusal.message) == ("count", "send fewer", "count: too many; send fewer")


async def test_a_stream_is_refused_after_what_it_said(channel: Any) -> None:
    stream: Any = channel.unary_stream("/test.Misbehaving/StreamThenRefuse")(b"")
    assert await stream.read() == b"one"
    assert (await refused(stream.read())).reason == "LIMIT_EXCEEDED"


async def test_a_crash_of_a_stream_both_ways_tells_no_cause(channel: Any) -> None:
    async def messages() -> AsyncIterator[bytes]:
        yield b"one"

    stream: Any = channel.stream_stream("/test.Misbehaving/StreamThenCrash")(messages())
    assert await stream.read() == b"one"
    refusal = await refused(stream.read())
    assert refusal.code is Code.INTERNAL
    assert "swordfish" not in refusal.message


async def test_a_cancelled_stream_releases_what_its_servicer_holds(channel: Any, servicer: Misbehaving) -> None:
    stream: Any = channel.unary_stream("/test.Misbehaving/StreamForEver")(b"")
    assert await stream.read() == b"one"
    stream.cancel()
    async with asyncio.timeout(5):
        await servicer.closed.wait()


async def test_a_method_that_does_not_exist_is_unimplemented(channel: Any) -> None:
    assert (await refused(channel.unary_unary("/test.Misbehaving/Nothing")(b""))).code is Code.UNIMPLEMENTED


async def test_a_guard_stands_before_every_kind_of_method_but_health(settings: Settings, servicer: Misbehaving) -> None:
    running = await server.start(make_listener(settings, servicer, guard=Nobody()), ANY_PORT)
    ca = (settings.pki_dir / "ca.pem").read_bytes()
    async with tls_channel(str(running.address), ca) as opened:
        channel: Any = opened
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: channel.unary_unary("/test.Misbehaving/Refuse")(b""),
            lambda: channel.unary_stream("/test.Misbehaving/StreamForEver")(b"").read(),
            lambda: channel.stream_stream("/test.Misbehaving/StreamThenCrash")(iter([b"x"])).read(),
        ]
        for call in calls:
            assert (await refused(call())).code is Code.UNAUTHENTICATED
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="test.Misbehaving"))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await running.stop(0)


async def test_the_api_describes_itself_to_anybody(served: Served) -> None:
    async with tls_channel(served.api, served.ca_certificate) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        stream = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await stream.read()
    names = {service.name for service in answer.list_services_response.service}
    assert {"lineside.v1.EnrollmentService", "lineside.v1.ModelService", "lineside.v1.RolloutService"} <= names


async def test_a_certificate_issued_anew_serves_from_the_next_handshake_on(settings: Settings) -> None:
    authority = LocalAuthority(settings.pki_dir, agent_certificate_ttl=timedelta(days=1))
    running = await server.start(make_listener(settings, Misbehaving()), ANY_PORT)
    before = await _served_certificate(running.address)
    assert authority.ensure_server_certificate(("192.0.2.9",), now=datetime.now(UTC))
    assert await _served_certificate(running.address) != before
    await running.stop(0)


async def test_a_taken_port_is_an_error_or_left_for_a_free_one(
    settings: Settings, servicer: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BIND_RETRY_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(OSError, match=str(address.port)):
            await server.bind(make_listener(settings, servicer), address)
        running = await server.start(make_listener(settings, servicer), address, fall_back=True)
    assert running.address.port != address.port
    await running.stop(0)


async def test_a_port_that_is_let_go_of_is_taken(settings: Settings, servicer: Misbehaving) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    address = Address(host="127.0.0.1", port=taken.getsockname()[1])
    starting = asyncio.create_task(server.start(make_listener(settings, servicer), address))
    asyncio.get_running_loop().call_later(limits.BIND_RETRY_INTERVAL_SECONDS, taken.close)
    running = await starting
    assert running.address == address
    await running.stop(0)


async def _served_certificate(address: Address) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    assert isinstance(certificate, bytes)
    return certificate
