"""What applications notice of swaps, and how soon a restarted agent answers."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import openvino as ov
import tritonclient.grpc as triton_grpc

from tests.bench.report import Row, against, alone
from tests.bench.serving_models import BenchModel
from tests.support.agent_process import AgentProcess
from tests.support.line import Line, wait_until

SWAPS = 6
REQUESTS_PER_SECOND = 100.0
"""Of a camera: what is looked at is latency, not how much the box can do."""
BEFORE_SECONDS = 5.0
READY_SECONDS_MAX = 60.0


class _Camera:
    """Asks at a steady pace from a thread of its own, and notes when it was answered, how late, and by whom."""

    def __init__(self, address: str, model: BenchModel) -> None:
        self.answers: list[tuple[float, float, str]] = []
        """When it came, milliseconds since it was due, and the version."""
        self.failures: list[str] = []
        self._address, self._model = address, model
        self._stopped = threading.Event()

    @contextmanager
    def asking(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _ask(self) -> None:
        with triton_grpc.InferenceServerClient(self._address) as client:
            tensors = _tensors(self._model)
            due = time.perf_counter()
            while not self._stopped.wait(max(0.0, due - time.perf_counter())):
                try:
                    answer = client.infer(self._model.name, tensors)
                except triton_grpc.InferenceServerException as error:
                    self.failures.append(str(error))
                else:
                    now = time.perf_counter()
                    self.answers.append((now, (now - due) * 1e3, answer.get_response().model_version))
                due = max(due + 1 / REQUESTS_PER_SECOND, time.perf_counter())


def swap_rows(line: Line, agent: AgentProcess, model: BenchModel, folder: Path) -> list[Row]:
    """Rollouts to and fro between two versions while a camera asks."""
    line.publish(model.name, _other_version(model, folder / "other" / model.name))
    camera = _Camera(agent.grpc_address, model)
    waits = threading.Event()
    with camera.asking():
        waits.wait(BEFORE_SECONDS)
        swapping_from = len(camera.answers)
        for number in range(SWAPS):
            version = 2 - number % 2
            with line.client() as client:
                client.rollouts.start(model.name, model=model.name, version=version, waves=["100%"])
            line.wait_serving("st-1", model.name, version, seconds_max=120)
            wait_until(
                lambda: not line.json("deployments", "show", model.name)["active_rollout"], what="the rollout's end"
            )
    before, during = camera.answers[:swapping_from], camera.answers[swapping_from:]
    assert {version for _, _, version in during} == {"1", "2"}
    gaps = [(later - earlier) * 1e3 for (earlier, _, _), (later, _, _) in pairwise(during)]
    return [
        against(f"{model.name}/p99 during swaps over before", _p99(during), "ms", _p99(before)),
        alone(f"{model.name}/longest gap during {SWAPS} swaps", max(gaps), "ms"),
        alone(f"{model.name}/failed during {SWAPS} swaps", len(camera.failures), "requests"),
    ]


def restart_rows(agent: AgentProcess, model: BenchModel, *, rounds: int) -> list[Row]:
    """From the start of the process to its first answer, what served last and the cache being there; beyond what
    Python needs to start."""
    beyond = []
    for _ in range(rounds):
        agent.stop()
        bare = _seconds_of([sys.executable, "-c", "pass"])
        begin = time.perf_counter()
        agent.start()
        _wait_answer(agent.grpc_address, model)
        beyond.append(time.perf_counter() - begin - bare)
    return [alone(f"{model.name}/restart to first answer beyond Python's start", statistics.median(beyond), "s")]


def _wait_answer(address: str, model: BenchModel) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    with triton_grpc.InferenceServerClient(address) as client:
        while True:
            try:
                client.infer(model.name, _tensors(model))
            except triton_grpc.InferenceServerException:
                if time.monotonic() > deadline:
                    raise
            else:
                return


def _tensors(model: BenchModel) -> list[triton_grpc.InferInput]:
    tensors = []
    for each in model.inputs:
        tensor = triton_grpc.InferInput(each.name, list(each.shape), each.datatype)
        kind = np.uint8 if each.datatype == "UINT8" else np.float32
        tensors.append(tensor.set_data_from_numpy(np.zeros(each.shape, kind)))
    return tensors


def _other_version(model: BenchModel, folder: Path) -> Path:
    """The same network under another name: other bytes, the same work."""
    other = ov.Core().read_model(model.path)
    other.set_friendly_name("other")
    other.set_rt_info("2", ["model_info", "model_version"])
    folder.mkdir(parents=True)
    ov.save_model(other, folder / "model.xml", compress_to_fp16=False)
    return folder


def _p99(answers: list[tuple[float, float, str]]) -> float:
    return float(np.percentile([latency for _, latency, _ in answers], 99))


def _seconds_of(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - begin
