"""Bad input, by code, field and remedy, the same over both transports; and nothing breaks the servers."""

import asyncio
import dataclasses
import json
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tritonclient.grpc import service_pb2, service_pb2_grpc

from agent.domain.errors import Reason
from agent.rpc.inference_errors import GRPC_CODES, HTTP_CODES
from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.serving import FakeModel, desired_slot

MESSAGE_BYTES_MAX = 100_000
Code = grpc.StatusCode


@pytest.fixture
async def servers() -> AsyncIterator[InferenceServers]:
    async with running_servers(message_bytes_max=MESSAGE_BYTES_MAX) as running:
        running.serving.announce(["cells", "welds"])
        running.serving.swap(desired_slot(3), FakeModel())
        running.serving.swap(desired_slot(1, slot="broken"), FakeModel(fails=True))
        running.serving.swap(desired_slot(1, slot="busy"), FakeModel(busy=True))
        yield running


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A request that differs from a good one in one thing."""

    reason: Reason
    field: str
    model: str = "cells"
    version: str = ""
    tensor: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: bytes = b"\0" * 12
    outputs: tuple[str, ...] = ()
    part_id: str = "P1"


INVALID = Reason.INPUT_INVALID
CASES = {
    "unknown model": Bad(reason=Reason.MODEL_NOT_FOUND, field="model_name", model="nuts"),
    "model to come": Bad(reason=Reason.MODEL_NOT_READY, field="model_name", model="welds"),
    "unknown version": Bad(reason=Reason.VERSION_NOT_LOADED, field="model_version", version="9"),
    "no version": Bad(reason=INVALID, field="model_version", version="newest"),
    "wrong name": Bad(reason=INVALID, field="inputs", tensor={"name": "y"}),
    "wrong datatype": Bad(reason=INVALID, field="inputs[x].datatype", tensor={"datatype": "INT32"}),
    "bytes": Bad(reason=INVALID, field="inputs[x].datatype", tensor={"datatype": "BYTES"}),
    "no datatype at all": Bad(reason=INVALID, field="inputs[x].datatype", tensor={"datatype": "FP31"}),
    "wrong shape": Bad(reason=INVALID, field="inputs[x].shape", tensor={"shape": [1, 4]}),
    "wrong rank": Bad(reason=INVALID, field="inputs[x].shape", tensor={"shape": [3]}),
    "huge shape": Bad(reason=INVALID, field="inputs[x].data", tensor={"shape": [1024, 3]}),
    "too few bytes": Bad(reason=INVALID, field="inputs[x].data", data=b"\0" * 8),
    "unknown output": Bad(reason=INVALID, field="outputs", outputs=("boxes",)),
    "NUL in the part id": Bad(reason=INVALID, field="parameters[part_id]", part_id="p\0"),
    "long part id": Bad(reason=INVALID, field="parameters[part_id]", part_id="p" * 300),
    "failing device": Bad(reason=Reason.INFERENCE_FAILED, field="", model="broken"),
    "busy device": Bad(reason=Reason.QUEUE_FULL, field="", model="busy"),
}


def grpc_request(bad: Bad) -> service_pb2.ModelInferRequest:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], **bad.tensor}
    request = service_pb2.ModelInferRequest(
        model_name=bad.model, model_version=bad.version, inputs=[tensor], raw_input_contents=[bad.data]
    )
    request.outputs.extend(service_pb2.ModelInferRequest.InferRequestedOutputTensor(name=each) for each in bad.outputs)
    request.parameters["part_id"].string_param = bad.part_id
    return request


def rest_body(bad: Bad) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], **bad.tensor}
    document = {
        "parameters": {"part_id": bad.part_id},
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(bad.data)}}],
        "outputs": [{"name": each} for each in bad.outputs],
    }
    header = json.dumps(document).encode()
    return header + bad.data, {"Inference-Header-Content-Length": str(len(header))}


@pytest.mark.parametrize("case", CASES)
async def test_refused_over_grpc(servers: InferenceServers, case: str) -> None:
    bad = CASES[case]
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(grpc_request(bad))
    assert caught.value.code() is GRPC_CODES[bad.reason]
    assert str(caught.value.details()).startswith(f"{bad.field}: " if bad.field else "")
    info = error_info(caught.value)
    assert (info.reason, info.domain, info.metadata["field"]) == (bad.reason, "lineside", bad.field)
    assert info.metadata["remedy"] or bad.reason in {Reason.INFERENCE_FAILED, Reason.QUEUE_FULL}
    check_counted(servers, bad)


@pytest.mark.parametrize("case", CASES)
async def test_refused_over_rest(servers: InferenceServers, case: str) -> None:
    bad = CASES[case]
    body, headers = rest_body(bad)
    version = f"/versions/{bad.version}" if bad.version else ""
    status, answer = await post(servers, f"/v2/models/{bad.model}{version}/infer", body, headers)
    assert status == HTTP_CODES[bad.reason]
    assert (answer["reason"], answer["field"]) == (bad.reason, bad.field)
    assert answer["error"]
    check_counted(servers, bad)


def check_counted(servers: InferenceServers, bad: Bad) -> None:
    versions = {"cells": 3, "broken": 1, "busy": 1}
    refused = bad.model in versions and bad.reason is not Reason.INFERENCE_FAILED
    assert servers.results.refused == ([(bad.model, versions[bad.model])] if refused else [])
    assert len(servers.results.results) == (1 if bad.reason is Reason.INFERENCE_FAILED else 0)


def error_info(error: grpc.aio.AioRpcError) -> Any:
    status = rpc_status.from_call(SyncView(error))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


class SyncView:
    """An aio error as the synchronous call that rpc_status reads."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code
        self.details = error.details
        self._metadata = tuple(error.trailing_metadata() or ())

    def trailing_metadata(self) -> Any:
        return self._metadata


async def post(
    servers: InferenceServers, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    url = f"http://{servers.http_url}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.json()


def changed(change: Callable[[service_pb2.ModelInferRequest], Any]) -> service_pb2.ModelInferRequest:
    request = grpc_request(Bad(reason=INVALID, field=""))
    change(request)
    return request


GRPC_SHAPES = {
    "raw_input_contents": changed(lambda request: request.raw_input_contents.append(b"")),
    "inputs[x].data": changed(lambda request: request.inputs[0].contents.fp32_contents.append(1.0)),
    "x.parameters[shared_memory_byte_size]": changed(
        lambda request: (
            request.inputs[0]
            .parameters["shared_memory_region"]
            .MergeFrom(service_pb2.InferParameter(string_param="region"))
        )
    ),
    "scores.parameters[classification]": changed(
        lambda request: (
            request.outputs.add(name="scores")
            .parameters["classification"]
            .MergeFrom(service_pb2.InferParameter(int64_param=1))
        )
    ),
    "parameters[part_id]": changed(lambda request: setattr(request.parameters["part_id"], "int64_param", 7)),
    "id": changed(lambda request: setattr(request, "id", "r" * 300)),
}


@pytest.mark.parametrize("where", GRPC_SHAPES)
async def test_malformed_grpc_requests_name_the_field(servers: InferenceServers, where: str) -> None:
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(GRPC_SHAPES[where])
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert error_info(caught.value).metadata["field"] == where
    assert servers.results.refused == [("cells", 3)]


@pytest.mark.parametrize(
    ("datatype", "contents", "values"),
    [
        ("INT8", "int_contents", [300, 0, 0]),
        ("UINT8", "uint_contents", [256, 0, 0]),
        ("FP32", "int_contents", [1, 2, 3]),
        ("FP16", "fp32_contents", [1.0, 2.0, 3.0]),
    ],
)
async def test_typed_contents_that_do_not_fit(
    servers: InferenceServers, datatype: str, contents: str, values: list[Any]
) -> None:
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[1, 3])
    getattr(tensor.contents, contents).extend(values)
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(
                service_pb2.ModelInferRequest(model_name="cells", inputs=[tensor])
            )
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert error_info(caught.value).metadata["field"] == "inputs[x].data"


GOOD = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3.5]}
REST_BODIES = {
    "not JSON": (b"\xff{", "body"),
    "no object": (b"[]", "body"),
    "deep": (b"[" * 50_000, "body"),
    "inputs": ({"inputs": {}}, "inputs"),
    "no name": ({"inputs": [{**GOOD, "name": None}]}, "inputs.name"),
    "no data": ({"inputs": [{**GOOD, "data": None}]}, "inputs[x].data"),
    "strings": ({"inputs": [{**GOOD, "data": ["a", "b", "c"]}]}, "inputs[x].data"),
    "nulls": ({"inputs": [{**GOOD, "data": [None, 1, 2]}]}, "inputs[x].data"),
    "ragged": ({"inputs": [{**GOOD, "data": [[1], [2, 3]]}]}, "inputs[x].data"),
    "beyond the range": ({"inputs": [{**GOOD, "datatype": "UINT64", "data": [2**64, 0, 0]}]}, "inputs[x].data"),
    "below the range": ({"inputs": [{**GOOD, "datatype": "UINT64", "data": [[-1, 0, 0]]}]}, "inputs[x].data"),
    "cut fractions": ({"inputs": [{**GOOD, "datatype": "INT32"}]}, "inputs[x].data"),
    "too many": ({"inputs": [{**GOOD, "data": [1, 2, 3, 4]}]}, "inputs[x].data"),
    "shape": ({"inputs": [{**GOOD, "shape": "1,3"}]}, "inputs[x].shape"),
    "fractions": ({"inputs": [{**GOOD, "shape": [1, 3.0]}]}, "inputs[x].shape"),
    "part id": ({"inputs": [GOOD], "parameters": {"part_id": 7}}, "parameters[part_id]"),
    "id": ({"inputs": [GOOD], "id": 7}, "id"),
    "half a pair": ({"inputs": [GOOD], "id": "\ud800"}, "id"),
    "raw size": (
        {"inputs": [{**GOOD, "parameters": {"binary_data_size": 12}}]},
        "inputs[x].parameters[binary_data_size]",
    ),
    "shared memory": (
        {"inputs": [{**GOOD, "parameters": {"shared_memory_region": "r"}}]},
        "x.parameters[shared_memory_byte_size]",
    ),
}


@pytest.mark.parametrize("case", REST_BODIES)
async def test_malformed_rest_bodies_name_the_field(servers: InferenceServers, case: str) -> None:
    body, where = REST_BODIES[case]
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer = await post(servers, "/v2/models/cells/infer", encoded)
    assert (status, answer["field"]) == (400, where)
    assert answer["remedy"]
    assert servers.results.refused == [("cells", 3)]


RAW_DEFLATE = zlib.compress(json.dumps({"inputs": [GOOD]}).encode())[2:-4]


@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        ("deflate", RAW_DEFLATE, 200),
        ("gzip", RAW_DEFLATE, 400),
        ("gzip", b"", 400),
        ("deflate", b"", 400),
        ("deflate", RAW_DEFLATE[:-5], 400),
        ("deflate", RAW_DEFLATE + b"more", 400),
        ("br", b"x", 415),
    ],
)
async def test_packed_bodies(
    servers: InferenceServers, caplog: pytest.LogCaptureFixture, encoding: str, body: bytes, code: int
) -> None:
    status, answer = await post(servers, "/v2/models/cells/infer", body, {"Content-Encoding": encoding})
    assert status == code, answer
    assert answer.get("field", "body") == "body"
    assert not caplog.records, "a broken body is no event of ours"


@pytest.mark.parametrize("length", ["-1", "x", "999999", ""])
async def test_a_bad_header_length_is_refused(servers: InferenceServers, length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    status, answer = await post(servers, "/v2/models/cells/infer", b"{}", headers)
    assert (status, answer["field"]) == (400, "Inference-Header-Content-Length")


async def test_raw_bytes_that_belong_to_nobody_are_refused(servers: InferenceServers) -> None:
    header = json.dumps({"inputs": [GOOD]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(header))}
    status, answer = await post(servers, "/v2/models/cells/infer", header + b"more", headers)
    assert (status, answer["field"]) == (400, "body")


async def test_oversize_messages_are_refused_and_the_servers_go_on(servers: InferenceServers) -> None:
    big = grpc_request(Bad(reason=INVALID, field="", data=bytes(MESSAGE_BYTES_MAX)))
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(big)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert (await stub.ModelInfer(changed(lambda _: None))).model_version == "3"
    status, answer = await post(servers, "/v2/models/cells/infer", bytes(MESSAGE_BYTES_MAX + 1))
    assert status == 413
    assert str(MESSAGE_BYTES_MAX) in answer["error"]
    body, headers = rest_body(Bad(reason=INVALID, field=""))
    assert (await post(servers, "/v2/models/cells/infer", body, headers))[0] == 200


async def test_a_compression_bomb_is_refused(servers: InferenceServers) -> None:
    bomb = zlib.compress(bytes(MESSAGE_BYTES_MAX * 50))
    status, _ = await post(servers, "/v2/models/cells/infer", bomb, {"Content-Encoding": "deflate"})
    assert status == 413


async def test_unserved_calls_and_paths_are_said_to_be_so(servers: InferenceServers) -> None:
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(model_name="cells"))
        assert caught.value.code() is Code.UNIMPLEMENTED
        assert "lineside deployments" in str(caught.value.details())
    status, answer = await post(servers, "/v2/repository/models/cells/load", b"")
    assert (status, answer["reason"]) == (501, Reason.NOT_SERVED)
    assert (await post(servers, "/v2/nothing", b""))[0] == 404
    assert (await post(servers, "/v2/models/cells", b""))[0] == 405


class BrokenModel(FakeModel):
    """A fault of ours, not of the request."""

    def infer(self, inputs: Any, **_: object) -> Any:
        raise KeyError("a secret of the implementation")


async def test_our_own_faults_are_told_by_an_id_alone(
    servers: InferenceServers, capsys: pytest.CaptureFixture[str]
) -> None:
    servers.serving.swap(desired_slot(4), BrokenModel())
    async with grpc.aio.insecure_channel(servers.grpc_url) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(changed(lambda _: None))
    body, headers = rest_body(Bad(reason=INVALID, field=""))
    status, answer = await post(servers, "/v2/models/cells/infer", body, headers)
    assert (caught.value.code(), status) == (Code.INTERNAL, 500)
    logged = capsys.readouterr()
    for text in (str(caught.value.details()), answer["error"]):
        assert "secret" not in text
        assert text.split()[-1] in logged.out + logged.err


async def test_calls_beyond_the_bound_are_refused_at_once() -> None:
    async with running_servers(calls_max=2, workers=1) as servers:
        entered, go_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait() -> None:
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)

        servers.serving.swap(desired_slot(3), FakeModel(during=wait))
        body, headers = rest_body(Bad(reason=INVALID, field=""))
        waiting = [asyncio.create_task(post(servers, "/v2/models/cells/infer", body, headers)) for _ in range(3)]
        await entered.wait()
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert refused.result()[0] == 429
        go_on.set()
        assert sorted([(await task)[0] for task in waiting]) == [200, 200, 429]


async def test_an_answer_that_json_cannot_hold_asks_for_binary(servers: InferenceServers) -> None:
    servers.serving.swap(desired_slot(5), FakeModel(score=float("nan")))
    body, headers = rest_body(Bad(reason=INVALID, field=""))
    status, answer = await post(servers, "/v2/models/cells/infer", body, headers)
    assert (status, answer["field"]) == (400, "outputs")
    assert servers.results.results[0].labels == ()


OTHER_REASONS = {
    Reason.DEADLINE_EXCEEDED,
    Reason.SHARED_MEMORY_OFF,
    Reason.REGION_EXISTS,
    Reason.REGION_NOT_FOUND,
    Reason.NOT_SERVED,
}
"""Of calls that are no inferences, whose own tests bring them about."""


def test_every_reason_of_a_request_has_its_codes() -> None:
    assert GRPC_CODES.keys() == HTTP_CODES.keys() == {bad.reason for bad in CASES.values()} | OTHER_REASONS
    assert np.all([code >= 400 for code in HTTP_CODES.values()])
