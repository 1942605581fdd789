"""Samples: picked on the serving path, encoded and kept off it."""

import hashlib
import io
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lineside.v1 import sample_pb2
from PIL import Image

from agent import limits
from agent.app.conditions import SAMPLES_WRITABLE, Conditions
from agent.app.input_statistics import sampled_input
from agent.app.input_watch import InputWatch
from agent.app.ports import SpooledSample, Tensor
from agent.app.sample_encoding import NPY, PNG, encode
from agent.app.sampling import SampleCollector
from agent.domain.errors import StateError
from agent.domain.input_statistics import STATISTICS
from agent.domain.result import SampleReason
from agent.domain.slot import RedactedRegion, SamplePolicy
from agent.storage.baseline_file import JsonBaselineFile
from agent.storage.result_log import DiskResultLog
from agent.storage.sample_spool import DiskSampleSpool
from tests.agent.storage.test_result_log import result
from tests.support.clock import LoopClock

JUST_BEFORE_MIDNIGHT_SECONDS = 57_599.0
"""After the clock's start: all of the day's budget may be spent."""
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


def watch(folder: Path, clock: LoopClock) -> InputWatch:
    log = DiskResultLog(folder / "results", clock=clock)
    return InputWatch(log, JsonBaselineFile(folder), clock=clock, rng=random.Random(2))


@pytest.fixture
def collector(
    tmp_path: Path, spool: DiskSampleSpool, conditions: Conditions, clock: LoopClock
) -> Iterator[SampleCollector]:
    found = SampleCollector(spool, watch(tmp_path, clock), conditions=conditions, clock=clock, rng=random.Random(1))
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


def test_the_budget_of_the_day_is_not_exceeded(
    collector: SampleCollector, spool: DiskSampleSpool, clock: LoopClock
) -> None:
    clock.move(JUST_BEFORE_MIDNIGHT_SECONDS)
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

    def add(self, sample: SpooledSample) -> bool:
        raise StateError("full")


def test_a_full_disk_is_a_condition(tmp_path: Path, conditions: Conditions, clock: LoopClock) -> None:
    collector = SampleCollector(
        FullSpool(tmp_path, clock=clock),
        watch(tmp_path, clock),
        conditions=conditions,
        clock=clock,
        rng=random.Random(1),
    )
    collector.start()
    collector.offer({"x": IMAGE[:1]}, [result(score=0.1)], POLICY)
    collector.stop()
    (condition,) = [each for each in conditions.all() if each.type == SAMPLES_WRITABLE]
    assert condition.state == "FALSE"


def test_what_does_not_fit_the_queue_is_not_sampled(
    tmp_path: Path, spool: DiskSampleSpool, conditions: Conditions, clock: LoopClock
) -> None:
    idle = SampleCollector(spool, watch(tmp_path, clock), conditions=conditions, clock=clock, rng=random.Random(1))
    for _ in range(1000):
        idle.offer({"x": IMAGE[:1]}, [result(score=0.1)], POLICY)
    assert idle._queue.qsize() <= 64
    assert idle.counts().skipped["queue_full"] == 1000 - idle._queue.qsize()


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


def offered(collector: SampleCollector, images: Iterable[Tensor], policy: SamplePolicy, *, score: float = 0.5) -> None:
    for image in images:
        collector.offer({"image": image}, [result(score=score)], policy)
    collector.stop()


def textured(seed: int, *, scale: float = 10.0) -> Tensor:
    noise = np.random.default_rng(seed).normal(128, scale, (1, 64, 64, 1))
    return noise.clip(0, 255).astype(np.uint8)


def test_why_something_is_not_kept_is_counted(collector: SampleCollector, clock: LoopClock) -> None:
    clock.move(JUST_BEFORE_MIDNIGHT_SECONDS)
    offered(collector, [textured(n) for n in range(5)], replace(POLICY, budget_images_per_day=2))
    counts = collector.counts()
    assert counts.kept == {**dict.fromkeys(SampleReason, 0), SampleReason.LEAST_CONFIDENCE: 2}
    assert counts.skipped["budget_images"] == 3
    assert (counts.waiting, counts.waiting_bytes > 0) == (2, True)


def test_a_busy_morning_leaves_something_for_the_night(
    tmp_path: Path, spool: DiskSampleSpool, conditions: Conditions, clock: LoopClock
) -> None:
    policy = replace(POLICY, budget_images_per_day=12)
    skipped = 0
    for hour in range(8, 24):
        collector = SampleCollector(
            spool, watch(tmp_path, clock), conditions=conditions, clock=clock, rng=random.Random(1)
        )
        collector.start()
        offered(collector, [textured(100 * hour + n) for n in range(12)], policy)
        counted = collector.counts().skipped
        skipped += counted["ahead_of_pace"] + counted["budget_images"]
        clock.move(3600.0)
    hours = [sample.capture_time.ToDatetime().hour for sample, _ in kept(spool)]
    assert len(hours) == 12
    assert hours.count(8) > 1
    assert sum(hour >= 20 for hour in hours) > 1
    assert skipped == 16 * 12 - 12


def test_the_same_bytes_are_kept_once(collector: SampleCollector) -> None:
    policy = replace(POLICY, random_fraction=1.0, near_duplicate_distance=0)
    offered(collector, [textured(1), textured(1), textured(2)], policy)
    assert (collector.counts().kept_total, collector.counts().skipped["duplicate"]) == (2, 1)


def test_near_images_are_kept_once_unless_chance_picks_them(collector: SampleCollector, spool: DiskSampleSpool) -> None:
    image = textured(1, scale=60.0)
    near = image.copy()
    near[0, 0, 0, 0] ^= 1
    collector.offer({"image": image}, [result(score=0.5)], replace(POLICY, near_duplicate_distance=4))
    collector.offer({"image": near}, [result(score=0.5)], replace(POLICY, near_duplicate_distance=4))
    collector.offer({"image": near}, [result(score=0.5)], replace(POLICY, near_duplicate_distance=4, random_fraction=1))
    collector.stop()
    assert collector.counts().skipped["near_duplicate"] == 1
    assert [sample.reason for sample, _ in kept(spool)] == [
        sample_pb2.Sample.REASON_LEAST_CONFIDENCE,
        sample_pb2.Sample.REASON_RANDOM,
    ]


def test_an_input_unlike_the_first_is_kept_as_an_outlier_with_its_statistics(
    collector: SampleCollector, spool: DiskSampleSpool, clock: LoopClock
) -> None:
    policy = replace(POLICY, confidence_below=0.0, outlier_above=6.0)
    for n in range(limits.BASELINE_INPUTS):
        collector.offer({"image": textured(n)}, [result(score=0.9)], policy)
        clock.move(1.0)
    assert collector.counts().kept_total == 0
    collector.offer({"image": textured(1, scale=70.0)}, [result(score=0.9)], policy)
    collector.stop()
    ((sample, _),) = kept(spool)
    assert sample.reason == sample_pb2.Sample.REASON_OUTLIER
    assert sample.value > 0.5
    assert set(sample.input_statistics) == set(STATISTICS)
    assert sample.label_hint == sample.result.labels[0].label


def test_a_quota_of_a_label_is_kept_and_no_more(collector: SampleCollector) -> None:
    policy = replace(POLICY, confidence_below=0.0, class_quota_per_day={"": 3})
    offered(collector, [textured(n) for n in range(20)], policy, score=0.9)
    counts = collector.counts()
    assert counts.kept[SampleReason.CLASS_QUOTA] == 3


def test_a_redacted_region_is_not_in_what_is_kept(collector: SampleCollector, spool: DiskSampleSpool) -> None:
    region = RedactedRegion(x=0.5, y=0.0, width=0.5, height=0.5)
    offered(collector, [textured(1)], replace(POLICY, redaction=(region,)))
    ((_, content),) = kept(spool)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    assert len(np.unique(pixels[:32, 32:])) == 1
    assert np.array_equal(pixels[32:], textured(1)[0, 32:, :, 0])


def test_what_cannot_be_redacted_is_not_kept(collector: SampleCollector) -> None:
    region = RedactedRegion(x=0.0, y=0.0, width=1.0, height=1.0)
    offered(collector, [np.zeros((1, 3, 8, 8), np.float32)], replace(POLICY, redaction=(region,)))
    assert (collector.counts().kept_total, collector.counts().skipped["not_redactable"]) == (0, 1)


def test_nothing_is_kept_while_a_sites_redactor_fails(
    tmp_path: Path, spool: DiskSampleSpool, conditions: Conditions, clock: LoopClock
) -> None:
    def broken(slot: str, image: Tensor) -> Tensor:
        raise RuntimeError(slot)

    collector = SampleCollector(
        spool,
        watch(tmp_path, clock),
        conditions=conditions,
        clock=clock,
        rng=random.Random(1),
        redactors=[lambda _, image: image, broken],
    )
    collector.start()
    offered(collector, [textured(1)], POLICY)
    assert (kept(spool), collector.counts().skipped["not_redactable"]) == ([], 1)


def test_what_a_candidate_disagrees_on_is_kept_where_that_is_asked_for(
    collector: SampleCollector, spool: DiskSampleSpool
) -> None:
    results = [result("p1", score=0.9), result("p2", score=0.9)]
    collector.offer_disagreement({"image": IMAGE}, results, 1, POLICY)
    collector.offer_disagreement({"image": IMAGE}, results, 1, replace(POLICY, shadow_disagreement=True))
    collector.stop()
    ((sample, content),) = kept(spool)
    assert (sample.reason, sample.result.part_id) == (sample_pb2.Sample.REASON_SHADOW_DISAGREEMENT, "p2")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), IMAGE[1])


def test_what_is_dropped_for_want_of_room_is_counted(tmp_path: Path, conditions: Conditions, clock: LoopClock) -> None:
    small = DiskSampleSpool(tmp_path, clock=clock, bytes_max=12_000)
    collector = SampleCollector(small, watch(tmp_path, clock), conditions=conditions, clock=clock, rng=random.Random(1))
    collector.start()
    offered(collector, [textured(n) for n in range(20)], POLICY)
    counts = collector.counts()
    assert counts.waiting + counts.skipped["spool_full"] == 20
    assert 0 < counts.waiting_bytes <= 12_000


def test_what_does_not_fit_the_rest_of_a_budget_is_encoded_once_to_see_that(
    tmp_path: Path, spool: DiskSampleSpool, conditions: Conditions, clock: LoopClock
) -> None:
    seen: list[str] = []

    def noted(slot: str, image: Tensor) -> Tensor:
        seen.append(slot)
        return image

    collector = SampleCollector(
        spool, watch(tmp_path, clock), conditions=conditions, clock=clock, rng=random.Random(1), redactors=[noted]
    )
    idle = replace(POLICY, budget_bytes_per_day=1000)
    collector.offer({"image": textured(1)}, [result(score=0.5)], idle)
    collector.start()
    collector.stop()
    for n in range(50):
        collector.offer({"image": textured(n)}, [result(score=0.5)], idle)
    assert len(seen) == 1
    assert collector.counts().skipped["budget_bytes"] == 51
    clock.move(86_400.0)
    assert spool.budget("cells").lacks(POLICY, size_bytes=1 << 20) is None
