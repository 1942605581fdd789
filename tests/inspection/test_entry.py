"""Which file OpenVINO is to read."""

import pytest

from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.inspection.entry import Entry, find_entry


@pytest.mark.parametrize(
    ("paths", "format_", "entry_path"),
    [
        (["model.xml", "model.bin"], "ir", "model.xml"),
        (["model.xml"], "ir", "model.xml"),
        (["model.xml", "model.bin", "labels.xml"], "ir", "model.xml"),
        (["net.onnx", "net.onnx.data", "labels.txt"], "onnx", "net.onnx"),
        (["inference.pdmodel", "inference.pdiparams", "inference.json"], "paddle", "inference.pdmodel"),
        (["inference.json", "inference.pdiparams"], "paddle", "inference.json"),
        (["saved_model.pb", "variables/variables.index", "fingerprint.pb"], "tf_saved_model", "."),
        (["a/b/saved_model.pb", "a/b/keras_metadata.pb"], "tf_saved_model", "a/b"),
        (["frozen.pb"], "tf_frozen", "frozen.pb"),
        (["net.tflite"], "tflite", "net.tflite"),
        (["net.onnx", "older/net.onnx"], "onnx", "net.onnx"),
        (["deep/net.onnx"], "onnx", "deep/net.onnx"),
    ],
)
def test_finds_the_one_model(paths: list[str], format_: str, entry_path: str) -> None:
    for order in (paths, paths[::-1]):
        assert find_entry(order) == Entry(format=format_, path=entry_path)


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["readme.md"],
        ["weights.bin"],
        ["config.json"],
        ["net.pdiparams"],
        ["a.onnx", "b.onnx"],
        ["a.tflite", "a.onnx"],
    ],
)
def test_none_or_several_are_refused_with_the_remedy(paths: list[str]) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        find_entry(paths)
    assert refusal.value.reason is Reason.MODEL_UNREADABLE
    assert refusal.value.field == "artifact"
    assert refusal.value.remedy
