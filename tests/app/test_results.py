"""Lists of results through the index: in order whatever was merged, and the table before the lake with them."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.app.evidence import Evidence
from controlplane.app.results import Results
from controlplane.artifacts.object_store import CloudObjectStore
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import Result
from controlplane.domain.lake import FIRST_ARRIVAL, Place, ResultFilter, ResultSpan, stored
from controlplane.lake.codec import ParquetCodec
from tests.support.factories import (
    NOW,
    SOLAR,
    after_seconds,
    digest_of,
    make_agent,
    make_batch,
    make_result,
    make_sample,
)
from tests.support.lake import make_evidence, make_results, memory_objects
from tests.support.memory_store import MemoryStore

ANY = ResultFilter()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def objects() -> CloudObjectStore:
    return memory_objects()


@pytest.fixture
def evidence(store: MemoryStore, objects: CloudObjectStore) -> Evidence:
    return make_evidence(store, objects)


@pytest.fixture
def results(store: MemoryStore, objects: CloudObjectStore) -> Results:
    return make_results(store, objects)


async def report(evidence: Evidence, batch: int, *parts: str, **overrides: object) -> None:
    given_results = tuple(
        make_result(batch=batch, index=index, part_id=part, **overrides) for index, part in enumerate(parts)
    )
    assert await evidence.report(make_batch(batch=batch, windows=(), results=given_results)) is False


async def every_part(results: Results, *, newest_first: bool = False, size: int = 3) -> list[str]:
    parts: list[str] = []
    token = ""
    while True:
        page = await results.list(ANY, page_size=size, page_token=token, newest_first=newest_first)
        parts += [result.part_id for result in page.items]
        token = page.next_token
        if not token:
            return parts


async def merge(store: MemoryStore, objects: CloudObjectStore, numbers: Sequence[int]) -> None:
    """Let one file stand for these, by their place among all."""
    async with store.write() as work:
        every = await work.result_index.list(ANY, after=None, beyond=None, limit=1000)
        before = [every[number] for number in numbers]
        file = ParquetCodec().merge([(await objects.get(one.key), one.first_arrival) for one in before])
        key = f"{before[0].folder}/merged-{numbers[0]}.parquet"
        await objects.put(key, file.content)
        after = replace(
            stored(file, key=key, create_time=NOW, level=1),
            first_arrival=min(one.first_arrival for one in before),
            last_arrival=max(one.last_arrival for one in before),
        )
        await work.result_index.replace(before, [after], now=NOW)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    cut=st.sets(st.integers(0, 5)),
    size=st.integers(1, 5),
)
async def test_pages_hold_everything_once_and_in_order_whatever_was_merged(
    sizes: list[int], cut: set[int], size: int
) -> None:
    store, objects = MemoryStore(), memory_objects()
    evidence, results = make_evidence(store, objects), make_results(store, objects)
    expected = []
    for batch, count in enumerate(sizes):
        # Against the order of arrival, so that a merge really moves rows.
        parts = [f"{9 - batch}-{9 - index}" for index in range(count)]
        expected += parts
        await report(evidence, batch, *parts)
    merged = sorted(number for number in cut if number < len(sizes))
    if merged:
        await merge(store, objects, merged)
    assert await every_part(results, size=size) == expected
    assert await every_part(results, newest_first=True, size=size) == expected[::-1]


async def test_results_of_the_table_before_the_lake_come_first(
    store: MemoryStore, evidence: Evidence, results: Results
) -> None:
    async with store.write() as work:
        work.result_index._tables.result_rows |= {
            number: make_result(batch=0, index=number, part_id=f"old-{number}") for number in (1, 2, 3, 5)
        }
    await report(evidence, 1, "a", "b")
    expected = ["old-1", "old-2", "old-3", "old-5", "a", "b"]
    for size in (1, 2, 4, 5):
        assert await every_part(results, size=size) == expected
        assert await every_part(results, size=size, newest_first=True) == expected[::-1]


async def test_a_page_reads_no_file_that_it_does_not_need(
    store: MemoryStore, objects: CloudObjectStore, evidence: Evidence, results: Results
) -> None:
    for batch in range(4):
        await report(evidence, batch, f"part-{batch}a", f"part-{batch}b")
    async with store.read() as work:
        oldest = (await work.result_index.list(ANY, after=None, beyond=None, limit=1))[0]
    await objects.remove([oldest.key])
    page = await results.list(ANY, page_size=4, newest_first=True)
    assert [result.part_id for result in page.items] == ["part-3b", "part-3a", "part-2b", "part-2a"]
    of_part = await results.list(ResultFilter(part_id="part-2a"))
    assert [result.part_id for result in of_part.items] == ["part-2a"]


async def test_a_part_is_traced_to_place_version_and_sample(
    store: MemoryStore, evidence: Evidence, results: Results
) -> None:
    async with store.write() as work:
        await work.agents.add(make_agent(labels={"site": "s1", "line": "3", "station": "st-1"}))
    await report(evidence, 1, "cell-1", "cell-2")
    await report(evidence, 2, "cell-2", version=2, infer_time=after_seconds(60))
    judged = make_result(batch=-1, index=-1, part_id="cell-2", version=2, infer_time=after_seconds(60))
    async with store.write() as work:
        await work.samples.add(make_sample(digest=digest_of(b"x"), result=judged))
    traced = (await results.trace("cell-2")).items
    assert [(one.result.version, one.place, one.sample_id) for one in traced] == [
        (1, Place(site="s1", line="3", station="st-1"), None),
        (2, Place(site="s1", line="3", station="st-1"), "sample-1"),
    ]
    assert (await results.trace("cell-9")).items == []
    with pytest.raises(FieldInvalidError):
        await results.trace("")


async def test_a_trace_is_paged(evidence: Evidence, results: Results) -> None:
    for batch in range(3):
        await report(evidence, batch, "cell-1", "other")
    first = await results.trace("cell-1", page_size=2)
    rest = await results.trace("cell-1", page_size=2, page_token=first.next_token)
    assert [one.result.batch for one in (*first.items, *rest.items)] == [0, 1, 2]
    assert rest.next_token == ""


async def test_results_lie_in_the_folder_of_their_place_and_day(store: MemoryStore, evidence: Evidence) -> None:
    async with store.write() as work:
        await work.agents.add(make_agent(labels={"line": "3"}))
    midnight = NOW.replace(hour=23, minute=59, second=59)
    late: list[Result] = [
        make_result(infer_time=midnight),
        make_result(index=1, infer_time=midnight + (after_seconds(1) - NOW)),
    ]
    await evidence.report(make_batch(results=tuple(late)))
    async with store.read() as work:
        found = await work.result_index.list_span(ResultSpan(model_id=SOLAR), limit=9)
    folder = "results/site=__HIVE_DEFAULT_PARTITION__/line=3/station=__HIVE_DEFAULT_PARTITION__"
    assert sorted(one.folder for one in found) == [f"{folder}/day=2026-03-01", f"{folder}/day=2026-03-02"]
    assert all(one.first_arrival >= FIRST_ARRIVAL for one in found)
