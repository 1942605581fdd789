"""Reading models of each format, and files that are corrupt, truncated or hostile, through the real child process."""

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from controlplane import limits
from controlplane.domain.catalog import ModelSignature, TensorSpec
from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.inspection.inspector import OpenVinoInspector
from tests.inspection.flatbuffer_bytes import tflite_model
from tests.inspection.protobuf_bytes import field, onnx_model, paddle_program, tf_graph, tf_saved_model
from tests.support.models import classifier_ir, failing_model_ir

pytestmark = pytest.mark.openvino

DYNAMIC = ((-1, 4), (-1, 4))


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


async def refusal_of(folder: Path, inspector: OpenVinoInspector | None = None) -> FieldInvalidError:
    with pytest.raises(FieldInvalidError) as refusal:
        await (inspector or OpenVinoInspector()).inspect(folder)
    assert refusal.value.reason is Reason.MODEL_UNREADABLE
    assert refusal.value.field == "artifact"
    assert refusal.value.remedy
    return refusal.value


async def test_reads_an_ir_with_its_labels(tmp_path: Path) -> None:
    classifier_ir(tmp_path, labels="ok scratch")
    signature = await OpenVinoInspector().inspect(tmp_path)
    rt_info = signature.rt_info
    assert signature == ModelSignature(
        format="ir",
        entry_path="model.xml",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3, 8, 8)),),
        outputs=(TensorSpec(name="scores", datatype="FP32", shape=(-1, 2)),),
        precision="f32",
        rt_info=rt_info,
    )
    assert rt_info["model_info/labels"] == "ok scratch"


@pytest.mark.parametrize(
    ("files", "format_", "entry_path", "names", "shapes"),
    [
        ({"net.onnx": onnx_model()}, "onnx", "net.onnx", ("x", "y"), DYNAMIC),
        (
            {"net.onnx": onnx_model(weights_at="net.data"), "net.data": bytes(16)},
            "onnx",
            "net.onnx",
            ("x", "y"),
            DYNAMIC,
        ),
        ({"m.pdmodel": paddle_program(), "m.pdiparams": b""}, "paddle", "m.pdmodel", ("x", "y"), DYNAMIC),
        ({"saved_model.pb": tf_saved_model()}, "tf_saved_model", ".", ("x", "y"), DYNAMIC),
        ({"export/1/saved_model.pb": tf_saved_model()}, "tf_saved_model", "export/1", ("x", "y"), DYNAMIC),
        ({"net.pb": tf_graph()}, "tf_frozen", "net.pb", ("x:0", "y:0"), DYNAMIC),
        ({"net.tflite": tflite_model()}, "tflite", "net.tflite", ("x", "y"), ((1, 4), (1, 4))),
    ],
)
async def test_reads_each_format(
    tmp_path: Path,
    files: dict[str, bytes],
    *,
    format_: str,
    entry_path: str,
    names: tuple[str, str],
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    signature = await OpenVinoInspector().inspect(written(tmp_path, files))
    assert (signature.format, signature.entry_path) == (format_, entry_path)
    assert signature.inputs == (TensorSpec(name=names[0], datatype="FP32", shape=shapes[0]),)
    assert signature.outputs == (TensorSpec(name=names[1], datatype="FP32", shape=shapes[1]),)
    assert signature.precision == "f32"


def save_two_outputs(folder: Path) -> None:
    """Half-precision weights; tensors without names; one node that computes both outputs."""
    image = ops.parameter([1, 4], ov.Type.u8, name="image")
    widened = ops.convert(image, "f16")
    scaled = ops.multiply(widened, ops.constant(np.ones((1, 4), np.float16)))
    halves = ops.split(scaled, 1, 2, name="halves")
    ov.serialize(ov.Model([halves.output(0), halves.output(1)], [image], "m"), folder / "m.xml")


async def test_tensors_without_names_are_named_the_same_each_time(tmp_path: Path) -> None:
    save_two_outputs(tmp_path)
    first, again = [await OpenVinoInspector().inspect(tmp_path) for _ in range(2)]
    assert first == again
    assert first.inputs[0].datatype == "UINT8"
    names = [tensor.name for tensor in first.outputs]
    assert len(set(names)) == 2
    assert all(names)
    assert first.precision == "f16"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("net.onnx", b""),
        ("net.onnx", random.Random(3).randbytes(5000)),
        ("net.onnx", onnx_model()[:-25]),
        ("net.pb", b""),
        ("net.pb", random.Random(4).randbytes(5000)),
        ("net.tflite", b"\x18\0\0\0TFL3" + random.Random(5).randbytes(5000)),
        ("net.tflite", tflite_model()[:60]),
        ("saved_model.pb", random.Random(6).randbytes(5000)),
        ("net.xml", b""),
        ("net.xml", random.Random(7).randbytes(5000)),
        ("net.xml", b'<net name="x" version="11">' + b"<a>" * 500_000),
        ("net.xml", b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><net name="&a;" version="11"/>'),
        ("net.pdmodel", random.Random(8).randbytes(5000)),
        ("net.txt", b"no model"),
    ],
)
async def test_files_that_are_no_model_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    refusal = await refusal_of(written(tmp_path, {name: content}))
    assert str(tmp_path) not in refusal.message


@pytest.mark.parametrize("kept_bytes", [0, 100])
async def test_truncated_weights_are_refused(tmp_path: Path, kept_bytes: int) -> None:
    path = classifier_ir(tmp_path).with_suffix(".bin")
    path.write_bytes(path.read_bytes()[:kept_bytes])
    await refusal_of(tmp_path)


async def test_a_truncated_description_is_refused(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path)
    path.write_bytes(path.read_bytes()[:-400])
    await refusal_of(tmp_path)


async def test_a_constant_beyond_all_memory_is_refused(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path)
    path.write_text(path.read_text().replace('size="8"', f'size="{1 << 44}"'))
    await refusal_of(tmp_path)


@pytest.mark.parametrize("location", ["../outside.data", "/proc/self/environ", "sub/../../outside.data"])
async def test_weights_outside_the_artifact_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside.data").write_bytes(bytes(16))
    folder = written(tmp_path / "artifact", {"net.onnx": onnx_model(weights_at=location), "sub/file": b""})
    await refusal_of(folder)


async def test_an_element_type_that_no_client_can_send_is_refused(tmp_path: Path) -> None:
    image = ops.parameter([1, 4], ov.Type.u4, name="x")
    ov.serialize(ov.Model([ops.convert(image, "f32")], [image], "m"), tmp_path / "m.xml")
    assert "u4" in (await refusal_of(tmp_path)).message


def save_strings(folder: Path) -> None:
    text = ops.parameter([-1], ov.Type.string, name="text")
    ov.serialize(ov.Model([ops.result(text)], [text], "m"), folder / "m.xml")


async def test_strings_are_refused_as_no_agent_serves_them(tmp_path: Path) -> None:
    save_strings(tmp_path)
    refusal = await refusal_of(tmp_path)
    assert "'text' holds strings (BYTES)" in refusal.message
    assert "token ids" in refusal.remedy


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            {"m.onnx": onnx_model().replace(b"Relu", b"Rluu")},
            "m.onnx uses operations that OpenVINO does not know: Rluu",
        ),
        ({"m.pb": tf_graph().replace(b"Relu", b"Rluu")}, "m.pb uses operations that OpenVINO does not know: Rluu"),
        ({"saved_model.pb": tf_saved_model().replace(b"Relu", b"Rluu")}, "the SavedModel uses operations"),
        ({"m.pdmodel": paddle_program().replace(b"relu", b"rluu"), "m.pdiparams": b""}, "not know: rluu"),
    ],
)
async def test_operations_that_openvino_does_not_know_are_named(
    tmp_path: Path, files: dict[str, bytes], told: str
) -> None:
    refusal = await refusal_of(written(tmp_path, files))
    assert told in refusal.message
    assert "export it without them" in refusal.remedy


async def test_an_ir_with_an_unknown_operation_names_it(tmp_path: Path) -> None:
    failing_model_ir(tmp_path, when="read")
    assert "does not know: NoSuchOperation" in (await refusal_of(tmp_path)).message


async def test_an_ir_without_its_weights_names_the_file(tmp_path: Path) -> None:
    classifier_ir(tmp_path).with_suffix(".bin").unlink()
    refusal = await refusal_of(tmp_path)
    assert refusal.message == "model.bin is missing beside model.xml"
    assert "together" in refusal.remedy


async def test_a_program_of_paddle_3_is_refused_with_the_way_round(tmp_path: Path) -> None:
    refusal = await refusal_of(written(tmp_path, {"inference.json": b"{}", "inference.pdiparams": b""}))
    assert "PaddlePaddle 3" in refusal.message
    assert "paddle2onnx" in refusal.remedy


@pytest.mark.parametrize("content", [None, b"123"])
async def test_external_weights_that_are_not_there_are_named(tmp_path: Path, content: bytes | None) -> None:
    files = {"net.onnx": onnx_model(weights_at="net.data")}
    if content is not None:
        files["net.data"] = content
    refusal = await refusal_of(written(tmp_path, files))
    assert "net.onnx keeps weights in 'net.data'" in refusal.message
    assert "weights inside" in refusal.remedy


async def test_model_info_of_an_onnx_file_is_read_as_that_of_an_ir(tmp_path: Path) -> None:
    properties = b"".join(
        field(14, field(1, key) + field(2, value))
        for key, value in (("model_info labels", "ok defect"), ("author", "someone"))
    )
    signature = await OpenVinoInspector().inspect(written(tmp_path, {"net.onnx": onnx_model() + properties}))
    assert signature.rt_info == {"framework/author": "someone", "model_info/labels": "ok defect"}


# --- a child that misbehaves, whatever the file was that made it -----------------------------------

CONFINED = "import sys; from controlplane.inspection.child import confine; "


def inspector_of(code: str, *, seconds_max: float = 60.0, memory_bytes_max: int = 1 << 30) -> OpenVinoInspector:
    """An inspector whose child runs `code`; FOLDER MEMORY CPU are its arguments."""
    return OpenVinoInspector(
        command=(sys.executable, "-I", "-c", code), seconds_max=seconds_max, memory_bytes_max=memory_bytes_max
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes the reader (SIGSEGV)"),
        ("import os; os.abort()", "crashes the reader (SIGABRT)"),
        ("import sys; sys.exit(3)", "ends the reader with status 3"),
        ("pass", "without a report"),
        ("print('{')", "without a report"),
        ("print('[]')", "no report"),
        ("print('{\"format\": 1}')", "broken report"),
        ("print('x' * (1 << 22))", "description is too long"),
        ("print('{\"refusal\": \"' + 'x' * 100000 + '\"}')", "xxx"),
    ],
)
async def test_a_child_that_ends_badly_is_a_refusal(tmp_path: Path, code: str, told: str) -> None:
    refusal = await refusal_of(tmp_path, inspector_of(code))
    assert told in refusal.message
    assert len(refusal.message) < 3000


async def test_a_child_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, sys, pathlib, time\n"
        "child = os.fork()\n"
        "if child: pathlib.Path(sys.argv[1], 'pids').write_text(f'{os.getpid()} {child}')\n"
        "time.sleep(600)"
    )
    started = time.monotonic()
    refusal = await refusal_of(tmp_path, inspector_of(code, seconds_max=2.0))
    assert "longer than 2 s" in refusal.message
    assert time.monotonic() - started < 30
    for pid in pids.read_text().split():
        assert not is_running(int(pid))


async def test_a_child_is_killed_when_the_publisher_goes(tmp_path: Path) -> None:
    code = "import os, sys, time; open(sys.argv[1] + '/fifo', 'w').write(str(os.getpid())); time.sleep(600)"
    os.mkfifo(tmp_path / "fifo")
    inspection = asyncio.create_task(inspector_of(code).inspect(tmp_path))
    pid = int(await asyncio.to_thread((tmp_path / "fifo").read_text))
    inspection.cancel()
    with pytest.raises(asyncio.CancelledError):
        await inspection
    assert not is_running(pid)


async def test_a_child_that_takes_memory_is_stopped(tmp_path: Path) -> None:
    code = CONFINED + "confine(memory_bytes=int(sys.argv[2]), cpu_seconds=9); bytearray(4 << 30)"
    assert "status 1" in (await refusal_of(tmp_path, inspector_of(code))).message


async def test_a_child_that_takes_processor_time_is_stopped(tmp_path: Path) -> None:
    code = CONFINED + "confine(memory_bytes=int(sys.argv[2]), cpu_seconds=1)\nwhile True: pass"
    assert "too much processor time" in (await refusal_of(tmp_path, inspector_of(code))).message


async def test_a_child_cannot_write_files_and_leaves_no_core(tmp_path: Path) -> None:
    code = CONFINED + (
        "import os, pathlib; confine(memory_bytes=int(sys.argv[2]), cpu_seconds=9)\n"
        "try: pathlib.Path(sys.argv[1], 'out').write_bytes(b'x')\n"
        "except OSError: os.abort()"
    )
    await refusal_of(tmp_path, inspector_of(code))
    assert (tmp_path / "out").stat().st_size == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


async def test_the_child_knows_nothing_of_the_controllers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    code = "import json, os; print(json.dumps({'refusal': ' '.join(sorted(os.environ)) + ' in ' + os.getcwd()}))"
    refusal = await refusal_of(tmp_path, inspector_of(code))
    assert "AWS" not in refusal.message
    assert "lineside-inspection-" in refusal.message


async def test_few_models_are_read_at_a_time(tmp_path: Path) -> None:
    """Each child waits for the others' files; with more at once than allowed this would show."""
    code = (
        "import os, sys, time\n"
        "mine = os.path.join(sys.argv[1], str(os.getpid())); open(mine, 'w').close()\n"
        "time.sleep(0.2); count = len(os.listdir(sys.argv[1])); os.unlink(mine)\n"
        'print(\'{"refusal": "%d"}\' % count)'
    )
    inspector = inspector_of(code)
    refusals = await asyncio.gather(*(refusal_of(tmp_path, inspector) for _ in range(5)))
    assert max(int(refusal.message) for refusal in refusals) <= limits.INSPECTIONS_AT_ONCE_MAX


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
