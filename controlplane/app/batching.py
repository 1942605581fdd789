"""Reads on behalf of many callers at once: those that ask while a read is under way share the next one.

A fleet that connects, or is told of a change, asks ten thousand times for one row; so it costs a handful of queries. A
read begins after its callers asked: what they were hurried for is in it. The first begins at once, and one that follows
upon another waits a moment for more to ask.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

from controlplane import limits

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedReads(Generic[K, V]):
    """`read_all` returns what exists of the keys; it is called for one set of keys at a time."""

    def __init__(self, read_all: Callable[[Collection[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read_all = read_all
        self._asked: dict[K, list[asyncio.Future[V | None]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, key: K) -> V | None:
        """Return its value as of now, None when there is none; raise what the read raises."""
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        # A future a caller: one that gives up takes nothing from the others.
        self._asked.setdefault(key, []).append(future)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return await future

    async def _read(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                found = await self._read_all(asked.keys())
            except Exception as error:  # noqa: BLE001 - every caller gets it, none is left waiting
                for futures in asked.values():
                    _answer(futures, error)
            else:
                for count, (key, futures) in enumerate(asked.items(), start=1):
                    _answer(futures, found.get(key))
                    if count % limits.ANSWERED_A_TURN == 0:
                        # What comes in meanwhile has its turn.
                        await asyncio.sleep(0)
            if self._asked:
                await asyncio.sleep(limits.SHARED_READ_PAUSE_SECONDS)


def _answer(futures: "list[asyncio.Future[V | None]]", outcome: V | Exception | None) -> None:
    for future in futures:
        # One whose caller gave up is cancelled.
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
