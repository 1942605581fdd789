"""Keeps a number of requests in flight at an inference server for some seconds; prints what came of it as JSON.

Requests are serialized once and answers are not parsed: what is measured is the server, as benchmark_app, which fills
its inputs once, measures the runtime. The messages are those that tritonclient sends, so any server of the Open
Inference Protocol can be asked.
"""

import argparse
import http.client
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.grpc import service_pb2
from tritonclient.utils import shared_memory, triton_to_np_dtype

READY_SECONDS = 60.0
METHOD = "/inference.GRPCInferenceService/ModelInfer"
MESSAGE_BYTES_MAX = 64 << 20
GRPC_OPTIONS = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX), ("grpc.use_local_subchannel_pool", 1)]
MODES = ("grpc", "grpc-shm", "rest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom to ask, and with what."""

    endpoint: str
    model: str
    shared_prefix: str
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    """Name, datatype and shape of each."""
    output_bytes: dict[str, int]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The same noise for whoever asks."""
        draw = np.random.default_rng(0)
        return {
            name: (draw.random(shape) * (255 if datatype == "UINT8" else 1)).astype(triton_to_np_dtype(datatype))
            for name, datatype, shape in self.inputs
        }


@dataclass(slots=True)
class Counts:
    """What one connection saw."""

    begin_times: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


@contextmanager
def grpc_asker(target: Target, *, shared: bool) -> Iterator[Callable[[], bytes]]:
    """A connection of its own on which each call is one request; returns the answer's bytes."""
    with ExitStack() as opened:
        regions = _Regions(opened, target) if shared else None
        request = _request(target, regions).SerializeToString()
        channel = opened.enter_context(grpc.insecure_channel(target.endpoint, options=GRPC_OPTIONS))
        infer: Any = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        yield lambda: infer(request)


@contextmanager
def rest_asker(target: Target) -> Iterator[Callable[[], bytes]]:
    """The same over REST with the binary extension."""
    inputs = []
    for (name, datatype, shape), array in zip(target.inputs, target.arrays().values(), strict=True):
        tensor = http_client.InferInput(name, list(shape), datatype)
        inputs.append(tensor.set_data_from_numpy(array))
    body, header_length = http_client.InferenceServerClient.generate_request_body(inputs)
    headers = {"Inference-Header-Content-Length": str(header_length), "Content-Type": "application/octet-stream"}
    connection = http.client.HTTPConnection(target.endpoint)

    def ask() -> bytes:
        connection.request("POST", f"/v2/models/{target.model}/infer", body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content[:500].decode(errors="replace"))
        return content

    yield ask
    connection.close()


class _Regions:
    """Shared memory of one connection, registered at the server for as long as `opened` is."""

    def __init__(self, opened: ExitStack, target: Target) -> None:
        self.input_bytes: dict[str, int] = {}
        self.names: dict[str, str] = {}
        client = opened.enter_context(grpc_client.InferenceServerClient(target.endpoint))
        for name, array in target.arrays().items():
            handle = self._open(opened, client, target, name, array.nbytes)
            shared_memory.set_shared_memory_region(handle, [array])
            self.input_bytes[name] = array.nbytes
        for name, size in target.output_bytes.items():
            self._open(opened, client, target, name, size)

    def _open(
        self, opened: ExitStack, client: grpc_client.InferenceServerClient, target: Target, name: str, size: int
    ) -> object:
        region = f"{target.shared_prefix}{secrets.token_hex(8)}"
        handle = shared_memory.create_shared_memory_region(region, f"/{region}", size)
        opened.callback(shared_memory.destroy_shared_memory_region, handle)
        client.register_system_shared_memory(region, f"/{region}", size)
        opened.callback(client.unregister_system_shared_memory, region)
        self.names[name] = region
        return handle


def _request(target: Target, regions: _Regions | None) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name=target.model)
    for (name, datatype, shape), array in zip(target.inputs, target.arrays().values(), strict=True):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if regions is None:
            request.raw_input_contents.append(array.tobytes())
        else:
            _point(tensor, regions.names[name], array.nbytes)
    if regions is not None:
        for name, size in target.output_bytes.items():
            _point(request.outputs.add(name=name), regions.names[name], size)
    return request


def _point(tensor: Any, region: str, size: int) -> None:
    parameters = tensor.parameters
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = size


def _asker(target: Target, mode: str) -> AbstractContextManager[Callable[[], bytes]]:
    return rest_asker(target) if mode == "rest" else grpc_asker(target, shared=mode == "grpc-shm")


def ask_until(target: Target, mode: str, until: float, counts: Counts, start: threading.Barrier) -> None:
    """One connection, one request after another until `until` seconds after the start of all. Where one fails before
    that, none waits for it."""
    try:
        with _asker(target, mode) as ask:
            ask()
            start.wait()
            end = time.perf_counter() + until
            while (begin := time.perf_counter()) < end:
                ask()
                counts.begin_times.append(begin)
                counts.latencies_ms.append((time.perf_counter() - begin) * 1e3)
    except threading.BrokenBarrierError:
        return  # whoever failed says why
    except BaseException:
        start.abort()
        raise


def wait_until_ready(endpoint: str, model: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with grpc_client.InferenceServerClient(endpoint) as client:
        while True:
            try:
                if client.is_model_ready(model):
                    return
            except grpc_client.InferenceServerException as error:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{endpoint} did not answer within {READY_SECONDS:.0f} s: {error}") from error
            if time.monotonic() > deadline:
                raise SystemExit(f"{model} was not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.1)


def run(target: Target, mode: str, *, connections: int, seconds: float) -> dict[str, float]:
    """Rates, latencies and the CPU milliseconds that asking took."""
    start = threading.Barrier(connections + 1)
    counts = [Counts() for _ in range(connections)]
    with ThreadPoolExecutor(connections) as pool:
        askers = [pool.submit(ask_until, target, mode, seconds, each, start) for each in counts]
        with suppress(threading.BrokenBarrierError):
            start.wait()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        for asker in askers:
            asker.result()
        passed, cpu = time.perf_counter() - begin, time.process_time() - cpu_begin
    latencies = [latency for each in counts for latency in each.latencies_ms]
    moments = sorted(
        (begun + latency / 1e3, latency)
        for each in counts
        for begun, latency in zip(each.begin_times, each.latencies_ms, strict=True)
    )
    return {
        "requests": len(latencies),
        "per_second": len(latencies) / passed,
        "p50_ms": float(np.percentile(latencies, 50)),
        "p99_ms": float(np.percentile(latencies, 99)),
        "gap_ms": float(np.diff([moment for moment, _ in moments]).max()) * 1e3,
        "client_cpu_ms": cpu * 1e3 / len(latencies),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="JSON of Target")
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    document = json.loads(options.target)
    document["inputs"] = tuple((name, datatype, tuple(shape)) for name, datatype, shape in document["inputs"])
    target = Target(**document)
    if options.mode != "rest":
        wait_until_ready(target.endpoint, target.model)
    print(json.dumps(run(target, options.mode, connections=options.connections, seconds=options.seconds)))


if __name__ == "__main__":
    main()
