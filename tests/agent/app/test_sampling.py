"""Samples: picked on the serving path, encoded and kept off it."""

import hashlib
import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lineside.v1 import sample_pb2
from PIL import Image

from agent.app.conditions import SAMPLES_WRITABLE, Conditions
from agent.app.ports import SpooledSample, Tensor
from agent.app.sampling import NPY, PNG, SampleCollector, encode, sampled_input
from agent.domain.errors import StateError
from agent.domain.slot import SamplePolicy
from agent.storage.sample_spool import DiskSampleSpool
from tests.agent.storage.test_result_log import result
from tests.support.clock import LoopClock

POLICY = SamplePolicy(random_fraction=0.0, confidence_below=0.6, budget_bytes_per_day=1 << 30)
IMAGE = np.arange(2 * 8 * 6 * 3, dtype=np.uint8).reshape(2, 8, 6, 3)


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


@pytest.fixture
def spool(tmp_path: Path, clock: LoopClock) -> DiskSampleSpool:
    return DiskSampleSpool(tmp_path, clock=clock)


@pytest.fixture
def conditions(clock: LoopClock) -> Conditions:
    return Conditions(clock)


@pytest.fixture
def collector(spool: DiskSampleSpool, conditions: Conditions, clock: LoopClock) -> Iterator[SampleCollector]:
    found = SampleCollector(spool, conditions=conditions, clock=clock, rng=random.Random(1))
    found.start()
    yield found
    found.stop()


def kept(spool: DiskSampleSpool) -> list[tuple[sample_pb2.Sample, bytes]]:
    found = [spool.read(sample_id) for sample_id in spool.pending()]
    return [(sample_pb2.Sample.FromString(each.sample), each.content) for each in found if each is not None]


def test_a_doubtful_item_of_a_batch_is_kept_with_its_result(collector: SampleCollector, spool: DiskSampleSpool) -> None:
    collector.offer({"image": IMAGE}, [result("sure", score=0.9), result("doubt", score=0.5)], POLICY)
    collector.stop()
    ((sample, content),) = kept(spool)
    assert sample.reason == sample_pb2.Sample.REASON_LEAST_CONFIDENCE
    assert sample.result.part_id == "doubt"
    assert (sample.content_type, sample.input_name, sample.size_bytes) == (PNG, "image", len(content))
    assert sample.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), IMAGE[1])


def test_the_input_is_copied_before_the_application_may_reuse_it(
    collector: SampleCollector, spool: DiskSampleSpool
) -> None:
    memory = IMAGE[:1].copy()
    collector.offer({"image": memory}, [result(score=0.1)], POLICY)
    memory[:] = 0
    collector.stop()
    ((_, content),) = kept(spool)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), IMAGE[0])


def test_the_budget_of_the_day_is_not_exceeded(collector: SampleCollector, spool: DiskSampleSpool) -> None:
    tensor = np.zeros((1, 100), np.float32)
    size_bytes = len(encode(tensor)[1])
    policy = SamplePolicy(random_fraction=1.0, confidence_below=0.0, budget_bytes_per_day=3 * size_bytes + 10)
    for _ in range(20):
        collector.offer({"x": tensor}, [result()], policy)
    collector.stop()
    assert len(kept(spool)) == 3


def test_errors_and_policies_that_keep_nothing_cost_nothing(collector: SampleCollector, spool: DiskSampleSpool) -> None:
    nothing = SamplePolicy(random_fraction=0.0, confidence_below=0.0, budget_bytes_per_day=1 << 30)
    collector.offer({"x": IMAGE}, [result(error="broke")], POLICY)
    collector.offer({"x": IMAGE}, [result(score=0.1)], nothing)
    collector.stop()
    assert kept(spool) == []


class FullSpool(DiskSampleSpool):
    """A spool on a full disk."""

    def add(self, sample: SpooledSample) -> None:
        raise StateError("full")


def test_a_full_disk_is_a_condition(tmp_path: Path, conditions: Conditions, clock: LoopClock) -> None:
    collector = SampleCollector(
        FullSpool(tmp_path, clock=clock), conditions=conditions, clock=clock, rng=random.Random(1)
    )
    collector.start()
    collector.offer({"x": IMAGE[:1]}, [result(score=0.1)], POLICY)
    collector.stop()
    (condition,) = [each for each in conditions.all() if each.type == SAMPLES_WRITABLE]
    assert condition.state == "FALSE"


def test_what_does_not_fit_the_queue_is_not_sampled(spool: DiskSampleSpool, conditions: Conditions) -> None:
    idle = SampleCollector(spool, conditions=conditions, clock=LoopClock(), rng=random.Random(1))
    for _ in range(1000):
        idle.offer({"x": IMAGE[:1]}, [result(score=0.1)], POLICY)
    assert idle._queue.qsize() <= 64


@pytest.mark.parametrize(
    ("tensor", "content_type"),
    [
        (np.zeros((4, 5, 3), np.uint8), PNG),
        (np.zeros((1, 4, 5, 1), np.uint8), PNG),
        (np.zeros((1, 4, 5, 4), np.uint8), PNG),
        (np.zeros((2, 4, 5, 3), np.uint8), NPY),
        (np.zeros((1, 3, 4, 5), np.uint8), NPY),
        (np.zeros((4, 5, 3), np.float32), NPY),
        (np.zeros((0, 5, 3), np.uint8), NPY),
        (np.zeros((), np.int64), NPY),
    ],
)
def test_an_image_becomes_png_and_the_rest_npy_and_both_are_exact(tensor: np.ndarray, content_type: str) -> None:
    found, content = encode(tensor)
    assert found == content_type
    if found == NPY:
        assert np.array_equal(np.load(io.BytesIO(content)), tensor)


def test_an_image_is_preferred_to_a_larger_input() -> None:
    inputs: dict[str, Tensor] = {"big": np.zeros((1, 9000), np.float32), "image": np.zeros((1, 4, 4, 3), np.uint8)}
    assert sampled_input(inputs, 0, 1)[0] == "image"
