"""What applications tell with a request (deadline, application, lot), over both transports with Triton's clients."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from agent import limits
from agent.domain.errors import Reason
from tests.support.inference_servers import InferenceServers, running_servers
from tests.support.line import wait_until
from tests.support.serving import FakeModel, desired_slot

TRANSPORTS = (triton_grpc, triton_http)
PLACES = 8
STATUS = {
    "DEADLINE_EXCEEDED": ("StatusCode.DEADLINE_EXCEEDED", "504"),
    "RESOURCE_EXHAUSTED": ("StatusCode.RESOURCE_EXHAUSTED", "429"),
    "INVALID_ARGUMENT": ("StatusCode.INVALID_ARGUMENT", "400"),
    "NOT_FOUND": ("StatusCode.NOT_FOUND", "404"),
}


class Held(FakeModel):
    """Infers one at a time, each when it is told to."""

    optimal_requests = 1

    def __init__(self) -> None:
        super().__init__(during=self._wait)
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def _wait(self) -> None:
        self.entered.release()
        assert self.go_on.acquire(timeout=20)

    def wait_entered(self) -> None:
        assert self.entered.acquire(timeout=20)


@pytest.fixture
def servers() -> Iterator[InferenceServers]:
    """In a thread of their own: the tests block."""
    started: Future[InferenceServers] = Future()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with running_servers(places=PLACES) as running:
            started.set_result(running)
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    yield started.result(20)
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    loop.close()


@pytest.fixture
def held(servers: InferenceServers) -> Held:
    """What answers for "cells"."""
    found = Held()
    servers.serving.swap(desired_slot(1), found)
    return found


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as found:
        yield found


def ask(servers: InferenceServers, module: Any, version: str = "", **told: Any) -> str:
    """Over a connection of its own; the version that answered."""
    url = servers.grpc_url if module is triton_grpc else servers.http_url
    tensor = module.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    with module.InferenceServerClient(url) as client:
        response = client.infer("cells", [tensor], model_version=version, parameters=told).get_response()
    return str(response["model_version"] if isinstance(response, dict) else response.model_version)


def refused(status: str, module: Any, error: BaseException | None) -> str:
    """The refusal's text; it must have this status."""
    assert isinstance(error, InferenceServerException), error
    assert error.status() == STATUS[status][TRANSPORTS.index(module)]
    return str(error.message())


def waiting(servers: InferenceServers) -> int:
    return servers.serving._slots["cells"].turns.waiting


@pytest.mark.parametrize("module", TRANSPORTS)
def test_a_request_that_cannot_begin_within_deadline_ms_is_refused_and_another_is_answered(
    servers: InferenceServers, held: Held, pool: ThreadPoolExecutor, module: Any
) -> None:
    running = pool.submit(ask, servers, module, part_id="running")
    held.wait_entered()
    late = pool.submit(ask, servers, module, deadline_ms=50, part_id="late")
    text = refused("DEADLINE_EXCEEDED", module, late.exception(20))
    assert text == "could not begin within 50 ms; send fewer requests at once, or allow more time"
    patient = pool.submit(ask, servers, module, deadline_ms=4_000, part_id="patient")
    wait_until(lambda: waiting(servers) == 1, what="the patient to wait")
    held.go_on.release(2)
    assert (running.result(20), patient.result(20)) == ("1", "1")
    assert sorted(result.part_id for result in servers.results.results) == ["patient", "running"]
    assert servers.serving.tallies().refused == {("cells", Reason.DEADLINE_EXCEEDED): 1}


@pytest.mark.parametrize("module", TRANSPORTS)
@pytest.mark.parametrize("value", [-1, "soon", True])
def test_a_deadline_that_is_none_is_refused_with_its_name(
    servers: InferenceServers, held: Held, module: Any, value: object
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        ask(servers, module, deadline_ms=value)
    text = refused("INVALID_ARGUMENT", module, caught.value)
    assert text == "parameters[deadline_ms]: not a whole number from 0 on; send a whole number from 0 on"


@pytest.mark.parametrize("module", TRANSPORTS)
def test_an_application_that_floods_over_many_connections_waits_behind_itself(
    servers: InferenceServers, held: Held, pool: ThreadPoolExecutor, module: Any
) -> None:
    flood = [pool.submit(ask, servers, module, application="flood", part_id="first")]
    held.wait_entered()
    for number in range(1, PLACES // 2):
        flood.append(pool.submit(ask, servers, module, application="flood", part_id=f"flood-{number}"))
        wait_until(lambda: waiting(servers) == number, what="it to wait")  # noqa: B023 - looked at at once
    over = pool.submit(ask, servers, module, application="flood", part_id="over")
    assert "of this application run or wait" in refused("RESOURCE_EXHAUSTED", module, over.exception(20))
    quiet = pool.submit(ask, servers, module, application="quiet", part_id="quiet")
    wait_until(lambda: waiting(servers) == PLACES // 2, what="the quiet one to wait")
    held.go_on.release(PLACES)
    assert {each.result(20) for each in (*flood, quiet)} == {"1"}
    order = [(result.part_id, result.application) for result in servers.results.results]
    assert order[2] == ("quiet", "quiet"), f"after at most one of the flood's that waited: {order}"
    assert [application for _, application in order].count("flood") == PLACES // 2


def test_without_a_name_each_connection_is_an_application(
    servers: InferenceServers, held: Held, pool: ThreadPoolExecutor
) -> None:
    """Over REST, since gRPC clients of one process share theirs."""
    running: list[Future[str]] = []
    for number in range(PLACES // 2 + 2):
        running.append(pool.submit(ask, servers, triton_http))
        if not number:
            held.wait_entered()
        wait_until(lambda: waiting(servers) == number, what="it to wait")  # noqa: B023 - looked at at once
    held.go_on.release(len(running))
    assert {each.result(20) for each in running} == {"1"}
    assert len({result.application for result in servers.results.results}) == len(running)


@pytest.mark.parametrize("module", TRANSPORTS)
def test_a_lot_keeps_its_version_over_both_transports_and_stands_in_the_results(
    servers: InferenceServers, module: Any
) -> None:
    (other,) = set(TRANSPORTS) - {module}
    servers.serving.swap(desired_slot(1), FakeModel())
    assert ask(servers, module, application="camera", lot="L1") == "1"
    assert servers.serving.stage(desired_slot(2), FakeModel(), wait_seconds=60, on_swap=lambda: None)
    assert ask(servers, other, application="camera", lot="L1") == "1"
    assert ask(servers, module) == "1"
    assert ask(servers, module, application="camera", lot="L2") == "2"
    assert ask(servers, other, application="camera", lot="L2") == "2"
    assert ask(servers, module, application="camera", lot="L1") == "1", "a straggler"
    assert ask(servers, module, application="other", lot="L1") == "2", "a lot is one of its application"
    told = [(result.lot, result.application, result.version) for result in servers.results.results if result.lot]
    assert told == [
        ("L1", "camera", 1),
        ("L1", "camera", 1),
        ("L2", "camera", 2),
        ("L2", "camera", 2),
        ("L1", "camera", 1),
        ("L1", "other", 2),
    ]


@pytest.mark.parametrize("module", TRANSPORTS)
def test_a_replaced_version_that_is_named_for_too_long_says_what_to_ask_for(
    servers: InferenceServers,
    held: Held,
    pool: ThreadPoolExecutor,
    module: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = pool.submit(ask, servers, module, "1")
    held.wait_entered()
    monkeypatch.setattr(limits, "REPLACED_VERSION_SECONDS_MAX", 0.0)
    servers.serving.swap(desired_slot(2), FakeModel())
    late = pool.submit(ask, servers, module, "1")
    text = refused("NOT_FOUND", module, late.exception(20))
    assert text == "model_version: version 1 of 'cells' was replaced; leave it empty, or ask for 2"
    held.go_on.release()
    assert running.result(20) == "1"
    wait_until(lambda: held.closed, what="the version to be freed")


@pytest.mark.parametrize("module", TRANSPORTS)
def test_statistics_say_how_long_requests_waited_for_their_turn(
    servers: InferenceServers, held: Held, pool: ThreadPoolExecutor, module: Any
) -> None:
    running = [pool.submit(ask, servers, module)]
    held.wait_entered()
    running.append(pool.submit(ask, servers, module))
    wait_until(lambda: waiting(servers) == 1, what="the second to wait")
    held.go_on.release(2)
    assert {each.result(20) for each in running} == {"1"}
    if module is triton_grpc:
        with triton_grpc.InferenceServerClient(servers.grpc_url) as client:
            (counted,) = client.get_inference_statistics("cells", as_json=True)["model_stats"]
    else:
        with triton_http.InferenceServerClient(servers.http_url) as client:
            (counted,) = client.get_inference_statistics("cells")["model_stats"]
    told = {name: int(each.get("ns", 0)) for name, each in counted["inference_stats"].items()}
    assert int(counted["inference_stats"]["queue"]["count"]) == 2
    assert told["queue"] > 0
    parts = sum(told[name] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert parts == pytest.approx(told["success"], abs=10)
