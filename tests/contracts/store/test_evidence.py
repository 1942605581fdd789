"""What EvidenceRepository and SampleRepository promise."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta, timezone
from typing import Any

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import ResourceNotFoundError, StaleWriteError
from controlplane.domain.evidence import (
    EvidenceBatch,
    InferenceCount,
    LatencySketch,
    MetricWindow,
    ShadowWindow,
    Tally,
)
from controlplane.domain.ids import ModelId, SampleId
from controlplane.domain.lake import ResultSpan
from controlplane.domain.sample import SampleReason
from tests.support.factories import (
    NOW,
    SOLAR,
    ST_1,
    ST_2,
    after_seconds,
    make_batch,
    make_sample,
    make_shadow_window,
    make_window,
)
from tests.support.lake import make_object


async def add_batches(store: Store, *batches: EvidenceBatch) -> None:
    async with store.write() as work:
        for batch in batches:
            assert await work.evidence.add(batch)


async def stored_rows(store: Store) -> int:
    """Of all objects that the index names."""
    async with store.read() as work:
        return sum(one.rows for one in await work.result_index.list_span(ResultSpan(), limit=1000))


async def test_a_batch_is_stored_once(store: Store) -> None:
    async with store.write() as work:
        assert await work.evidence.has(ST_1, 1) is False
        assert await work.evidence.add(make_batch(), [make_object("a", rows=3)]) is True
        assert await work.evidence.add(make_batch(), [make_object("b", rows=3)]) is False
    async with store.write() as work:
        assert await work.evidence.add(make_batch(windows=()), [make_object("c", rows=5)]) is False
        assert await work.evidence.add(make_batch(agent_id=ST_2)) is True
        assert await work.evidence.add(make_batch(batch=2)) is True
        assert await work.evidence.has(ST_1, 2) is True
    assert await stored_rows(store) == 3


async def test_concurrent_duplicates_are_stored_once(store: Store) -> None:
    async def add(attempt: int) -> bool:
        while True:
            try:
                async with store.write() as work:
                    return await work.evidence.add(make_batch(), [make_object(f"attempt-{attempt}", rows=3)])
            except StaleWriteError:
                continue

    assert sorted(await asyncio.gather(*(add(attempt) for attempt in range(8)))) == [False] * 7 + [True]
    assert await stored_rows(store) == 3


async def test_a_batch_rolled_back_can_be_stored_again(store: Store) -> None:
    async with store.read() as work:
        assert await work.evidence.add(make_batch()) is True
    async with store.write() as work:
        assert await work.evidence.add(make_batch()) is True


async def test_an_empty_batch_is_remembered(store: Store) -> None:
    async with store.write() as work:
        assert await work.evidence.add(make_batch(windows=(), results=())) is True
        assert await work.evidence.add(make_batch()) is False


async def test_windows_are_kept_whole(store: Store) -> None:
    window = make_window(
        latency=LatencySketch(
            relative_accuracy=0.01,
            first_bin_key=-3,
            bin_counts=(1, 0, 2),
            zero_count=1,
            count=4,
            sum_ms=0.1,
            min_ms=0.0,
            max_ms=float("inf"),
        ),
        refused_count=2,
        label_counts={"défaut": 3, "": 1},
    )
    await add_batches(store, make_batch(windows=(window,)))
    async with store.read() as work:
        (placed,) = await work.evidence.list_windows(SOLAR, start_time=None, end_time=None, after=None, limit=9)
    assert placed == ((window.start_time, window.agent_id, window.batch, 0), window)


async def test_windows_that_overlap_the_time_asked_for_are_listed_in_order(store: Store) -> None:
    def window(start_seconds: float) -> dict[str, object]:
        return {"start_time": after_seconds(start_seconds), "end_time": after_seconds(start_seconds + 60)}

    await add_batches(
        store,
        make_batch(batch=1, windows=(make_window(**window(120)), make_window(slot="weld", **window(0)))),
        make_batch(batch=2, windows=(make_window(batch=2, **window(0)), make_window(batch=2, **window(60)))),
    )
    async with store.read() as work:

        async def starts(start_seconds: float | None, end_seconds: float | None) -> list[float]:
            listed = await work.evidence.list_windows(
                SOLAR,
                start_time=None if start_seconds is None else after_seconds(start_seconds),
                end_time=None if end_seconds is None else after_seconds(end_seconds),
                after=None,
                limit=9,
            )
            return [(window.start_time - NOW).total_seconds() for _, window in listed]

        assert await starts(None, None) == [0, 60, 120]
        assert await starts(60, None) == [60, 120]
        assert await starts(59, None) == [0, 60, 120]
        assert await starts(None, 120) == [0, 60]
        assert await starts(60, 120) == [60]
        assert await starts(180, None) == []


@pytest.mark.parametrize("size", [1, 2, 3, 4])
async def test_windows_are_paged_also_where_they_start_together(store: Store, size: int) -> None:
    await add_batches(
        store,
        make_batch(windows=(make_window(), make_window(device="GPU.0"), make_window(start_time=after_seconds(1)))),
        make_batch(agent_id=ST_2, windows=(make_window(agent_id=ST_2),)),
    )
    places = []
    async with store.read() as work:
        after = None
        while page := await work.evidence.list_windows(SOLAR, start_time=None, end_time=None, after=after, limit=size):
            assert len(page) <= size
            places += [place for place, _ in page]
            after = page[-1][0]
    assert [(agent, index) for _, agent, _, index in places] == [("st-1", 0), ("st-1", 1), ("st-2", 0), ("st-1", 2)]


async def test_inferences_are_counted_by_agent_since_they_were_received(store: Store) -> None:
    def batch(agent_id: str, number: int, received_seconds: float, **window: object) -> EvidenceBatch:
        return make_batch(
            agent_id=agent_id,
            batch=number,
            receive_time=after_seconds(received_seconds),
            windows=(make_window(agent_id=agent_id, batch=number, **window),),
            results=(),
        )

    await add_batches(
        store,
        batch("st-2", 1, 10),
        batch("st-2", 2, 20, inference_count=7, error_count=2),
        batch("st-1", 1, 10, inference_count=3, error_count=0),
        batch("st-3", 1, 9.999999),
        batch("st-4", 1, 30, version=2),
        batch("st-5", 1, 30, slot="weld"),
    )
    in_shanghai = after_seconds(10).astimezone(timezone(timedelta(hours=8)))
    async with store.read() as work:
        counts = await work.evidence.count_inferences(SOLAR, 1, received_since=after_seconds(10))
        in_another_zone = await work.evidence.count_inferences(SOLAR, 1, received_since=in_shanghai)
        assert await work.evidence.count_inferences(SOLAR, 1, received_since=after_seconds(21)) == []
        earlier = await work.evidence.count_inferences(
            SOLAR, 1, received_since=after_seconds(10), received_before=after_seconds(20)
        )
    assert counts == [
        InferenceCount(agent_id=ST_1, inferences=3, errors=0, last_receive_time=after_seconds(10)),
        InferenceCount(agent_id=ST_2, inferences=17, errors=3, last_receive_time=after_seconds(20)),
    ]
    assert in_another_zone == counts
    assert [(count.agent_id, count.inferences) for count in earlier] == [(ST_1, 3), (ST_2, 10)]


def make_sketch(first_bin_key: int, *bin_counts: int) -> LatencySketch:
    return LatencySketch(
        relative_accuracy=0.01,
        first_bin_key=first_bin_key,
        bin_counts=bin_counts,
        count=sum(bin_counts),
        sum_ms=1.5 * sum(bin_counts),
        min_ms=1.0 + first_bin_key,
        max_ms=9.0 + first_bin_key,
    )


async def test_windows_are_added_up_by_agent(store: Store) -> None:
    def window(batch: int, sketch: LatencySketch, labels: dict[str, int], **more: object) -> MetricWindow:
        counts = {"inference_count": 5, "error_count": 1, "end_time": after_seconds(2.5), **more}
        return make_window(batch=batch, latency=sketch, label_counts=labels, **counts)

    async def tally(**asked: Any) -> Sequence[Tally]:
        async with store.read() as work:
            return await work.evidence.tally(SOLAR, 1, received_since=after_seconds(10), **asked)

    await add_batches(
        store,
        make_batch(
            receive_time=after_seconds(10),
            windows=(
                window(1, make_sketch(3, 4), {"good": 3, "défaut": 1}, confidence_histogram=(1,) * 20),
                window(
                    1, make_sketch(0), {}, device="GPU.0", inference_count=0, error_count=0, confidence_histogram=()
                ),
                window(1, make_sketch(3, 9), {"good": 9}, version=2),
            ),
            results=(),
        ),
        make_batch(
            batch=2,
            receive_time=after_seconds(20),
            windows=(window(2, make_sketch(1, 1, 3), {"good": 4}, confidence_histogram=(2,) * 20),),
            results=(),
        ),
        make_batch(batch=3, receive_time=after_seconds(9), results=()),
        make_batch(agent_id=ST_2, receive_time=after_seconds(15), results=()),
    )
    first, second = await tally()
    assert second.agent_id == ST_2
    assert first == Tally(
        agent_id=ST_1,
        inferences=10,
        errors=2,
        latency=LatencySketch(
            relative_accuracy=0.01,
            first_bin_key=1,
            bin_counts=(1, 3, 4),
            count=8,
            sum_ms=12.0,
            min_ms=2.0,
            max_ms=12.0,
        ),
        confidence_histogram=(3,) * 20,
        label_counts={"défaut": 1, "good": 7},
        active_seconds=first.active_seconds,
        paced_inferences=8,
        last_receive_time=after_seconds(20),
    )
    assert first.active_seconds == pytest.approx(sum((2.5, 2.5, 2.5)))
    assert [one.inferences for one in await tally(received_before=after_seconds(20))] == [5, second.inferences]
    assert await tally(agent_ids=[ST_2]) == [second]
    assert await tally(agent_ids=[]) == []


async def test_shadow_windows_are_added_up_by_agent(store: Store) -> None:
    def shadow(batch: int, **overrides: Any) -> ShadowWindow:
        return make_shadow_window(batch=batch, **overrides)

    one = make_shadow_window(skipped=2, errors=1, score_distance_histogram=(3,) * 20)
    await add_batches(
        store,
        make_batch(receive_time=after_seconds(10), shadow_windows=(one, shadow(1, candidate_version=3)), windows=()),
        make_batch(batch=2, receive_time=after_seconds(11), shadow_windows=(shadow(2),), windows=()),
        make_batch(batch=3, receive_time=after_seconds(9), shadow_windows=(shadow(3),), windows=()),
    )
    async with store.read() as work:
        (tally,) = await work.evidence.tally_shadow(SOLAR, 2, received_since=after_seconds(10))
        assert await work.evidence.tally_shadow(SOLAR, 4, received_since=after_seconds(10)) == []
    assert (tally.agent_id, tally.compared, tally.agreed) == (ST_1, 2 * one.compared, 2 * one.agreed)
    assert (tally.errors, tally.skipped, tally.last_receive_time) == (1, 2, after_seconds(11))
    assert tally.candidate_latency is not None
    assert tally.candidate_latency.count == 2 * one.candidate_latency.count
    assert tally.score_distance_histogram[0] == 3


async def test_a_batch_stored_twice_counts_its_windows_once(store: Store) -> None:
    batch = make_batch(receive_time=after_seconds(10), shadow_windows=(make_shadow_window(),))
    async with store.write() as work:
        assert await work.evidence.add(batch) is True
        assert await work.evidence.add(batch) is False
    async with store.read() as work:
        (tally,) = await work.evidence.tally_shadow(SOLAR, 2, received_since=NOW)
    assert tally.compared == make_shadow_window().compared


async def test_dropped_results_are_counted_once_a_batch_with_windows_of_the_model(store: Store) -> None:
    await add_batches(
        store,
        make_batch(batch=1, windows=(make_window(), make_window(version=2)), dropped_results=5),
        make_batch(batch=2, windows=(make_window(batch=2, slot="weld"),), results=(), dropped_results=7),
        make_batch(batch=3, windows=(), results=(), dropped_results=11),
        make_batch(batch=4, dropped_results=0),
    )
    async with store.read() as work:
        assert await work.evidence.count_dropped(SOLAR) == 5
        assert await work.evidence.count_dropped(ModelId("nobody")) == 0


async def test_a_sample_is_stored_once_and_kept_whole(store: Store) -> None:
    async with store.write() as work:
        assert await work.samples.add(make_sample()) is True
        assert await work.samples.add(make_sample(size_bytes=9)) is False
        assert await work.samples.get(SampleId("sample-1")) == make_sample()
        with pytest.raises(ResourceNotFoundError, match="samples/nobody"):
            await work.samples.get(SampleId("nobody"))


async def test_samples_are_paged_newest_first_and_filtered(store: Store) -> None:
    samples = [
        make_sample(id="a", create_time=after_seconds(1)),
        make_sample(id="b", create_time=after_seconds(1), reason=SampleReason.RANDOM),
        make_sample(id="c", create_time=after_seconds(0), agent_id=ST_2),
        make_sample(id="d", create_time=after_seconds(2), model_id="weld"),
    ]
    async with store.write() as work:
        for sample in samples:
            await work.samples.add(sample)

        async def ids(**wanted: object) -> list[str]:
            filters = {"model_id": None, "agent_id": None, "reason": None, "before": None, "limit": 10, **wanted}
            return [sample.id for sample in await work.samples.list(**filters)]  # type: ignore[arg-type]

        assert await ids() == ["d", "b", "a", "c"]
        assert await ids(limit=2) == ["d", "b"]
        assert await ids(before=(after_seconds(1), "b")) == ["a", "c"]
        assert await ids(model_id=SOLAR) == ["b", "a", "c"]
        assert await ids(agent_id=ST_2) == ["c"]
        assert await ids(reason=SampleReason.RANDOM) == ["b"]
        assert await ids(model_id="weld", agent_id=ST_2) == []
