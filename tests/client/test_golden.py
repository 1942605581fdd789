"""Golden files at publish: what is kept, and clear refusals of what does not fit the model."""

import tomllib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from controlplane.client import InvalidInputError
from controlplane.client.files import collect
from controlplane.client.golden import Golden, golden_files
from tests.support.models import classifier_ir, positive_score

pytestmark = pytest.mark.openvino


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def images(rows: int, dtype: Any = np.float32) -> Any:
    return np.arange(rows * 3 * 8 * 8).reshape(rows, 3, 8, 8).astype(dtype) / 100


def made(folder: Path, golden: Golden, *, batch: int = -1) -> dict[str, bytes]:
    """Content of the artifact's files by path."""
    path = classifier_ir(folder / "m", bias=0.7, batch=batch)
    with golden_files(path, collect(path), golden) as files:
        assert [file.path for file in files] == sorted(file.path for file in files)
        assert all(file.source.stat().st_size == file.size_bytes for file in files)
        return {file.path: file.source.read_bytes() for file in files}


def arrays_of(content: bytes, folder: Path) -> dict[str, Any]:
    (folder / "read.npz").write_bytes(content)
    with np.load(folder / "read.npz") as arrays:
        return dict(arrays)


def test_outputs_are_computed_and_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    golden = Golden(inputs=npz(tmp_path / "in.npz", x=np.zeros((2, 3, 8, 8), np.float32)), relative=0.02)
    files = made(tmp_path, golden)
    assert sorted(files) == [
        "golden/inputs.npz",
        "golden/outputs.npz",
        "golden/tolerance.toml",
        "model.bin",
        "model.xml",
    ]
    assert arrays_of(files["golden/outputs.npz"], tmp_path)["scores"][:, 1] == pytest.approx(positive_score(0.7))
    tolerance = tomllib.loads(files["golden/tolerance.toml"].decode())
    assert tolerance == {"relative": 0.02, "absolute": 1e-6, "min_top1_agreement": 0.0}
    again = made(tmp_path, golden)
    assert all(again[path] == content for path, content in files.items() if path.startswith("golden/"))


def test_more_rows_than_a_fixed_batch_are_several_inferences(tmp_path: Path) -> None:
    golden = Golden(inputs=npz(tmp_path / "in.npz", x=images(4)))
    fixed, dynamic = (
        arrays_of(made(tmp_path, golden, batch=batch)["golden/outputs.npz"], tmp_path)["scores"] for batch in (2, -1)
    )
    assert fixed == pytest.approx(dynamic, abs=1e-6)
    assert fixed.shape == (4, 2)


@pytest.mark.parametrize(
    ("arrays", "field", "text"),
    [
        ({"y": images(1)}, "golden.inputs", "no input 'y'"),
        ({}, "golden.inputs", "no array"),
        ({"x": images(1, np.float64)}, "golden.inputs[x]", "float64"),
        ({"x": images(1)[:, :, :4]}, "golden.inputs[x]", "does not fit"),
        ({"x": images(1)[0]}, "golden.inputs[x]", "does not fit"),
        ({"x": images(1), "z": images(1)}, "golden.inputs", "no input 'z'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        made(tmp_path, Golden(inputs=npz(tmp_path / "in.npz", **arrays)))
    assert caught.value.field == field
    assert text in str(caught.value)
    assert caught.value.remedy


def test_a_fixed_batch_takes_only_whole_inferences(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not fit"):
        made(tmp_path, Golden(inputs=npz(tmp_path / "in.npz", x=images(3))), batch=2)


@pytest.mark.parametrize(
    ("outputs", "field"),
    [
        ({"score": np.zeros((1, 2), np.float32)}, "golden.outputs"),
        ({"scores": np.zeros((1, 2))}, "golden.outputs[scores]"),
        ({"scores": np.zeros((2, 2), np.float32)}, "golden.outputs[scores]"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(tmp_path: Path, outputs: dict[str, Any], field: str) -> None:
    inputs = npz(tmp_path / "in.npz", x=images(1))
    with pytest.raises(InvalidInputError) as caught:
        made(tmp_path, Golden(inputs=inputs, outputs=npz(tmp_path / "out.npz", **outputs)))
    assert caught.value.field == field


def test_given_outputs_are_kept_as_they_are(tmp_path: Path) -> None:
    scores = np.array([[0.5, 0.5]], np.float32)
    golden = Golden(inputs=npz(tmp_path / "in.npz", x=images(1)), outputs=npz(tmp_path / "out.npz", scores=scores))
    assert np.array_equal(arrays_of(made(tmp_path, golden)["golden/outputs.npz"], tmp_path)["scores"], scores)


def test_what_is_no_npz_or_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=np.array([{}], dtype=object))
    for path in (tmp_path / "text.npz", tmp_path / "none.npz", pickled):
        with pytest.raises(InvalidInputError, match="cannot read"):
            made(tmp_path, Golden(inputs=path))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(65 << 20))
    with pytest.raises(InvalidInputError, match="fewer inputs"):
        made(tmp_path, Golden(inputs=tmp_path / "bomb.npz"))


@pytest.mark.parametrize(
    "wrong", [{"relative": -0.1}, {"relative": float("nan")}, {"absolute": float("inf")}, {"min_top1_agreement": 1.5}]
)
def test_tolerances_are_numbers(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        Golden(inputs=Path("in.npz"), **wrong)  # type: ignore[arg-type]


def test_a_folder_that_has_golden_files_already_is_refused(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "m")
    (path.parent / "golden").mkdir()
    (path.parent / "golden" / "inputs.npz").write_bytes(b"")
    golden = Golden(inputs=npz(tmp_path / "in.npz", x=images(1)))
    with (
        pytest.raises(InvalidInputError, match="already"),
        golden_files(path.parent, collect(path.parent), golden),
    ):
        pass
