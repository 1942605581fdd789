"""`deployments create --swap-wait` on a real line: a lot ends the wait, else the bound does, and until then no lot sees
two versions."""

import threading
from collections import defaultdict
from typing import Any, Self

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests.support import models
from tests.support.line import Line, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]

BOUND_SECONDS = 3
"""Of the slot that no new lot comes to."""


class Camera:
    """Judges parts without pause, each in the lot of the moment, in turn over gRPC and REST."""

    def __init__(self, line: Line, model: str, name: str) -> None:
        agent = line.agents["st-1"]
        self._clients = [
            (triton_grpc, triton_grpc.InferenceServerClient(agent.grpc_address)),
            (triton_http, triton_http.InferenceServerClient(agent.http_address)),
        ]
        self._model, self._name = model, name
        self.lot = "L1"
        self.seen: dict[str, list[str]] = defaultdict(list)
        """By lot: which versions answered, in order."""
        self.failures: list[Exception] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(30)

    def wait_answers(self, count: int) -> None:
        """Return when so many more parts of the present lot have been judged."""
        goal = len(self.seen[self.lot]) + count
        wait_until(lambda: self.failures or len(self.seen[self.lot]) >= goal, what="answers")
        assert not self.failures

    def _run(self) -> None:
        number = 0
        while not self._done.wait(0.005):
            module, client = self._clients[number % 2]
            lot, number = self.lot, number + 1
            try:
                self.seen[lot].append(self._ask(module, client, lot))
            except Exception as error:  # noqa: BLE001 - for the test to look at
                self.failures.append(error)
                return

    def _ask(self, module: Any, client: Any, lot: str) -> str:
        image = np.zeros((1, *models.IMAGE_SHAPE), np.float32)
        tensor = module.InferInput(models.INPUT_NAME, list(image.shape), "FP32")
        tensor.set_data_from_numpy(image)
        told = {"application": self._name, "lot": lot, "deadline_ms": 4_000}
        response = client.infer(self._model, [tensor], parameters=told).get_response()
        return str(response["model_version"] if isinstance(response, dict) else response.model_version)


def deploy(line: Line, model: str, swap_wait: str) -> None:
    for number in (1, 2):
        line.publish(model, models.classifier_ir(line.folder / f"{model}{number}", bias=float(number)))
    created = line.lineside(
        "deployments",
        "create",
        model,
        "--model",
        f"{model}:1",
        "--selector",
        "line=3",
        "--device",
        "CPU",
        "--swap-wait",
        swap_wait,
    )
    assert created.returncode == 0, created.stderr
    line.wait_serving("st-1", model, 1)


def roll_out(line: Line, model: str) -> None:
    with line.client() as client:
        client.rollouts.start(model, model=model, version=2, waves=["100%"])


def test_a_swap_waits_for_a_lot_or_its_bound_and_another_slot_does_not_wait_with_it(line: Line) -> None:
    agent = line.start_agent("st-1")
    deploy(line, "patient", "5m")
    deploy(line, "bound", f"{BOUND_SECONDS}s")
    with Camera(line, "patient", "left") as left, Camera(line, "patient", "right") as right:
        left.wait_answers(4)
        right.wait_answers(4)
        roll_out(line, "patient")
        wait_until(lambda: agent.log().count("swap_waits") == 1, what="the swap to wait")
        with Camera(line, "bound", "third") as third:
            third.wait_answers(4)
            roll_out(line, "bound")
            wait_until(lambda: agent.log().count("swap_waits") == 2, what="the other swap to wait")
            third.wait_answers(4)
            line.wait_serving("st-1", "bound", 2)
            third.wait_answers(4)
        left.wait_answers(4)
        assert set(left.seen["L1"]) == set(right.seen["L1"]) == {"1"}, "it waits on"
        left.lot = "L2"
        left.wait_answers(4)
        right.wait_answers(4)
        right.lot = "L2"
        right.wait_answers(4)
        line.wait_serving("st-1", "patient", 2)
    assert third.failures == left.failures == right.failures == []
    for camera in (left, right):
        assert {lot: set(versions) for lot, versions in camera.seen.items()} == {"L1": {"1"}, "L2": {"2"}}
    assert sorted(third.seen["L1"]) == third.seen["L1"], "once past the bound, never back"
    assert set(third.seen["L1"]) == {"1", "2"}
    results = wait_until(
        lambda: [found] if len(found := line.results("patient")) >= sum(map(len, left.seen.values())) else None,
        what="the results",
    )[0]
    told = {(result.application, result.lot, result.model_version.rpartition("/")[2]) for result in results}
    assert told <= {("left", "L1", "1"), ("left", "L2", "2"), ("right", "L1", "1"), ("right", "L2", "2")}
    waited = [text for text in agent.log().splitlines() if "swap_waited" in text]
    assert len(waited) == 2
