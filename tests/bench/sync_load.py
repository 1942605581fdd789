"""Connected simulated agents, in a process of their own: one mTLS connection and one Sync stream each.

    python -m tests.bench.sync_load --target HOST:PORT --identities FOLDER --agents N --interval SECONDS

It prints a JSON line when all are connected. Then it reads commands from stdin, one a line: `measure SECONDS` prints
the messages that were answered meanwhile, with their latencies, as a JSON line. It ends with stdin.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import uvloop
from lineside.v1 import agent_pb2, fleet_service_pb2, fleet_service_pb2_grpc, slot_pb2

from tests.bench.simulated_agents import OPTIONS, credentials

CONNECTED_AT_ONCE = 50


@dataclass(slots=True)
class Measurement:
    """Latencies of every answered message since the last look, milliseconds; and how many are still to connect."""

    unconnected: int
    latencies_ms: list[float] = field(default_factory=list)
    all_connected: asyncio.Event = field(default_factory=asyncio.Event)

    def count_connected(self) -> None:
        self.unconnected -= 1
        if self.unconnected == 0:
            self.all_connected.set()

    def take(self) -> list[float]:
        taken, self.latencies_ms = self.latencies_ms, []
        return taken


def first_message() -> fleet_service_pb2.SyncRequest:
    return fleet_service_pb2.SyncRequest(
        observed_state=slot_pb2.ObservedState(boot_count=1),
        host=agent_pb2.Host(
            hostname="simulated", os="linux", architecture="x86_64", cpu_count=8, memory_bytes=16 << 30
        ),
        devices=[agent_pb2.Device(device="CPU", full_name="Simulated CPU", capabilities=["FP32"], auto_choice=True)],
    )


def next_message() -> fleet_service_pb2.SyncRequest:
    slot = slot_pb2.ObservedSlot(
        slot="solar-defect",
        serving_version="models/solar-defect/versions/1",
        target_version="models/solar-defect/versions/1",
        state=slot_pb2.ObservedSlot.STATE_SERVING,
        device="CPU",
        device_reason="the only device",
    )
    return fleet_service_pb2.SyncRequest(observed_state=slot_pb2.ObservedState(slots=[slot], boot_count=1))


async def answer(stream: Any) -> None:
    if await stream.read() is grpc.aio.EOF:
        raise RuntimeError(f"the stream ended: {await stream.code()}: {await stream.details()}")


async def run_agent(
    stub: "fleet_service_pb2_grpc.FleetServiceAsyncStub",
    measurement: Measurement,
    connected: asyncio.Semaphore,
    *,
    delay_seconds: float,
    interval_seconds: float,
) -> None:
    """Hold one stream, sending a whole state at each interval; the agents' phases are spread evenly."""
    async with connected:
        stream = stub.Sync()
        await stream.write(first_message())
        await answer(stream)
    measurement.count_connected()
    await asyncio.sleep(delay_seconds)
    due = time.monotonic()
    while True:
        begin = time.monotonic()
        await stream.write(next_message())
        await answer(stream)
        measurement.latencies_ms.append((time.monotonic() - begin) * 1e3)
        due = max(due + interval_seconds, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def serve_commands(measurement: Measurement) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, seconds = line.split()
        measurement.take()
        await asyncio.sleep(float(seconds))
        taken = measurement.take()
        quantiles = np.percentile(taken, [50, 99, 100])
        figures = dict(zip(("p50_ms", "p99_ms", "worst_ms"), map(float, quantiles), strict=True))
        print(json.dumps({"messages": len(taken), **figures}), flush=True)


async def run(options: argparse.Namespace) -> None:
    measurement, connected = Measurement(unconnected=options.agents), asyncio.Semaphore(CONNECTED_AT_ONCE)
    begin = time.monotonic()
    async with asyncio.TaskGroup() as agents:
        running = []
        for index in range(options.agents):
            shown = credentials(options.identities, f"sim-{index}")
            stub = fleet_service_pb2_grpc.FleetServiceStub(grpc.aio.secure_channel(options.target, shown, OPTIONS))
            spread = options.interval * index / options.agents
            life = run_agent(stub, measurement, connected, delay_seconds=spread, interval_seconds=options.interval)
            running.append(agents.create_task(life))
        await measurement.all_connected.wait()
        gc.disable()  # its pauses would be counted as the server's
        print(json.dumps({"connected": options.agents, "seconds": time.monotonic() - begin}), flush=True)
        await serve_commands(measurement)
        for task in running:
            task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--identities", type=Path, required=True)
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--interval", type=float, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
