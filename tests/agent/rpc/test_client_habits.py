"""What clients do beside calling: give up, cancel, pack, send headers of their own, keep connections open."""

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator
from queue import Queue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from tritonclient.utils import InferenceServerException

from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.serving import FakeModel, desired_slot

IMAGES = np.arange(6, dtype=np.float32).reshape(2, 3)
SCORES = [[0.25, 0.75]] * 2


class Gate:
    """A model's inference stops here until it is told to go on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self) -> None:
        self.entered.release()
        assert self.go_on.wait(20)


@pytest.fixture
async def servers() -> AsyncIterator[InferenceServers]:
    async with running_servers() as running:
        running.serving.swap(desired_slot(3), FakeModel(score=0.75))
        yield running


@pytest.fixture
async def gate(servers: InferenceServers) -> AsyncIterator[Gate]:
    """Holds up "slow" until it is told to go on."""
    found = Gate()
    servers.serving.swap(desired_slot(1, slot="slow"), FakeModel(during=found))
    yield found
    found.go_on.set()


def tensor(module: Any, *, binary: bool = True) -> Any:
    given = module.InferInput("x", [2, 3], "FP32")
    if binary:
        given.set_data_from_numpy(IMAGES)
    else:
        given.set_data_from_numpy(IMAGES, binary_data=False)
    return given


def test_a_client_that_gives_up_leaves_the_server_well(servers: InferenceServers, gate: Gate) -> None:
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
            client.infer("slow", [tensor(triton_grpc)], client_timeout=0.2)
        gate.go_on.set()
        assert client.infer("slow", [tensor(triton_grpc)]).as_numpy("scores").shape == (2, 2)


def test_a_request_under_way_can_be_cancelled(servers: InferenceServers, gate: Gate) -> None:
    ended: Queue[Any] = Queue()
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        call = client.async_infer("slow", [tensor(triton_grpc)], callback=lambda result, error: ended.put(error))
        assert gate.entered.acquire(timeout=20)
        call.cancel()
        assert "CANCELLED" in str(ended.get(timeout=20))
        gate.go_on.set()
        assert client.infer("cells", [tensor(triton_grpc)]).as_numpy("scores").tolist() == SCORES


def test_a_stream_can_be_cancelled_and_opened_again(servers: InferenceServers, gate: Gate) -> None:
    """More often than streams may be open at once: each gives its place back."""
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        for _ in range(20):
            answers: Queue[Any] = Queue()
            client.start_stream(callback=lambda result, error, answers=answers: answers.put((result, error)))
            client.async_stream_infer("cells", [tensor(triton_grpc)], request_id="s1")
            result, error = answers.get(timeout=20)
            assert error is None
            assert result.get_response().id == "s1"
            client.stop_stream(cancel_requests=True)


async def test_a_stream_of_the_aio_client(servers: InferenceServers) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(5):
            yield {"model_name": "cells", "inputs": [tensor(triton_grpc_aio)], "request_id": str(number)}

    async with triton_grpc_aio.InferenceServerClient(servers.grpc_url) as client:
        seen = [(result.get_response().id, error) async for result, error in client.stream_infer(requests())]
    assert seen == [(str(number), None) for number in range(5)]


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_grpc_calls_may_be_packed_and_carry_headers(servers: InferenceServers, packing: str) -> None:
    with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
        answer = client.infer(
            "cells",
            [tensor(triton_grpc)],
            compression_algorithm=packing,
            headers={"x-line": "3"},
            priority=1,
            timeout=9,
        )
    assert answer.as_numpy("scores").tolist() == SCORES


async def test_http_aio(servers: InferenceServers) -> None:
    async with triton_http_aio.InferenceServerClient(servers.http_url) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("cells", "3")
        assert (await client.get_model_metadata("cells"))["versions"] == ["3"]
        for packing in (None, "gzip", "deflate"):
            answers = await asyncio.gather(
                *(
                    client.infer(
                        "cells",
                        [tensor(triton_http_aio, binary=binary)],
                        request_compression_algorithm=packing,
                        response_compression_algorithm=packing,
                        headers={"x-line": "3"},
                    )
                    for binary in (True, False) * 5
                )
            )
            assert all(answer.as_numpy("scores").tolist() == SCORES for answer in answers)
        with pytest.raises(InferenceServerException, match="not served here"):
            await client.infer("nuts", [tensor(triton_http_aio)])


async def test_settings_and_loading_say_what_to_do_instead(servers: InferenceServers) -> None:
    await asyncio.to_thread(ask_for_what_is_not_served, servers)


def ask_for_what_is_not_served(servers: InferenceServers) -> None:
    def refused(act: Any) -> str:
        with pytest.raises(InferenceServerException) as caught:
            act()
        return str(caught.value)

    with (
        triton_grpc.InferenceServerClient(servers.grpc_url) as over_grpc,
        triton_http.InferenceServerClient(servers.http_url) as over_http,
    ):
        for client in (over_grpc, over_http):
            assert "lineside deployments" in refused(lambda client=client: client.load_model("cells"))
            assert "lineside deployments" in refused(lambda client=client: client.unload_model("cells"))
            assert "no trace settings here" in refused(lambda client=client: client.get_trace_settings())
            assert "no log settings here" in refused(lambda client=client: client.update_log_settings({}))
            client.unregister_cuda_shared_memory()
        assert over_http.get_cuda_shared_memory_status() == []
        assert not over_grpc.get_cuda_shared_memory_status().regions


async def test_one_connection_carries_many_requests_and_refusals(servers: InferenceServers) -> None:
    def speak() -> None:
        connection = http.client.HTTPConnection(servers.http_url, timeout=20)
        connection.connect()
        socket = connection.sock
        body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]})
        for method, path, sent, code in (
            ("POST", "/v2/models/cells/infer", body, 200),
            ("POST", "/v2/models/cells/infer", "{", 400),
            ("PUT", "/v2/models/cells/infer", body, 405),
            ("HEAD", "/v2/health/ready", None, 200),
            ("OPTIONS", "/v2/models/cells", None, 405),
            ("POST", "/v2/models/cells/versions/3/infer", body, 200),
            ("GET", "/v2/models/cells/versions/3/config", None, 200),
            ("GET", "/v2/models/cells/versions/3/stats", None, 200),
        ):
            connection.request(method, path, sent)
            response = connection.getresponse()
            content = response.read()
            assert response.status == code, path
            assert bool(content) == (method != "HEAD")
            assert connection.sock is socket, "kept open"
        connection.close()

    await asyncio.to_thread(speak)
