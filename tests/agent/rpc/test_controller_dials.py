"""When the agent dials: each try of Sync and of a transfer really does, and nothing else does behind its back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.app.ports import EvidenceBatch, Identity, RenewedCertificate
from agent.config import Endpoints
from agent.domain.errors import ControllerError
from agent.domain.slot import ObservedState
from agent.rpc.controller import GrpcController
from controlplane.domain.ids import AgentId
from controlplane.identity.authority import LocalAuthority, create_ca
from tests.support.wire import Box

NOW = datetime.now(UTC)
STATE = ObservedState(generation=0, slots=(), boot_count=1, agent_time=NOW)
BATCH = EvidenceBatch(number=1, windows=(), results=())


class OneIdentity:
    """`agent.app.ports.Certificates` with a certificate that is never renewed."""

    def __init__(self, folder: Path) -> None:
        create_ca(folder, now=NOW)
        authority = LocalAuthority(folder, agent_certificate_ttl=timedelta(days=1))
        box = Box(name="st-1", ca_certificate=b"")
        signed = authority.sign(box.csr(), agent_id=AgentId("st-1"), now=NOW)
        self._identity = Identity(
            key_pem=box.key_pem(),
            certificate_pem=signed.certificate_pem.encode(),
            ca_pem=signed.ca_certificate_pem.encode(),
        )

    def read(self) -> Identity:
        return self._identity

    def expire_time(self) -> datetime:
        return NOW + timedelta(days=1)

    def lifetime(self) -> timedelta:
        return timedelta(days=1)

    def new_request(self) -> bytes:
        raise AssertionError("nobody renews here")

    def install(self, renewed: RenewedCertificate) -> None:
        raise AssertionError("nobody renews here")


@dataclass
class Listener:
    """A port that counts who dials it, and hangs up."""

    port: int
    dials: int = 0
    dialled: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._greet, "127.0.0.1", self.port):
            yield

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dials += 1
        self.dialled.set()
        writer.close()


@pytest.fixture
def listener() -> Listener:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return Listener(free.getsockname()[1])


@pytest.fixture
async def controller(listener: Listener, tmp_path: Path) -> AsyncIterator[GrpcController]:
    address = f"127.0.0.1:{listener.port}"
    endpoints = Endpoints(api=address, fleet=address, agent_bytes=address)
    controller = GrpcController(endpoints, OneIdentity(tmp_path), agent="st-1")
    yield controller
    await controller.close()


async def sync(controller: GrpcController) -> None:
    async with controller.sync() as stream:
        await stream.send(STATE, host=None, devices=None)
        await stream.receive()


async def read(controller: GrpcController) -> None:
    async for _ in controller.read_blob("sha256:0", offset_bytes=0):
        pass


@pytest.mark.parametrize("call", [sync, read])
async def test_each_try_dials(
    controller: GrpcController, listener: Listener, call: Callable[[GrpcController], Awaitable[None]]
) -> None:
    for _ in range(3):
        with pytest.raises(ControllerError):
            await call(controller)
    async with listener.listening(), asyncio.timeout(2):
        with pytest.raises(ControllerError):
            await call(controller)
        await listener.dialled.wait()


async def test_evidence_rides_on_the_connection_of_sync(controller: GrpcController, listener: Listener) -> None:
    with pytest.raises(ControllerError):
        await sync(controller)
    async with listener.listening():
        for _ in range(3):
            with pytest.raises(ControllerError):
                await controller.report_evidence(BATCH)
        assert listener.dials == 0
