"""What inputs look like, watched at a bounded cost, counted, and held against the first."""

import random
from pathlib import Path

import numpy as np
import pytest
from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.input_watch import InputWatch
from agent.app.ports import Tensor
from agent.domain.input_statistics import STATISTICS
from agent.storage.baseline_file import JsonBaselineFile
from agent.storage.result_log import DiskResultLog
from tests.agent.storage.test_result_log import result
from tests.support.clock import LoopClock


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


def new_watch(folder: Path, clock: LoopClock, log: DiskResultLog | None = None) -> InputWatch:
    used = log or DiskResultLog(folder / "results", clock=clock)
    return InputWatch(used, JsonBaselineFile(folder), clock=clock, rng=random.Random(4))


def image(seed: int, scale: float = 10.0) -> Tensor:
    return np.random.default_rng(seed).normal(128, scale, (1, 64, 64, 1)).clip(0, 255).astype(np.uint8)


def windows(log: DiskResultLog) -> list[evidence_pb2.MetricWindow]:
    log.seal(force=True)
    return [evidence_pb2.MetricWindow.FromString(each) for n in log.pending() for each in log.read(n).windows]


def test_a_slow_line_is_watched_whole_and_a_fast_one_within_the_bound(tmp_path: Path, clock: LoopClock) -> None:
    watch = new_watch(tmp_path, clock)
    drawn = []
    for _ in range(300):
        clock.move(1 / 20)
        drawn.append(watch.draw("slow"))
    assert all(drawn)
    for second in range(20):
        watched = 0
        for _ in range(2000):
            clock.move(1 / 2000)
            watched += watch.draw("fast")
        assert watched <= 2 * limits.INPUTS_WATCHED_PER_SECOND
        assert second == 0 or watched >= limits.INPUTS_WATCHED_PER_SECOND / 3


def test_a_fast_line_is_watched_all_through_a_second(tmp_path: Path, clock: LoopClock) -> None:
    watch = new_watch(tmp_path, clock)
    places: list[int] = []
    for n in range(40_000):
        clock.move(1 / 1000)
        if watch.draw("fast") and n > 2000:
            places.append(n % 1000)
    late = sum(place >= 500 for place in places)
    assert 0.4 < late / len(places) < 0.6


def test_counts_go_with_the_window_of_the_version_that_saw_the_inputs(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path / "results", clock=clock)
    watch = new_watch(tmp_path, clock, log)
    seen = [result("a"), result("b")]
    log.append(seen)
    for each in seen:
        watch.look(image(1), each)
    watch.flush()
    watch.flush()
    (window,) = windows(log)
    assert window.inference_count == 2
    assert [each.name for each in window.input_statistics] == sorted(STATISTICS)
    assert {each.count for each in window.input_statistics} == {2}
    assert all(sum(each.bin_counts) == 2 and len(each.bin_counts) == 32 for each in window.input_statistics)


def test_counts_outlive_a_kill_and_the_dropping_of_results(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path / "results", clock=clock)
    watch = new_watch(tmp_path, clock, log)
    watch.look(image(1), result())
    watch.flush()
    again = DiskResultLog(tmp_path / "results", clock=clock)
    (window,) = windows(again)
    assert {each.count for each in window.input_statistics} == {1}
    assert window.start_time.seconds > 0


def test_counts_that_cannot_be_written_wait_in_memory(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path / "results", clock=clock, bytes_max=-limits.SPOOL_OVERRUN_BYTES_MAX)
    watch = new_watch(tmp_path, clock, log)
    watch.look(image(1), result())
    watch.flush()
    (window,) = windows(log)
    assert {each.count for each in window.input_statistics} == {1}


def test_what_was_normal_at_first_stays_the_measure_over_a_restart(tmp_path: Path, clock: LoopClock) -> None:
    watch = new_watch(tmp_path, clock)
    for n in range(limits.BASELINE_INPUTS):
        assert watch.look(image(n), result())[1] is None
    near, far = watch.look(image(999), result())[1], watch.look(image(999, scale=60.0), result())[1]
    assert near is not None
    assert far is not None
    assert near < 5.0 < far
    watch.flush()
    again = new_watch(tmp_path, clock)
    for n in range(limits.BASELINE_INPUTS):
        again.look(image(n, scale=60.0), result())
    assert again.look(image(999, scale=60.0), result())[1] == pytest.approx(far)


def test_another_version_learns_its_own(tmp_path: Path, clock: LoopClock) -> None:
    watch = new_watch(tmp_path, clock)
    for n in range(limits.BASELINE_INPUTS):
        watch.look(image(n), result(version=1))
    assert watch.look(image(1), result(version=2))[1] is None
    assert watch.look(image(1), result(version=1))[1] is not None


@pytest.mark.parametrize(
    "content", ["", "[{}]", "{}", "[1]", '[{"slot": "s", "version": 1, "means": [1], "triangle": []}]']
)
def test_a_file_of_baselines_that_says_nothing_is_learned_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "baselines.json").write_text(content)
    assert JsonBaselineFile(tmp_path).read() == {}
