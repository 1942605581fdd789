"""The listeners of the bytes process, in this process, over real TLS on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controlplane.app.ports import BlobStore
from controlplane.bytes_process import agent_listener, operator_listener
from controlplane.config import Settings
from controlplane.rpc import server
from controlplane.store import SqlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesListeners:
    """Where they are, and the stop that a shutdown makes."""

    agent_bytes: str
    operator_bytes: str


@asynccontextmanager
async def serving_bytes(settings: Settings, *, store: SqlStore, blobs: BlobStore) -> AsyncIterator[BytesListeners]:
    """Serve until the block ends; calls under way are cut off then, as by a kill."""
    agents = await server.start(agent_listener(settings, store=store, blobs=blobs), settings.agent_bytes)
    operators = await server.start(operator_listener(settings, store=store, blobs=blobs), settings.operator_bytes)
    try:
        yield BytesListeners(agent_bytes=str(agents.address), operator_bytes=str(operators.address))
    finally:
        await asyncio.gather(agents.stop(0), operators.stop(0))
