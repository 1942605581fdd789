"""The same requests to real Triton and to our servers have the same answers, but for what DIFFERENCES says and why.

Compared: the HTTP or gRPC code, and the whole content of every answer that is no error. Error texts are our own.
"""

import asyncio
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from tritonclient.grpc import service_pb2_grpc

from tests.agent.rpc import parity_requests
from tests.agent.rpc.parity_requests import HEADER_LENGTH, RAW, REGION, GrpcRequest, RestRequest
from tests.support.inference_servers import running_servers
from tests.support.serving import FakeModel, desired_slot
from tests.support.triton_server import running_triton

pytestmark = [pytest.mark.slow, pytest.mark.peers]

MALFORMED = "what the sender did wrong is told as such, not as our failure"
UNKNOWN = "an unknown model or version has one code, whatever is asked about it"
NAMES_FIELD = "the refusal says that it is the version, and what one looks like"
HEAD = "HTTP wants HEAD wherever GET is; probes of proxies use it"
DEPLOYMENTS = "deployments decide what is served; UNAVAILABLE would invite to try again"
SETTINGS = "an application must not change how the box logs and traces"
CUDA = "there is no CUDA here, whatever the handle"
SCORES = "labels are the models' matter: the scores are in the answer, sorting them is the application's"
STRICT = "a mistake of the application's, which would go on unseen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Codes where they differ on purpose."""

    triton: str
    ours: str
    why: str


def _rest(triton: int, ours: int, why: str, *names: str) -> Mapping[str, Difference]:
    return {f"REST {name}": Difference(triton=str(triton), ours=str(ours), why=why) for name in names}


def _grpc(triton: str, ours: str, why: str, *names: str) -> Mapping[str, Difference]:
    return {f"gRPC {name}": Difference(triton=triton, ours=ours, why=why) for name in names}


DIFFERENCES: Mapping[str, Difference] = {
    **_rest(400, 404, UNKNOWN, "GET cells/versions/9/ready", "GET nuts/ready"),
    **_rest(400, 404, UNKNOWN, "GET cells/versions/9/stats", "GET nuts/stats"),
    **_rest(404, 400, NAMES_FIELD, *(f"GET cells/versions/x{what}" for what in ("", "/ready", "/config", "/stats"))),
    **_rest(404, 400, NAMES_FIELD, "infer: no version"),
    **_rest(405, 200, HEAD, "HEAD /v2", "HEAD /v2/health/live"),
    **_rest(200, 501, SETTINGS, "GET /v2/trace/setting", "GET /v2/models/cells/trace/setting", "GET /v2/logging"),
    **_rest(200, 400, STRICT, "index with a list"),
    **_rest(503, 501, DEPLOYMENTS, "load nuts", "unload nuts"),
    **_rest(400, 501, CUDA, "register CUDA memory"),
    **_rest(
        500,
        400,
        MALFORMED,
        *("index with ready 5", "index with no JSON", "infer: no JSON", "infer: a list"),
        *("infer: no datatype", "infer: no name", "infer: no inputs at all", "infer: inputs no list"),
        *("infer: no shape", "infer: negative shape", "infer: shape beyond 64 bits", "infer: shape of text"),
        *("infer: too few values", "infer: too many values", "infer: text values", "infer: null values"),
        *("infer: true values", "infer: negative raw", "infer: parameters: priority as text"),
        *("shm register: no such file", "shm register: negative size", "shm register: an ending path"),
        "infer: shm out too small",
    ),
    **_rest(200, 400, SCORES, "infer: classification"),
    **_rest(501, 415, "the code that HTTP has for it", "infer: unknown encoding"),
    **_grpc("INVALID_ARGUMENT", "NOT_FOUND", UNKNOWN, "ModelStatistics cells:9", "ModelStatistics nuts:"),
    **_grpc("UNAVAILABLE", "UNIMPLEMENTED", DEPLOYMENTS, "RepositoryModelLoad nuts", "RepositoryModelUnload nuts"),
    **_grpc("OK", "UNIMPLEMENTED", SETTINGS, "TraceSetting", "LogSettings"),
    **_grpc("INVALID_ARGUMENT", "UNIMPLEMENTED", CUDA, "CudaSharedMemoryRegister"),
    **_grpc("OK", "INVALID_ARGUMENT", STRICT, "infer: too many contents"),
    **_grpc("OK", "INVALID_ARGUMENT", "an empty name unregisters all of them", "shm register: no name"),
    **_grpc("OK", "INVALID_ARGUMENT", SCORES, "infer: classification"),
    **_grpc(
        "INTERNAL",
        "INVALID_ARGUMENT",
        MALFORMED,
        *("shm register: no key", "shm register: no such file", "infer: shm out too small"),
    ),
}
"""By transport and name of the request. Requests whose sizes overflow are not sent: they end Triton's process."""

MEASURED = frozenset({"ns", "last_inference"})
SELF = frozenset({"platform", "backend", "extensions", "rt_info"})
"""How a server describes itself and what serves: each its own."""
ABSENT = frozenset({"batch_stats", "response_stats", "memory_usage"})
"""Statistics of batches that Triton makes of several requests, of models that answer many times, and of GPUs."""
SERVERS = frozenset({"REST GET /v2", "gRPC ServerMetadata"})
"""Where a server says what itself is; that the fields are there is compared by clients."""
EXECUTED = frozenset({"execution_count", "inference_count", "count"})
"""Triton also counts what it refuses late, and what it sorts; only whether they are there is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    code: str
    content: Any
    """JSON without raw tensors, and None of a refusal."""
    raw: tuple[bytes, ...] = ()


async def test_answers_equal_tritons(tmp_path: Path) -> None:
    region = Path("/dev/shm") / REGION.removeprefix("/")
    with running_triton(tmp_path) as triton:
        async with running_servers(shared_memory="lineside_") as ours:
            ours.serving.swap(desired_slot(3), FakeModel(score=0.75))
            try:
                theirs = await asyncio.to_thread(answers, triton.http_url, triton.grpc_url, region)
                got = await asyncio.to_thread(answers, ours.http_url, ours.grpc_url, region)
            finally:
                region.unlink(missing_ok=True)
    wrong = [text for name in theirs for text in compare(name, theirs[name], got[name])]
    assert not wrong, "\n".join(wrong)
    assert DIFFERENCES.keys() <= theirs.keys()
    assert len(theirs) > 230


def test_every_difference_is_one_and_says_why() -> None:
    assert all(each.triton != each.ours and each.why for each in DIFFERENCES.values())


def answers(http_url: str, grpc_url: str, region: Path) -> Mapping[str, Answer]:
    """Every request's answer by transport and name."""
    region.write_bytes(RAW + bytes(64 - len(RAW)))
    found = {f"REST {request.name}": rest_answer(http_url, request) for request in parity_requests.rest_requests()}
    with grpc.insecure_channel(grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for request in parity_requests.grpc_requests():
            assert f"gRPC {request.name}" not in found, "names are told apart"
            found[f"gRPC {request.name}"] = grpc_answer(stub, request)
    return found


def rest_answer(url: str, request: RestRequest) -> Answer:
    connection = http.client.HTTPConnection(url, timeout=20)
    try:
        body = request.body if request.body or request.method == "POST" else None
        connection.request(request.method, request.path, body, request.headers)
        response = connection.getresponse()
        content, length = response.read(), response.headers.get(HEADER_LENGTH)
    finally:
        connection.close()
    if response.status != 200:
        assert request.method == "HEAD" or json.loads(content)["error"], f"{request.name}: {content!r}"
        return Answer(code=str(response.status), content=None)
    header, raw = (content, b"") if length is None else (content[: int(length)], content[int(length) :])
    return Answer(code="200", content=json.loads(header) if header else None, raw=(raw,))


def grpc_answer(stub: Any, request: GrpcRequest) -> Answer:
    future = getattr(stub, request.method).future(request.message, timeout=20)
    if future.exception() is not None:
        assert future.details(), request.name
        return Answer(code=future.code().name, content=None)
    message = future.result()
    raw = tuple(getattr(message, "raw_output_contents", ()))
    document = json_format.MessageToDict(message, preserving_proto_field_name=True)
    document.pop("raw_output_contents", None)
    return Answer(code="OK", content=document, raw=raw)


def compare(name: str, triton: Answer, ours: Answer) -> Iterator[str]:
    """What is not as it should be."""
    difference = DIFFERENCES.get(name)
    if difference is not None:
        if (triton.code, ours.code) != (difference.triton, difference.ours):
            yield f"{name}: Triton {triton.code}, ours {ours.code}, but the table has {difference}"
        return
    if triton.code != ours.code:
        yield f"{name}: Triton {triton.code}, ours {ours.code}"
        return
    if triton.raw != ours.raw:
        yield f"{name}: Triton {triton.raw!r}, ours {ours.raw!r}"
    # Where Triton's answer has no body, ours has an object.
    if triton.content is not None and name not in SERVERS:
        yield from different(name, triton.content, ours.content)


def different(where: str, triton: Any, ours: Any) -> Iterator[str]:
    """Every value of Triton's that ours has otherwise; of a model's configuration ours is a part, parameters aside."""
    if isinstance(triton, dict) and isinstance(ours, dict):
        config = "onfig" in where
        keys = ours.keys() - {"parameters"} if config else triton.keys() | ours.keys()
        for key in sorted(keys - SELF - MEASURED - ABSENT):
            yield from different(f"{where}.{key}", triton.get(key), ours.get(key))
    elif isinstance(triton, list) and isinstance(ours, list) and len(triton) == len(ours):
        for index, (theirs, our) in enumerate(zip(triton, ours, strict=True)):
            yield from different(f"{where}[{index}]", theirs, our)
    elif where.rpartition(".")[2] in EXECUTED:
        if (triton is None) != (ours is None):
            yield f"{where}: Triton {triton!r}, ours {ours!r}"
    elif triton != ours:
        yield f"{where}: Triton {triton!r}, ours {ours!r}"
