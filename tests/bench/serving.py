"""Images a second through an agent, against OpenVINO's own benchmark_app on the same model, device, hint and precision.

Rounds alternate with benchmark_app, which calls the runtime directly with no server between, and with a peer. All are
asked by the same load generator in a process of its own (`serving_load`), with the same requests in flight.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from examples.solar.fleet import run as run_command
from tests.bench.missing import MissingToolError
from tests.bench.report import Row, against, alone, compare, publish
from tests.bench.serving_models import HINT, PRECISION, BenchModel, fetch_models, run_benchmark_app
from tests.bench.serving_peers import bare_server, triton
from tests.bench.serving_swaps import restart_rows, swap_rows
from tests.support.agent_process import AgentProcess
from tests.support.line import Line

ROUNDS = 5
ROUND_SECONDS = 5.0
IN_FLIGHT = 4
PREFIX = "lineside_bench_"
MODES = ("grpc", "grpc-shm", "grpc-unix", "grpc-unix-shm", "rest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the load generator saw of one round, and CPU milliseconds of the server for each request."""

    per_second: float
    p99_ms: float
    server_cpu_ms: float


@dataclass(frozen=True, kw_only=True)
class Served:
    """Who answers: its address by mode, and its processes."""

    endpoints: dict[str, str]
    processes: Callable[[], Sequence[psutil.Process]]


def ask(served: Served, model: BenchModel, mode: str, *, seconds: float) -> Asked:
    target = {
        "endpoint": served.endpoints[mode],
        "model": model.name,
        "shared_prefix": PREFIX,
        "inputs": [(each.name, each.datatype, each.shape) for each in model.inputs],
        "output_bytes": {each.name: each.size_bytes for each in model.outputs},
    }
    transport = "rest" if mode == "rest" else "grpc-shm" if mode.endswith("shm") else "grpc"
    options = ["--mode", transport, "--connections", str(IN_FLIGHT), "--seconds", str(seconds)]
    before = _cpu_seconds(served)
    told = run_command(sys.executable, "-m", "tests.bench.serving_load", "--target", json.dumps(target), *options)
    used_seconds = _cpu_seconds(served) - before
    answer: dict[str, float] = json.loads(told)
    return Asked(
        per_second=answer["per_second"],
        p99_ms=answer["p99_ms"],
        server_cpu_ms=used_seconds * 1e3 / answer["requests"],
    )


def model_rows(model: BenchModel, agent: Served, folder: Path, *, rounds: int, seconds: float) -> list[Row]:
    """The agent in every mode, grpcio alone and the peer over gRPC, each beside benchmark_app of the same round."""
    bare, asked, peer, floor = [], {mode: list[Asked]() for mode in MODES}, list[Asked](), list[Asked]()
    for _ in range(rounds):
        bare.append(run_benchmark_app(model, seconds=seconds))
        for mode in MODES:
            asked[mode].append(ask(agent, model, mode, seconds=seconds))
        with _floor(model) as served:
            floor.append(ask(served, model, "grpc", seconds=seconds))
        try:
            with _peer(model, folder) as served:
                peer.append(ask(served, model, "grpc", seconds=seconds))
        except MissingToolError as error:
            print(f"{model.name}: no peer: {error}")
    rates = [each.per_second for each in bare]
    bare_cpu_ms = statistics.median(each.cpu_ms for each in bare)
    rows = []
    for mode, found in asked.items():
        rows.append(compare(f"{model.name}/{mode}", [each.per_second for each in found], "1/s", rates))
        cpu_ms = statistics.median(each.server_cpu_ms for each in found)
        rows.append(against(f"{model.name}/{mode}, server CPU a request", cpu_ms, "ms", bare_cpu_ms))
        rows.append(alone(f"{model.name}/{mode}, p99", statistics.median(each.p99_ms for each in found), "ms"))
    rows.append(compare(f"{model.name}/grpcio alone", [each.per_second for each in floor], "1/s", rates))
    if peer:
        theirs = [each.per_second for each in peer]
        rows.append(compare(f"{model.name}/triton-grpc", theirs, "1/s", rates))
        ours = [each.per_second for each in asked["grpc"]]
        rows.append(compare(f"{model.name}/grpc over Triton's", ours, "1/s", theirs))
    return rows


def record_row(model: BenchModel, *, rounds: int, seconds: float) -> Row:
    """Throughput with everything that is measured, kept and offered, over that without."""
    options = ["--model", str(model.path), "--rounds", str(rounds), "--seconds", str(seconds)]
    rates = json.loads(run_command(sys.executable, "-m", "tests.bench.serving_records", *options))
    return compare(f"{model.name}/with records over without", rates["with"], "1/s", rates["without"])


@contextmanager
def running_agent(models: Sequence[BenchModel], folder: Path) -> Iterator[tuple[Line, AgentProcess, Served]]:
    """An agent of a controller of its own that serves the models, with shared memory and a socket."""
    line = Line(folder=folder)
    try:
        line.start_controller()
        agent = line.enroll("st-1")
        socket = folder / "grpc.sock"
        agent.start("--shared-memory", PREFIX, "--grpc-socket", str(socket))
        for model in models:
            line.publish(model.name, model.path.parent)
            deploy(line, model.name)
            line.wait_serving("st-1", model.name, 1, seconds_max=300)
        tcp, unix = agent.grpc_address, f"unix:{socket}"
        endpoints = {"grpc": tcp, "grpc-shm": tcp, "grpc-unix": unix, "grpc-unix-shm": unix, "rest": agent.http_address}
        assert agent.process is not None
        process = psutil.Process(agent.process.pid)
        yield line, agent, Served(endpoints=endpoints, processes=lambda: [process])
    finally:
        line.close()


def deploy(line: Line, model: str) -> None:
    """On every agent, as benchmark_app is told to run it."""
    where = ["--model", f"models/{model}/versions/1", "--selector", "line=3"]
    how = ["--hint", HINT, "--precision", PRECISION, "--sample-budget", "0"]
    done = line.lineside("deployments", "create", model, *where, *how)
    assert done.returncode == 0, done.stderr


@contextmanager
def _floor(model: BenchModel) -> Iterator[Served]:
    with bare_server(model) as (address, number):
        process = psutil.Process(number)
        yield Served(endpoints={"grpc": address}, processes=lambda: [process])


@contextmanager
def _peer(model: BenchModel, folder: Path) -> Iterator[Served]:
    with TemporaryDirectory(dir=folder) as own, triton(model, Path(own)) as address:
        yield Served(
            endpoints={"grpc": address},
            processes=lambda: [
                process for process in psutil.Process().children(recursive=True) if "triton" in process.name()
            ],
        )


def _cpu_seconds(served: Served) -> float:
    times = [process.cpu_times() for process in served.processes()]
    return sum(each.user + each.system for each in times)


def run_rows(folder: Path, *, rounds: int, seconds: float) -> list[Row]:
    models = fetch_models(folder)
    rows: list[Row] = []
    with running_agent(models, folder) as (line, agent, served):
        for model in models:
            rows += model_rows(model, served, folder, rounds=rounds, seconds=seconds)
        rows += swap_rows(line, agent, models[0], folder)
        rows += restart_rows(agent, models[0], rounds=rounds)
    rows += [record_row(model, rounds=2 * rounds, seconds=seconds / 2) for model in models]
    return rows


def run(*, rounds: int = ROUNDS, seconds: float = ROUND_SECONDS) -> None:
    with TemporaryDirectory(prefix="lineside-bench-") as folder:
        rows = run_rows(Path(folder), rounds=rounds, seconds=seconds)
    publish("serving", rows, baseline=f"benchmark_app on the same model: CPU, {HINT}, {PRECISION}, no pinning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=ROUND_SECONDS)
    options = parser.parse_args()
    run(rounds=options.rounds, seconds=options.seconds)


if __name__ == "__main__":
    main()
