"""The serving path: swaps that lose nothing, results before answers, refusals with field and remedy."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent import limits
from agent.app.serving import Serving
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.app.turns import Places
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.errors import Reason, RequestError
from agent.domain.result import Outcome
from tests.support.line import wait_until
from tests.support.serving import (
    FakeModel,
    MemoryOffers,
    MemoryResults,
    NoShadows,
    RealClock,
    SteppingClock,
    desired_slot,
)


class Bench:
    """A Serving over fakes."""

    def __init__(self) -> None:
        self.results = MemoryResults()
        self.offers = MemoryOffers(self.results)
        self.serving = Serving(
            clock=SteppingClock(), results=self.results, samples=self.offers, shadows=NoShadows(), traffic=Traffic()
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def image(items: int = 1, **changes: object) -> InputTensor:
    tensor = InputTensor(name="x", datatype="FP32", shape=(items, 3), data=np.zeros((items, 3), np.float32).tobytes())
    return replace(tensor, **changes)  # type: ignore[arg-type]


def test_an_answer_names_its_version_and_its_results_are_kept(bench: Bench) -> None:
    bench.serving.swap(desired_slot(7), FakeModel(score=0.75))
    answer = bench.serving.infer("cells", None, [image(2)], part_id="P1", request_id="r1")
    assert (answer.model.slot, answer.model.version, answer.model.device) == ("cells", 7, "FAKE")
    assert answer.outputs["scores"].tolist() == [[0.25, 0.75]] * 2
    assert tuple(bench.results.results) == answer.results
    assert [result.batch_index for result in answer.results] == [0, 1]
    first = answer.results[0]
    assert (first.slot, first.version, first.part_id, first.request_id) == ("cells", 7, "P1", "r1")
    assert [label.label for label in first.labels] == ["defect", "ok"]
    assert first.outcome is Outcome.OK
    assert first.latency_us == 3000


def test_inputs_are_offered_after_their_results_are_kept(bench: Bench) -> None:
    bench.serving.swap(desired_slot(1, budget_bytes_per_day=5), FakeModel())
    answer = bench.serving.infer("cells", 1, [image(3)])
    ((inputs, results, policy),) = bench.offers.offers
    assert inputs["x"].shape == (3, 3)
    assert tuple(results) == answer.results
    assert policy.budget_bytes_per_day == 5
    assert bench.offers.results_seen == [3]


def test_adopt_changes_what_surrounds_the_version(bench: Bench) -> None:
    bench.serving.swap(desired_slot(1), FakeModel())
    bench.serving.adopt(desired_slot(1, budget_bytes_per_day=9))
    bench.serving.infer("cells", None, [image()])
    assert bench.offers.offers[0][2].budget_bytes_per_day == 9


def test_a_request_finishes_on_the_version_that_it_began_with(bench: Bench) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert go_on.wait(10)

    old, new = FakeModel(score=0.9, during=wait), FakeModel(score=0.1)
    bench.serving.swap(desired_slot(1), old)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(bench.serving.infer, "cells", None, [image()])
        assert entered.wait(10)
        bench.serving.swap(desired_slot(2), new)
        assert bench.serving.infer("cells", None, [image()]).model.version == 2
        assert old.closed == 0
        go_on.set()
        assert slow.result().model.version == 1
    assert old.closed == 1
    bench.serving.close()
    assert new.closed == 1


def test_swapping_under_load_loses_no_request_and_no_result(bench: Bench) -> None:
    models = {version: FakeModel(score=version / 64) for version in range(1, 33)}
    bench.serving.swap(desired_slot(1), models[1])
    done = threading.Event()

    def load() -> list[tuple[int, float]]:
        seen = []
        while not done.is_set():
            answer = bench.serving.infer("cells", None, [image()])
            assert answer.results[0].version == answer.model.version
            seen.append((answer.model.version, float(answer.outputs["scores"][0, 1])))
        return seen

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(load) for _ in range(4)]
        for version in range(2, 33):
            bench.serving.swap(desired_slot(version), models[version])
            bench.results.wait_for_more(8)
        done.set()
        answers = [answer for run in runs for answer in run.result()]
    assert all(score == version / 64 for version, score in answers)
    assert sorted(version for version, _ in answers) == sorted(result.version for result in bench.results.results)
    assert {version for version, _ in answers} >= {2, 31, 32}
    assert [models[version].closed for version in range(1, 33)] == [1] * 31 + [0]


def test_a_failed_inference_is_a_result_for_each_item(bench: Bench) -> None:
    bench.serving.swap(desired_slot(4), FakeModel(fails=True))
    with pytest.raises(RequestError) as caught:
        bench.serving.infer("cells", None, [image(2)], part_id="P9")
    assert caught.value.reason is Reason.INFERENCE_FAILED
    assert [(each.outcome, each.version, each.part_id, each.error) for each in bench.results.results] == [
        (Outcome.ERROR, 4, "P9", "the device is gone")
    ] * 2
    assert bench.offers.offers == []
    (counted,) = bench.serving.statistics("cells")
    assert (counted.failed, counted.requests) == (1, 0)


def test_a_busy_device_refuses_and_keeps_no_result(bench: Bench) -> None:
    bench.serving.swap(desired_slot(4), FakeModel(busy=True))
    with pytest.raises(RequestError) as caught:
        bench.serving.infer("cells", None, [image()])
    assert caught.value.reason is Reason.QUEUE_FULL
    assert bench.results.results == []
    assert bench.results.refused == [("cells", 4)]


def test_a_full_disk_does_not_stop_the_line(bench: Bench) -> None:
    bench.serving.swap(desired_slot(4), FakeModel())
    bench.results.disk_full = True
    assert bench.serving.infer("cells", None, [image()]).model.version == 4


REFUSALS = {
    "unknown input": ([image(name="y")], {}, "inputs"),
    "missing input": ([], {}, "inputs"),
    "input twice": ([image(), image()], {}, "inputs"),
    "datatype": ([image(datatype="UINT8")], {}, "inputs[x].datatype"),
    "rank": ([image(shape=(1, 1, 3))], {}, "inputs[x].shape"),
    "dimension": ([image(shape=(1, 4))], {}, "inputs[x].shape"),
    "empty batch": ([image(shape=(0, 3), data=b"")], {}, "inputs[x].shape"),
    "negative": ([image(shape=(-1, 3))], {}, "inputs[x].shape"),
    "large batch": ([image(shape=(1025, 3))], {}, "inputs[x].shape"),
    "too few bytes": ([image(data=b"\0" * 11)], {}, "inputs[x].data"),
    "too many bytes": ([image(data=memoryview(b"\0" * 13))], {}, "inputs[x].data"),
    "array of another type": ([image(data=np.zeros((1, 3), np.float64))], {}, "inputs[x].data"),
    "array of another size": ([image(data=np.zeros((1, 4), np.float32))], {}, "inputs[x].data"),
    "unknown output": ([image()], {"requested_outputs": ["boxes"]}, "outputs"),
    "long part id": ([image()], {"part_id": "p" * 257}, "parameters[part_id]"),
    "NUL in the part id": ([image()], {"part_id": "p\0"}, "parameters[part_id]"),
    "half a pair in the part id": ([image()], {"part_id": "\ud800"}, "parameters[part_id]"),
    "NUL in the id": ([image()], {"request_id": "\0"}, "id"),
    "long request id": ([image()], {"request_id": "r" * 257}, "id"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_requests_are_refused_with_field_and_remedy(bench: Bench, case: str) -> None:
    inputs, options, field = REFUSALS[case]
    bench.serving.swap(desired_slot(4), FakeModel())
    with pytest.raises(RequestError) as caught:
        bench.serving.infer("cells", None, inputs, **options)  # type: ignore[arg-type]
    assert caught.value.reason is Reason.INPUT_INVALID
    assert caught.value.field == field
    assert caught.value.remedy
    assert bench.results.refused == [("cells", 4)]
    assert bench.results.results == []


def test_models_and_versions_that_do_not_answer(bench: Bench) -> None:
    bench.serving.announce(["cells", "welds"])
    bench.serving.swap(desired_slot(4), FakeModel())
    reasons = {}
    for slot, version in (("cells", 5), ("welds", None), ("nuts", None)):
        with pytest.raises(RequestError) as caught:
            bench.serving.infer(slot, version, [image()])
        assert caught.value.remedy
        reasons[slot] = (caught.value.reason, caught.value.field)
    assert reasons == {
        "cells": (Reason.VERSION_NOT_LOADED, "model_version"),
        "welds": (Reason.MODEL_NOT_READY, "model_name"),
        "nuts": (Reason.MODEL_NOT_FOUND, "model_name"),
    }
    assert bench.results.refused == [("cells", 4)]
    assert bench.serving.pending() == ("welds",)


@pytest.mark.parametrize("text", ["p\0", "p" * 300, "half a pair \ud800"])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("part_id", "parameters[part_id]"),
        ("request_id", "id"),
        ("application", "parameters[application]"),
        ("lot", "parameters[lot]"),
    ],
)
def test_a_text_that_no_record_can_hold_is_refused_before_anything_begins(
    bench: Bench, name: str, field: str, text: str
) -> None:
    bench.serving.swap(desired_slot(4), FakeModel())
    bench.serving.infer("cells", None, [image()], lot="L1")
    assert bench.serving.stage(desired_slot(5), FakeModel(), wait_seconds=60, on_swap=lambda: None)
    texts: dict[str, Any] = {"lot": "L1"} | {name: text}
    with pytest.raises(RequestError) as caught:
        bench.serving.infer("cells", None, [image()], **texts)
    assert (caught.value.reason, caught.value.field) == (Reason.INPUT_INVALID, field)
    assert caught.value.remedy
    assert bench.results.refused == [("cells", 4)]
    assert bench.serving.model("cells").version == 4, "no lot of that name has begun"


def test_counts_grow_and_agree(bench: Bench) -> None:
    bench.serving.swap(desired_slot(4), FakeModel())
    for items in (1, 2, 3):
        bench.serving.infer("cells", None, [image(items)])
    (counted,) = bench.serving.statistics()
    assert (counted.requests, counted.inferences, counted.failed) == (3, 6, 0)
    parts = counted.input_seconds + counted.queue_seconds + counted.infer_seconds + counted.output_seconds
    assert parts == pytest.approx(counted.total_seconds)
    assert min(counted.input_seconds, counted.queue_seconds, counted.infer_seconds, counted.output_seconds) > 0


def test_waiting_for_a_turn_counts_as_queue_and_not_as_inference() -> None:
    clock, results, held = MovedClock(), MemoryResults(), Held(2)
    serving = Serving(
        clock=clock, results=results, samples=MemoryOffers(results), shadows=NoShadows(), traffic=Traffic()
    )
    serving.swap(desired_slot(4), held.model)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(serving.infer, "cells", None, [image()]) for _ in range(2)]
        held.wait_all()
        running.append(pool.submit(serving.infer, "cells", None, [image()]))
        turns = serving._slots["cells"].turns
        wait_until(lambda: turns.waiting == 1, what="the third to wait for its turn")
        clock.seconds = 3.0
        held.go_on.set()
        assert all(each.result(10).model.version == 4 for each in running)
    (counted,) = serving.statistics()
    assert (counted.queue_seconds, counted.infer_seconds) == (3.0, 6.0)


def test_listeners_hear_of_swaps_and_unloads(bench: Bench) -> None:
    heard: list[bool] = []
    bench.serving.subscribe(lambda: heard.append(bench.serving.ready))
    bench.serving.swap(desired_slot(4), FakeModel())
    bench.serving.unload("cells")
    bench.serving.unload("cells")
    assert heard == [True, False, False]


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "sent", "items"),
    [((-1, 3), (-1, 2), (4, 3), 4), ((224, 3), (1, 2), (224, 3), 1), ((1, 3), (1, 2), (1, 3), 1)],
)
def test_a_result_is_kept_for_each_item_of_a_batch(
    bench: Bench,
    input_shape: tuple[int, ...],
    output_shape: tuple[int, ...],
    sent: tuple[int, ...],
    items: int,
) -> None:
    signature = ModelSignature(
        entry_path="m",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=input_shape),),
        outputs=(TensorSpec(name="scores", datatype="FP32", shape=output_shape),),
    )
    model = FakeModel(signature=signature, fails=True)
    bench.serving.swap(desired_slot(1, signature=signature), model)
    with pytest.raises(RequestError):
        bench.serving.infer("cells", None, [image(shape=sent, data=np.zeros(sent, np.float32))])
    assert len(bench.results.results) == items


class Held:
    """A model whose inferences wait until they are let go."""

    def __init__(self, count: int) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.model = FakeModel(during=self._wait)
        self._count = count

    def _wait(self) -> None:
        self.entered.release()
        assert self.go_on.wait(10)

    def wait_all(self) -> None:
        for _ in range(self._count):
            assert self.entered.acquire(timeout=10)


def test_a_request_that_cannot_begin_before_its_deadline_is_refused_and_counted(bench: Bench) -> None:
    held = Held(2)
    bench.serving.swap(desired_slot(4), held.model)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(bench.serving.infer, "cells", None, [image()]) for _ in range(2)]
        held.wait_all()
        with pytest.raises(RequestError) as caught:
            bench.serving.infer("cells", None, [image()], deadline_seconds=0.01)
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        held.go_on.set()
        assert all(each.result().model.version == 4 for each in running)
    assert bench.results.refused == [("cells", 4)]
    assert bench.serving.tallies().refused == {("cells", Reason.DEADLINE_EXCEEDED): 1}
    assert len(bench.results.results) == 2


def test_what_is_over_an_applications_share_is_refused_at_once_and_others_are_answered() -> None:
    held, results = Held(2), MemoryResults()
    serving = Serving(
        clock=RealClock(),
        results=results,
        samples=MemoryOffers(results),
        shadows=NoShadows(),
        traffic=Traffic(),
        places=Places(8),
    )
    serving.swap(desired_slot(4), held.model)
    with ThreadPoolExecutor(8) as pool:
        flood = [pool.submit(serving.infer, "cells", None, [image()], application="flood") for _ in range(5)]
        held.wait_all()
        refused = next(as_completed(flood, 10))
        error = refused.exception()
        assert isinstance(error, RequestError)
        assert error.reason is Reason.QUEUE_FULL
        other = pool.submit(serving.infer, "cells", None, [image()], application="quiet")
        held.go_on.set()
        assert other.result(10).model.version == 4
    assert len(results.results) == 5


def test_the_version_before_answers_who_names_it_until_it_is_drained(bench: Bench) -> None:
    held = Held(1)
    bench.serving.swap(desired_slot(1), held.model)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(bench.serving.infer, "cells", None, [image()])
        held.wait_all()
        bench.serving.swap(desired_slot(2), FakeModel())
        named = pool.submit(bench.serving.infer, "cells", 1, [image()])
        assert held.entered.acquire(timeout=10)
        assert bench.serving.infer("cells", None, [image()]).model.version == 2
        held.go_on.set()
        assert (slow.result().model.version, named.result().model.version) == (1, 1)
    assert held.model.closed == 1
    with pytest.raises(RequestError) as caught:
        bench.serving.infer("cells", 1, [image()])
    assert caught.value.reason is Reason.VERSION_NOT_LOADED


class MovedClock(SteppingClock):
    """Time stands still until a test moves it."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_a_version_that_is_named_without_pause_is_freed_all_the_same() -> None:
    """Requests that overlap would else keep it for ever."""
    clock, results, held = MovedClock(), MemoryResults(), Held(2)
    serving = Serving(
        clock=clock, results=results, samples=MemoryOffers(results), shadows=NoShadows(), traffic=Traffic()
    )
    serving.swap(desired_slot(1), held.model)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(serving.infer, "cells", 1, [image()])
        assert held.entered.acquire(timeout=10)
        serving.swap(desired_slot(2), FakeModel())
        clock.seconds = limits.REPLACED_VERSION_SECONDS_MAX - 1
        second = pool.submit(serving.infer, "cells", 1, [image()])
        assert held.entered.acquire(timeout=10)
        clock.seconds = limits.REPLACED_VERSION_SECONDS_MAX
        with pytest.raises(RequestError) as caught:
            serving.infer("cells", 1, [image()])
        assert caught.value.reason is Reason.VERSION_NOT_LOADED
        assert str(caught.value) == ("model_version: version 1 of 'cells' was replaced; leave it empty, or ask for 2")
        held.go_on.set()
        assert (first.result().model.version, second.result().model.version) == (1, 1)
    assert held.model.closed == 1, "what was under way is answered, and then it is freed"
