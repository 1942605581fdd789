"""An agent's executor on a real state file, in a process that a load of version 2 ends at once.

    python crashing_agent.py FOLDER

Exits with 70 where the load ends it; else prints what serves and what has failed once that has settled.
"""

import asyncio
import json
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.shadowing import Shadows
from agent.app.traffic import Traffic
from agent.clock import SystemClock
from agent.domain.artifact import ModelSignature
from agent.domain.device import Configuration, RuntimePolicy
from agent.domain.slot import SlotState
from agent.storage.state_file import JsonStateFile
from tests.support.agent_core import FakeLoaded, FakeRuntime, FakeServing, MemoryCache, state, wanted
from tests.support.fake_controller import FakeController
from tests.support.serving import MemoryComparisons, NoSamples


class CrashingRuntime(FakeRuntime):
    async def load(
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, configuration: Configuration
    ) -> FakeLoaded:
        if folder.name == wanted(2).artifact.digest:
            os._exit(70)
        return await super().load(folder, signature, policy, configuration)


async def run(root: Path) -> None:
    clock, serving, cache = SystemClock(), FakeServing(), MemoryCache(root)
    cache.complete.add(wanted(1).artifact.digest)
    state_file = JsonStateFile(root / "state.json")
    executor = Executor(
        runtime=CrashingRuntime(),
        serving=serving,
        cache=cache,
        controller=FakeController(),
        state_file=state_file,
        shadows=Shadows(results=MemoryComparisons(), samples=NoSamples(), traffic=Traffic(), clock=clock),
        conditions=Conditions(clock),
        clock=clock,
        rng=random.Random(1),
    )
    changed = asyncio.Event()
    executor.subscribe(changed.set)
    await executor.start()
    loop = asyncio.create_task(executor.run())

    async def reach(version: int) -> None:
        if executor.generation < version:
            await executor.desire(state(version, wanted(version)))
        while not any(
            slot.target_version >= version and slot.state in (SlotState.SERVING, SlotState.FAILED)
            for slot in executor.observed()
        ):
            changed.clear()
            await changed.wait()

    async with asyncio.timeout(30):
        await reach(1)
        await reach(2)
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    failures = [[failure.slot, failure.version, failure.reason] for failure in state_file.load().failures]
    print(json.dumps({"serving": serving.versions(), "failures": failures}))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1])))
