"""Unmodified tritonclient against both servers."""

import asyncio
from collections.abc import AsyncIterator
from queue import Queue
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from agent.app.tensors import NUMPY_TYPES
from agent.domain.artifact import ModelSignature, TensorSpec
from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.serving import FakeModel, desired_slot

IMAGES = np.zeros((2, 3), np.float32)
SCORES = [[0.25, 0.75]] * 2


@pytest.fixture
async def servers() -> AsyncIterator[InferenceServers]:
    async with running_servers() as running:
        running.serving.swap(desired_slot(3), FakeModel(score=0.75))
        yield running


def grpc_input(module: Any = triton_grpc) -> Any:
    tensor = module.InferInput("x", [2, 3], "FP32")
    tensor.set_data_from_numpy(IMAGES)
    return tensor


def test_grpc(servers: InferenceServers) -> None:
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("cells")
        assert client.is_model_ready("cells", "3")
        assert not client.is_model_ready("cells", "2")
        assert not client.is_model_ready("welds")
        assert client.get_server_metadata(as_json=True)["name"] == "lineside-agent"
        metadata = client.get_model_metadata("cells", as_json=True)
        assert metadata["versions"] == ["3"]
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
        config = client.get_model_config("cells").config
        assert (config.max_batch_size, list(config.input[0].dims)) == (1024, [3])
        (listed,) = client.get_model_repository_index().models
        assert (listed.name, listed.version, listed.state) == ("cells", "3", "READY")
        answer = client.infer("cells", [grpc_input()], request_id="r1", parameters={"part_id": "P7"})
        assert answer.as_numpy("scores").tolist() == SCORES
        assert (answer.get_response().model_version, answer.get_response().id) == ("3", "r1")
        (counted,) = client.get_inference_statistics("cells").model_stats
        assert (counted.inference_count, counted.execution_count, counted.version) == (2, 1, "3")
        assert counted.inference_stats.success.count == counted.inference_stats.compute_infer.count == 1
    assert [(each.part_id, each.request_id, each.version) for each in servers.results.results] == [("P7", "r1", 3)] * 2


async def test_grpc_aio(servers: InferenceServers) -> None:
    async with triton_grpc_aio.InferenceServerClient(servers.grpc_url) as client:
        assert await client.is_model_ready("cells")
        outputs = [triton_grpc_aio.InferRequestedOutput("scores")]
        answers = await asyncio.gather(
            *(client.infer("cells", [grpc_input(triton_grpc_aio)], outputs=outputs) for _ in range(20))
        )
    assert all(answer.as_numpy("scores").tolist() == SCORES for answer in answers)
    assert len(servers.results.results) == 40


def test_grpc_stream(servers: InferenceServers) -> None:
    """A refused request does not end the stream."""
    answers: Queue[tuple[Any, Any]] = Queue()
    bad = triton_grpc.InferInput("y", [2, 3], "FP32")
    bad.set_data_from_numpy(IMAGES)
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for tensor in (grpc_input(), bad, grpc_input()):
            client.async_stream_infer("cells", [tensor])
        seen = [answers.get(timeout=20) for _ in range(3)]
        client.stop_stream()
    assert [error is None for _, error in seen] == [True, False, True]
    assert "'y' is no input" in str(seen[1][1])


@pytest.mark.parametrize("binary", [True, False])
async def test_http(servers: InferenceServers, binary: bool) -> None:
    def speak() -> None:
        with triton_http.InferenceServerClient(servers.http_url) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("cells", "3")
            assert not client.is_model_ready("cells", "2")
            assert client.get_server_metadata()["extensions"]
            assert client.get_model_metadata("cells")["inputs"][0]["shape"] == [-1, 3]
            assert client.get_model_config("cells")["max_batch_size"] == 1024
            assert client.get_model_repository_index()[0]["state"] == "READY"
            tensor = triton_http.InferInput("x", [2, 3], "FP32")
            tensor.set_data_from_numpy(IMAGES, binary_data=binary)
            outputs = [triton_http.InferRequestedOutput("scores", binary_data=binary)]
            for wanted in (None, outputs):
                for packing in (None, "gzip", "deflate"):
                    answer = client.infer(
                        "cells",
                        [tensor],
                        outputs=wanted,
                        request_id="r1",
                        parameters={"part_id": "P7"},
                        request_compression_algorithm=packing,
                        response_compression_algorithm=packing,
                    )
                    assert answer.as_numpy("scores").tolist() == SCORES
                    assert answer.get_response()["model_version"] == "3"
                    assert answer.get_response()["id"] == "r1"
            for counted in (client.get_inference_statistics("cells"), client.get_inference_statistics()):
                assert counted["model_stats"][0]["inference_count"] == 12

    await asyncio.to_thread(speak)
    assert [(each.part_id, each.request_id) for each in servers.results.results] == [("P7", "r1")] * 12


class EchoModel(FakeModel):
    """Answers with its input."""

    def infer(self, inputs: Any, **_: object) -> Any:
        return {"y": inputs["x"].copy()}


def echo_signature(datatype: str) -> ModelSignature:
    specs = {name: TensorSpec(name=name, datatype=datatype, shape=(-1, 2, 2)) for name in "xy"}
    return ModelSignature(entry_path="m", inputs=(specs["x"],), outputs=(specs["y"],))


VALUES = {
    "BOOL": ("bool_contents", [True, False, True, True]),
    "INT8": ("int_contents", [-128, 127, 0, 1]),
    "INT16": ("int_contents", [-32768, 32767, 0, 1]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1, 0, 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1, 0, 1]),
    "UINT8": ("uint_contents", [0, 255, 1, 2]),
    "UINT16": ("uint_contents", [0, 65535, 1, 2]),
    "UINT32": ("uint_contents", [0, 2**32 - 1, 1, 2]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1, 1, 2]),
    "FP16": (None, [0.5, -2.0, 0.0, 1.0]),
    "BF16": (None, None),
    "FP32": ("fp32_contents", [0.5, -2.0, 0.0, 1.0]),
    "FP64": ("fp64_contents", [0.1, -2.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("datatype", VALUES)
async def test_every_datatype_travels_raw_typed_and_as_json(servers: InferenceServers, datatype: str) -> None:
    field, values = VALUES[datatype]
    signature = echo_signature(datatype)
    servers.serving.swap(desired_slot(1, slot="echo", signature=signature), EchoModel(signature=signature))
    array = np.array(values or [0, 0x3F80, 0x4000, 0xBF80], NUMPY_TYPES[datatype]).reshape(1, 2, 2)
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[1, 2, 2])
    raw = service_pb2.ModelInferRequest(model_name="echo", inputs=[tensor], raw_input_contents=[array.tobytes()])
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = await stub.ModelInfer(raw)
        assert answer.raw_output_contents[0] == array.tobytes()
        assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == (datatype, [1, 2, 2])
        if field is not None:
            getattr(tensor.contents, field).extend(values)
            typed = service_pb2.ModelInferRequest(model_name="echo", inputs=[tensor])
            assert (await stub.ModelInfer(typed)).raw_output_contents[0] == array.tobytes()

    def speak() -> None:
        with triton_http.InferenceServerClient(servers.http_url) as client:
            rest = triton_http.InferInput("x", [1, 2, 2], datatype)
            rest.set_data_from_numpy(array, binary_data=False)
            output = triton_http.InferRequestedOutput("y", binary_data=False)
            assert np.array_equal(client.infer("echo", [rest], outputs=[output]).as_numpy("y"), array)

    if datatype not in {"BF16", "FP16"}:  # the client sends these raw only
        await asyncio.to_thread(speak)


async def test_health_follows_the_slots(servers: InferenceServers) -> None:
    state = health_pb2.HealthCheckResponse
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
        assert (await stub.Check(request)).status == state.SERVING
        servers.serving.unload("cells")
        assert (await stub.Check(request)).status == state.NOT_SERVING
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == state.SERVING


async def test_a_server_without_models_is_live_and_not_ready() -> None:
    async with running_servers() as servers:
        servers.serving.announce(["cells"])

        def speak() -> None:
            with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
                assert client.is_server_live()
                assert not client.is_server_ready()
                assert client.get_model_repository_index().models[0].state == "LOADING"
            with triton_http.InferenceServerClient(servers.http_url) as rest:
                assert rest.is_server_live()
                assert not rest.is_server_ready()
                assert not rest.is_model_ready("cells")

        await asyncio.to_thread(speak)
