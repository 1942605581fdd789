"""The result log: nothing lost or doubled by a kill, numbers used once for good, bytes bounded."""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import evidence_pb2

from agent import limits
from agent.domain.result import LabelScore, Outcome, Result
from agent.storage import segment
from agent.storage.result_log import DiskResultLog
from tests.support.clock import START, LoopClock


def result(
    part: str = "p",
    *,
    latency_us: int = 1500,
    score: float = 0.9,
    error: str = "",
    version: int = 1,
    label: str = "ok",
) -> Result:
    return Result(
        slot="cells",
        version=version,
        device="CPU",
        infer_time=START,
        part_id=part,
        request_id="",
        outcome=Outcome.ERROR if error else Outcome.OK,
        labels=() if error else (LabelScore(label=label, score=score),),
        latency_us=latency_us,
        error=error,
    )


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


def parts(log: DiskResultLog) -> list[str]:
    return [each.part_id for number in log.pending() for each in log.read(number).results]


def counted(log: DiskResultLog) -> int:
    windows = [evidence_pb2.MetricWindow.FromString(w) for n in log.pending() for w in log.read(n).windows]
    return sum(window.inference_count for window in windows)


def killed(log: DiskResultLog) -> None:
    """What a kill leaves: files as they are. (Nothing of ours runs.)"""
    opened = log._open
    if opened is not None:
        os.close(opened.descriptor)


def test_a_result_is_there_after_a_kill(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock)
    log.append([result("a"), result("b")])
    log.append([result("c")])
    killed(log)
    assert parts(DiskResultLog(tmp_path, clock=clock)) == ["a", "b", "c"]


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_tail_is_cut_and_whole_records_stay(tmp_path: Path, clock: LoopClock, cut: int) -> None:
    log = DiskResultLog(tmp_path, clock=clock)
    log.append([result("a")])
    log.append([result("b")])
    killed(log)
    (path,) = tmp_path.glob("*.seg")
    content = path.read_bytes()
    path.write_bytes(content[:-cut])
    again = DiskResultLog(tmp_path, clock=clock)
    assert parts(again) == ["a"]
    assert path.stat().st_size == segment.whole_bytes(content[:-cut])


def test_garbage_after_the_last_record_is_no_record(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock)
    log.append([result("a")])
    killed(log)
    (path,) = tmp_path.glob("*.seg")
    with path.open("ab") as file:
        file.write(b"\0" * 4096)
    assert parts(DiskResultLog(tmp_path, clock=clock)) == ["a"]


@given(st.binary(max_size=200))
def test_any_bytes_parse_to_whole_records_only(content: bytes) -> None:
    whole = segment.frame(segment.Kind.RESULT, result("a").part_id.encode())
    assert segment.whole_bytes(whole + content) >= len(whole)
    assert segment.whole_bytes(content) <= len(content)


def test_a_number_is_used_once_for_good(tmp_path: Path, clock: LoopClock) -> None:
    used: list[int] = []
    for start in range(5):
        log = DiskResultLog(tmp_path, clock=clock)
        for _ in range(3):
            log.append([result()])
            log.seal(force=True)
        for number in log.pending():
            used.append(number)
            log.discard(number)
        if start % 2:
            log.append([result()])  # killed with one open
            used.append(log._open.number if log._open else -1)
            killed(log)
            again = DiskResultLog(tmp_path, clock=clock)
            for number in again.pending():
                again.discard(number)
    assert len(set(used)) == len(used)
    assert used == sorted(used)


def numbers_of_a_run(folder: Path, clock: LoopClock, batches: int = 20) -> set[int]:
    log = DiskResultLog(folder, clock=clock)
    for _ in range(batches):
        log.append([result()])
        log.seal(force=True)
    return set(log.pending())


def test_a_folder_that_was_lost_shares_no_number_with_the_next(tmp_path: Path, clock: LoopClock) -> None:
    first = numbers_of_a_run(tmp_path / "one", clock)
    second = numbers_of_a_run(tmp_path / "two", clock)
    assert not first & second


def test_runs_from_one_copied_folder_share_no_number(tmp_path: Path, clock: LoopClock) -> None:
    """A disk image that is restored knows an old counter; the controller would take its numbers for duplicates."""
    numbers_of_a_run(tmp_path / "image", clock)
    runs = []
    for name in ("first", "restored", "restored-again"):
        shutil.copytree(tmp_path / "image", tmp_path / name)
        old = set(DiskResultLog(tmp_path / name, clock=clock).pending())
        runs.append(numbers_of_a_run(tmp_path / name, clock) - old)
    assert all(len(run) == 20 for run in runs)
    assert len(set().union(*runs)) == 60
    assert all(0 < number < 1 << 63 for run in runs for number in run)


def test_numbers_stay_below_the_wires_bound(tmp_path: Path, clock: LoopClock) -> None:
    (tmp_path / "next").write_text(str(limits.BATCH_NUMBER_JUMPED_MAX - 1))
    (number,) = numbers_of_a_run(tmp_path, clock, batches=1)
    assert number < 1 << 63


def test_segments_are_sealed_by_age_and_by_size(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock, segment_bytes=1000)
    log.append([result()])
    log.seal()
    assert log.pending() == []
    clock.move(limits.SEGMENT_AGE_SECONDS)
    log.seal()
    assert len(log.pending()) == 1
    for _ in range(40):
        log.append([result()])
    assert len(log.pending()) > 2
    log.close()
    assert len(parts(log)) == 41


def test_windows_count_exactly_the_results(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock)
    log.append([result(latency_us=1000 * (n + 1), score=n / 100) for n in range(100)])
    log.append([result(error="it broke")])
    log.append([result(version=2)])
    for _ in range(7):
        log.count_refused("cells", 1)
    log.seal(force=True)
    (number,) = log.pending()
    windows = [evidence_pb2.MetricWindow.FromString(window) for window in log.read(number).windows]
    refusals, first, second = windows
    assert (first.slot, first.model_version, first.device) == ("cells", "models/cells/versions/1", "CPU")
    assert (first.inference_count, first.error_count, first.refused_count) == (101, 1, 0)
    assert (refusals.inference_count, refusals.refused_count, refusals.device) == (0, 7, "")
    assert second.inference_count == 1
    assert list(first.confidence_histogram) == [5] * 20
    assert dict(first.label_counts) == {"ok": 100}, "failed inferences have no label"
    sketch = first.latency
    assert sketch.count == 100 == sum(sketch.bin_counts) + sketch.zero_count
    assert sketch.min_ms == pytest.approx(1)
    assert sketch.max_ms == pytest.approx(100)
    assert sketch.sum_ms == pytest.approx(5050)
    assert _quantile(sketch, 0.95) == pytest.approx(95, rel=0.03)


def _quantile(sketch: evidence_pb2.LatencySketch, quantile: float) -> float:
    gamma = (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)
    rank, seen = quantile * (sketch.count - 1), sketch.zero_count
    for index, count in enumerate(sketch.bin_counts):
        seen += count
        if seen > rank:
            return 2 * gamma ** (sketch.first_bin_key + index) / (1 + gamma)
    raise AssertionError


def test_over_the_bound_results_go_and_windows_stay(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock, bytes_max=20_000, segment_bytes=4000)
    for n in range(1000):
        log.append([result(f"p{n:04d}")])
        log.seal()
    log.seal(force=True)
    assert log.size_bytes <= 20_000
    assert sum(path.stat().st_size for path in tmp_path.glob("*.seg")) == log.size_bytes
    kept = parts(log)
    dropped = sum(log.read(number).dropped_results for number in log.pending())
    assert kept[-1] == "p0999"
    assert kept == sorted(kept)
    assert len(kept) + dropped == 1000
    assert counted(log) == 1000
    again = DiskResultLog(tmp_path, clock=clock, bytes_max=20_000)
    assert counted(again) == 1000


def test_windows_alone_are_bounded_too(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock, bytes_max=5_000)
    for n in range(300):
        log.append([result(f"p{n}")])
        log.seal(force=True)
    assert log.size_bytes <= 5_000
    assert log.pending()


class Told(list[str]):
    """What the log says of its disk."""

    def __call__(self, error: str) -> None:
        self.append(error)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patch:
        yield patch


def test_a_full_disk_keeps_the_metrics_and_says_so(
    tmp_path: Path, clock: LoopClock, told: Told, full_disk: pytest.MonkeyPatch
) -> None:
    log = DiskResultLog(tmp_path, clock=clock, on_writable=told)
    log.append([result("kept")])
    write = os.write

    def partly(descriptor: int, content: bytes) -> int:
        return write(descriptor, content[: len(content) // 2])

    full_disk.setattr(os, "write", partly)
    log.append([result("lost"), result("lost too")])
    log.count_refused("cells", 1)
    full_disk.setattr(os, "write", write)
    assert told
    assert told[-1]
    log.append([result("kept again")])
    assert told[-1] == ""
    log.seal(force=True)
    assert parts(log) == ["kept", "kept again"]
    assert counted(log) == 4
    assert sum(log.read(number).dropped_results for number in log.pending()) == 2
    assert sum(1 for _ in tmp_path.glob("*.seg")) == 2, "once the disk works, what waited in memory is written"


def test_a_folder_that_cannot_be_made_fails_no_append(tmp_path: Path, clock: LoopClock, told: Told) -> None:
    (tmp_path / "file").write_text("no folder")
    log = DiskResultLog(tmp_path / "file" / "results", clock=clock, on_writable=told)
    log.append([result("a")])
    log.count_refused("cells", 1)
    log.seal(force=True)
    assert told[-1]
    assert log.pending() == []


def test_many_threads_lose_and_tear_nothing(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock, segment_bytes=5000)
    start = threading.Barrier(4)

    def work(name: str) -> None:
        start.wait()
        for n in range(200):
            log.append([result(f"{name}{n}")])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    found = parts(log)
    assert len(found) == len(set(found)) == 800


def test_a_pile_of_batches_is_sealed_less_often(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock)
    for _ in range(limits.SEGMENT_BACKLOG_MANY):
        log.append([result()])
        log.seal(force=True)
    log.append([result()])
    clock.move(limits.SEGMENT_AGE_SECONDS * 2)
    log.seal()
    assert len(log.pending()) == limits.SEGMENT_BACKLOG_MANY
    clock.move(timedelta(seconds=limits.SEGMENT_AGE_OFFLINE_SECONDS).total_seconds())
    log.seal()
    assert len(log.pending()) == limits.SEGMENT_BACKLOG_MANY + 1


def test_labels_are_counted_up_to_a_bound_and_the_rest_together(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock, bytes_max=20_000)
    for n in range(100):
        log.append([result(label=f"c{n:02d}")] * (3 if n >= 90 else 1))
    log.seal(force=True)
    (window,) = (evidence_pb2.MetricWindow.FromString(w) for n in log.pending() for w in log.read(n).windows)
    counts = dict(window.label_counts)
    assert len(counts) == limits.LABELS_COUNTED_MAX + 1
    assert all(counts[f"c{n}"] == 3 for n in range(90, 100)), "the frequent ones keep their names"
    assert counts[""] == 36
    assert sum(counts.values()) == 120 == window.inference_count


def test_label_counts_stay_exact_when_results_are_dropped(tmp_path: Path, clock: LoopClock) -> None:
    log = DiskResultLog(tmp_path, clock=clock, bytes_max=20_000, segment_bytes=4000)
    for n in range(1000):
        log.append([result(f"p{n}", label=f"c{n % 3}")])
        log.seal()
    log.seal(force=True)
    assert sum(log.read(number).dropped_results for number in log.pending()) > 0
    counted_labels: Counter[str] = Counter()
    for number in log.pending():
        for content in log.read(number).windows:
            counted_labels.update(evidence_pb2.MetricWindow.FromString(content).label_counts)
    assert counted_labels == {"c0": 334, "c1": 333, "c2": 333}
