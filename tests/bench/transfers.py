"""Downloads one blob over and over, as several agents at once, until stdin ends; a process of its own.

It prints the bytes that it received and the seconds as a JSON line at its end.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

import grpc.aio
import uvloop
from lineside.v1 import artifact_service_pb2, artifact_service_pb2_grpc

from tests.bench.simulated_agents import OPTIONS, credentials

MESSAGE_BYTES_MAX = 4 << 20
LEAST_NICE = 19
AUTOGROUP = Path("/proc/self/autogroup")


async def download(target: str, identities: Path, name: str, digest: str, received: list[int]) -> None:
    options = [*OPTIONS, ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    async with grpc.aio.secure_channel(target, credentials(identities, name), options) as channel:
        stub = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        while True:
            async for answer in stub.ReadBlob(artifact_service_pb2.ReadBlobRequest(digest=digest)):
                received.append(len(answer.data))


async def run(options: argparse.Namespace) -> None:
    received: list[int] = []
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        downloads = [
            group.create_task(download(options.target, options.identities, name, options.digest, received))
            for name in options.names
        ]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for task in downloads:
            task.cancel()
    print(json.dumps({"bytes": sum(received), "seconds": time.monotonic() - begin}), flush=True)


def give_way() -> None:
    """Take only what nobody else wants: the receivers of a real transfer are other boxes, and take nothing from the
    controller. Where Linux schedules by session, niceness counts within one, so the session gets it too."""
    os.nice(LEAST_NICE)
    if AUTOGROUP.exists():
        AUTOGROUP.write_text(str(LEAST_NICE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--identities", type=Path, required=True)
    parser.add_argument("--digest", required=True)
    parser.add_argument("names", nargs="+")
    give_way()
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
