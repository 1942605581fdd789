"""What a fleet costs the controller: CPU of a sync message, memory of an agent, and sync while bytes flow.

A thousand simulated agents, each enrolled and connected over mTLS, send their whole state at each interval, from a
process of their own. The first two rows are compared with the least that such a server can be (`echo_server`), under
the same load in the same run. The last compares the worst answer while four transfers run with the worst without.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from examples.solar.fleet import Fleet
from tests.bench.large_model import write_large_model
from tests.bench.report import Row, against, alone, compare, publish
from tests.bench.simulated_agents import Endpoints, enroll

AGENTS = 1000
INTERVAL_SECONDS = 2.0
MEASURE_SECONDS = 12.0
"""Longer than the ten seconds after which the controller looks at its whole fleet."""
ROUNDS = 3
TRANSFERS = 4
LAYERS = 2
"""128 MiB a transfer, over and over."""


class Load:
    """The simulated agents' process, connected to one server."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.connected = self._answer()

    def measure(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"measure {seconds}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the simulated agents ended; their error is above")
        return dict(json.loads(line))


@contextmanager
def module(name: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a module of the bench that ends with its stdin."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    # A session each: Linux may schedule by session, and the transfers are to give way to the agents.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


@contextmanager
def connected(target: str, identities: Path) -> Iterator[Load]:
    options = ["--target", target, "--identities", str(identities), "--agents", str(AGENTS)]
    with module("sync_load", *options, "--interval", str(INTERVAL_SECONDS)) as process:
        yield Load(process)


class Server:
    """A server process, whose CPU and memory are read from outside."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._memory_bytes = self._process.memory_info().rss

    def cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def grown_kilobytes_per_agent(self) -> float:
        """Memory beyond what it was without agents."""
        return float(self._process.memory_info().rss - self._memory_bytes) / 1e3 / AGENTS


def cost(server: Server, load: Load) -> tuple[float, dict[str, Any]]:
    """(CPU-us of the server a message, what the agents saw)."""
    begin = server.cpu_seconds()
    seen = load.measure(MEASURE_SECONDS)
    return (server.cpu_seconds() - begin) * 1e6 / seen["messages"], seen


def measure(folder: Path) -> list[Row]:
    write_large_model(folder / "model", layers=LAYERS)
    fleet = Fleet(folder=folder)
    identities = folder / "identities"
    try:
        fleet.start_controller()
        token = fleet.operate_text("tokens", "create", "--uses", str(AGENTS + TRANSFERS), "--ttl", "1h").strip()
        names = [f"sim-{index}" for index in range(AGENTS)]
        receivers = [f"receiver-{index}" for index in range(TRANSFERS)]
        endpoints = enroll(fleet.operator_file, token=token, names=[*names, *receivers], folder=identities)
        digest = assign(fleet, receivers)
        server = Server(fleet.processes["controller"].pid)
        quiet, busy, rates = [], [], []
        with connected(endpoints.fleet, identities) as load:
            cpu, _ = cost(server, load)
            memory = server.grown_kilobytes_per_agent()
            for _ in range(ROUNDS):
                quiet.append(load.measure(MEASURE_SECONDS))
                with transferring(endpoints, identities, digest, receivers) as process:
                    busy.append(load.measure(MEASURE_SECONDS))
                    sent = json.loads(process.communicate()[0])
                rates.append(sent["bytes"] / 1e6 / sent["seconds"])
        bare_cpu, bare_memory, bare = bare_cost(folder / "controller" / "pki", identities)
    finally:
        fleet.stop()
    return [
        against("CPU a sync message", cpu, "us", bare_cpu),
        against("memory a connected agent", memory, "kB", bare_memory),
        compare("sync latency p99", column(quiet, "p99_ms"), "ms", [bare["p99_ms"]] * ROUNDS),
        *(
            compare(f"{name}, {TRANSFERS} transfers running", column(busy, key), "ms", column(quiet, key))
            for name, key in (("sync latency p99", "p99_ms"), ("worst sync latency", "worst_ms"))
        ),
        alone("transfers meanwhile, all together", statistics.median(rates), "MB/s"),
    ]


def column(rounds: list[dict[str, Any]], key: str) -> list[float]:
    return [float(seen[key]) for seen in rounds]


def assign(fleet: Fleet, receivers: list[str]) -> str:
    """Deploy the large model on the receivers; return the digest of its weights."""
    name = fleet.operate_text("models", "publish", "large", str(fleet.folder / "model"), "--wait").strip()
    fleet.operate(
        *["deployments", "create", "bench", "--model", name, "--selector", f"agent in ({','.join(receivers)})"]
    )
    version = fleet.operate("models", "show", name)
    return str(max(version["artifact"]["files"], key=lambda file: int(file["size_bytes"]))["digest"])


@contextmanager
def transferring(
    endpoints: Endpoints, identities: Path, digest: str, receivers: list[str]
) -> Iterator["subprocess.Popen[str]"]:
    options = ["--target", endpoints.agent_bytes, "--identities", str(identities), "--digest", digest]
    with module("transfers", *options, *receivers) as process:
        yield process


def bare_cost(pki: Path, identities: Path) -> tuple[float, float, dict[str, Any]]:
    with module("echo_server", "--pki", str(pki)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        server = Server(process.pid)
        with connected(f"127.0.0.1:{port}", identities) as load:
            cpu, seen = cost(server, load)
            return cpu, server.grown_kilobytes_per_agent(), seen


def run() -> None:
    with TemporaryDirectory(prefix="lineside-bench-") as folder:
        rows = measure(Path(folder))
    baseline = "a bare mTLS echo server under the same load; for the transfers, the same controller without them"
    publish("sync", rows, baseline=baseline)
