"""Lists of results, read from the lake through its index.

In order of arrival: a file holds a range of arrival numbers, and files that were merged hold ranges that overlap. A
page is complete once it is full of results that no further file can precede.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence

from controlplane import limits
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Store, UnitOfWork
from controlplane.app.ports_lake import ObjectStore, ResultCodec, ResultSource
from controlplane.domain.evidence import Result
from controlplane.domain.lake import ResultFilter, ResultObject


class Results:
    """Lists results."""

    def __init__(self, *, store: Store, objects: ObjectStore, codec: ResultCodec) -> None:
        self._store = store
        self._objects = objects
        self._codec = codec

    async def list(
        self, wanted: ResultFilter, *, page_size: int = 0, page_token: str = "", newest_first: bool = False
    ) -> Page[Result]:
        """In order of arrival, or against it."""
        size = clamp_page_size(page_size)
        key = decode_page_token(page_token, int)
        after = int(key[0]) if key else None
        numbered = await self.read(wanted, after=after, limit=size + 1, newest_first=newest_first)
        items = [result for _, result in numbered[:size]]
        return Page(items, encode_page_token(numbered[size - 1][0]) if len(numbered) > size else "")

    async def read(
        self, wanted: ResultFilter, *, after: int | None, limit: int, newest_first: bool
    ) -> Sequence[tuple[int, Result]]:
        """Each with its arrival number."""
        sign = -1 if newest_first else 1
        # One snapshot for all of it: a file that is merged meanwhile is neither missed nor met twice.
        async with self._store.read() as work:
            rows = await work.evidence.list_results(wanted, after=after, limit=limit, newest_first=newest_first)
            found = dict(rows)
            async for one in _candidates(work, wanted, after=after, newest_first=newest_first):
                nearest = one.last_arrival if newest_first else one.first_arrival
                if len(found) >= limit and max(sign * arrival for arrival in found) < sign * nearest:
                    break
                found |= dict(await self._read_file(one, wanted, after=after, limit=limit, newest_first=newest_first))
                found = dict(heapq.nsmallest(limit, found.items(), key=lambda pair: sign * pair[0]))
        return sorted(found.items(), key=lambda pair: sign * pair[0])

    async def _read_file(
        self, one: ResultObject, wanted: ResultFilter, *, after: int | None, limit: int, newest_first: bool
    ) -> Sequence[tuple[int, Result]]:
        source = await source_of(self._objects, one.key)
        return await asyncio.to_thread(
            self._codec.read,
            source,
            wanted,
            first_arrival=one.first_arrival,
            after=after,
            limit=limit,
            newest_first=newest_first,
        )


async def source_of(objects: ObjectStore, key: str) -> ResultSource:
    """The object's file where it is one, else its content."""
    path = objects.path(key)
    return path if path is not None else await objects.get(key)


async def _candidates(
    work: UnitOfWork, wanted: ResultFilter, *, after: int | None, newest_first: bool
) -> AsyncIterator[ResultObject]:
    """Files that may hold wanted results, the nearest first."""
    beyond: int | None = None
    while page := await work.result_index.list(
        wanted, after=after, beyond=beyond, limit=limits.LAKE_OBJECTS_A_PAGE, newest_first=newest_first
    ):
        for one in page:
            yield one
        beyond = page[-1].last_arrival if newest_first else page[-1].first_arrival
