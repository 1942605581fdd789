"""Reads and writes on behalf of many callers at once: those that ask while one is under way share the next.

A fleet that connects, or is told of a change, asks ten thousand times for one row; so it costs a handful of queries. A
read begins after its callers asked: what they were hurried for is in it. The first begins at once, and one that follows
upon another waits a moment for more to ask. A write costs its transaction and a sync of the disk, for one row as for
many.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from typing import Generic, TypeVar, cast

from controlplane import limits

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


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


class SharedWrites(Generic[T, V]):
    """`write_all` writes items in one transaction and returns an outcome for each, in their order; it is called for one
    group at a time. A group that fails is written item by item: none fails for the sake of another."""

    def __init__(self, write_all: Callable[[Sequence[T]], Awaitable[Sequence[V]]], *, at_once_max: int) -> None:
        self._write_all = write_all
        self._at_once_max = at_once_max
        self._asked: list[tuple[T, asyncio.Future[V | None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, item: T) -> V:
        """Return the item's outcome once it is written, or raise why it is not. A caller that gives up does not know
        which of the two came true."""
        future: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._asked.append((item, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return cast("V", await future)

    async def _write(self) -> None:
        while self._asked:
            group, self._asked = self._asked[: self._at_once_max], self._asked[self._at_once_max :]
            if not await self._write_group(group, last_try=len(group) == 1):
                for each in group:
                    await self._write_group([each], last_try=True)

    async def _write_group(self, group: "Sequence[tuple[T, asyncio.Future[V | None]]]", *, last_try: bool) -> bool:
        """Whether every caller has its answer."""
        try:
            outcomes: Sequence[V | Exception] = await self._write_all([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - its caller gets it, none is left waiting
            if not last_try:
                return False
            outcomes = [error]
        for (_, future), outcome in zip(group, outcomes, strict=True):
            _answer([future], outcome)
        return True


def _answer(futures: "list[asyncio.Future[V | None]]", outcome: V | Exception | None) -> None:
    for future in futures:
        # One whose caller gave up is cancelled.
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
