"""Samples on disk: whole, bounded, the least valuable dropped first, with the day's budgets."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.app.ports import SpooledSample
from agent.app.sample_encoding import new_sample_id
from agent.domain.errors import StateError
from agent.storage.sample_spool import DiskSampleSpool
from tests.support.clock import START, LoopClock


@pytest.fixture
def clock() -> LoopClock:
    return LoopClock()


def sample(name: str, size_bytes: int = 100, value: float = 0.5) -> SpooledSample:
    return SpooledSample(id=name, sample=b"description", content=b"c" * size_bytes, value=value)


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


@given(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 10)), max_size=40))
def test_the_least_valuable_go_first_and_the_bound_holds(added: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        spool = DiskSampleSpool(Path(folder), clock=LoopClock(), bytes_max=1000)
        values = {f"s{n:03d}": value for n, (_, value) in enumerate(added)}
        for n, (size_bytes, value) in enumerate(added):
            before = set(spool.pending())
            kept = spool.add(sample(f"s{n:03d}", size_bytes, value / 10))
            gone = before - set(spool.pending())
            assert spool.size_bytes == sum(path.stat().st_size for path in Path(folder).glob("*.sample")) <= 1000
            assert kept == (f"s{n:03d}" in spool.pending())
            assert not gone or kept
            rest = [values[name] for name in spool.pending()]
            assert all(values[name] <= min(rest) for name in gone)
        assert len(spool.pending()) + spool.dropped == len(added)
        again = DiskSampleSpool(Path(folder), clock=LoopClock(), bytes_max=1000)
        assert again.pending() == spool.pending()
        assert [again.read(name) for name in again.pending()] == [spool.read(name) for name in spool.pending()]


def test_a_sample_that_is_worth_less_than_all_that_wait_is_not_kept(tmp_path: Path, clock: LoopClock) -> None:
    spool = DiskSampleSpool(tmp_path, clock=clock, bytes_max=400)
    assert spool.add(sample("s1", value=0.9))
    assert spool.add(sample("s2", value=0.8))
    assert spool.add(sample("s3", value=0.7))
    assert not spool.add(sample("s4", value=0.6))
    assert spool.add(sample("s5", value=1.0))
    assert spool.pending() == ("s1", "s2", "s5")
    assert spool.dropped == 2


def test_samples_of_an_earlier_agent_are_there(tmp_path: Path, clock: LoopClock) -> None:
    DiskSampleSpool(tmp_path, clock=clock).add(sample("s1"))
    (path,) = tmp_path.glob("*.sample")
    path.rename(tmp_path / "s1.sample")
    spool = DiskSampleSpool(tmp_path, clock=clock)
    assert spool.read("s1") == sample("s1")
    spool.discard("s1")
    assert list(tmp_path.glob("*.sample")) == []


def test_a_budget_lasts_over_a_restart_and_ends_with_the_day(tmp_path: Path, clock: LoopClock) -> None:
    spool = DiskSampleSpool(tmp_path, clock=clock)
    spool.spend("cells", 600, "ok")
    spool.spend("cells", 100, "defect")
    again = DiskSampleSpool(tmp_path, clock=clock)
    found = again.budget("cells")
    assert (found.spent_bytes, found.spent_images) == (700, 2)
    assert found.label_counts == {"ok": 1, "defect": 1}
    assert again.budget("welds").spent_bytes == 0
    clock.move(timedelta(days=1).total_seconds())
    assert again.budget("cells").spent_bytes == 0


def test_a_budget_file_of_an_earlier_agent_is_read(tmp_path: Path, clock: LoopClock) -> None:
    today = clock.now().date().isoformat()
    (tmp_path / "budget.json").write_text(f'{{"cells": {{"day": "{today}", "spent_bytes": 7}}}}')
    assert DiskSampleSpool(tmp_path, clock=clock).budget("cells").spent_bytes == 7


def test_a_half_written_file_is_no_sample(tmp_path: Path, clock: LoopClock) -> None:
    (tmp_path / ".s1.sample.tmp").write_bytes(b"half")
    (tmp_path / "s2.sample").write_bytes(b"\xff\xff\xff\x7f")
    spool = DiskSampleSpool(tmp_path, clock=clock)
    assert spool.pending() == ("s2",)
    assert spool.read("s2") is None


def test_what_a_kill_in_mid_write_left_is_cleared_away(tmp_path: Path, clock: LoopClock) -> None:
    DiskSampleSpool(tmp_path, clock=clock).add(sample("s1"))
    (tmp_path / ".s2.0500.sample.tmp").write_bytes(b"half of it")
    assert DiskSampleSpool(tmp_path, clock=clock).pending() == ("s1",)
    assert [path.name for path in tmp_path.iterdir()] == ["s1.0500.sample"]


def test_a_sample_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path: Path, clock: LoopClock) -> None:
    spool = DiskSampleSpool(tmp_path, clock=clock)
    spool.add(sample("s1"))
    whole = tmp_path / "s1.0500.sample"
    whole.rename(tmp_path / "aside")
    whole.mkdir()  # reading it fails, and not for want of it
    with pytest.raises(StateError, match="cannot read"):
        spool.read("s1")
    whole.rmdir()
    (tmp_path / "aside").rename(whole)
    assert spool.read("s1") == sample("s1")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, clock: LoopClock) -> None:
    (tmp_path / "file").write_text("no folder")
    spool = DiskSampleSpool(tmp_path / "file" / "samples", clock=clock)
    with pytest.raises(StateError):
        spool.add(sample("s1"))
    with pytest.raises(StateError):
        spool.spend("cells", 1, "ok")
    assert spool.budget("cells").spent_bytes == 0


def test_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_sample_id(START + timedelta(milliseconds=n)) for n in range(100)]
    assert ids == sorted(ids)
    assert len({new_sample_id(START) for _ in range(1000)}) == 1000
