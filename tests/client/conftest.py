from collections.abc import Iterator

import pytest

from controlplane.client import Client
from controlplane.client.retry import Pacing
from tests.client.certificates import ServerIdentity, make_identity
from tests.client.fake_controller import FakeController
from tests.client.stepped_time import SteppedTime


@pytest.fixture(scope="session")
def identity() -> ServerIdentity:
    return make_identity()


@pytest.fixture
def fake(identity: ServerIdentity) -> Iterator[FakeController]:
    controller = FakeController(identity=identity)
    controller.start()
    yield controller
    controller.stop()


@pytest.fixture
def time() -> SteppedTime:
    return SteppedTime()


@pytest.fixture
def client(fake: FakeController, time: SteppedTime) -> Iterator[Client]:
    with Client(fake.config, pacing=Pacing(clock=time.now, sleep=time.sleep)) as connected:
        yield connected
