"""Runs a bench: rounds of bare OpenVINO, gRPC and shared memory in turn, so that all three see the same box."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import tritonclient.grpc as oip
from rich.console import Console
from rich.table import Table

from agent import limits
from agent.app.ports import ServingRecord, Tensor
from agent.benchmark.child import summary
from agent.benchmark.example import example_inputs
from agent.clock import SystemClock
from agent.domain.errors import RequestError
from agent.live import read_live_status
from agent.storage import state_codec
from agent.storage.artifact_cache import DiskArtifactCache
from agent.storage.folder import AgentFolder

Round = dict[str, float]
"""per_second, p50_ms, p99_ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is asked for."""

    folder: AgentFolder
    slot: str
    seconds: float
    in_flight: int

    def run(self) -> dict[str, Any]:
        """Raises RequestError where there is nothing to measure."""
        record = _record(self.folder, self.slot)
        artifact = DiskArtifactCache(self.folder.root, clock=SystemClock()).folder(record.desired.artifact)
        if artifact is None:
            raise RequestError(
                f"the artifact of {record.desired.slot!r} is not here", field="--slot", remedy="let the agent fetch it"
            )
        inputs = example_inputs(record.desired.signature)
        prefix = f"lineside_bench_{os.getpid()}_"
        with tempfile.TemporaryDirectory(prefix="lineside-bench-") as work:
            command = [str(self.folder.state), record.desired.slot, str(artifact), work, prefix]
            with _child(command) as ask:
                served = ask(None)
                rounds = self._rounds(ask, served["address"], record.desired.slot, inputs, prefix)
        return {
            "slot": record.desired.slot,
            "version": record.desired.version,
            "device": served["device"],
            "infer_requests": served["requests"],
            "in_flight": self.in_flight,
            "paths": rounds,
        }

    def _rounds(
        self, ask: Callable[[Any], Any], address: str, slot: str, inputs: dict[str, Tensor], prefix: str
    ) -> list[dict[str, Any]]:
        seconds = self.seconds / limits.BENCH_ROUNDS
        found: dict[str, list[Round]] = {"bare OpenVINO": [], "gRPC": [], "gRPC, shared memory": []}
        with ExitStack() as stack:
            plain = [stack.enter_context(_plain(address, slot, inputs)) for _ in range(self.in_flight)]
            shared = [
                stack.enter_context(_shared(address, slot, inputs, f"{prefix}{number}"))
                for number in range(self.in_flight)
            ]
            ask({"seconds": seconds / 4, "in_flight": self.in_flight})
            for _ in range(limits.BENCH_ROUNDS):
                found["bare OpenVINO"].append(ask({"seconds": seconds, "in_flight": self.in_flight}))
                found["gRPC"].append(_load(plain, seconds))
                found["gRPC, shared memory"].append(_load(shared, seconds))
        bare = statistics.median(each["per_second"] for each in found["bare OpenVINO"])
        return [
            {
                "path": path,
                **{key: statistics.median(each[key] for each in rounds) for key in rounds[0]},
                "ratio": statistics.median(each["per_second"] for each in rounds) / bare,
            }
            for path, rounds in found.items()
        ]


def check_idle(folder: AgentFolder, *, yes: bool) -> None:
    """Raise RequestError where an agent runs and nobody said that its line may be slowed down."""
    if not yes and read_live_status(folder) is not None:
        raise RequestError(
            "the agent runs, and a bench takes the device from its line for as long as it lasts",
            field="--yes",
            remedy="repeat it with --yes when the line stands still; its results and samples stay untouched",
        )


def print_bench(found: dict[str, Any]) -> None:
    """For people."""
    console = Console()
    console.print(
        f"{found['slot']} version {found['version']} on {found['device']}, {found['in_flight']} requests in flight,"
        f" {found['infer_requests']} InferRequests"
    )
    table = Table("path", "images/s", "p50 ms", "p99 ms", "of bare")
    for row in found["paths"]:
        table.add_row(
            row["path"],
            f"{row['per_second']:.1f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['ratio']:.3f}",
        )
    console.print(table)


def _record(folder: AgentFolder, slot: str) -> ServingRecord:
    try:
        serving = state_codec.decode(folder.state.read_bytes()).serving
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        serving = ()
    names = ", ".join(record.desired.slot for record in serving)
    if not serving:
        raise RequestError("no slot has served yet", field="--dir", remedy="deploy a model to this agent first")
    if not slot and len(serving) > 1:
        raise RequestError("several slots serve", field="--slot", remedy=f"name one of: {names}")
    for record in serving:
        if slot in ("", record.desired.slot):
            return record
    raise RequestError(f"{slot!r} does not serve", field="--slot", remedy=f"name one of: {names}")


@contextmanager
def _child(arguments: list[str]) -> Iterator[Callable[[Any], Any]]:
    """Ask it something and read the answer; None reads what it says by itself. Raises RequestError when it ends."""
    command = [sys.executable, "-m", "agent.benchmark.child", *arguments]
    errors = Path(arguments[3]) / "errors.txt"
    with errors.open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def ask(order: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        if order is not None:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            last = (errors.read_text().strip().splitlines() or ["it says nothing"])[-1]
            raise RequestError(f"the bench's server ended: {last}", remedy="see lineside-agent doctor")
        return json.loads(line)

    try:
        yield ask
    finally:
        process.communicate()


def _load(calls: list[Callable[[], None]], seconds: float) -> Round:
    """Every call again and again, each in a thread of its own."""
    deadline = time.perf_counter() + seconds

    def work(call: Callable[[], None]) -> list[float]:
        taken = []
        while time.perf_counter() < deadline:
            begun = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begun)
        return taken

    begun = time.perf_counter()
    with ThreadPoolExecutor(len(calls)) as threads:
        taken = [each for part in threads.map(work, calls) for each in part]
    return summary(taken, time.perf_counter() - begun)


@contextmanager
def _plain(address: str, slot: str, inputs: dict[str, Tensor]) -> Iterator[Callable[[], None]]:
    """An application that sends its inputs with each request."""
    with oip.InferenceServerClient(address) as client:

        def call() -> None:
            tensors = []
            for name, array in inputs.items():
                tensor = _tensor(name, array)
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
            client.infer(slot, tensors)

        yield call


@contextmanager
def _shared(address: str, slot: str, inputs: dict[str, Tensor], key: str) -> Iterator[Callable[[], None]]:
    """An application that writes its inputs to shared memory."""
    contents = {name: array.tobytes() for name, array in inputs.items()}
    size = sum(map(len, contents.values()))
    region = shared_memory.SharedMemory(name=key, create=True, size=max(1, size))
    try:
        with oip.InferenceServerClient(address) as client:
            client.register_system_shared_memory(key, f"/{key}", size)

            def call() -> None:
                offset, tensors = 0, []
                for name, array in inputs.items():
                    assert region.buf is not None
                    region.buf[offset : offset + array.nbytes] = contents[name]
                    tensor = _tensor(name, array)
                    tensor.set_shared_memory(key, array.nbytes, offset)
                    tensors.append(tensor)
                    offset += array.nbytes
                client.infer(slot, tensors)

            yield call
    finally:
        region.close()
        region.unlink()


def _tensor(name: str, array: Tensor) -> Any:
    from tritonclient.utils import np_to_triton_dtype

    return oip.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
