"""Keeping the results lake: small files become large ones, old ones go, and what nobody names is swept away.

Each step is a file first and one transaction after it, and each is repeated without harm: a round that is killed
anywhere leaves at worst files that nobody names, which a later sweep removes, and readers see every result once at
every moment. Truth is in the index; a round remembers nothing.

- Files of batches become a file an hour, those a file a day, each by place, sorted by part.
- A file that was replaced stays for a while: a reader may have learnt of it just before.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby

import structlog

from controlplane import limits
from controlplane.app.ports import IdSource, Store
from controlplane.app.ports_lake import ObjectStore, ResultCodec, ResultSource
from controlplane.domain.errors import ResourceNotFoundError, StaleWriteError
from controlplane.domain.evidence import Result
from controlplane.domain.lake import (
    FOLDER,
    Place,
    ResultFile,
    ResultFilter,
    ResultObject,
    folder_of,
    merged_key,
    stored,
)

_log = structlog.get_logger()


class LakeKeeping:
    """The leader's work on the lake. `store` writes behind the fence."""

    def __init__(
        self,
        *,
        store: Store,
        objects: ObjectStore,
        codec: ResultCodec,
        ids: IdSource,
        retention: timedelta | None = None,
    ) -> None:
        """Results that came longer than `retention` ago are removed; None keeps them."""
        self._store = store
        self._objects = objects
        self._codec = codec
        self._ids = ids
        self._retention = retention

    async def round(self, now: datetime) -> None:
        """A bounded part of everything that is due."""
        await self.move_rows(now)
        await self.merge(now)
        await self.expire(now)
        await self.remove_waste(now)

    async def merge(self, now: datetime) -> None:
        """Merge what came in hours that are over, and hours of days that are over."""
        settled = now - timedelta(seconds=limits.LAKE_SETTLE_SECONDS)
        hour = settled.replace(minute=0, second=0, microsecond=0)
        for level, before in ((0, hour), (1, hour.replace(hour=0))):
            async with self._store.read() as work:
                small = await work.result_index.list_unmerged(
                    level=level, created_before=before, limit=limits.LAKE_MERGED_A_ROUND
                )
            for group in _groups(small, level=level):
                await self._merge(group, level=level + 1, now=now)

    async def _merge(self, group: Sequence[ResultObject], *, level: int, now: datetime) -> None:
        sources = [(source, one) for one in group if (source := await self._sound(one)) is not None]
        if not sources:
            return
        merged = [one for _, one in sources]
        file = await asyncio.to_thread(self._codec.merge, [(source, one.first_arrival) for source, one in sources])
        hour = merged[0].create_time if level == 1 else None
        key = merged_key(merged[0].folder, hour=hour, nonce=self._ids.short_id())
        await self._objects.put(key, file.content)
        after = stored(file, key=key, create_time=max(one.create_time for one in merged), level=level)
        try:
            async with self._store.write() as work:
                await work.result_index.replace(merged, [after], now=now)
        except StaleWriteError:
            # Retention was faster; the file that we made is ours to remove.
            await self._objects.remove([key])

    async def _sound(self, one: ResultObject) -> ResultSource | None:
        """The object's content, or None, and an alarm in the log, where it is not what was indexed."""
        path = self._objects.path(one.key)
        try:
            content = await asyncio.to_thread(path.read_bytes) if path is not None else await self._objects.get(one.key)
        except (ResourceNotFoundError, FileNotFoundError):
            _log.error("result_object_missing", key=one.key)
            return None
        if "sha256:" + await asyncio.to_thread(_sha256, content) != one.digest:
            _log.error("result_object_damaged", key=one.key)
            return None
        return content

    async def expire(self, now: datetime) -> None:
        """Let go of what came before the retention."""
        if self._retention is None:
            return
        async with self._store.read() as work:
            expired = await work.result_index.list_expired(
                created_before=now - self._retention, limit=limits.LAKE_REMOVED_A_ROUND
            )
        if expired:
            async with self._store.write() as work:
                await work.result_index.replace(expired, [], now=now)

    async def remove_waste(self, now: datetime) -> None:
        """Remove what nobody has named for longer than any reader takes."""
        before = now - timedelta(seconds=limits.LAKE_WASTE_SECONDS)
        async with self._store.read() as work:
            waste = await work.result_index.list_waste(before=before, limit=limits.LAKE_REMOVED_A_ROUND)
        if waste:
            await self._objects.remove(waste)
            async with self._store.write() as work:
                await work.result_index.forget_waste(waste)

    async def sweep(self, now: datetime) -> None:
        """Remove objects that the index has never named: what a kill left between a file and its transaction. They are
        told from files on their way by their age alone, so the clocks of store and controller must agree to the
        hour."""
        oldest = now - timedelta(seconds=limits.LAKE_ORPHAN_SECONDS)
        async for page in self._objects.list(FOLDER):
            old = [one.key for one in page if one.modify_time < oldest]
            if not old:
                continue
            async with self._store.read() as work:
                orphans = sorted(frozenset(old) - await work.result_index.known(old))
            if orphans:
                _log.info("result_objects_swept", count=len(orphans), first=orphans[0])
                await self._objects.remove(orphans)

    async def move_rows(self, now: datetime) -> None:
        """Move some results from the table that held them before the lake; they keep their arrivals."""
        async with self._store.read() as work:
            rows = await work.evidence.list_results(ResultFilter(), after=None, limit=limits.LAKE_ROWS_MOVED_A_ROUND)
            records = await work.agents.list_of({result.agent_id for _, result in rows})
        places = {record.agent.id: Place.of(record.agent.labels) for record in records}

        def place_of(row: tuple[int, Result]) -> tuple[str, str, str]:
            place = places.get(row[1].agent_id, Place())
            return place.site, place.line, place.station

        objects: list[ResultObject] = []
        for (site, line, station), of_place in groupby(sorted(rows, key=place_of), key=place_of):
            place = Place(site=site, line=line, station=station)
            for file in await asyncio.to_thread(self._codec.encode_arrived, list(of_place)):
                objects.append(await self._put_moved(file, place=place, now=now))
        if rows:
            async with self._store.write() as work:
                await work.result_index.move_rows(rows, objects)

    async def _put_moved(self, file: ResultFile, *, place: Place, now: datetime) -> ResultObject:
        came = min(now, file.end_time)
        key = merged_key(folder_of(place, file.day), hour=came, nonce=self._ids.short_id())
        await self._objects.put(key, file.content)
        return stored(file, key=key, create_time=came, level=1)


def _groups(small: Sequence[ResultObject], *, level: int) -> Iterator[Sequence[ResultObject]]:
    """What is to be one file: of one folder, of level 0 of one hour too, within bounds."""

    def key(one: ResultObject) -> tuple[str, str]:
        return one.folder, f"{one.create_time:%Y%m%dT%H}" if level == 0 else ""

    for _, of_key in groupby(small, key=key):
        group: list[ResultObject] = []
        rows = size_bytes = 0
        for one in of_key:
            if group and (
                rows + one.rows > limits.LAKE_MERGED_ROWS_MAX
                or size_bytes + one.size_bytes > limits.LAKE_MERGED_BYTES_MAX
            ):
                yield group
                group, rows, size_bytes = [], 0, 0
            group.append(one)
            rows, size_bytes = rows + one.rows, size_bytes + one.size_bytes
        yield group


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
