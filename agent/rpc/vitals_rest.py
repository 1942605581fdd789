"""What the agent says of itself over HTTP, on its event loop: metrics where they were asked for, and on a socket in its
folder the live status too, for whoever may read the folder."""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from agent import limits
from agent.rpc.inference_address import split_address

_log = structlog.get_logger()

STATUS_PATH = "/status"
METRICS_PATH = "/metrics"


@asynccontextmanager
async def metrics_server(registry: CollectorRegistry, address: str) -> AsyncIterator[str]:
    """`/metrics` at the address, which it gives back with its port; port 0 takes a free one. Raises RequestError for a
    bad address, OSError where it is taken."""
    host, port = split_address(address)
    async with _running([web.get(METRICS_PATH, _metrics_handler(registry))]) as runner:
        await web.TCPSite(runner, host, port).start()
        yield f"{address.rpartition(':')[0]}:{runner.addresses[0][1]}"


@asynccontextmanager
async def status_socket(
    path: Path, registry: CollectorRegistry, status: Callable[[], dict[str, Any]]
) -> AsyncIterator[None]:
    """Status and metrics on a Unix socket that its owner alone may use. Where none can be made, say in a folder that
    cannot be written, that is logged and nothing else is lost."""

    async def answer_status(_: web.Request) -> web.Response:
        return web.json_response(status(), dumps=lambda value: json.dumps(value, default=str))

    routes = [web.get(METRICS_PATH, _metrics_handler(registry)), web.get(STATUS_PATH, answer_status)]
    async with _running(routes) as runner:
        try:
            with short_path(path) as name:
                before = os.umask(0o177)
                try:
                    await web.UnixSite(runner, name).start()
                finally:
                    os.umask(before)
        except OSError as error:
            _log.warning("status_socket_failed", path=str(path), error=str(error))
        try:
            yield
        finally:
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the next start takes its place
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name of the socket that is short enough for the system, however deep its folder lies."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@asynccontextmanager
async def _running(routes: list[web.RouteDef]) -> AsyncIterator[web.AppRunner]:
    application = web.Application()
    application.add_routes(routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=limits.SERVING_STOP_SECONDS_MAX)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def _metrics_handler(registry: CollectorRegistry) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    return answer
