"""An agent's core in memory: real executor and loops, fakes around them, virtual time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_core import Core, FakeRuntime, MemoryCache, MemoryState, new_core
from tests.support.clock import InlineExecutor
from tests.support.fake_controller import FakeController


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
def state_file() -> MemoryState:
    return MemoryState()


@pytest.fixture
async def core(controller: FakeController, state_file: MemoryState, tmp_path: Path) -> AsyncIterator[Core]:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    found = new_core(controller=controller, runtime=FakeRuntime(), cache=MemoryCache(tmp_path), state_file=state_file)
    yield found
    await found.stop()
