"""What the parity test sends, in this order, to a server of model "cells", version 3 (input x FP32 [-1,3], output
scores FP32 [-1,2]); `REGION` stands for the key of 64 bytes of shared memory that exist."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import service_pb2

IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3)
RAW = IMAGES.tobytes()
REGION = "/lineside_parity"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRequest:
    name: str
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcRequest:
    name: str
    method: str
    message: Any


def rest_requests() -> Iterator[RestRequest]:
    yield from _rest_questions()
    yield from _rest_inferences()
    yield from _rest_shared_memory()


def _rest_questions() -> Iterator[RestRequest]:
    for path in ("", "/", "/health/live", "/health/ready", "/nothing", "/models/stats", "/models"):
        yield RestRequest(name=f"GET /v2{path}", method="GET", path=f"/v2{path}")
    for model in ("cells", "cells/versions/3", "cells/versions/9", "cells/versions/x", "nuts"):
        for what in ("", "/ready", "/config", "/stats"):
            yield RestRequest(name=f"GET {model}{what}", method="GET", path=f"/v2/models/{model}{what}")
    for method, path in (
        ("POST", "/v2"),
        ("HEAD", "/v2"),
        ("HEAD", "/v2/health/live"),
        ("OPTIONS", "/v2"),
        ("PUT", "/v2/models/cells"),
        ("POST", "/v2/models/cells"),
        ("POST", "/v2/models/cells/ready"),
        ("GET", "/v2/models/cells/infer"),
        ("DELETE", "/v2/models/cells/infer"),
        ("GET", "/v2/repository/index"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/models/cells/trace/setting"),
        ("GET", "/v2/logging"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/cudasharedmemory/region/r/status"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("POST", "/v2/cudasharedmemory/region/r/unregister"),
    ):
        yield RestRequest(name=f"{method} {path}", method=method, path=path)
    for name, body in {
        "nothing": b"",
        "{}": b"{}",
        "ready": b'{"ready": true}',
        "ready 5": b'{"ready": 5}',
        "no JSON": b"{",
        "a list": b"[]",
    }.items():
        yield RestRequest(name=f"index with {name}", method="POST", path="/v2/repository/index", body=body)
    for act in ("load", "unload"):
        yield RestRequest(name=f"{act} nuts", method="POST", path=f"/v2/repository/models/nuts/{act}")
    yield _post("register CUDA memory", "/v2/cudasharedmemory/region/r/register", _CUDA_REGION)


_CUDA_REGION = {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 64}
_X = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [0, 1, 2, 3, 4, 5]}
_X_RAW = {"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}
_SCORES = {"name": "scores"}


def _post(name: str, path: str, document: object, headers: dict[str, str] | None = None) -> RestRequest:
    return RestRequest(
        name=name, method="POST", path=path, body=json.dumps(document).encode(), headers=dict(headers or {})
    )


def _rest_infer(name: str, document: object, raw: bytes | None = None, path: str = "cells") -> RestRequest:
    body = json.dumps(document).encode()
    headers = {} if raw is None else {HEADER_LENGTH: str(len(body))}
    return RestRequest(
        name=f"infer: {name}", method="POST", path=f"/v2/models/{path}/infer", body=body + (raw or b""), headers=headers
    )


def _rest_inferences() -> Iterator[RestRequest]:
    yield _rest_infer("good", {"inputs": [_X]})
    yield _rest_infer("by version", {"inputs": [_X]}, path="cells/versions/3")
    yield _rest_infer("id", {"id": "r1", "inputs": [_X]})
    yield _rest_infer("rows", {"inputs": [{**_X, "data": [[0, 1, 2], [3, 4, 5]]}]})
    yield _rest_infer("raw", {"inputs": [_X_RAW]}, RAW)
    yield _rest_infer("raw answer", {"inputs": [_X], "outputs": [{**_SCORES, "parameters": {"binary_data": True}}]})
    yield _rest_infer("all raw", {"inputs": [_X_RAW], "parameters": {"binary_data_output": True}}, RAW)
    yield _rest_infer("raw, header 0", {"inputs": [_X]}, b"")
    yield _rest_infer("unknown model", {"inputs": [_X]}, path="nuts")
    yield _rest_infer("unknown version", {"inputs": [_X]}, path="cells/versions/9")
    yield _rest_infer("no version", {"inputs": [_X]}, path="cells/versions/x")
    for name, inputs in {
        "no input": [],
        "wrong name": [{**_X, "name": "y"}],
        "extra input": [_X, {**_X, "name": "y"}],
        "input twice": [_X, _X],
        "wrong datatype": [{**_X, "datatype": "INT32"}],
        "wrong datatype of equal size, raw": [{**_X, "datatype": "UINT32"}],
        "unknown datatype": [{**_X, "datatype": "FP31"}],
        "no datatype": [{key: _X[key] for key in ("name", "shape", "data")}],
        "BYTES": [{**_X, "datatype": "BYTES", "data": ["a"] * 6}],
        "wrong shape": [{**_X, "shape": [2, 4], "data": [0] * 8}],
        "wrong rank": [{**_X, "shape": [6]}],
        "no items": [{**_X, "shape": [0, 3], "data": []}],
        "negative shape": [{**_X, "shape": [-1, 3]}],
        "shape beyond 64 bits": [{**_X, "shape": [2**64, 3]}],
        "shape of text": [{**_X, "shape": "2,3"}],
        "no shape": [{key: _X[key] for key in ("name", "datatype", "data")}],
        "too many items": [{**_X, "shape": [1025, 3], "data": [0] * 3075}],
        "too few values": [{**_X, "data": [0, 1]}],
        "too many values": [{**_X, "data": [0] * 7}],
        "text values": [{**_X, "data": ["a"] * 6}],
        "null values": [{**_X, "data": [None] * 6}],
        "true values": [{**_X, "data": [True] * 6}],
        "no data": [{key: _X[key] for key in ("name", "shape", "datatype")}],
        "no name": [{key: _X[key] for key in ("datatype", "shape", "data")}],
    }.items():
        yield _rest_infer(name, {"inputs": inputs})
    yield from _rest_whole_requests()


def _rest_whole_requests() -> Iterator[RestRequest]:
    yield _rest_infer("inputs no list", {"inputs": {}})
    yield _rest_infer("no inputs at all", {})
    yield _rest_infer("a list", [])
    yield _rest_infer("unknown output", {"inputs": [_X], "outputs": [{"name": "boxes"}]})
    yield _rest_infer("output twice", {"inputs": [_X], "outputs": [_SCORES, _SCORES]})
    yield _rest_infer("empty outputs", {"inputs": [_X], "outputs": []})
    yield _rest_infer("raw too small", {"inputs": [{**_X_RAW, "parameters": {"binary_data_size": 20}}]}, RAW[:20])
    yield _rest_infer("raw too large", {"inputs": [{**_X_RAW, "parameters": {"binary_data_size": 28}}]}, RAW + b"1234")
    yield _rest_infer("raw beyond the body", {"inputs": [_X_RAW]}, RAW[:20])
    yield _rest_infer("raw that belongs to nobody", {"inputs": [_X_RAW]}, RAW + b"1234")
    yield _rest_infer("negative raw", {"inputs": [{**_X_RAW, "parameters": {"binary_data_size": -1}}]}, RAW)
    for name, parameters in {
        "priority": {"priority": 1},
        "priority as text": {"priority": "high"},
        "timeout": {"timeout": 1_000_000},
        "sequence": {"sequence_id": 7, "sequence_start": True, "sequence_end": True},
        "sequence by name": {"sequence_id": "line", "sequence_start": True},
        "own parameters": {"part_id": "P7", "n": 5, "ok": True, "share": 0.5},
        "own object": {"own": {}},
        "reserved": {"triton_mine": 1},
    }.items():
        yield _rest_infer(f"parameters: {name}", {"inputs": [_X], "parameters": parameters})
    classes = {**_SCORES, "parameters": {"classification": 1}}
    yield _rest_infer("classification", {"inputs": [_X], "outputs": [classes]})
    body, path = json.dumps({"inputs": [_X]}).encode(), "/v2/models/cells/infer"
    for name, sent, headers in (
        ("empty body", b"", {}),
        ("no JSON", b"{", {}),
        ("gzip", gzip.compress(body, mtime=0), {"Content-Encoding": "gzip"}),
        ("no gzip", body, {"Content-Encoding": "gzip"}),
        ("unknown encoding", body, {"Content-Encoding": "lzma"}),
        ("header length too large", body, {HEADER_LENGTH: "100000"}),
        ("header length negative", body, {HEADER_LENGTH: "-1"}),
        ("header length no number", body, {HEADER_LENGTH: "x"}),
        ("content type of text", body, {"Content-Type": "text/plain"}),
    ):
        yield RestRequest(name=f"infer: {name}", method="POST", path=path, body=sent, headers=headers)


def _rest_shared_memory() -> Iterator[RestRequest]:
    base = "/v2/systemsharedmemory"
    yield RestRequest(name="shm status of none", method="GET", path=f"{base}/status")
    yield RestRequest(name="shm status of unknown", method="GET", path=f"{base}/region/r/status")
    yield RestRequest(name="shm unregister unknown", method="POST", path=f"{base}/region/r/unregister")
    yield RestRequest(name="shm unregister all of none", method="POST", path=f"{base}/unregister")
    good = {"key": REGION, "byte_size": 64}
    for name, document in {
        "no key": {"byte_size": 64},
        "no size": {"key": REGION},
        "no such file": {"key": f"{REGION}_missing", "byte_size": 64},
        "too large": {"key": REGION, "byte_size": 1 << 20},
        "offset beyond": {"key": REGION, "offset": 64, "byte_size": 64},
        "negative size": {"key": REGION, "byte_size": -1},
        "no bytes": {"key": REGION, "byte_size": 0},
        "an ending path": {"key": f"{REGION}/../x", "byte_size": 64},
        "good": good,
        "the same twice": good,
    }.items():
        yield _post(f"shm register: {name}", f"{base}/region/r/register", document)
    yield RestRequest(name="shm register: GET", method="GET", path=f"{base}/region/r/register")
    yield RestRequest(name="shm status of one", method="GET", path=f"{base}/region/r/status")
    yield RestRequest(name="shm status of all", method="GET", path=f"{base}/status")
    for name, given, wanted in _shared_cases():
        inputs = [{**_X_RAW, "parameters": given} if given else _X]
        outputs = {"outputs": [{**_SCORES, "parameters": wanted}]} if wanted else {}
        yield _rest_infer(f"shm {name}", {"inputs": inputs, **outputs})
    yield RestRequest(name="shm unregister", method="POST", path=f"{base}/region/r/unregister")
    yield RestRequest(name="shm unregister again", method="POST", path=f"{base}/region/r/unregister")
    yield _post("shm register another", f"{base}/region/r/register", good)
    yield RestRequest(name="shm unregister all", method="POST", path=f"{base}/unregister")


def _shared_cases() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    def range_(region: str, size: int, offset: int = 0) -> dict[str, Any]:
        place = {"shared_memory_offset": offset} if offset else {}
        return {"shared_memory_region": region, "shared_memory_byte_size": size, **place}

    yield "in", range_("r", 24), {}
    yield "in at an offset", range_("r", 24, 8), {}
    yield "in and out", range_("r", 24), range_("r", 16, 32)
    yield "out", {}, range_("r", 16, 32)
    yield "out with room", {}, range_("r", 32, 32)
    yield "out too small", {}, range_("r", 8, 32)
    yield "in of an unknown region", range_("q", 24), {}
    yield "out of an unknown region", {}, range_("q", 16)
    yield "in beyond the end", range_("r", 24, 60), {}
    yield "in larger than the region", range_("r", 128), {}
    yield "out beyond the end", {}, range_("r", 16, 60)
    yield "in too small for the shape", range_("r", 20), {}
    yield "in too large for the shape", range_("r", 28), {}
    yield "in without a size", {"shared_memory_region": "r"}, {}
    yield "offset beyond 64 bits", range_("r", 24, 2**63), {}


def grpc_requests() -> Iterator[GrpcRequest]:
    for method in ("ServerLive", "ServerReady", "ServerMetadata"):
        yield GrpcRequest(name=method, method=method, message=getattr(service_pb2, f"{method}Request")())
    for method in ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"):
        for name, version in (("cells", ""), ("cells", "3"), ("cells", "9"), ("cells", "x"), ("nuts", ""), ("", "")):
            message = getattr(service_pb2, f"{method}Request")(name=name, version=version)
            yield GrpcRequest(name=f"{method} {name}:{version}", method=method, message=message)
    for ready in (False, True):
        message = service_pb2.RepositoryIndexRequest(ready=ready)
        yield GrpcRequest(name=f"RepositoryIndex {ready}", method="RepositoryIndex", message=message)
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        message = getattr(service_pb2, f"{method}Request")(model_name="nuts")
        yield GrpcRequest(name=f"{method} nuts", method=method, message=message)
    yield GrpcRequest(name="TraceSetting", method="TraceSetting", message=service_pb2.TraceSettingRequest())
    yield GrpcRequest(name="LogSettings", method="LogSettings", message=service_pb2.LogSettingsRequest())
    yield from _grpc_cuda()
    yield from _grpc_inferences()
    yield from _grpc_shared_memory()


def _grpc_cuda() -> Iterator[GrpcRequest]:
    for name in ("", "r"):
        for act in ("Status", "Unregister"):
            method = f"CudaSharedMemory{act}"
            message = getattr(service_pb2, f"{method}Request")(name=name)
            yield GrpcRequest(name=f"{method} {name}", method=method, message=message)
    register = service_pb2.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"abc", byte_size=64)
    yield GrpcRequest(name="CudaSharedMemoryRegister", method="CudaSharedMemoryRegister", message=register)


def infer_message(raw: list[bytes] | None = None, **changes: Any) -> Any:
    """A good request, but for the changes; inputs and outputs as dictionaries in protobuf's JSON form."""
    document = {"model_name": "cells", "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3]}], **changes}
    message = json_format.ParseDict(document, service_pb2.ModelInferRequest())
    message.raw_input_contents.extend([RAW] if raw is None else raw)
    return message


def _grpc_infer(name: str, raw: list[bytes] | None = None, **changes: Any) -> GrpcRequest:
    return GrpcRequest(name=f"infer: {name}", method="ModelInfer", message=infer_message(raw, **changes))


def _grpc_inferences() -> Iterator[GrpcRequest]:
    tensor: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [2, 3]}
    values = {"fp32_contents": [0, 1, 2, 3, 4, 5]}
    yield _grpc_infer("good")
    yield _grpc_infer("version", model_version="3")
    yield _grpc_infer("id", id="r1")
    yield _grpc_infer("contents", [], inputs=[{**tensor, "contents": values}])
    yield _grpc_infer("output", outputs=[{"name": "scores"}])
    yield _grpc_infer("unknown model", model_name="nuts")
    yield _grpc_infer("no model", model_name="")
    yield _grpc_infer("unknown version", model_version="9")
    yield _grpc_infer("no version", model_version="x")
    yield _grpc_infer("no input", [], inputs=[])
    yield _grpc_infer("contents without an input", inputs=[])
    yield _grpc_infer("unknown output", outputs=[{"name": "boxes"}])
    yield _grpc_infer("output twice", outputs=[{"name": "scores"}] * 2)
    yield _grpc_infer("extra input", [RAW, RAW], inputs=[tensor, {**tensor, "name": "y"}])
    yield _grpc_infer("input twice", [RAW, RAW], inputs=[tensor, tensor])
    changes: dict[str, dict[str, Any]] = {
        "wrong name": {"name": "y"},
        "no name": {"name": ""},
        "wrong datatype": {"datatype": "INT32"},
        "unknown datatype": {"datatype": "FP31"},
        "no datatype": {"datatype": ""},
        "BYTES": {"datatype": "BYTES"},
        "wrong shape": {"shape": [2, 4]},
        "wrong rank": {"shape": [6]},
        "no shape": {"shape": []},
        "no items": {"shape": [0, 3]},
        "negative shape": {"shape": [-1, 3]},
        "huge shape": {"shape": [2**40, 3]},
        "overflowing shape": {"shape": [2**62, 3]},
    }
    for name, change in changes.items():
        yield _grpc_infer(name, inputs=[{**tensor, **change}])
    yield _grpc_infer("no items, no bytes", [b""], inputs=[{**tensor, "shape": [0, 3]}])
    yield _grpc_infer("too many items", [bytes(1025 * 12)], inputs=[{**tensor, "shape": [1025, 3]}])
    yield _grpc_infer("too few bytes", [RAW[:20]])
    yield _grpc_infer("too many bytes", [RAW + b"1234"])
    yield _grpc_infer("no contents", [])
    yield _grpc_infer("too many contents", [RAW, RAW])
    yield _grpc_infer("both contents", inputs=[{**tensor, "contents": values}])
    yield _grpc_infer("contents too few", [], inputs=[{**tensor, "contents": {"fp32_contents": [0]}}])
    yield _grpc_infer("contents of another type", [], inputs=[{**tensor, "contents": {"int_contents": [0] * 6}}])
    for name, parameters in {
        "priority": {"priority": {"uint64_param": 1}},
        "priority as text": {"priority": {"string_param": "high"}},
        "timeout": {"timeout": {"int64_param": 1_000_000}},
        "sequence": {"sequence_id": {"int64_param": 7}, "sequence_start": {"bool_param": True}},
        "own parameters": {"part_id": {"string_param": "P7"}, "n": {"int64_param": 5}, "share": {"double_param": 0.5}},
        "without a value": {"own": {}},
        "reserved": {"triton_mine": {"int64_param": 1}},
    }.items():
        yield _grpc_infer(f"parameters: {name}", parameters=parameters)
    yield _grpc_infer(
        "classification", outputs=[{"name": "scores", "parameters": {"classification": {"int64_param": 1}}}]
    )


def _grpc_shared_memory() -> Iterator[GrpcRequest]:
    def call(label: str, act: str, **fields: Any) -> GrpcRequest:
        method = f"SystemSharedMemory{act}"
        message = getattr(service_pb2, f"{method}Request")(**fields)
        return GrpcRequest(name=f"shm {label}", method=method, message=message)

    good = {"name": "r", "key": REGION, "byte_size": 64}
    yield call("status of none", "Status")
    yield call("status of unknown", "Status", name="r")
    yield call("unregister unknown", "Unregister", name="r")
    yield call("unregister all of none", "Unregister")
    yield call("register: no key", "Register", **{**good, "key": ""})
    yield call("register: no such file", "Register", **{**good, "key": f"{REGION}_missing"})
    yield call("register: too large", "Register", **{**good, "byte_size": 1 << 20})
    yield call("register: offset beyond", "Register", **good, offset=64)
    yield call("register: offset and size overflow", "Register", **{**good, "byte_size": 2**64 - 1}, offset=2)
    yield call("register: no bytes", "Register", **{**good, "byte_size": 0})
    yield call("register: good", "Register", **good)
    yield call("register: the same twice", "Register", **good)
    yield call("status of one", "Status", name="r")
    yield call("status of all", "Status")
    for name, given, wanted in _shared_cases():
        outputs = [{"name": "scores", "parameters": _typed(wanted)}] if wanted else []
        tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": _typed(given)}
        yield _grpc_infer(f"shm {name}", [] if given else None, inputs=[tensor], outputs=outputs)
    yield call("unregister", "Unregister", name="r")
    yield call("unregister again", "Unregister", name="r")
    yield call("register another", "Register", **good)
    yield call("unregister all", "Unregister")
    # Last: Triton forgets the key of such a region for good.
    yield call("register: no name", "Register", **{**good, "name": ""})


def _typed(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {"string_param": value}
        if isinstance(value, str)
        else {"uint64_param": value}
        if value >= 2**63
        else {"int64_param": value}
        for name, value in parameters.items()
    }
