"""A site's uplink: what goes through it can be cut off, as by a switch that lost its power, and mended."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

PIECE_BYTES = 1 << 16


class Uplink:
    """Passes the ports on from one loopback address to another.

    While it is cut, no byte passes and nobody is told: connections stay open and stay silent, new ones too. Those that
    were open then are lost when it is mended, as their bytes are. While it is mute, what is sent arrives and no answer
    comes back.
    """

    def __init__(self, host: str, to: str) -> None:
        self._host, self._to = host, to
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_cut = self._is_mute = False

    def open(self, ports: Iterable[int]) -> None:
        """Listen on these ports and pass them on."""
        self._thread.start()
        self._run(self._listen(tuple(ports)))

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._is_cut = True

    def mute(self) -> None:
        """Let no answer through from now on."""
        self._is_mute = True

    def mend(self) -> None:
        """Let new connections through; the old ones are gone."""
        self._is_cut = self._is_mute = False
        self._run(self._drop())

    def close(self) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _listen(self, ports: Iterable[int]) -> None:
        for port in ports:
            self._servers.append(await asyncio.start_server(self._handler(port), self._host, port))

    def _handler(self, port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            try:
                await self._connect(port, reader, writer)
            finally:
                self._writers.discard(writer)
                writer.close()

        return handle

    async def _connect(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            # It hears nothing until it gives up or the uplink is mended.
            while await _read(reader):
                pass
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._to, port)
        except OSError:
            return
        self._writers.add(far_writer)
        try:
            ways = [
                asyncio.create_task(self._pass(reader, far_writer, may_be_mute=False)),
                asyncio.create_task(self._pass(far_reader, writer, may_be_mute=True)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers.discard(far_writer)
            far_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_be_mute: bool) -> None:
        while piece := await _read(reader):
            if self._is_cut or (may_be_mute and self._is_mute):
                continue
            writer.write(piece)
            with contextlib.suppress(OSError):
                await writer.drain()

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await self._drop()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(PIECE_BYTES)
    except OSError:
        return b""


@contextmanager
def uplink(host: str, *, to: str, ports: Iterable[int]) -> Iterator[Uplink]:
    """An uplink for the length of the block."""
    made = Uplink(host, to)
    made.open(ports)
    try:
        yield made
    finally:
        made.close()
