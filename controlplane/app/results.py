"""Lists of results, read from the lake through its index.

In order of arrival: a file holds a range of arrival numbers, and files that were merged hold ranges that overlap. A
page is complete once it is full of results that no further file can precede.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from controlplane import limits
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Store, UnitOfWork
from controlplane.app.ports_lake import ObjectStore, ResultCodec, ResultSource
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import Result
from controlplane.domain.ids import ModelId, SampleId
from controlplane.domain.lake import Place, ResultFilter, ResultObject, place_of
from controlplane.domain.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedResult:
    """A result with where it was given, and the sample that was kept of its input."""

    result: Result
    place: Place
    sample_id: SampleId | None = None


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
        items = [result for _, result, _ in numbered[:size]]
        return Page(items, encode_page_token(numbered[size - 1][0]) if len(numbered) > size else "")

    async def trace(self, part_id: str, *, page_size: int = 0, page_token: str = "") -> Page[TracedResult]:
        """Everything that was judged of the part, in order of arrival."""
        if not part_id:
            raise FieldInvalidError("no part is named", field="part_id", remedy="name the part as the line does")
        size = clamp_page_size(page_size)
        key = decode_page_token(page_token, int)
        after = int(key[0]) if key else None
        numbered = await self.read(ResultFilter(part_id=part_id), after=after, limit=size + 1, newest_first=False)
        page = numbered[:size]
        async with self._store.read() as work:
            records = await work.agents.list_of({result.agent_id for _, result, key in page if not key})
            samples: list[Sample] = []
            for model_id in sorted({result.slot for _, result, _ in page}):
                samples += await self._samples(work, model_id, part_id)
        places = {record.agent.id: Place.of(record.agent.labels) for record in records}
        traced = [
            TracedResult(
                result=result,
                place=place_of(key) if key else places.get(result.agent_id, Place()),
                sample_id=_sample_of(result, samples),
            )
            for _, result, key in page
        ]
        return Page(traced, encode_page_token(numbered[size - 1][0]) if len(numbered) > size else "")

    async def _samples(self, work: UnitOfWork, model_id: ModelId, part_id: str) -> Sequence[Sample]:
        targets = await work.samples.find_targets(model_id, [part_id])
        return await work.samples.list_of([sample_id for sample_id, _, _ in targets])

    async def read(
        self, wanted: ResultFilter, *, after: int | None, limit: int, newest_first: bool
    ) -> Sequence[tuple[int, Result, str]]:
        """Each with its arrival number and the key of the object that holds it; "" for the table before the lake."""
        sign = -1 if newest_first else 1
        # One snapshot for all of it: a file that is merged meanwhile is neither missed nor met twice.
        async with self._store.read() as work:
            rows = await work.evidence.list_results(wanted, after=after, limit=limit, newest_first=newest_first)
            found = {arrival: (result, "") for arrival, result in rows}
            async for one in _candidates(work, wanted, after=after, newest_first=newest_first):
                nearest = one.last_arrival if newest_first else one.first_arrival
                if len(found) >= limit and max(sign * arrival for arrival in found) < sign * nearest:
                    break
                held = await self._read_file(one, wanted, after=after, limit=limit, newest_first=newest_first)
                found |= {arrival: (result, one.key) for arrival, result in held}
                nearest_first = heapq.nsmallest(limit, found, key=lambda arrival: sign * arrival)
                found = {arrival: found[arrival] for arrival in nearest_first}
        return [(arrival, *found[arrival]) for arrival in sorted(found, key=lambda arrival: sign * arrival)]

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


def _sample_of(result: Result, samples: Sequence[Sample]) -> SampleId | None:
    """The sample whose result this is. A sample does not know the number of its batch, but all else."""
    for sample in samples:
        of = sample.result
        if (of.agent_id, of.infer_time, of.request_id, of.batch_index, of.version) == (
            result.agent_id,
            result.infer_time,
            result.request_id,
            result.batch_index,
            result.version,
        ):
            return sample.id
    return None


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
