"""Compiled blobs on disk: whole ones only."""

from pathlib import Path

import pytest

from agent.runtime.compiled_folder import CompiledFolder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "artifacts" / "abc" / "model.xml"
    path.parent.mkdir(parents=True)
    path.write_text("<net/>")
    return path


@pytest.fixture
def compiled(tmp_path: Path) -> CompiledFolder:
    return CompiledFolder(tmp_path / "compiled", openvino_version="1")


def entry_of(compiled: CompiledFolder, model: Path, **changes: str) -> Path:
    return compiled.entry(model, **{"device": "CPU", "hint": "LATENCY", "precision": "", **changes})


def finished(compiled: CompiledFolder, model: Path) -> Path:
    entry = entry_of(compiled, model)
    (compiled.begin(entry) / "1.blob").write_bytes(b"compiled")
    compiled.finish(entry, model=model)
    return entry


def test_everything_that_a_blob_depends_on_is_in_its_place(
    compiled: CompiledFolder, model: Path, tmp_path: Path
) -> None:
    other = CompiledFolder(tmp_path / "compiled", openvino_version="2")
    places = {
        entry_of(compiled, model),
        entry_of(compiled, model, device="NPU"),
        entry_of(compiled, model, hint="THROUGHPUT"),
        entry_of(compiled, model, precision="f32"),
        entry_of(compiled, model.with_name("other.xml")),
        entry_of(other, model),
    }
    assert len(places) == 6


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
    compiled.prune()
    assert entry.exists()
    assert not partial.exists()
    model.unlink()
    compiled.prune()
    assert not entry.exists()


def test_prune_drops_blobs_of_another_openvino(compiled: CompiledFolder, model: Path, tmp_path: Path) -> None:
    entry = finished(compiled, model)
    CompiledFolder(tmp_path / "compiled", openvino_version="2").prune()
    assert not entry.exists()


def test_prune_of_nothing(tmp_path: Path) -> None:
    CompiledFolder(tmp_path / "none", openvino_version="1").prune()
