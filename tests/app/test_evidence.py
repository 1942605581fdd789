"""Evidence: each batch once, and nothing that cannot be a measurement."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.evidence import Evidence
from controlplane.app.ports import UnitOfWork
from controlplane.app.results import Results
from controlplane.artifacts.object_store import CloudObjectStore
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import LabelScore
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.lake import ResultFilter
from tests.support.contended_store import ContendedStore
from tests.support.factories import make_batch, make_model, make_result, make_shadow_window, make_window
from tests.support.lake import make_evidence, make_results, memory_objects
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import VirtualClock

SKETCH = make_window().latency


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


async def test_a_batch_is_stored_once(evidence: Evidence, results: Results) -> None:
    batch = make_batch()
    assert await evidence.report(batch) is False
    assert await evidence.report(batch) is True
    assert await evidence.report(make_batch(agent_id="st-2")) is False
    assert len((await results.list(ResultFilter())).items) == 2


async def test_a_lost_race_is_run_again(store: MemoryStore, objects: CloudObjectStore) -> None:
    contended = ContendedStore(store, losses=limits.STALE_TRIES_MAX - 1)
    evidence = make_evidence(contended, objects)
    assert await evidence.report(make_batch()) is False
    assert contended.losses == 0


async def test_a_batch_counts_from_when_it_was_received(store: MemoryStore, objects: CloudObjectStore) -> None:
    clock = VirtualClock()
    received = clock.advance(1000)
    async with store.write() as work:
        await work.models.add(make_model())
    await make_evidence(store, objects, clock=clock).report(make_batch())
    async with store.read() as work:
        counts = await work.evidence.count_inferences(ModelId("solar"), 1, received_since=received)
    assert [(count.agent_id, count.inferences) for count in counts] == [("st-1", 10)]


async def test_results_list_in_order_of_arrival_and_against_it(evidence: Evidence, results: Results) -> None:
    for number in range(3):
        given = tuple(make_result(batch=number, index=index, part_id=f"{number}{index}") for index in range(2))
        await evidence.report(make_batch(batch=number, windows=(), results=given))
    wanted = ResultFilter(agent_id=AgentId("st-1"))
    for newest_first, expected in (
        (False, ["00", "01", "10", "11", "20", "21"]),
        (True, ["21", "20", "11", "10", "01", "00"]),
    ):
        seen: list[str] = []
        token = ""
        while True:
            page = await results.list(wanted, page_size=4, page_token=token, newest_first=newest_first)
            seen += [result.part_id for result in page.items]
            token = page.next_token
            if not token:
                break
        assert seen == expected


async def test_one_odd_result_does_not_cost_the_others(evidence: Evidence, results: Results) -> None:
    odd = make_result(
        index=1,
        part_id="p" * 5000,
        error="x" * 5000,
        labels=(LabelScore(label="nan", score=float("nan")), *(LabelScore(label="a" * 5000, score=0.1),) * 6),
    )
    await evidence.report(make_batch(results=(make_result(), odd)))
    first, second = (await results.list(ResultFilter())).items
    assert first == make_result()
    texts = (second.part_id, second.error, second.labels[0].label)
    assert {len(text) for text in texts} == {limits.RESULT_TEXT_CHARS_MAX}
    assert all(text.endswith("…") for text in texts)
    assert [label.score for label in second.labels] == [0.1] * (limits.RESULT_LABELS_MAX - 1)


def window(**overrides: Any) -> dict[str, Any]:
    return {"windows": (make_window(**overrides),)}


def shadow(**overrides: Any) -> dict[str, Any]:
    return {"shadow_windows": (make_shadow_window(**overrides),)}


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"batch": -1}, "batch"),
        ({"dropped_results": -1}, "dropped_results"),
        ({"results": (make_result(),) * (limits.EVIDENCE_RESULTS_MAX + 1)}, "results"),
        ({"windows": (make_window(),) * (limits.EVIDENCE_WINDOWS_MAX + 1)}, "windows"),
        (window(inference_count=-1), "windows"),
        (window(error_count=11), "windows"),
        (window(omitted_count=11), "windows"),
        (window(omitted_count=-1), "windows"),
        (window(confidence_histogram=(1, 2)), "windows.confidence_histogram"),
        (window(latency=replace(SKETCH, relative_accuracy=0.02)), "windows.latency.relative_accuracy"),
        (window(latency=replace(SKETCH, first_bin_key=1 << 30)), "windows.latency.first_bin_key"),
        (window(latency=replace(SKETCH, bin_counts=(1,) * 5000)), "windows.latency.first_bin_key"),
        (window(latency=replace(SKETCH, bin_counts=(-4, 14))), "windows.latency.count"),
        (window(latency=replace(SKETCH, count=11)), "windows.latency.count"),
        (window(latency=replace(SKETCH, sum_ms=float("nan"))), "windows.latency"),
        (window(label_counts={str(label): 0 for label in range(66)}), "windows.label_counts"),
        (window(label_counts={"good": -1}), "windows.label_counts"),
        (window(label_counts={"good": 10}), "windows.label_counts"),
        ({"shadow_windows": (make_shadow_window(),) * (limits.EVIDENCE_WINDOWS_MAX + 1)}, "shadow_windows"),
        (shadow(agreed=9, errors=2), "shadow_windows"),
        (shadow(skipped=-1), "shadow_windows"),
        (shadow(score_distance_histogram=(1, 2)), "shadow_windows.score_distance_histogram"),
        (shadow(candidate_latency=replace(SKETCH, count=11)), "shadow_windows.candidate_latency.count"),
        (
            shadow(serving_latency=replace(SKETCH, relative_accuracy=0.02)),
            "shadow_windows.serving_latency.relative_accuracy",
        ),
    ],
)
async def test_what_cannot_be_a_measurement_is_refused_whole(
    evidence: Evidence, results: Results, overrides: dict[str, Any], field: str
) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await evidence.report(make_batch(**overrides))
    assert refusal.value.field == field
    assert refusal.value.remedy
    assert (await results.list(ResultFilter())).items == []


class Killed(Exception):  # noqa: N818 - no error: the process is gone
    """The process ended here."""


@pytest.mark.parametrize("before", ["put", "commit", "answer"])
async def test_killed_between_any_two_steps_a_batch_is_stored_once(
    store: MemoryStore, objects: CloudObjectStore, results: Results, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = memory_objects()
    monkeypatch.setattr(dying, "_store", objects._store)
    killed = make_evidence(store, dying)
    if before == "put":
        monkeypatch.setattr(dying, "put", _die)
    elif before == "commit":
        monkeypatch.setattr(killed, "_store", DyingStore(store))
    if before == "answer":
        assert await killed.report(make_batch()) is False  # and nobody hears of it
    else:
        with pytest.raises(Killed):
            await killed.report(make_batch())
        assert (await results.list(ResultFilter())).items == []
    evidence = make_evidence(store, objects)
    assert await evidence.report(make_batch()) is (before == "answer")
    assert await evidence.report(make_batch()) is True
    assert (await results.list(ResultFilter())).items == [make_result()]


async def _die(*_: object) -> None:
    raise Killed


class DyingStore:
    """Ends before the first commit."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner = inner

    def read(self) -> object:
        return self._inner.read()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[UnitOfWork]:
        async with self._inner.write() as work:
            yield work
            raise Killed


async def test_who_loses_the_race_for_a_batch_leaves_no_object(
    store: MemoryStore, objects: CloudObjectStore, results: Results
) -> None:
    evidence = make_evidence(store, objects)
    assert sorted(await asyncio.gather(*(evidence.report(make_batch()) for _ in range(8)))) == [False] + [True] * 7
    assert (await results.list(ResultFilter())).items == [make_result()]
    assert len([one async for page in objects.list("results") for one in page]) == 1


async def test_a_batch_without_results_has_no_object(evidence: Evidence, objects: CloudObjectStore) -> None:
    assert await evidence.report(make_batch(results=())) is False
    assert [page async for page in objects.list("results")] == []
