"""Samples on disk: whole, bounded, oldest dropped first, within the day's budget."""

from datetime import timedelta
from pathlib import Path

import pytest

from agent.app.ports import SpooledSample
from agent.app.sampling import new_sample_id
from agent.domain.errors import StateError
from agent.storage.sample_spool import DiskSampleSpool
from tests.support.clock import START, LoopClock


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


def sample(name: str, size_bytes: int = 100) -> SpooledSample:
    return SpooledSample(id=name, sample=b"description", content=b"c" * size_bytes)


def test_a_sample_is_there_after_a_restart(tmp_path: Path, clock: LoopClock) -> None:
    DiskSampleSpool(tmp_path, clock=clock).add(sample("s1"))
    again = DiskSampleSpool(tmp_path, clock=clock)
    assert again.pending() == ("s1",)
    assert again.read("s1") == sample("s1")
    again.discard("s1")
    assert DiskSampleSpool(tmp_path, clock=clock).pending() == ()
    assert again.read("s1") is None


def test_the_oldest_go_first_when_room_is_short(tmp_path: Path, clock: LoopClock) -> None:
    spool = DiskSampleSpool(tmp_path, clock=clock, bytes_max=1000)
    for n in range(20):
        spool.add(sample(f"s{n:02d}"))
    files = list(tmp_path.glob("*.sample"))
    assert sum(path.stat().st_size for path in files) <= 1000
    assert spool.pending()[-1] == "s19"
    assert len(spool.pending()) + spool.dropped == 20
    spool.add(sample("huge", 5000))
    assert "huge" not in spool.pending()


def test_a_budget_lasts_over_a_restart_and_ends_with_the_day(tmp_path: Path, clock: LoopClock) -> None:
    spool = DiskSampleSpool(tmp_path, clock=clock)
    assert spool.take_budget("cells", 600, 1000)
    again = DiskSampleSpool(tmp_path, clock=clock)
    assert not again.take_budget("cells", 600, 1000)
    assert again.budget_left("cells", 1000) == 400
    assert again.take_budget("welds", 600, 1000)
    clock.move(timedelta(days=1).total_seconds())
    assert again.take_budget("cells", 600, 1000)


def test_a_half_written_file_is_no_sample(tmp_path: Path, clock: LoopClock) -> None:
    (tmp_path / ".s1.sample.tmp").write_bytes(b"half")
    (tmp_path / "s2.sample").write_bytes(b"\xff\xff\xff\x7f")
    spool = DiskSampleSpool(tmp_path, clock=clock)
    assert spool.pending() == ("s2",)
    assert spool.read("s2") is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, clock: LoopClock) -> None:
    (tmp_path / "file").write_text("no folder")
    spool = DiskSampleSpool(tmp_path / "file" / "samples", clock=clock)
    with pytest.raises(StateError):
        spool.add(sample("s1"))
    with pytest.raises(StateError):
        spool.take_budget("cells", 1, 10)
    assert spool.budget_left("cells", 10) == 10


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_sample_id(START + timedelta(milliseconds=n)) for n in range(100)]
    assert ids == sorted(ids)
    assert len({new_sample_id(START) for _ in range(1000)}) == 1000
