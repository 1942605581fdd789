"""Comparisons in the result log: windows of exactly the records, whatever happens to files and disks."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import evidence_pb2

from agent.app.shadow_evidence import decode_comparison, decode_skipped, encode_comparison, encode_skipped
from agent.domain.shadow import Comparison, ShadowPair
from agent.storage.result_log import DiskResultLog
from tests.agent.storage.test_result_log import killed, result
from tests.support.clock import START, LoopClock

PAIR = ShadowPair(slot="cells", serving_version=1, candidate_version=2, device="CPU")


def comparison(*, agreed: bool = True, failed: bool = False, distance: float | None = 0.1, n: int = 0) -> Comparison:
    return Comparison(
        pair=PAIR,
        time=START + timedelta(seconds=n),
        agreed=agreed and not failed,
        failed=failed,
        score_distance=None if failed else distance,
        candidate_latency_us=4_000,
        serving_latency_us=2_000,
    )


def shadow_windows(log: DiskResultLog) -> list[evidence_pb2.ShadowWindow]:
    return [
        evidence_pb2.ShadowWindow.FromString(content) for n in log.pending() for content in log.read(n).shadow_windows
    ]


comparisons = st.builds(
    Comparison,
    pair=st.builds(
        ShadowPair,
        slot=st.sampled_from(["cells", "parts"]),
        serving_version=st.integers(1, 1 << 60),
        candidate_version=st.integers(1, 9),
        device=st.sampled_from(["CPU", "GPU.0"]),
    ),
    time=st.integers(0, 10**12).map(lambda n: START + timedelta(microseconds=n)),
    agreed=st.booleans(),
    failed=st.booleans(),
    score_distance=st.none() | st.floats(0, 1),
    candidate_latency_us=st.integers(0, 10**9),
    serving_latency_us=st.integers(0, 10**9),
)


@given(comparisons)
def test_a_record_is_read_as_it_was_written(written: Comparison) -> None:
    assert decode_comparison(encode_comparison(written)) == written
    assert decode_skipped(encode_skipped(written.pair, written.time, 7)) == (written.pair, written.time, 7)


def test_a_window_counts_exactly_the_records_of_its_batch(tmp_path: Path) -> None:
    log = DiskResultLog(tmp_path, clock=LoopClock())
    log.append([result()])
    log.append_comparisons([comparison(distance=n / 100, n=n) for n in range(100)])
    log.append_comparisons([comparison(agreed=False, n=100), comparison(failed=True, n=101)])
    log.count_skipped(PAIR, START, 7)
    killed(log)
    again = DiskResultLog(tmp_path, clock=LoopClock())
    (number,) = again.pending()
    assert len(again.read(number).results) == 1
    (window,) = shadow_windows(again)
    assert (window.serving_version, window.candidate_version) == ("models/cells/versions/1", "models/cells/versions/2")
    assert (window.compared_count, window.agreed_count, window.error_count, window.skipped_count) == (102, 100, 1, 7)
    assert window.candidate_latency.count == window.serving_latency.count == 101
    assert window.serving_latency.max_ms == pytest.approx(2)
    assert sum(window.score_distance_histogram) == 101
    assert window.end_time.ToDatetime(tzinfo=START.tzinfo) == START + timedelta(seconds=101)


def test_windows_stay_when_results_are_dropped(tmp_path: Path) -> None:
    log = DiskResultLog(tmp_path, clock=LoopClock(), bytes_max=20_000, segment_bytes=4000)
    for n in range(500):
        log.append([result(f"p{n}")])
        log.append_comparisons([comparison(n=n)])
        log.seal()
    log.seal(force=True)
    assert sum(log.read(number).dropped_results for number in log.pending()) > 0
    assert sum(window.compared_count for window in shadow_windows(log)) == 500


def test_a_full_disk_keeps_the_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = DiskResultLog(tmp_path, clock=LoopClock())
    log.append([result()])
    with monkeypatch.context() as patch:
        write = os.write
        patch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[: len(content) // 2]))
        log.append_comparisons([comparison(), comparison(agreed=False)])
        log.count_skipped(PAIR, START, 3)
    log.append_comparisons([comparison()])
    log.seal(force=True)
    windows = shadow_windows(log)
    assert sum(window.compared_count for window in windows) == 3
    assert sum(window.agreed_count for window in windows) == 2
    assert sum(window.skipped_count for window in windows) == 3
