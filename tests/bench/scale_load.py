"""Thousands of connected agents in a process of their own, each with its certificate, connection and Sync stream.

    python -m tests.bench.scale_load --target HOST:PORT --identities FOLDER --agents N --bystanders N

Agents 0 to N-1 are the fleet; the bystanders after them are healthy throughout. It reads commands from stdin, one JSON
object a line, and answers each with one on stdout; it ends with stdin. Times are of the clock that every process of the
machine shares (`time.monotonic`).

    {"do": "connect"}                          everybody, AT_ONCE at a time
    {"do": "measure", "seconds": 20}           latencies of what was answered meanwhile
    {"do": "await", "slot": S, "version": V}   an answer at once, and another when everybody was told
    {"do": "storm"}                            the fleet loses its connections and dials, all in one moment
    {"do": "rejoin"}                           when everybody is back after the controller was away
"""

import argparse
import asyncio
import gc
import json
import random
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from tests.bench.protocol_agent import Fleet, ProtocolAgent

AT_ONCE = 200
WAIT_SECONDS = 180.0


def tls_context(identities: Path, index: int, ca: str) -> ssl.SSLContext:
    """What one agent shows and trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    context.load_cert_chain(identities / f"{index}.pem", identities / "agent.key")
    context.set_alpn_protocols(["h2"])
    return context


class Load:
    """The agents and what is asked about them."""

    def __init__(self, options: argparse.Namespace) -> None:
        host, _, port = options.target.rpartition(":")
        self._fleet = Fleet(host=host, port=int(port), rng=random.Random(options.seed))
        ca = (options.identities / "ca.pem").read_text()
        everybody = [
            ProtocolAgent(index, self._fleet, tls_context(options.identities, index, ca))
            for index in range(options.agents + options.bystanders)
        ]
        self._members, self._bystanders = everybody[: options.agents], everybody[options.agents :]

    async def serve(self) -> None:
        """Do what stdin asks until it ends."""
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            answer = await getattr(self, f"_{command.pop('do')}")(**command)
            print(json.dumps(answer), flush=True)

    async def _connect(self) -> dict[str, Any]:
        begin = time.monotonic()
        everybody = [*self._members, *self._bystanders]
        for first in range(0, len(everybody), AT_ONCE):
            group = everybody[first : first + AT_ONCE]
            for agent in group:
                agent.connect()
            await self._all_synced(first + len(group))
        for agent in everybody:
            agent.spread()
        # Its pauses would be counted as the server's.
        gc.collect()
        gc.freeze()
        gc.disable()
        return {"seconds": time.monotonic() - begin, "refused": self._fleet.refused}

    async def _measure(self, seconds: float) -> dict[str, Any]:
        self._fleet.answers_ms.clear()
        await asyncio.sleep(seconds)
        return _latencies(self._fleet.answers_ms)

    async def _await(self, slot: str, version: str) -> dict[str, Any]:
        self._fleet.told.clear()
        self._fleet.awaited = (slot, version)
        print("{}", flush=True)
        wanted = len(self._members) + len(self._bystanders)
        await self._until(lambda: len(self._fleet.told) >= wanted)
        told = sorted(self._fleet.told.values())
        return {"first": told[0], "median": told[len(told) // 2], "last": told[-1]}

    async def _storm(self) -> dict[str, Any]:
        self._fleet.refused = 0
        lost_before = sum(agent.lost for agent in self._bystanders)
        begin = time.monotonic()
        for agent in self._members:
            agent.drop()
        dropped = time.monotonic()
        self._fleet.answers_ms.clear()
        watch = asyncio.create_task(self._watch_bystanders())
        for agent in self._members:
            agent.connect()
        await self._all_synced(len(self._members) + len(self._bystanders))
        seconds = self._fleet.synced_seconds - dropped
        watch.cancel()
        worst = max(self._worst_bystander, *(agent.unanswered_seconds() for agent in self._bystanders))
        return {
            "seconds": seconds,
            "dropping_seconds": dropped - begin,
            "refused": self._fleet.refused,
            "bystander_worst_seconds": worst,
            "bystanders_lost": sum(agent.lost for agent in self._bystanders) - lost_before,
            "joined": _latencies(self._fleet.answers_ms),
        }

    async def _rejoin(self) -> dict[str, Any]:
        await self._all_synced(len(self._members) + len(self._bystanders))
        return {"last": self._fleet.synced_seconds, "refused": self._fleet.refused}

    async def _watch_bystanders(self) -> None:
        """Keep the longest that any message of a bystander has waited, answered or not."""
        self._worst_bystander = 0.0
        while True:
            waits = (agent.unanswered_seconds() for agent in self._bystanders)
            self._worst_bystander = max(self._worst_bystander, *waits)
            await asyncio.sleep(0.02)

    async def _all_synced(self, count: int) -> None:
        await self._until(lambda: len(self._fleet.synced) >= count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():
                    self._fleet.changed.clear()
                    await self._fleet.changed.wait()
        except TimeoutError:
            sys.exit(f"{len(self._fleet.synced)} agents are synced, {len(self._fleet.told)} told: {self._fleet.causes}")


def _latencies(taken: list[float]) -> dict[str, Any]:
    quantiles = np.percentile(taken, [50, 99, 100]) if taken else np.zeros(3)
    figures = dict(zip(("p50_ms", "p99_ms", "worst_ms"), map(float, quantiles), strict=True))
    return {"messages": len(taken), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True)
    parser.add_argument("--identities", type=Path, required=True)
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--bystanders", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    load = Load(parser.parse_args())
    print("{}", flush=True)
    uvloop.run(load.serve())


if __name__ == "__main__":
    main()
