"""Compiled blobs on disk: whole ones only."""

import os
from pathlib import Path

import pytest

from agent.domain.device import Configuration, PerformanceHint
from agent.runtime.compiled_folder import CompiledFolder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "artifacts" / "abc" / "model.xml"
    path.parent.mkdir(parents=True)
    path.write_text("<net/>")
    return path


@pytest.fixture
def compiled(tmp_path: Path) -> CompiledFolder:
    return CompiledFolder(tmp_path / "compiled", version="1")


def entry_of(
    compiled: CompiledFolder,
    model: Path,
    *,
    device: str = "CPU",
    precision: str = "",
    streams: int = 0,
    hint: PerformanceHint = PerformanceHint.LATENCY,
) -> Path:
    return compiled.entry(model, Configuration(device=device, precision=precision, streams=streams), hint)


def finished(compiled: CompiledFolder, model: Path, *, device: str = "CPU") -> Path:
    entry = entry_of(compiled, model, device=device)
    (compiled.begin(entry) / "1.blob").write_bytes(b"compiled")
    compiled.finish(entry, model=model)
    return entry


def test_everything_that_a_blob_depends_on_is_in_its_place(
    compiled: CompiledFolder, model: Path, tmp_path: Path
) -> None:
    other = CompiledFolder(tmp_path / "compiled", version="2")
    places = {
        entry_of(compiled, model),
        entry_of(compiled, model, device="NPU"),
        entry_of(compiled, model, hint=PerformanceHint.THROUGHPUT),
        entry_of(compiled, model, precision="f32"),
        entry_of(compiled, model, streams=1),
        entry_of(compiled, model, streams=11),
        entry_of(compiled, model.with_name("other.xml")),
        entry_of(other, model),
    }
    assert len(places) == 8


def test_only_a_finished_blob_is_intact(compiled: CompiledFolder, model: Path) -> None:
    entry = entry_of(compiled, model)
    assert not compiled.is_intact(entry)
    (compiled.begin(entry) / "1.blob").write_bytes(b"half")
    assert not compiled.is_intact(entry)
    compiled.abandon(entry)
    assert compiled.is_intact(finished(compiled, model))


def test_damage_is_seen(compiled: CompiledFolder, model: Path) -> None:
    entry = finished(compiled, model)
    (entry / "1.blob").write_bytes(b"compileD")
    assert not compiled.is_intact(entry)
    finished(compiled, model)
    assert compiled.is_intact(entry)
    (entry / "2.blob").write_bytes(b"from nowhere")
    assert not compiled.is_intact(entry)
    (entry / "compiled.json").write_text("{")
    assert not compiled.is_intact(entry)


def test_prune_keeps_what_has_its_artifact(compiled: CompiledFolder, model: Path, tmp_path: Path) -> None:
    entry = finished(compiled, model)
    partial = compiled.begin(entry_of(compiled, model, device="NPU"))
    compiled.prune(bytes_max=1 << 30)
    assert entry.exists()
    assert not partial.exists()
    model.unlink()
    compiled.prune(bytes_max=1 << 30)
    assert not entry.exists()


def test_prune_drops_blobs_of_another_openvino(compiled: CompiledFolder, model: Path, tmp_path: Path) -> None:
    entry = finished(compiled, model)
    CompiledFolder(tmp_path / "compiled", version="2").prune(bytes_max=1 << 30)
    assert not entry.exists()


def test_prune_of_nothing(tmp_path: Path) -> None:
    CompiledFolder(tmp_path / "none", version="1").prune(bytes_max=1 << 30)


def test_above_the_bound_the_longest_unused_go_first(compiled: CompiledFolder, model: Path) -> None:
    entries = [finished(compiled, model, device=device) for device in ("CPU", "GPU", "NPU", "X")]
    for age, entry in enumerate(entries):
        os.utime(entry / "compiled.json", ns=(age, age))
    compiled.touch(entries[1])
    each_bytes = sum(path.stat().st_size for path in entries[3].iterdir())
    compiled.prune(bytes_max=2 * each_bytes + each_bytes // 2, keep={entries[0]})
    assert [entry.exists() for entry in entries] == [True, True, False, False]
