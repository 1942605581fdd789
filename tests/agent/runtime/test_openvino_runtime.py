"""The Runtime port on a real OpenVINO: inventory, measurement in children, loading from the warm cache, inference."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from agent import limits
from agent.app.tensors import NUMPY_TYPES
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.device import Configuration, PerformanceHint, RuntimePolicy
from agent.domain.device_choice import choose
from agent.domain.errors import BehindHungError, DeviceHungError, PrepareError, Reason, RequestError
from agent.runtime import hung, infer
from agent.runtime.compile import ELEMENT_TYPES
from agent.runtime.infer import OpenVinoModel
from agent.runtime.openvino_runtime import OpenVinoRuntime
from agent.runtime.plugins import parse_plugins
from tests.support.line import wait_until
from tests.support.models import classifier_ir, failing_model_ir, looping_model_ir, positive_score, signature_of

pytestmark = pytest.mark.openvino

POLICY = RuntimePolicy(inference_precision="f32")
CPU = Configuration(device="CPU", precision="f32")
TWO_DEVICES = parse_plugins("SIMCPU=libopenvino_intel_cpu_plugin.so")
LONG_ROUNDS = 2_000_000.0
"""Of `looping_model_ir`: some seconds."""
ZEROS = {"x": np.zeros((1, 3, 8, 8), np.float32)}


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test looks at how fast this box is."""
    monkeypatch.setattr(limits, "MEASURE_SECONDS", 0.05)


def runtime(tmp_path: Path, **changes: object) -> OpenVinoRuntime:
    return OpenVinoRuntime(compiled_folder=tmp_path / "compiled", **changes)  # type: ignore[arg-type]


def crashing(code: str) -> dict[str, object]:
    """A child that enumerates as the real one does, and ends by `code` when asked to compile."""
    script = (
        "import json, sys, io, time, os; text = sys.stdin.read(); request = json.loads(text)\n"
        f"if request['command'] == 'measure': {code}\n"
        "sys.stdin = io.StringIO(text); from agent.runtime.child import main; main()"
    )
    return {"child_command": (sys.executable, "-c", script)}


async def test_a_folder_that_cannot_be_written_fails_the_version_and_not_the_agent(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "model")
    (tmp_path / "compiled").write_text("a file where the folder should be")
    with pytest.raises(PrepareError) as failure:
        await runtime(tmp_path).measure(path.parent, signature_of(path), POLICY)
    assert failure.value.reason is Reason.STATE_UNWRITABLE
    assert "writable" in failure.value.remedy
    (tmp_path / "compiled").unlink()
    assert (await runtime(tmp_path).host()).disk_bytes > 0
    assert not (tmp_path / "compiled").exists()


async def test_every_device_is_described(tmp_path: Path) -> None:
    devices = await runtime(tmp_path, plugins=TWO_DEVICES).devices()
    assert [device.device for device in devices] == ["CPU", "SIMCPU"]
    assert sum(device.auto_choice for device in devices) == 1
    for device in devices:
        assert device.full_name
        assert "FP32" in device.capabilities
        assert device.memory_bytes > 0
        assert device.driver_version
        assert device.properties["OPTIMIZATION_CAPABILITIES"]


async def test_a_crashing_enumeration_leaves_the_cpu(tmp_path: Path) -> None:
    script = (
        "import json, sys, io, os; text = sys.stdin.read()\n"
        "if 'only' not in json.loads(text): os.abort()\n"
        "sys.stdin = io.StringIO(text); from agent.runtime.child import main; main()"
    )
    (device,) = await runtime(tmp_path, child_command=(sys.executable, "-c", script)).devices()
    assert device.device == "CPU"
    assert "SIGABRT" in device.properties["ENUMERATION_FAILURE"]


async def test_the_host_is_described(tmp_path: Path) -> None:
    host = await runtime(tmp_path).host()
    assert host.cpu_count >= 1
    assert host.memory_bytes > 0
    assert 0 < host.disk_free_bytes <= host.disk_bytes
    assert host.openvino_version == ov.__version__
    assert host.agent_version
    assert host.architecture


async def test_measure_choose_load_and_infer(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "v1", bias=0.7)
    box = runtime(tmp_path, plugins=TWO_DEVICES)
    measurements = await box.measure(path.parent, signature_of(path), POLICY)
    assert [(each.device, each.ok) for each in measurements] == [
        ("CPU", True),
        ("SIMCPU", True),
        ("AUTO:CPU,SIMCPU", True),
    ]
    assert all(each.latency_ms_p50 > 0 and each.throughput_per_second > 0 for each in measurements)
    choice = choose(measurements, PerformanceHint.THROUGHPUT)
    model = await box.load(path.parent, signature_of(path), POLICY, choice.configuration)
    assert model.device == choice.device
    assert model._compiled.get_property("LOADED_FROM_CACHE")
    scores = model.infer(ZEROS)["scores"]
    assert scores[0, 1] == pytest.approx(positive_score(0.7), abs=1e-5)
    model.close()


async def test_a_damaged_blob_is_compiled_again_and_never_loaded(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "v1", bias=0.7)
    box = runtime(tmp_path)
    (await box.load(path.parent, signature_of(path), POLICY, CPU)).close()
    (blob,) = (tmp_path / "compiled").rglob("*.blob")
    good = blob.read_bytes()
    blob.write_bytes(good[: len(good) // 2] + bytes(len(good) - len(good) // 2))
    model = await box.load(path.parent, signature_of(path), POLICY, CPU)
    assert model.infer(ZEROS)["scores"][0, 1] == pytest.approx(positive_score(0.7), abs=1e-5)
    (blob,) = (tmp_path / "compiled").rglob("*.blob")
    assert blob.read_bytes() == good


async def test_compiling_drops_what_no_artifact_needs(tmp_path: Path) -> None:
    box = runtime(tmp_path)
    paths = [classifier_ir(tmp_path / f"v{version}") for version in (1, 2)]
    for path in paths:
        (await box.load(path.parent, signature_of(path), POLICY, CPU)).close()
        path.unlink()
    assert len(list((tmp_path / "compiled").rglob("*.blob"))) == 1


@pytest.mark.parametrize("when", ["read", "first_inference"])
async def test_a_model_that_fails_is_a_measurement_with_its_error(tmp_path: Path, when: str) -> None:
    path = failing_model_ir(tmp_path / "bad", when=when)  # type: ignore[arg-type]
    signature = signature_of(classifier_ir(tmp_path / "like"))
    (measurement,) = await runtime(tmp_path).measure(path.parent, signature, POLICY)
    assert not measurement.ok
    assert measurement.failure is Reason.COMPILE_FAILED
    assert measurement.error
    assert list((tmp_path / "compiled").rglob("*.blob")) == []
    with pytest.raises(PrepareError) as caught:
        await runtime(tmp_path).load(path.parent, signature, POLICY, CPU)
    assert caught.value.reason is Reason.LOAD_FAILED


@pytest.mark.parametrize(
    ("code", "seconds", "reason"),
    [("os.abort()", 60.0, Reason.COMPILE_CRASHED), ("time.sleep(600)", 0.5, Reason.COMPILE_TIMED_OUT)],
)
async def test_a_child_that_crashes_or_hangs_is_a_measurement(
    tmp_path: Path, code: str, seconds: float, reason: Reason
) -> None:
    path = classifier_ir(tmp_path / "v1")
    box = runtime(tmp_path, prepare_seconds=seconds, **crashing(code))
    (measurement,) = await box.measure(path.parent, signature_of(path), POLICY)
    assert (measurement.ok, measurement.failure) == (False, reason)
    with pytest.raises(PrepareError) as caught:
        choose([measurement], PerformanceHint.LATENCY)
    assert caught.value.reason is reason


async def test_devices_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "v1")
    policy = RuntimePolicy(devices=("GPU", "BADCPU"))
    box = runtime(tmp_path, plugins=parse_plugins("BADCPU=/nonexistent/plugin.so"))
    found = {each.device: each for each in await box.measure(path.parent, signature_of(path), policy)}
    assert found["GPU"].failure is Reason.DEVICE_NOT_FOUND
    assert "has CPU" in found["GPU"].error
    assert not found["BADCPU"].ok


async def test_an_unknown_precision_is_a_measurement_with_its_error(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "v1")
    policy = RuntimePolicy(inference_precision="f3")
    (measurement,) = await runtime(tmp_path).measure(path.parent, signature_of(path), policy)
    assert (measurement.ok, measurement.failure) == (False, Reason.COMPILE_FAILED)


async def test_a_model_unlike_its_signature_is_not_loaded(tmp_path: Path) -> None:
    path = classifier_ir(tmp_path / "v1")
    true = signature_of(path)
    (tensor,) = true.inputs
    lie = ModelSignature(
        entry_path=true.entry_path,
        inputs=(TensorSpec(name=tensor.name, datatype="UINT8", shape=tensor.shape),),
        outputs=true.outputs,
    )
    with pytest.raises(PrepareError) as caught:
        await runtime(tmp_path).load(path.parent, lie, POLICY, CPU)
    assert caught.value.field == "signature.inputs[x].datatype"


def compiled_model(path: Path, *, wait_seconds: float = 5.0) -> OpenVinoModel:
    compiled = ov.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    return OpenVinoModel(compiled, device="CPU", signature=signature_of(path), wait_seconds=wait_seconds)


def test_many_threads_share_the_requests(tmp_path: Path) -> None:
    model = compiled_model(classifier_ir(tmp_path, bias=0.0))

    def infer(number: int) -> float:
        inputs = {"x": np.full((1, 3, 8, 8), number / 10, np.float32)}
        return float(model.infer(inputs)["scores"][0, 1])

    with ThreadPoolExecutor(8) as pool:
        scores = list(pool.map(infer, range(40)))
    for number, score in enumerate(scores):
        assert score == pytest.approx(positive_score(0.0, mean=number / 10), abs=2e-2)
    model.close()
    model.close()


def test_what_waits_within_openvino_behind_one_that_hangs_is_told_from_it(tmp_path: Path) -> None:
    """A stream that is done goes on with what waits there; where it never is, only what hangs in it is lost."""
    path = looping_model_ir(tmp_path)
    compiled = ov.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    assert compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == 1
    model = OpenVinoModel(compiled, device="CPU", signature=signature_of(path), wait_seconds=30.0)
    assert model.optimal_requests == model._requests.qsize() == 2
    long = {"x": np.full((1, 3, 8, 8), LONG_ROUNDS, np.float32)}
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(model.infer, long, answer_seconds_max=0.3)
        wait_until(lambda: len(model._begun) == 1, what="the first inference to begin")
        waiting = pool.submit(model.infer, ZEROS, answer_seconds_max=0.6)
        with pytest.raises(BehindHungError):
            waiting.result()
        with pytest.raises(DeviceHungError) as caught:
            hanging.result()
        assert type(caught.value) is DeviceHungError
    wait_until(lambda: _answers(model) and not hung._kept, what="both to end after all")
    assert model._requests.qsize() == 2
    assert not model._begun


def test_a_wait_for_a_free_request_is_bounded(tmp_path: Path) -> None:
    model = compiled_model(classifier_ir(tmp_path), wait_seconds=0.01)
    held = [model._requests.get_nowait() for _ in range(model.optimal_requests)]
    with pytest.raises(RequestError) as caught:
        model.infer(ZEROS)
    assert caught.value.reason is Reason.QUEUE_FULL
    model._requests.put(held[0])
    assert model.infer(ZEROS)["scores"].shape == (1, 2)


def test_a_failed_inference_leaves_the_model_serving(tmp_path: Path) -> None:
    model = compiled_model(failing_model_ir(tmp_path, when="batch_of_two"))
    for _ in range(model.optimal_requests + 1):
        with pytest.raises(RequestError) as caught:
            model.infer({"x": np.zeros((2, 3, 8, 8), np.float32)})
        assert caught.value.reason is Reason.INFERENCE_FAILED
    assert model.infer(ZEROS)["scores"].shape == (1, 192)


def test_an_inference_that_takes_too_long_is_given_up_and_its_request_comes_back(tmp_path: Path) -> None:
    model = compiled_model(looping_model_ir(tmp_path), wait_seconds=30.0)
    seconds = 20.0
    assert model.infer(ZEROS, answer_seconds_max=seconds)["scores"][0, 1] == pytest.approx(0.5)
    for _ in range(model.optimal_requests):
        with pytest.raises(DeviceHungError) as caught:
            model.infer({"x": np.full((1, 3, 8, 8), LONG_ROUNDS, np.float32)}, answer_seconds_max=0.05)
        assert caught.value.reason is Reason.INFERENCE_FAILED
        assert str(caught.value).startswith("no answer from CPU within 0.05 s; ")
    with pytest.raises(RequestError) as refused:
        model.infer(ZEROS, begin_seconds=lambda: 0.01, answer_seconds_max=seconds)
    assert refused.value.reason is Reason.DEADLINE_EXCEEDED, "every request hangs"
    assert len(hung._kept) >= model.optimal_requests

    wait_until(lambda: _answers(model), what="a request that hung to end")
    wait_until(lambda: _answers(model) and not hung._kept, what="all of them to be held no longer")


def _answers(model: OpenVinoModel) -> bool:
    try:
        return bool(model.infer(ZEROS, begin_seconds=lambda: 0.05, answer_seconds_max=20.0))
    except RequestError:
        return False


def test_a_process_that_was_stopped_is_no_hang() -> None:
    """However long it was: to the request, the first look took all of that time."""

    class Stopped:
        def __init__(self) -> None:
            self.looks: list[int] = []

        def wait_for(self, milliseconds: int) -> bool:
            self.looks.append(milliseconds)
            return len(self.looks) == 2

    request = Stopped()
    assert infer._ends(request, 2.0)
    assert request.looks == [2000 // limits.HANG_LOOKS] * 2


def test_an_inference_that_fails_in_time_says_so_as_one_without_a_bound(tmp_path: Path) -> None:
    model = compiled_model(failing_model_ir(tmp_path, when="batch_of_two"))
    with pytest.raises(RequestError, match="inference failed on CPU"):
        model.infer({"x": np.zeros((2, 3, 8, 8), np.float32)}, answer_seconds_max=20.0)
    assert model.infer(ZEROS, answer_seconds_max=20.0)["scores"].shape == (1, 192)


def test_inputs_may_be_read_only_and_outputs_are_the_callers(tmp_path: Path) -> None:
    model = compiled_model(classifier_ir(tmp_path))
    image = np.frombuffer(bytes(3 * 8 * 8 * 4), np.float32).reshape(1, 3, 8, 8)
    first = model.infer({"x": image})["scores"]
    kept = first.copy()
    model.infer({"x": np.ones((1, 3, 8, 8), np.float32)})
    assert np.array_equal(first, kept)
    first[...] = 0


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES))
def test_every_datatype_goes_in_and_out(datatype: str) -> None:
    kind = getattr(ov.Type, ELEMENT_TYPES[datatype])
    number = ops.parameter([-1, 2], kind, name="x")
    number.output(0).get_tensor().set_names({"x"})
    same = ops.reshape(number, np.array([-1, 2], np.int64), special_zero=False)
    same.output(0).get_tensor().set_names({"y"})
    compiled = ov.Core().compile_model(ov.Model([same], [number], "same"), "CPU")
    specs = {name: TensorSpec(name=name, datatype=datatype, shape=(-1, 2)) for name in "xy"}
    signature = ModelSignature(entry_path="", inputs=(specs["x"],), outputs=(specs["y"],))
    sent = np.array([[0, 1], [1, 0]]).astype(NUMPY_TYPES[datatype]) * (0x3F80 if datatype == "BF16" else 1)
    model = OpenVinoModel(compiled, device="CPU", signature=signature)
    received = model.infer({"x": sent.astype(NUMPY_TYPES[datatype])})["y"]
    assert received.dtype == np.dtype(NUMPY_TYPES[datatype])
    assert received.tobytes() == sent.astype(NUMPY_TYPES[datatype]).tobytes()


async def test_two_measurements_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Children run one at a time: both succeed, though they were asked for at once."""
    box = runtime(tmp_path)
    paths = [classifier_ir(tmp_path / f"v{version}") for version in (1, 2)]
    found = await asyncio.gather(*(box.measure(path.parent, signature_of(path), POLICY) for path in paths))
    assert all(each.ok for measurements in found for each in measurements)
