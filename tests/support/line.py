"""A production line made of real processes: one controller, some agents, and what people do to them.

line = Line(tmp_path)
line.start_controller()
agent = line.start_agent("st-1")
line.publish("m", models.classifier_ir(tmp_path / "v1"))
"""

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import tritonclient.grpc as oip
from lineside.v1 import agent_pb2, evidence_pb2, rollout_pb2, slot_pb2
from tritonclient.utils import InferenceServerException

from controlplane.client import Client
from tests.support import models
from tests.support.agent_process import AgentProcess
from tests.support.controller import ControllerProcess

WAIT_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.05
SERVING = slot_pb2.ObservedSlot.STATE_SERVING


def wait_until(condition: Callable[[], Any], *, what: str, seconds_max: float = WAIT_SECONDS_MAX) -> Any:
    """Look until `condition()` is truthy and return it; fail with `what` when time is up."""
    deadline = time.monotonic() + seconds_max
    pause = threading.Event()
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds_max:g} s for: {what}"
        pause.wait(LOOK_SECONDS)
    return value


@functools.cache
def _initialised() -> Path:
    """What `init` made, once in a process: copied, it is a controller of its own, but for its CA."""
    folder = tempfile.TemporaryDirectory(prefix="lineside-initialised-")
    atexit.register(folder.cleanup)
    controller = ControllerProcess(folder=Path(folder.name) / "controller")
    assert controller.init().returncode == 0
    return controller.folder


@dataclass(slots=True)
class Line:
    """Every process dies with `close`."""

    folder: Path
    agents: dict[str, AgentProcess] = field(default_factory=dict)
    controller: ControllerProcess = field(init=False)

    def __post_init__(self) -> None:
        self.controller = ControllerProcess(folder=self.folder / "controller")

    def start_controller(self) -> None:
        if not self.controller.folder.exists():
            shutil.copytree(_initialised(), self.controller.folder)
        self.controller.start()

    def enroll(self, name: str, *, labels: Sequence[str] = ("line=3",)) -> AgentProcess:
        agent = AgentProcess(folder=self.folder / name, name=name)
        token = self.controller.create_join_token(labels=labels)
        done = agent.enroll(controller=self.controller.api, token=token)
        assert done.returncode == 0, done.stderr
        self.agents[name] = agent
        return agent

    def start_agent(self, name: str, *, labels: Sequence[str] = ("line=3",)) -> AgentProcess:
        agent = self.enroll(name, labels=labels)
        agent.start()
        return agent

    def close(self) -> None:
        for agent in self.agents.values():
            agent.kill()
        self.controller.kill()

    def lineside(
        self, *arguments: str, timeout_seconds: float = 120, config: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the operator's command line, or with `config` another's; the caller looks at the exit status."""
        operator_file = config or self.controller.operator_file
        command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(operator_file)]
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, timeout=timeout_seconds, check=False
        )

    def json(self, *arguments: str) -> Any:
        """What the command line prints with --output json."""
        done = self.lineside(*arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def client(self) -> Iterator[Client]:
        client = Client.from_config(self.controller.operator_file)
        try:
            yield client
        finally:
            client.close()

    def publish(self, model: str, path: Path) -> int:
        with self.client() as client:
            return client.models.publish(model, path).number

    def deploy(
        self, deployment: str, model: str, version: int | None, *, selector: str = "line=3", keep_samples: bool = False
    ) -> None:
        policy = slot_pb2.SamplePolicy(
            random_fraction=1.0 if keep_samples else 0.0,
            confidence_below=0.0,
            budget_bytes_per_day=64 << 20,
            margin_below=0.0,
            outlier_above=0.0,
            shadow_disagreement=False,
            near_duplicate_distance=-1,
        )
        with self.client() as client:
            client.deployments.create(
                deployment, model=model, version=version, selector=selector, sample_policy=policy, allow_empty=True
            )

    def slot(self, agent: str, model: str) -> slot_pb2.ObservedSlot | None:
        with self.client() as client:
            return next((slot for slot in client.agents.get(agent).slots if slot.slot == model), None)

    def wait_serving(self, agent: str, model: str, version: int, *, seconds_max: float = WAIT_SECONDS_MAX) -> None:
        """Return when the controller has heard that the agent serves the version."""
        wanted = f"models/{model}/versions/{version}"

        def serves() -> bool:
            slot = self.slot(agent, model)
            return slot is not None and slot.serving_version == wanted and slot.state == SERVING

        wait_until(serves, what=f"{agent} to serve {wanted}", seconds_max=seconds_max)

    def wait_state(self, agent: str, state: "agent_pb2.Agent.State.ValueType") -> None:
        def reached() -> bool:
            with self.client() as client:
                return client.agents.get(agent).state == state

        wait_until(reached, what=f"{agent} to be {state}")

    def results(self, model: str) -> list[evidence_pb2.Result]:
        with self.client() as client:
            return list(client.results.list(model=model))

    def rollout(self, rollout: str) -> rollout_pb2.Rollout:
        with self.client() as client:
            return client.rollouts.get(rollout)


@dataclass(slots=True)
class Load:
    """Applications that call a slot without pause, each image as a part of its own."""

    address: str
    model: str
    prefix: str
    threads: int = 2
    pause_seconds: float = 0.004
    answered: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By part id: the version that answered, and the score of the second label."""
    failures: list[str] = field(default_factory=list)
    tolerated: int = 0
    tolerate_absence: bool = False
    """While the agent's process is away, calls are repeated rather than counted as failures."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _workers: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        for number in range(self.threads):
            worker = threading.Thread(target=self._run, args=(number,), daemon=True)
            worker.start()
            self._workers.append(worker)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.join(timeout=30)

    def wait_answers(self, count: int) -> None:
        """Return when `count` more parts have been answered."""
        goal = len(self.answered) + count
        wait_until(lambda: len(self.answered) >= goal, what=f"{count} more answers; {self.failures[:3]}")

    def _run(self, number: int) -> None:
        client = oip.InferenceServerClient(self.address)
        index = 0
        image = np.zeros((1, *models.IMAGE_SHAPE), np.float32)
        tensor = oip.InferInput(models.INPUT_NAME, list(image.shape), "FP32")
        tensor.set_data_from_numpy(image)
        while not self._stop.wait(self.pause_seconds):
            part = f"{self.prefix}-{number}-{index}"
            try:
                answer = client.infer(self.model, [tensor], parameters={"part_id": part}, client_timeout=20)
            except InferenceServerException as error:
                if self.tolerate_absence and "UNAVAILABLE" in str(error.status()):
                    self.tolerated += 1
                    index += 1
                    continue
                self.failures.append(str(error))
                return
            scores = answer.as_numpy(models.OUTPUT_NAME)
            assert scores is not None
            with self._lock:
                self.answered[part] = (answer.get_response().model_version, float(scores[0, 1]))
            index += 1
        client.close()


def large_model(folder: Path, *, padding_bytes: int, bias: float = 1.0) -> Path:
    """A model's folder with a file beside the model that makes its transfer long; OpenVINO does not read it."""
    models.classifier_ir(folder, bias=bias)
    seed = np.random.default_rng(int(bias * 1000)).bytes(1 << 20)
    with (folder / "calibration.dat").open("wb") as file:
        for block in range(padding_bytes >> 20):
            file.write(block.to_bytes(8, "big") + seed[8:])
    os.sync()
    return folder
