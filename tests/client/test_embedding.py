"""Preprocessing embedded in a real network: the same numbers as when the application does it, and clear refusals."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13 as ops

from controlplane.client import InputPreprocessing, InvalidInputError, Preprocessing
from controlplane.client.conversion import prepared

pytestmark = pytest.mark.openvino

Array = npt.NDArray[Any]
MEAN, SCALE = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)


def network(folder: Path, *shape: int, inputs: Sequence[str] = ("image",), element: Any = ov.Type.f32) -> Path:
    """An IR whose output is its input, or the sum of its inputs."""
    parameters = [ops.parameter(list(shape), element, name=name) for name in inputs]
    for parameter in parameters:
        parameter.output(0).get_tensor().set_names({parameter.get_friendly_name()})
    total = parameters[0]
    for parameter in parameters[1:]:
        total = ops.add(total, parameter)
    result = ops.relu(total) if element == ov.Type.f32 else ops.abs(total)
    result.output(0).get_tensor().set_names({"y"})
    model = ov.Model([result], parameters, "net")
    model.set_rt_info("ok defect", ["model_info", "labels"])
    ov.save_model(model, folder / "net.xml", compress_to_fp16=False)
    return folder / "net.xml"


def embedded(path: Path, steps: InputPreprocessing | None = None, *, name: str = "", **info: str) -> ov.Model:
    wanted = Preprocessing(inputs={name: steps} if steps else {}, model_info=info)
    with prepared(path, wanted) as target:
        content = target.read_text(), target.with_suffix(".bin").read_bytes()
    return ov.Core().read_model(content[0].encode(), content[1] or bytes(1))


def answer(model: ov.Model, *inputs: Array) -> Array:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result: Array = compiled(dict(enumerate(inputs)))[0]
    return result


def info_of(model: ov.Model) -> dict[str, str]:
    return {key: model.get_rt_info(["model_info", key]).astype(str) for key in model.get_rt_info()["model_info"]}


def camera(height: int, width: int) -> Array:
    image: Array = np.random.default_rng(2).integers(60, 255, (1, height, width, 3), np.uint8)
    return image


def test_a_camera_image_is_normalised_as_the_application_did_it(tmp_path: Path) -> None:
    model = embedded(
        network(tmp_path, 1, 3, 4, 6),
        InputPreprocessing(layout="NHWC", element_type="u8", mean=MEAN, scale=SCALE, reverse_channels=True),
    )
    assert (model.inputs[0].element_type, list(model.inputs[0].shape)) == (ov.Type.u8, [1, 4, 6, 3])
    image = camera(4, 6)
    rgb = image[..., ::-1].astype(np.float32)
    wanted = ((rgb - np.array(MEAN, np.float32)) / np.array(SCALE, np.float32)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(answer(model, image), wanted, rtol=1e-6)


def test_an_image_of_any_size_is_resized(tmp_path: Path) -> None:
    model = embedded(
        network(tmp_path, 1, 3, 4, 6), InputPreprocessing(layout="NHWC", element_type="u8", resize="linear")
    )
    assert model.inputs[0].partial_shape == ov.PartialShape([1, -1, -1, 3])
    image = camera(4, 6)
    larger = image.repeat(2, axis=1).repeat(2, axis=2)
    wanted = image.transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_allclose(answer(model, image), wanted, rtol=1e-6)
    np.testing.assert_allclose(answer(model, larger), wanted, rtol=1e-6)


def test_a_network_of_any_size_gets_the_size_that_is_said(tmp_path: Path) -> None:
    path = network(tmp_path, 1, 3, -1, -1)
    with pytest.raises(InvalidInputError, match="any height and width") as caught:
        embedded(path, InputPreprocessing(layout="NHWC", resize="linear"))
    assert "linear:224x224" in caught.value.remedy
    model = embedded(path, InputPreprocessing(layout="NHWC", resize="nearest", resize_to=(8, 10), size=(4, 5)))
    assert list(model.inputs[0].shape) == [1, 4, 5, 3]
    assert answer(model, camera(4, 5).astype(np.float32)).shape == (1, 3, 8, 10)


def test_what_was_embedded_and_what_was_there_is_said_in_model_info(tmp_path: Path) -> None:
    steps = InputPreprocessing(layout="NHWC", resize="linear", mean=MEAN, scale=(58.395,), reverse_channels=True)
    model = embedded(network(tmp_path, 1, 3, 4, 6), steps, confidence_threshold="0.5", model_type="Classification")
    assert info_of(model) == {
        "labels": "ok defect",
        "confidence_threshold": "0.5",
        "model_type": "Classification",
        "embedded_processing": "True",
        "resize_type": "standard",
        "orig_height": "4",
        "orig_width": "6",
        "mean_values": "10 20 30",
        "scale_values": "58.395",
        "reverse_input_channels": "True",
    }


def test_free_sizes_are_narrowed(tmp_path: Path) -> None:
    path = network(tmp_path, -1, 3, -1, -1)
    model = embedded(path, InputPreprocessing(shape="1..8,3,48,?"))
    assert model.inputs[0].partial_shape == ov.PartialShape("[1..8,3,48,?]")
    assert "embedded_processing" not in info_of(model)
    camera_model = embedded(
        path, InputPreprocessing(shape="1,3,4,6", layout="NHWC", element_type="u8", resize="linear")
    )
    assert info_of(camera_model)["orig_width"] == "6"
    for shape in ("?,4,?,?", "?,3,?"):
        with pytest.raises(InvalidInputError, match="is none of") as caught:
            embedded(path, InputPreprocessing(shape=shape))
        assert caught.value.field == "preprocess.shape"


def test_labels_can_be_set_without_any_step(tmp_path: Path) -> None:
    model = embedded(network(tmp_path, 1, 3, 4, 6), labels="good bad")
    assert info_of(model) == {"labels": "good bad"}
    assert list(model.inputs[0].shape) == [1, 3, 4, 6]


def test_one_of_several_inputs_is_named(tmp_path: Path) -> None:
    path = network(tmp_path, 1, 3, 4, 6, inputs=("left", "right"))
    steps = InputPreprocessing(element_type="u8", layout="NHWC")
    model = embedded(path, steps, name="right")
    assert [port.element_type for port in model.inputs] == [ov.Type.f32, ov.Type.u8]
    with pytest.raises(InvalidInputError, match="2 inputs: left, right"):
        embedded(path, steps)
    with pytest.raises(InvalidInputError, match="no input 'middle'"):
        embedded(path, steps, name="middle")


def test_the_same_wishes_give_the_same_bytes(tmp_path: Path) -> None:
    path = network(tmp_path, 1, 3, 4, 6)
    wanted = Preprocessing(
        inputs={"": InputPreprocessing(layout="NHWC", element_type="u8", resize="linear", mean=MEAN, scale=SCALE)},
        model_info={"labels": "a b"},
    )
    written = []
    for _ in range(2):
        with prepared(path, wanted) as target:
            written.append((target.name, target.read_bytes(), target.with_suffix(".bin").read_bytes()))
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("shape", "element", "steps", "field", "message"),
    [
        ((1, 3, 4, 6), "f32", InputPreprocessing(mean=(1.0, 2.0)), "preprocess.mean", "2 numbers for 3 channels"),
        ((1, 3, 4, 6), "f32", InputPreprocessing(layout="HWC"), "preprocess.layout", "has not the 4 dimensions"),
        ((1, 3, 4, 6), "f32", InputPreprocessing(layout="NHDC"), "preprocess.layout", "other letters than NCHW"),
        ((1, 7, 4, 6), "f32", InputPreprocessing(layout="NHWC"), "preprocess.model_layout", "not plain"),
        ((1, 3, 4, 6), "i64", InputPreprocessing(mean=(1.0,)), "preprocess.type", "takes i64"),
        (
            (1, 3, 4),
            "f32",
            InputPreprocessing(resize="linear", model_layout="NCT"),
            "preprocess.resize",
            "no height and width",
        ),
    ],
)
def test_what_does_not_fit_the_network_is_refused(
    tmp_path: Path, shape: tuple[int, ...], element: str, *, steps: InputPreprocessing, field: str, message: str
) -> None:
    path = network(tmp_path, *shape, element=getattr(ov.Type, element))
    with pytest.raises(InvalidInputError, match=message) as caught:
        embedded(path, steps)
    assert caught.value.field == field
    assert caught.value.remedy


def test_without_openvino_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path, 1, 3, 4, 6)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InvalidInputError, match="openvino is not installed") as caught:
        embedded(path, labels="a b")
    assert "install openvino" in caught.value.remedy
    with prepared(path) as target:
        assert target == path, "what needs no OpenVINO goes without it"
