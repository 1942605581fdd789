"""Last-known-good on disk."""

import json
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from agent.app.ports import FailureRecord, SavedState, ServingRecord, ShadowRecord, Trial
from agent.domain.artifact import Artifact, ArtifactFile, ModelSignature, TensorSpec
from agent.domain.device import DeviceChoice, DeviceMeasurement, PerformanceHint, RuntimePolicy
from agent.domain.errors import Reason, StateError
from agent.domain.slot import CandidateVersion, DesiredSlot, DesiredState, SamplePolicy, ShadowRun, ShadowState
from agent.storage import durable
from agent.storage.state_file import JsonStateFile

SLOT = DesiredSlot(
    slot="cells",
    version=3,
    deployment="deployments/all",
    artifact=Artifact(
        digest=f"sha256:{1:064x}", files=(ArtifactFile(path="m.xml", digest=f"sha256:{2:064x}", size_bytes=9),)
    ),
    signature=ModelSignature(
        entry_path="m.xml",
        inputs=(TensorSpec(name="x", datatype="UINT8", shape=(-1, 300, 300, 1)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
        format="IR",
        precision="FP32",
        rt_info=MappingProxyType({"model_info/labels": "ok defekt ü"}),
    ),
    runtime_policy=RuntimePolicy(hint=PerformanceHint.THROUGHPUT, inference_precision="f32", devices=("CPU",)),
    sample_policy=SamplePolicy(random_fraction=0.25, confidence_below=0.75, budget_bytes_per_day=1 << 40),
    offer=2,
    fetch_bytes_per_second_max=1 << 20,
)
CANDIDATE = CandidateVersion(version=9, artifact=SLOT.artifact, signature=SLOT.signature)
WITH_CANDIDATES = replace(
    SLOT,
    prefetch=CANDIDATE,
    shadow=ShadowRun(candidate=CANDIDATE, comparisons_max=500, serving_latency_ms_p99_max=12.5),
)
CHOICE = DeviceChoice(
    device="CPU",
    reason="best",
    measurements=(
        DeviceMeasurement(device="CPU", ok=True, latency_ms_p50=1.5, throughput_per_second=700.25, chosen=True),
        DeviceMeasurement(device="NPU", ok=False, error="crashed", failure=Reason.COMPILE_CRASHED),
    ),
)
STATE = SavedState(
    desired=DesiredState(generation=7, slots=(WITH_CANDIDATES,)),
    serving=(ServingRecord(desired=SLOT, choice=CHOICE),),
    failures=(FailureRecord(slot="welds", version=4, offer=1, reason="DISK_FULL", message="no room"),),
    boot_count=5,
    trials=(
        Trial(desired=replace(SLOT, version=4), loads=1),
        Trial(desired=SLOT, starts=2, before=ServingRecord(desired=replace(SLOT, version=2), choice=CHOICE)),
    ),
    prepared=(ServingRecord(desired=replace(SLOT, version=9), choice=CHOICE),),
    shadows=(
        ShadowRecord(
            candidate=replace(SLOT, version=9), state=ShadowState.RUNNING, compared=7, message="m", loads=1, starts=2
        ),
    ),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def test_what_is_saved_is_loaded(path: Path) -> None:
    JsonStateFile(path).save(STATE)
    assert JsonStateFile(path).load() == STATE
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_first_start_is_empty(path: Path) -> None:
    assert JsonStateFile(path).load() == SavedState()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"schema": 99}', b'{"schema": 1}', b"\xff\x00"])
def test_a_damaged_file_is_set_aside_with_a_remedy(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        JsonStateFile(path).load()
    assert caught.value.reason is Reason.STATE_UNREADABLE
    assert "state.json.unreadable" in caught.value.remedy
    assert path.with_name("state.json.unreadable").read_bytes() == content
    assert JsonStateFile(path).load() == SavedState()


def test_each_cut_of_the_file_is_refused_or_the_whole(path: Path) -> None:
    JsonStateFile(path).save(STATE)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 97):
        path.write_bytes(content[:length])
        with pytest.raises(StateError):
            JsonStateFile(path).load()


def test_the_schema_is_named_in_the_file(path: Path) -> None:
    JsonStateFile(path).save(STATE)
    assert json.loads(path.read_bytes())["schema"] == 1


def test_a_file_of_an_agent_without_trials_is_read(path: Path) -> None:
    JsonStateFile(path).save(STATE)
    content = json.loads(path.read_bytes())
    del content["trials"]
    path.write_text(json.dumps(content))
    assert JsonStateFile(path).load() == replace(STATE, trials=())


def test_a_failed_save_keeps_what_was_saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    JsonStateFile(path).save(STATE)

    def full(descriptor: int, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "write_fully", full)
    with pytest.raises(StateError) as caught:
        JsonStateFile(path).save(SavedState())
    assert caught.value.reason is Reason.STATE_UNWRITABLE
    assert caught.value.remedy
    monkeypatch.undo()
    assert JsonStateFile(path).load() == STATE
    assert [found.name for found in path.parent.iterdir()] == ["state.json"]
