"""A control process's listeners, in this process, over real TLS on loopback."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.app.tokens import JoinTokenRequest, JoinTokens
from controlplane.composition import Parts, api_listener, compose, fleet_listener
from controlplane.config import Address, Settings
from controlplane.folder import OperatorFile
from controlplane.initialisation import initialise
from controlplane.rpc import server
from tests.support.wire import Box

ANY_PORT = Address(host="127.0.0.1", port=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a test may talk to and look into."""

    parts: Parts
    api: str
    fleet: str
    operator_token: str

    @property
    def ca_certificate(self) -> bytes:
        return self.parts.authority.ca_certificate_pem.encode()

    def box(self, name: str) -> Box:
        return Box(name=name, ca_certificate=self.ca_certificate)

    async def join_token(self, *, uses: int = 1, ttl: timedelta = timedelta(hours=1)) -> str:
        tokens = JoinTokens(
            store=self.parts.store,
            clock=self.parts.clock,
            ids=self.parts.ids,
            ca_certificate_der=self.parts.authority.ca_certificate_der,
        )
        wanted = JoinTokenRequest(uses=uses, ttl=ttl, labels={"line": "3"})
        return (await tokens.create(wanted, actor="operators/admin")).text

    async def agent(self, name: str) -> Box:
        """An enrolled box."""
        box = self.box(name)
        await box.enroll(self.api, await self.join_token())
        return box


def make_settings(folder: Path) -> Settings:
    """Settings of a folder that `initialise` has made."""
    return Settings(
        dir=folder,
        database_url=f"sqlite:///{folder / 'lineside.db'}",
        artifact_url=(folder / "artifacts").as_uri(),
        api=ANY_PORT,
        fleet=ANY_PORT,
        agent_bytes=ANY_PORT,
        operator_bytes=ANY_PORT,
    )


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A controller's folder, to be copied."""
    folder = tmp_path_factory.mktemp("initialised") / "controller"
    url = make_settings(folder).database_url
    initialise(folder, controller=Address(host="127.0.0.1", port=7443), database_url=url)
    return folder


@pytest.fixture
def settings(tmp_path: Path, initialised: Path) -> Settings:
    return make_settings(Path(shutil.copytree(initialised, tmp_path / "controller")))


@pytest.fixture
async def served(settings: Settings) -> AsyncIterator[Served]:
    """The api and fleet listeners with their background work, stopped afterwards."""
    parts = compose(settings)
    observing = asyncio.create_task(parts.observations.run())
    fleet = await server.start(fleet_listener(parts), ANY_PORT)
    api = await server.start(api_listener(parts), ANY_PORT)
    operator = OperatorFile.read(settings.operator_file)
    assert operator is not None
    parts.endpoints.fleet = str(fleet.address)
    try:
        yield Served(parts=parts, api=str(api.address), fleet=str(fleet.address), operator_token=operator.token)
    finally:
        await asyncio.gather(fleet.stop(0), api.stop(0))
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)
        await parts.database.close()
