"""What candidate and champion say of kept inputs, through the real child process; and models that do it harm."""

import io
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openvino import opset13 as ops
from PIL import Image

from agent.app.sample_encoding import encode
from agent.domain import interpretation
from agent.domain.artifact import ModelSignature as AgentSignature
from agent.domain.artifact import TensorSpec as AgentTensor
from controlplane.app.ports_judging import SampleContent
from controlplane.domain.catalog import ModelSignature, TensorSpec
from controlplane.domain.class_scores import class_scores, find_classes
from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.inspection.evaluation import OpenVinoEvaluator

pytestmark = pytest.mark.openvino
SIZE = 8


def brightness_ir(folder: Path, *, channels: int = 1, shape: tuple[int, ...] | None = None) -> Path:
    """A model that takes 8-bit pictures, and whose score of "bright" is their mean as a share of white."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = ops.parameter(list(shape or (-1, SIZE, SIZE, channels)), dtype=np.uint8, name="image")
    axes = ops.constant(np.arange(1, 4), dtype=np.int64)
    mean = ops.reduce_mean(ops.convert(picture, "f32"), axes, keep_dims=False)
    bright = ops.unsqueeze(ops.divide(mean, ops.constant(np.float32(255))), ops.constant(np.int64(1)))
    dark = ops.subtract(ops.constant(np.float32(1)), bright)
    scores = ops.concat([dark, bright], axis=1)
    scores.output(0).set_names({"scores"})
    model = ov.Model([ops.result(scores)], [picture], "brightness")
    model.inputs[0].get_tensor().set_names({"image"})
    model.set_rt_info("dark bright", ["model_info", "labels"])
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder


def grey(value: int, *, size: int = SIZE) -> Any:
    return np.full((1, size, size, 1), value, dtype=np.uint8)


def kept(tensor: Any) -> SampleContent:
    """As an agent keeps it."""
    content_type, content = encode(tensor)
    return SampleContent(content_type=content_type, content=content)


async def stream(contents: Iterable[SampleContent]) -> AsyncIterator[SampleContent]:
    for content in contents:
        yield content


async def ask(folder: Path, *contents: SampleContent, evaluator: OpenVinoEvaluator | None = None) -> list[Any]:
    found = await (evaluator or OpenVinoEvaluator()).evaluate(folder, stream(contents), labels={"bright"})
    return [None if scores is None else dict(scores) for scores in found]


async def test_each_input_gets_the_scores_that_are_asked_for_and_the_best(tmp_path: Path) -> None:
    found = await ask(brightness_ir(tmp_path), kept(grey(255)), kept(grey(51)))
    assert found[0] == {"bright": pytest.approx(1.0)}
    assert found[1] == {"bright": pytest.approx(0.2), "dark": pytest.approx(0.8)}


async def test_an_input_is_put_to_the_model_as_the_agent_was_sent_it(tmp_path: Path) -> None:
    colour = np.zeros((1, SIZE, SIZE, 3), dtype=np.uint8)
    colour[..., 0] = 255
    assert (await ask(brightness_ir(tmp_path / "rgb", channels=3), kept(colour)))[0]["bright"] == pytest.approx(1 / 3)
    one = brightness_ir(tmp_path / "one", shape=(1, SIZE, SIZE, 1))
    assert (await ask(one, kept(grey(255))))[0] == {"bright": pytest.approx(1.0)}


async def test_arrays_are_put_to_the_model_as_they_are(tmp_path: Path) -> None:
    vector = ops.parameter([-1, 2], dtype=np.float32, name="x")
    scores = ops.softmax(vector, axis=1)
    model = ov.Model([ops.result(scores)], [vector], "softmax")
    model.set_rt_info("dark bright", ["model_info", "labels"])
    ov.save_model(model, tmp_path / "model.xml")
    found = await ask(
        tmp_path, kept(np.array([[0.0, 0.0]], dtype=np.float32)), kept(np.array([[0.0, 0.0]], dtype=np.float64))
    )
    assert found == [{"bright": pytest.approx(0.5)}, None]


async def test_what_cannot_be_put_to_the_model_has_no_scores_and_harms_nothing(tmp_path: Path) -> None:
    broken = SampleContent(content_type="image/png", content=kept(grey(9)).content[:45])
    unknown = SampleContent(content_type="video/mp4", content=b"1234")
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    found = await ask(
        brightness_ir(tmp_path),
        broken,
        unknown,
        kept(grey(255, size=SIZE + 1)),
        SampleContent(content_type="application/x-npy", content=pickled.getvalue()),
        SampleContent(content_type="image/png", content=b""),
        kept(grey(255)),
    )
    assert found == [None, None, None, None, None, {"bright": pytest.approx(1.0)}]


async def test_a_picture_of_a_palette_is_read_as_colours(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("P", (SIZE, SIZE), 0).save(buffer, format="PNG")
    content = SampleContent(content_type="image/png", content=buffer.getvalue())
    assert (await ask(brightness_ir(tmp_path, channels=3), content))[0] is not None


async def test_a_grey_picture_is_put_to_a_model_of_colours(tmp_path: Path) -> None:
    assert (await ask(brightness_ir(tmp_path, channels=3), kept(grey(255))))[0] == {"bright": pytest.approx(1.0)}


async def test_no_inputs_are_no_answers(tmp_path: Path) -> None:
    assert await ask(brightness_ir(tmp_path)) == []


async def refusal_of(folder: Path, evaluator: OpenVinoEvaluator | None = None) -> FieldInvalidError:
    with pytest.raises(FieldInvalidError) as refusal:
        await ask(folder, kept(grey(1)), kept(grey(2)), evaluator=evaluator)
    assert refusal.value.reason is Reason.MODEL_UNREADABLE
    assert refusal.value.remedy
    return refusal.value


async def test_a_model_of_two_inputs_is_refused(tmp_path: Path) -> None:
    both = [ops.parameter([-1, 2], dtype=np.float32, name=name) for name in ("x", "y")]
    ov.save_model(ov.Model([ops.result(ops.add(*both))], both, "sum"), tmp_path / "model.xml")
    assert "2 inputs" in str(await refusal_of(tmp_path))


async def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    picture = ops.parameter([-1, SIZE, SIZE, 1], dtype=np.uint8, name="image")
    ov.save_model(ov.Model([ops.result(ops.relu(ops.convert(picture, "f32")))], [picture], "map"), tmp_path / "m.xml")
    assert "no output of the model holds classes" in str(await refusal_of(tmp_path))


async def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x00" * 100)
    await refusal_of(tmp_path)


CHILDREN = {
    "dies": "sys.stdin.buffer.read(5); os.kill(os.getpid(), 11)",
    "says_nothing": "",
    "prints_rubbish": "print('{', flush=True)",
    "prints_a_number": "print(7, flush=True)",
    "lies_about_scores": "print(json.dumps({'labels': ['bright']}), flush=True); print('[1.5]', flush=True)",
    "answers_with_words": "print(json.dumps({'labels': []}), flush=True); print('[\"a\"]', flush=True)",
    "never_ends_a_line": "sys.stdout.write('x' * 3000000); sys.stdout.flush()",
}


@pytest.mark.parametrize("what", sorted(CHILDREN))
async def test_whatever_the_child_does_the_controller_is_told_what_is_wrong(tmp_path: Path, what: str) -> None:
    body = textwrap.dedent(CHILDREN[what])
    if what == "dies":
        body = "print(json.dumps({'labels': ['bright']}), flush=True); " + body
    child = (sys.executable, "-c", f"import json, os, sys\n{body}")
    await refusal_of(brightness_ir(tmp_path), OpenVinoEvaluator(command=child))


async def test_a_model_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    child = (sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])")
    refusal = await refusal_of(brightness_ir(tmp_path), OpenVinoEvaluator(command=child, seconds_max=0.5))
    assert "longer than 0.5 s" in str(refusal)
    assert time.monotonic() - began < 30


async def test_a_model_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    await refusal_of(brightness_ir(tmp_path), OpenVinoEvaluator(memory_bytes_max=64 << 20))


# --- the same reading of outputs as the agent's ---

_FINITE = st.floats(-30, 30, allow_nan=False, width=32)
_ROWS = st.lists(_FINITE | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan"), float("inf")]), max_size=4)
_SHAPES = st.sampled_from([(-1,), (-1, 1), (-1, 2), (-1, 3, 1, 1), (-1, -1), (1, 4, 4, 3), (-1, 4)])
_INFO = st.fixed_dictionaries(
    {},
    optional={
        "model_info/labels": st.sampled_from(["a b c d", "", "a"]),
        "model_info/multilabel": st.sampled_from(["True", "False"]),
        "model_info/model_type": st.sampled_from(["Classification", "ssd", ""]),
    },
)


@given(st.lists(_SHAPES, min_size=1, max_size=2), st.sampled_from(["FP32", "INT64"]), _INFO, _ROWS)
def test_outputs_are_read_as_agents_read_them(
    shapes: list[tuple[int, ...]], datatype: str, rt_info: dict[str, str], row: list[float]
) -> None:
    names = [f"o{index}" for index in range(len(shapes))]
    ours = find_classes(
        ModelSignature(
            format="ir",
            entry_path="m.xml",
            inputs=(),
            outputs=tuple(
                TensorSpec(name=name, datatype=datatype, shape=shape) for name, shape in zip(names, shapes, strict=True)
            ),
            precision="f32",
            rt_info=rt_info,
        )
    )
    theirs = interpretation.reading_of(
        AgentSignature(
            format="ir",
            entry_path="m.xml",
            inputs=(),
            outputs=tuple(
                AgentTensor(name=name, datatype=datatype, shape=shape)
                for name, shape in zip(names, shapes, strict=True)
            ),
            precision="f32",
            rt_info=rt_info,
        )
    )
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    assert f"o{ours.index}" == theirs.output
    scores = class_scores(ours, row) or ()
    labelled = {ours.label(place): score for place, score in enumerate(scores)}
    expected = {one.label: one.score for one in interpretation.interpret(theirs, row)}
    assert labelled == pytest.approx(expected, abs=1e-12)
