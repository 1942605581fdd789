"""Both local inference servers over one Serving, for tests that speak to them with real clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent import limits
from agent.app.serving import Serving
from agent.app.traffic import Traffic
from agent.app.turns import Places
from agent.rpc.inference_grpc import start_grpc_server
from agent.rpc.inference_rest import start_rest_server
from agent.rpc.shared_memory import SharedMemory
from tests.support.serving import MemoryOffers, MemoryResults, NoShadows, RealClock


@dataclass(frozen=True, kw_only=True)
class InferenceServers:
    serving: Serving
    results: MemoryResults
    offers: MemoryOffers
    grpc_url: str
    http_url: str


@asynccontextmanager
async def running_servers(
    *,
    shared_memory: str = "",
    socket_folder: Path | None = None,
    workers: int = limits.INFERENCE_WORKERS,
    calls_max: int = limits.INFERENCE_CALLS_MAX,
    message_bytes_max: int = limits.INFERENCE_MESSAGE_BYTES_MAX,
    places: int = limits.INFERENCE_PLACES,
) -> AsyncIterator[InferenceServers]:
    """Servers on free ports, and on sockets "grpc" and "http" in the folder, with nothing loaded; bounds as the start
    functions take them."""
    results = MemoryResults()
    offers = MemoryOffers(results)
    serving = Serving(
        clock=RealClock(),
        results=results,
        samples=offers,
        shadows=NoShadows(),
        traffic=Traffic(),
        places=Places(places),
    )
    shared = SharedMemory(shared_memory)
    grpc_socket, http_socket = (socket_folder and socket_folder / name for name in ("grpc", "http"))
    server, port = start_grpc_server(
        serving,
        "127.0.0.1:0",
        shared=shared,
        socket=grpc_socket,
        workers=workers,
        calls_max=calls_max,
        message_bytes_max=message_bytes_max,
    )
    runner = await start_rest_server(
        serving,
        "127.0.0.1:0",
        shared=shared,
        socket=http_socket,
        workers=workers,
        calls_max=calls_max,
        message_bytes_max=message_bytes_max,
    )
    try:
        yield InferenceServers(
            serving=serving,
            results=results,
            offers=offers,
            grpc_url=f"127.0.0.1:{port}",
            http_url=f"127.0.0.1:{runner.addresses[0][1]}",
        )
    finally:
        await runner.cleanup()
        await asyncio.to_thread(server.stop(1).wait)
        serving.close()
        shared.close()
