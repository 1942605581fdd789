"""Malformed input never breaks the servers: each gets a clear refusal, and nothing grows.

12,000 cases; LINESIDE_FUZZ_FACTOR multiplies them and LINESIDE_FUZZ_SEED begins elsewhere, for runs by hand.
"""

import asyncio
import copy
import gc
import http.client
import json
import os
import random
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2

from tests.agent.rpc import mutations
from tests.agent.rpc.parity_requests import HEADER_LENGTH, RAW, infer_message, rest_requests
from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.serving import FakeModel, desired_slot

FACTOR = int(os.environ.get("LINESIDE_FUZZ_FACTOR", "1"))
SEED = int(os.environ.get("LINESIDE_FUZZ_SEED", "1"))
PROTOBUF_CASES, STREAM_CASES, REST_CASES, MEMORY_CASES = (FACTOR * count for count in (5000, 500, 4500, 2000))
GROWTH_BYTES_MAX = 48 << 20
MESSAGE_BYTES_MAX = 1 << 20
Code = grpc.StatusCode
REFUSALS = {Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.ALREADY_EXISTS, Code.RESOURCE_EXHAUSTED}
REFUSALS |= {Code.DEADLINE_EXCEEDED}
HTTP_REFUSALS = {400, 404, 405, 413, 415, 429, 501, 504}
METHODS = (
    *("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex", "ServerMetadata"),
    *("SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
    *("CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "RepositoryModelLoad", "TraceSetting", "LogSettings"),
)


@pytest.fixture
def prefix() -> Iterator[str]:
    name = f"lineside_{secrets.token_hex(6)}_"
    yield name
    for path in Path("/dev/shm").glob(f"{name}*"):
        path.unlink()


@pytest.fixture
async def servers(prefix: str) -> AsyncIterator[InferenceServers]:
    async with running_servers(shared_memory=prefix, message_bytes_max=MESSAGE_BYTES_MAX) as running:
        running.serving.announce(["cells", "welds"])
        running.serving.swap(desired_slot(3), FakeModel(score=0.75))
        yield running


async def survives(servers: InferenceServers, storm: Callable[[], Counter[str]]) -> Counter[str]:
    """Run the storm; then a good request is answered, and files, threads and memory are as they were."""
    process = psutil.Process()
    # The first calls start threads and fill caches, which are no leaks.
    await asyncio.to_thread(check_alive, servers)
    gc.collect()
    before = (process.num_fds(), process.memory_info().rss)
    seen = await asyncio.to_thread(storm)
    await asyncio.to_thread(check_alive, servers)
    servers.results.results.clear()
    servers.results.refused.clear()
    servers.offers.offers.clear()
    gc.collect()
    assert process.num_fds() <= before[0] + 2
    assert process.memory_info().rss <= before[1] + GROWTH_BYTES_MAX
    # Two pools of 16 and what grpc and the event loop keep.
    assert threading.active_count() < 64
    return seen


def check_alive(servers: InferenceServers) -> None:
    with grpc.insecure_channel(servers.grpc_url) as channel:
        answer = unary(channel, "ModelInfer")(infer_message().SerializeToString(), timeout=20)
        assert service_pb2.ModelInferResponse.FromString(answer).model_version == "3"
    connection = http.client.HTTPConnection(servers.http_url, timeout=20)
    connection.request("GET", "/v2/models/cells/ready")
    assert connection.getresponse().status == 200
    connection.close()


def unary(channel: grpc.Channel, method: str) -> Any:
    """A call of bytes to bytes."""
    return channel.unary_unary(f"/inference.GRPCInferenceService/{method}")


def spoiled_message(rng: random.Random) -> bytes:
    """A request to infer that may be wrong in structure or in its bytes; some happen to be right."""
    message = infer_message()
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.6:
            spoil_tensor(rng, message.inputs[0])
        else:
            spoil_request(rng, message)
    content: bytes = message.SerializeToString()
    match rng.randrange(4):
        case 0:
            return content
        case 1:
            return content + mutations.nested_groups(rng.choice([1, 99, 101, 5000]))
        case _:
            return mutations.bytes_of(rng, content)


def spoil_tensor(rng: random.Random, tensor: Any) -> None:
    match rng.randrange(6):
        case 0:
            tensor.shape[:] = [mutations.number_of(rng, 64, signed=True) for _ in range(rng.randint(0, 4))]
        case 1:
            tensor.datatype = rng.choice(["", "FP16", "BYTES", "BF16", "fp32", "INT8", "FP32\0", "x" * 5000])
        case 2:
            tensor.name = rng.choice(["", "y", "x\0", "\N{GRINNING FACE}", "x" * 5000])
        case 3:
            tensor.contents.fp32_contents.extend([float("nan"), float("inf")] * rng.randint(0, 4))
        case 4:
            tensor.contents.int64_contents.append(mutations.number_of(rng, 64, signed=True))
        case _:
            spoil_parameter(rng, tensor.parameters)


def spoil_request(rng: random.Random, message: Any) -> None:
    match rng.randrange(5):
        case 0:
            message.raw_input_contents[:] = [rng.randbytes(rng.choice([0, 1, 12, 23, 24, 25]))] * rng.randint(0, 3)
        case 1:
            message.outputs.add(name=rng.choice(["scores", "", "boxes", "scores"]))
        case 2:
            message.model_version = rng.choice(["", "3", "-3", "9" * 30, "x", "\N{SUPERSCRIPT THREE}", " 3"])
        case 3:
            message.id = rng.choice(["", "r", "\0", "r" * 300])
        case _:
            spoil_parameter(rng, message.parameters)


def spoil_parameter(rng: random.Random, parameters: Any) -> None:
    names = [
        "priority",
        "timeout",
        "sequence_id",
        "part_id",
        "application",
        "deadline_ms",
        "classification",
        "triton_x",
        "own",
    ]
    names += ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "binary_data_size"]
    parameter = parameters[rng.choice(names)]
    match rng.randrange(5):
        case 0:
            parameter.int64_param = mutations.number_of(rng, 64, signed=True)
        case 1:
            parameter.string_param = rng.choice(["", "r", "\0", "x" * 5000])
        case 2:
            parameter.double_param = rng.choice([float("nan"), -1.0, 1e308])
        case 3:
            parameter.uint64_param = mutations.number_of(rng, 64, signed=False)
        case _:
            parameter.bool_param = True


def grpc_code(call: Any) -> str:
    """The code of a finished call, which must be an answer or a refusal that says why."""
    code = call.code()
    assert code is Code.OK or (code in REFUSALS and call.details()), (code, call.details())
    name: str = code.name
    return name


async def test_spoiled_protobuf_is_refused(servers: InferenceServers) -> None:
    def storm() -> Counter[str]:
        seen: Counter[str] = Counter()
        with grpc.insecure_channel(servers.grpc_url) as channel:
            calls = {method: unary(channel, method) for method in ("ModelInfer", *METHODS)}
            for case in range(PROTOBUF_CASES):
                rng = random.Random(f"{SEED}/protobuf/{case}")
                if rng.random() < 0.8:
                    method, content = "ModelInfer", spoiled_message(rng)
                else:
                    method = rng.choice(METHODS)
                    valid = getattr(service_pb2, f"{method}Request").FromString(b"").SerializeToString()
                    content = mutations.bytes_of(rng, valid + b"\x0a\x05cells\x12\x013")
                call = calls[method].future(content, timeout=20)
                call.exception()
                try:
                    seen[grpc_code(call)] += 1
                except AssertionError as error:
                    raise AssertionError(f"case {case}: {method} {content!r}") from error
        return seen

    seen = await survives(servers, storm)
    assert seen["OK"] > PROTOBUF_CASES // 50, "some are still right"
    assert seen["INVALID_ARGUMENT"] > PROTOBUF_CASES // 4
    assert sum(seen.values()) == PROTOBUF_CASES


async def test_spoiled_streams_are_refused(servers: InferenceServers) -> None:
    def storm() -> Counter[str]:
        seen: Counter[str] = Counter()
        with grpc.insecure_channel(servers.grpc_url) as channel:
            call: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
            for case in range(STREAM_CASES):
                rng = random.Random(f"{SEED}/stream/{case}")
                requests = [spoiled_message(rng) for _ in range(rng.randint(0, 4))]
                answers = call(iter(requests), timeout=20)
                try:
                    for answer in answers:
                        parsed = service_pb2.ModelStreamInferResponse.FromString(answer)
                        seen["refused" if parsed.error_message else "answered"] += 1
                except grpc.RpcError:
                    pass  # what ended it is the code below
                assert answers.code() in {Code.OK, Code.INVALID_ARGUMENT}, (case, answers.code(), answers.details())
                seen[answers.code().name] += 1
        return seen

    seen = await survives(servers, storm)
    assert min(seen["OK"], seen["INVALID_ARGUMENT"], seen["refused"], seen["answered"]) > STREAM_CASES // 50


def spoiled_rest(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers of a request of the parity test, spoiled in one of them."""
    request = rng.choice(REST_REQUESTS)
    method, path, body, headers = request.method, request.path, request.body, dict(request.headers)
    match rng.randrange(8):
        case 0 | 1 | 2 if body and HEADER_LENGTH not in headers:
            try:
                document = json.loads(body)
            except ValueError:
                return method, path, mutations.bytes_of(rng, body), headers
            body = json.dumps(mutations.document_of(rng, document)).encode()
        case 3:
            headers[HEADER_LENGTH] = rng.choice(["", "-1", "0", "1e3", "9" * 40, "٣", " 5", "0x5", str(len(body))])
            headers[HEADER_LENGTH] = headers[HEADER_LENGTH].encode("utf-8").decode("latin-1")
        case 4:
            headers["Content-Encoding"] = rng.choice(["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "", "x"])
        case 5:
            path = mutations.bytes_of(rng, path.encode()).decode("latin-1")
            path = "/v2/" + "".join(
                f"%{ord(each):02X}" if not each.isalnum() and each != "/" else each for each in path
            )
            path = path.encode("ascii", "ignore").decode()
        case 6:
            method = rng.choice(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE"])
        case _:
            body = mutations.bytes_of(rng, body)
    return method, path, body, headers


REST_REQUESTS = list(rest_requests())


async def test_spoiled_rest_requests_are_refused(servers: InferenceServers) -> None:
    def storm() -> Counter[str]:
        seen: Counter[str] = Counter()
        connection = http.client.HTTPConnection(servers.http_url, timeout=20)
        for case in range(REST_CASES):
            rng = random.Random(f"{SEED}/rest/{case}")
            method, path, body, headers = spoiled_rest(rng)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
            what = f"case {case}: {method} {path} {headers} {body[:300]!r}: {response.status} {content[:300]!r}"
            assert response.status == 200 or response.status in HTTP_REFUSALS, what
            if response.status != 200 and method != "HEAD":
                assert json.loads(content)["error"], what
            seen[str(response.status)] += 1
        connection.close()
        return seen

    seen = await survives(servers, storm)
    assert seen["200"] > REST_CASES // 50
    assert seen["400"] > REST_CASES // 5


async def test_shared_memory_that_changes_under_requests_is_refused(servers: InferenceServers, prefix: str) -> None:
    """Regions come, go, shrink and grow while four applications infer from them."""
    path = Path("/dev/shm") / f"{prefix}a"

    def act(number: int) -> Counter[str]:
        rng = random.Random(f"{SEED}/memory/{number}")
        seen: Counter[str] = Counter()
        with grpc.insecure_channel(servers.grpc_url) as channel:
            for _ in range(MEMORY_CASES // 4):
                call = memory_act(rng, channel, prefix, path)
                call.exception()
                seen[grpc_code(call)] += 1
        return seen

    def storm() -> Counter[str]:
        with ThreadPoolExecutor(4) as pool:
            seen = sum(pool.map(act, range(4)), Counter())
        with grpc.insecure_channel(servers.grpc_url) as channel:
            unary(channel, "SystemSharedMemoryUnregister")(b"", timeout=20)
        return seen

    path.write_bytes(RAW * 4)
    seen = await survives(servers, storm)
    assert min(seen[code] for code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS")) > MEMORY_CASES // 100


def memory_act(rng: random.Random, channel: grpc.Channel, prefix: str, path: Path) -> Any:
    """One call of an application, after it may have changed its file."""
    name = rng.choice(["a", "a", "b", "", "n" * 300])
    match rng.randrange(8):
        case 0:
            with path.open("r+b") as file:
                file.truncate(rng.choice([0, 10, 96, 4096]))
        case 1 | 2:
            key = rng.choice([f"/{prefix}a", f"{prefix}a", f"/{prefix}a/../a", "/etc/passwd", "", f"/{prefix}none"])
            region = service_pb2.SystemSharedMemoryRegisterRequest(
                name=name,
                key=rng.choice([f"/{prefix}a", key]),
                offset=rng.choice([0, 0, mutations.number_of(rng, 64, signed=False)]),
                byte_size=rng.choice([24, 96, mutations.number_of(rng, 64, signed=False)]),
            )
            return unary(channel, "SystemSharedMemoryRegister").future(region.SerializeToString(), timeout=20)
        case 3:
            request = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
            return unary(channel, "SystemSharedMemoryUnregister").future(request.SerializeToString(), timeout=20)
        case 4:
            status = service_pb2.SystemSharedMemoryStatusRequest(name=name)
            return unary(channel, "SystemSharedMemoryStatus").future(status.SerializeToString(), timeout=20)
        case _:
            pass
    return memory_infer(rng, channel, name)


def memory_infer(rng: random.Random, channel: grpc.Channel, name: str) -> Any:
    message = copy.deepcopy(SHARED)
    for tensor in (message.inputs[0], message.outputs.add(name="scores")):
        if rng.random() < 0.8:
            tensor.parameters["shared_memory_region"].string_param = rng.choice(["a", "a", "a", name])
            size = rng.choice([24, 24, mutations.number_of(rng, 63, signed=False)])
            tensor.parameters["shared_memory_byte_size"].int64_param = size
            if rng.random() < 0.3:
                place = rng.choice([8, mutations.number_of(rng, 64, signed=True)])
                tensor.parameters["shared_memory_offset"].int64_param = place
    if "shared_memory_region" not in message.inputs[0].parameters:
        message.raw_input_contents.append(RAW)
    return unary(channel, "ModelInfer").future(message.SerializeToString(), timeout=20)


SHARED = infer_message([])
