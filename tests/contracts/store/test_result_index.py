"""What ResultIndexRepository promises."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import StaleWriteError
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.lake import FIRST_ARRIVAL, ResultFilter, ResultObject, ResultScope, ResultSpan
from tests.support.factories import SOLAR, ST_2, WELD, after_seconds, make_batch
from tests.support.lake import make_object

ANY = ResultFilter()


def scope(agent_id: str = "st-1", model_id: str = "solar", version: int = 1) -> ResultScope:
    return ResultScope(agent_id=AgentId(agent_id), model_id=ModelId(model_id), version=version)


async def add(store: Store, *objects: ResultObject) -> None:
    """Each as a batch of its own."""
    for number, one in enumerate(objects):
        async with store.write() as work:
            assert await work.evidence.add(make_batch(batch=number + 1), [one])


async def names(store: Store, wanted: ResultFilter = ANY, **page: int | bool | None) -> list[str]:
    return [name_of(one) for one in await listed(store, wanted, **page)]


async def listed(store: Store, wanted: ResultFilter = ANY, **page: int | bool | None) -> Sequence[ResultObject]:
    after, beyond, limit = page.get("after"), page.get("beyond"), page.get("limit", 100)
    async with store.read() as work:
        return await work.result_index.list(
            wanted, after=after, beyond=beyond, limit=int(limit or 0), newest_first=bool(page.get("newest_first"))
        )


def name_of(one: ResultObject) -> str:
    return one.key.rpartition("/")[2].removesuffix(".parquet")


async def test_objects_are_kept_whole_and_numbered_as_they_arrive(store: Store) -> None:
    first = make_object("a", rows=3, scopes=(scope(), scope("st-2", "weld", 4)), first_part="", last_part="défaut")
    second = make_object("b", rows=5, level=1, create_time=after_seconds(1))
    async with store.write() as work:
        assert await work.evidence.add(make_batch(), [first, second])
    kept = await listed(store)
    assert [replace(one, first_arrival=0, last_arrival=0) for one in kept] == [first, second]
    assert kept[0].first_arrival > FIRST_ARRIVAL
    assert [one.last_arrival - one.first_arrival for one in kept] == [2, 4]
    assert kept[0].last_arrival < kept[1].first_arrival


async def test_objects_are_listed_by_arrival_and_against_it(store: Store) -> None:
    await add(store, *(make_object(name, rows=10) for name in "abc"))
    a, b, c = await listed(store)
    assert await names(store) == ["a", "b", "c"]
    assert await names(store, newest_first=True) == ["c", "b", "a"]
    assert await names(store, after=a.last_arrival) == ["b", "c"]
    assert await names(store, after=a.last_arrival - 1) == ["a", "b", "c"]
    assert await names(store, after=b.first_arrival, newest_first=True) == ["a"]
    assert await names(store, after=b.first_arrival + 1, newest_first=True) == ["b", "a"]
    assert await names(store, beyond=a.first_arrival, limit=1) == ["b"]
    assert await names(store, beyond=c.last_arrival, limit=1, newest_first=True) == ["b"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ResultFilter(model_id=SOLAR), ["a", "c"]),
        (ResultFilter(model_id=SOLAR, version=2), ["c"]),
        (ResultFilter(version=1), ["a", "b"]),
        (ResultFilter(agent_id=ST_2), ["b"]),
        (ResultFilter(agent_id=ST_2, model_id=SOLAR), []),
        (ResultFilter(part_id="cell-5"), ["a", "c"]),
        (ResultFilter(part_id="x-1", model_id=WELD), ["b"]),
        (ResultFilter(part_id="y"), []),
        (ResultFilter(part_id=""), ["a", "b", "c"]),
    ],
)
async def test_objects_that_cannot_hold_what_is_wanted_are_left_out(
    store: Store, wanted: ResultFilter, expected: list[str]
) -> None:
    await add(
        store,
        make_object("a"),
        make_object("b", scopes=(scope("st-2", "weld"),), first_part="x", last_part="x-9"),
        make_object("c", scopes=(scope(version=2), scope(version=3))),
    )
    assert list(dict.fromkeys(await names(store, wanted))) == expected
    assert list(dict.fromkeys(await names(store, wanted, newest_first=True))) == expected[::-1]


async def test_a_span_names_what_overlaps_it_newest_first(store: Store) -> None:
    def lasting(name: str, start: float, end: float, **more: object) -> ResultObject:
        return make_object(name, start_time=after_seconds(start), end_time=after_seconds(end), **more)

    await add(store, lasting("a", 0, 10), lasting("b", 10, 20, scopes=(scope(version=2),)), lasting("c", 20, 30))

    async def found(**span: object) -> list[str]:
        async with store.read() as work:
            return [name_of(one) for one in await work.result_index.list_span(ResultSpan(**span), limit=9)]  # type: ignore[arg-type]

    assert await found() == ["c", "b", "a"]
    assert await found(start_time=after_seconds(10)) == ["c", "b", "a"]
    assert await found(start_time=after_seconds(11), end_time=after_seconds(20)) == ["b"]
    assert await found(model_id=SOLAR, versions=frozenset({1, 3})) == ["c", "a"]
    assert await found(model_id=SOLAR, versions=frozenset()) == ["c", "b", "a"]
    assert await found(model_id=WELD) == []


async def test_merged_objects_stand_for_those_before_which_become_waste(store: Store) -> None:
    await add(store, *(make_object(name, rows=10) for name in "abc"))
    a, b, c = await listed(store)
    merged = make_object("m", rows=20, level=1, first_arrival=a.first_arrival, last_arrival=b.last_arrival)
    async with store.write() as work:
        await work.result_index.replace([a, b], [merged], now=after_seconds(5))
    assert await listed(store) == [merged, c]
    with pytest.raises(StaleWriteError):
        async with store.write() as work:
            await work.result_index.replace([a, c], [], now=after_seconds(6))
    async with store.read() as work:
        assert await work.result_index.list_waste(before=after_seconds(5), limit=9) == []
        assert sorted(await work.result_index.list_waste(before=after_seconds(6), limit=9)) == [a.key, b.key]
        assert await work.result_index.known([a.key, c.key, merged.key]) == {c.key, merged.key}
    async with store.write() as work:
        await work.result_index.forget_waste([a.key])
    async with store.read() as work:
        assert await work.result_index.list_waste(before=after_seconds(6), limit=9) == [b.key]


async def test_no_arrival_number_is_used_twice_also_when_everything_was_removed(store: Store) -> None:
    await add(store, make_object("a", rows=10))
    (first,) = await listed(store)
    async with store.write() as work:
        await work.result_index.replace([first], [], now=after_seconds(1))
    async with store.write() as work:
        assert await work.evidence.add(make_batch(batch=2), [make_object("b")])
    (second,) = await listed(store)
    assert second.first_arrival > first.last_arrival


async def test_what_is_to_be_merged_comes_by_folder_and_what_is_expired_by_age(store: Store) -> None:
    later = after_seconds(86_400).date()
    await add(
        store,
        make_object("new", create_time=after_seconds(9)),
        make_object("other-day", day=later, create_time=after_seconds(1)),
        make_object("second", create_time=after_seconds(2)),
        make_object("first", create_time=after_seconds(1)),
        make_object("hour", level=1),
    )
    async with store.read() as work:
        unmerged = await work.result_index.list_unmerged(level=0, created_before=after_seconds(9), limit=9)
        expired = await work.result_index.list_expired(created_before=after_seconds(2), limit=2)
    assert [name_of(one) for one in unmerged] == ["first", "second", "other-day"]
    assert name_of(expired[0]) == "hour"
    assert len(expired) == 2
