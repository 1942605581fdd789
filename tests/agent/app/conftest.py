"""An agent's core in memory: real executor and loops, fakes around them, virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.sync_loop import SyncLoop
from tests.support.agent_core import Core, FakeRuntime, FakeServing, MemoryCache, MemoryState
from tests.support.clock import InlineExecutor, LoopClock
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
    clock = LoopClock()
    conditions = Conditions(clock)
    runtime, serving, cache, rng = FakeRuntime(), FakeServing(), MemoryCache(tmp_path), random.Random(1)
    executor = Executor(
        runtime=runtime,
        serving=serving,
        cache=cache,
        controller=controller,
        state_file=state_file,
        conditions=conditions,
        clock=clock,
        rng=rng,
    )
    sync_loop = SyncLoop(
        controller=controller, executor=executor, runtime=runtime, conditions=conditions, clock=clock, rng=rng
    )
    found = Core(
        clock=clock,
        controller=controller,
        conditions=conditions,
        runtime=runtime,
        serving=serving,
        cache=cache,
        state_file=state_file,
        executor=executor,
        sync_loop=sync_loop,
    )
    yield found
    await found.stop()
