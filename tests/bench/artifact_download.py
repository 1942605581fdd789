"""Downloads an agent's assigned artifact once, by the agent's own client and cache, into a fresh folder.

It prints the bytes, the seconds from the first request to the artifact being whole, checked and durable, as JSON.
"""

import argparse
import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.clock import SystemClock
from agent.config import read_settings
from agent.domain.artifact import Artifact
from agent.domain.slot import ObservedState
from agent.main import tune_allocator
from agent.rpc.controller import GrpcController
from agent.storage.artifact_cache import DiskArtifactCache
from agent.storage.identity import IdentityFiles

ASSIGNED_SECONDS = 30.0


async def assigned_artifact(controller: GrpcController) -> Artifact:
    """The artifact of the one slot that this agent should run."""
    async with asyncio.timeout(ASSIGNED_SECONDS), controller.sync() as stream:
        state = ObservedState(generation=0, slots=(), boot_count=1, agent_time=datetime.now(UTC))
        await stream.send(state, host=None, devices=None)
        while True:
            reply = await stream.receive()
            if reply.desired is not None and reply.desired.slots:
                return reply.desired.slots[0].artifact


async def run(state: Path, cache: Path) -> None:
    settings = read_settings(state / "agent.toml")
    controller = GrpcController(
        settings.endpoints, IdentityFiles(state / "pki", agent=settings.agent), agent=settings.agent
    )
    artifact = await assigned_artifact(controller)
    begin = time.monotonic()
    await DiskArtifactCache(cache, clock=SystemClock()).fetch(artifact, controller)
    seconds = time.monotonic() - begin
    await controller.close()
    print(json.dumps({"bytes": artifact.size_bytes, "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder of an enrolled agent")
    parser.add_argument("--cache", type=Path, required=True, help="fresh folder for the artifact")
    options = parser.parse_args()
    tune_allocator()
    asyncio.run(run(options.state, options.cache))


if __name__ == "__main__":
    main()
