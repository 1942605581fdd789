"""Counts that never fall, and labels that callers cannot make up."""

import numpy as np
import pytest
from prometheus_client.core import HistogramMetricFamily

from agent import limits
from agent.app import metrics
from agent.app.serving import Serving
from agent.app.tallies import BOUNDS_SECONDS, Tallies, Times
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.domain.errors import Reason, RequestError
from tests.support.serving import FakeModel, MemoryOffers, MemoryResults, NoShadows, SteppingClock, desired_slot


def test_a_version_that_serves_again_counts_on() -> None:
    tallies = Tallies()
    key = ("cells", 1, "CPU")
    tallies.begin(key, serving=set()).answered += 5
    tallies.begin(("cells", 2, "CPU"), serving={key})
    tallies.begin(key, serving={key}).answered += 2
    assert tallies.snapshot().tallies[key].answered == 7


def test_tallies_of_versions_that_serve_no_more_make_room_and_those_that_serve_stay() -> None:
    tallies = Tallies()
    served = {(f"slot-{number}", 1, "CPU") for number in range(3)}
    for key in served:
        tallies.begin(key, serving=served).answered += 1
    for number in range(limits.TALLIES_MAX * 3):
        tallies.begin(("cells", number + 1, "CPU"), serving=served)
    book = tallies.snapshot()
    assert len(book.tallies) == limits.TALLIES_MAX
    assert all(book.tallies[key].answered == 1 for key in served)
    assert ("cells", limits.TALLIES_MAX * 3, "CPU") in book.tallies


def test_a_snapshot_does_not_move() -> None:
    tallies = Tallies()
    tally = tallies.begin(("cells", 1, "CPU"), serving=set())
    book = tallies.snapshot()
    tally.request_times.add(0.001)
    tallies.refuse("cells", Reason.QUEUE_FULL)
    assert sum(book.tallies["cells", 1, "CPU"].request_times.counts) == 0
    assert book.refused == {}


def test_a_time_falls_into_the_bucket_whose_bound_it_does_not_pass() -> None:
    times = Times()
    for seconds in (0.0, BOUNDS_SECONDS[0], 0.0051, 99.0):
        times.add(seconds)
    family: HistogramMetricFamily = metrics._histogram("x_seconds", "Text.", [(("cells", "1", "CPU"), times)])
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert buckets["0.0005"] == 2
    assert buckets["0.005"] == 2
    assert buckets["0.01"] == 3
    assert buckets["+Inf"] == 4
    assert times.total_seconds == 0.0005 + 0.0051 + 99.0


def test_serving_counts_answers_refusals_and_swaps_over_a_swap_and_back() -> None:
    results = MemoryResults()
    serving = Serving(
        clock=SteppingClock(), results=results, samples=MemoryOffers(results), shadows=NoShadows(), traffic=Traffic()
    )
    for version in (1, 2, 1):
        serving.swap(desired_slot(version), FakeModel())
        pair = InputTensor(name="x", datatype="FP32", shape=(2, 3), data=np.zeros((2, 3), np.float32))
        serving.infer("cells", None, [pair])
    asked: list[tuple[str, int | None]] = [("made-up", None), ("cells", 9)]
    for slot, wanted in asked:
        with pytest.raises(RequestError):
            serving.infer(slot, wanted, [])
    book = serving.tallies()
    serving.close()
    assert {key: tally.answered for key, tally in book.tallies.items()} == {
        ("cells", 1, "FAKE"): 4,
        ("cells", 2, "FAKE"): 2,
    }
    assert sum(book.tallies["cells", 1, "FAKE"].request_times.counts) == 2
    assert book.swaps == {"cells": 2}
    assert book.refused == {("", Reason.MODEL_NOT_FOUND): 1, ("cells", Reason.VERSION_NOT_LOADED): 1}
