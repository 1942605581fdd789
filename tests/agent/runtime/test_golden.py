"""Parity with golden files: compared on the device, in the child, before anything is served."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import limits
from agent.domain.device import Configuration, Parity, PerformanceHint, RuntimePolicy
from agent.domain.device_choice import choose
from agent.domain.errors import PrepareError, Reason
from agent.runtime.golden import Golden, compare, read_golden
from agent.runtime.openvino_runtime import OpenVinoRuntime
from tests.support.models import classifier_ir, positive_score, signature_of

pytestmark = pytest.mark.openvino


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEASURE_SECONDS", 0.02)


def tolerance(**changes: Any) -> Golden:
    return Golden(
        **{"inputs": {}, "outputs": {}, "relative": 0.01, "absolute": 0.0, "min_top1_agreement": 0.0, **changes}
    )


def test_differences_are_shares_of_the_largest_value() -> None:
    wanted = np.array([[100.0, 1e-9]], np.float32)
    assert compare("y", wanted + 0.9, wanted, tolerance()).failure == ""
    found = compare("y", wanted + np.array([[0, 2.0]], np.float32), wanted, tolerance())
    assert found.failure == "y[0, 1] is 2, golden is 1e-09"
    assert found.difference == pytest.approx(0.02)
    assert compare("y", wanted * 0 + 0.5, wanted * 0, tolerance(absolute=0.5)).failure == ""


def test_what_is_not_finite_must_be_the_same() -> None:
    wanted = np.array([1.0, math.nan, math.inf], np.float32)
    assert compare("y", wanted.copy(), wanted, tolerance()).failure == ""
    for strange in ([math.nan, math.nan, math.inf], [1.0, 2.0, math.inf], [1.0, math.nan, -math.inf]):
        assert compare("y", np.array(strange, np.float32), wanted, tolerance()).failure


def test_shapes_and_first_places_count() -> None:
    wanted = np.array([[0.4, 0.6], [0.5, 0.501]], np.float32)
    assert "shape" in compare("y", wanted[:1], wanted, tolerance()).failure
    swapped = wanted[:, ::-1].copy()
    loose = tolerance(relative=1.0)
    assert compare("y", swapped, wanted, loose).failure == ""
    strict = tolerance(relative=1.0, min_top1_agreement=0.5)
    assert compare("y", swapped, wanted, strict).failure == "y agrees in 0.0% of its rows, not 50.0%"


def with_golden(folder: Path, *, score: float, relative: float = 0.01) -> Path:
    """A model that answers positive_score(0.7), with golden files that say `score`."""
    path = classifier_ir(folder, bias=0.7)
    (folder / "golden").mkdir()
    np.savez(folder / "golden" / "inputs.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    np.savez(folder / "golden" / "outputs.npz", scores=np.array([[1 - score, score]] * 2, np.float32))
    text = f"relative = {relative}\nabsolute = 1e-6\nmin_top1_agreement = 0.0\n"
    (folder / "golden" / "tolerance.toml").write_text(text)
    return path


async def test_a_version_that_agrees_is_served_in_less_precision_too(tmp_path: Path) -> None:
    path = with_golden(tmp_path / "v1", score=positive_score(0.7))
    box = OpenVinoRuntime(compiled_folder=tmp_path / "compiled")
    (device,) = await box.devices()
    found = await box.measure(path.parent, signature_of(path), RuntimePolicy())
    assert all(each.ok and each.parity is Parity.PASSED and each.difference < 0.01 for each in found)
    tried = {each.precision for each in found}
    assert tried == {"f32"} | ({"bf16"} if "BF16" in device.capabilities else set())
    assert "parity within" in choose(found, PerformanceHint.LATENCY).reason


async def test_a_version_that_differs_is_not_eligible_and_says_where(tmp_path: Path) -> None:
    path = with_golden(tmp_path / "v1", score=0.9)
    box = OpenVinoRuntime(compiled_folder=tmp_path / "compiled")
    policy = RuntimePolicy(inference_precision="f32")
    (measured,) = await box.measure(path.parent, signature_of(path), policy)
    assert (measured.ok, measured.parity, measured.failure) == (False, Parity.FAILED, Reason.PARITY_FAILED)
    assert "scores[0, " in measured.error
    with pytest.raises(PrepareError) as caught:
        choose([measured], PerformanceHint.LATENCY)
    assert caught.value.reason is Reason.PARITY_FAILED
    with pytest.raises(PrepareError, match="golden"):
        await box.load(path.parent, signature_of(path), policy, Configuration(device="CPU", precision="f32"))
    assert list((tmp_path / "compiled").rglob("*.blob")) == []


@pytest.mark.parametrize("damage", ["tolerance.toml", "inputs.npz", "outputs.npz"])
async def test_golden_files_that_cannot_be_read_are_no_pass(tmp_path: Path, damage: str) -> None:
    path = with_golden(tmp_path / "v1", score=positive_score(0.7))
    (path.parent / "golden" / damage).write_bytes(b"x = ")
    with pytest.raises(ValueError, match="golden files"):
        read_golden(path.parent / "golden")
    policy = RuntimePolicy(inference_precision="f32")
    (measured,) = await OpenVinoRuntime(compiled_folder=tmp_path / "compiled").measure(
        path.parent, signature_of(path), policy
    )
    assert (measured.ok, measured.failure) == (False, Reason.COMPILE_FAILED)
    assert "golden files cannot be read" in measured.error
