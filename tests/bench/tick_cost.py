"""CPU seconds of ticks over the database that a controller has left, with the controller's own parts, in this process.

It prints the first tick, which reads the whole fleet, and the median of those after it, as JSON.
"""

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

import uvloop

from controlplane.composition import Parts, compose
from controlplane.config import Address, Settings, default_artifact_url
from controlplane.observability import configure_logging
from controlplane.serving import stop_collector

TICKS = 6


async def cost(parts: Parts) -> float:
    begin = time.process_time()
    await parts.led_rollouts.tick(parts.clock.now())
    return time.process_time() - begin


async def run(folder: Path, database_url: str) -> None:
    anywhere = Address.parse("127.0.0.1:0", field="listen")
    parts = compose(
        Settings(
            dir=folder,
            database_url=database_url,
            artifact_url=default_artifact_url(folder),
            api=anywhere,
            fleet=anywhere,
            agent_bytes=anywhere,
            operator_bytes=anywhere,
            sync_interval_seconds=10.0,
        )
    )
    try:
        seconds = []
        # As `serve` does, which collects beside its jobs.
        stop_collector()
        for _ in range(TICKS):
            await parts.leadership.renew_or_wait()
            seconds.append(await cost(parts))
            await asyncio.sleep(0.1)
    finally:
        await parts.database.close()
    print(json.dumps({"first tick, CPU": seconds[0], "one tick, CPU": statistics.median(seconds[1:])}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--database-url", required=True)
    options = parser.parse_args()
    configure_logging(level="WARNING")
    uvloop.run(run(options.dir, options.database_url))


if __name__ == "__main__":
    main()
