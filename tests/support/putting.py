"""An HTTP server that takes PUTs as a cloud's object store takes them from a signed address."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import obstore
from aiohttp import web
from obstore.store import MemoryStore

from controlplane.artifacts.object_store import CloudObjectStore


@dataclass(slots=True)
class Bucket:
    """A store that signs, and the server behind the addresses that it signs."""

    store: MemoryStore = field(default_factory=MemoryStore)
    refuse: bool = False
    """Answer every PUT with 403, as for a signature that ran out."""
    puts: list[str] = field(default_factory=list)
    url: str = ""

    def objects(self) -> CloudObjectStore:
        async def sign(store: Any, method: str, key: str, expires_in: timedelta) -> str:
            assert (method, expires_in > timedelta(0)) == ("PUT", True)
            return f"{self.url}/{key}?signature=valid"

        return CloudObjectStore(self.store, url="memory:///", sign=sign, can_sign=True)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_put("/{key:.*}", self._put)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def _put(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.puts.append(key)
        if self.refuse or request.query.get("signature") != "valid":
            return web.Response(status=403)
        await obstore.put_async(self.store, key, await request.read())
        return web.Response(status=201)
