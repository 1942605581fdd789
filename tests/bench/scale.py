"""`make bench-fleet`: what thousands of agents cost one controller, and how the cost grows with them.

A real `serve` process with its database; agents over mTLS in a process of their own (`scale_load`), each with its
certificate, connection and Sync stream, syncing every ten seconds. They are enrolled in bulk through the store. A
twentieth more agents, the bystanders, stay connected while all others lose their connections at once. The baseline is a
bare mTLS echo server under the same load.
"""

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psutil
from lineside.v1 import rollout_pb2
from rich.console import Console
from rich.table import Table

from controlplane.client import Client
from controlplane.domain.identity import AgentCertificate
from controlplane.store import migrate, open_store
from tests.bench import bulk_enrolment
from tests.bench.report import FOLDER
from tests.support import models
from tests.support.controller import ControllerProcess
from tests.support.postgres import running_postgres

AGENTS = 10_000
SYNC_SECONDS = 10
MEASURE_SECONDS = 20.0
"""Twice the interval, so that each agent's share is in it twice and the repair run of the convergence too."""
CALM_SECONDS = 4.0
CALM_LATENCY_MS = 50.0
CALMS_MAX = 30
"""What a change has set off is over when half of the messages of so many seconds are answered so soon; two minutes at
most."""
MODELS: Final = tuple(f"inspect-{number}" for number in range(4))
DATABASES: Final = ("sqlite", "postgresql")


@dataclass(slots=True)
class Figures:
    """What was measured on one server with one number of agents."""

    server: str
    agents: int
    values: dict[str, float] = field(default_factory=dict)

    def add(self, found: Mapping[str, float]) -> None:
        """Add figures, and show them: a whole run takes half an hour."""
        self.values |= found
        print(self.server, self.agents, {name: round(value, 3) for name, value in found.items()}, flush=True)


class Load:
    """The agents' process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.answer()

    def do(self, what: str, **options: object) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.begin(what, **options)
        return self.answer()

    def begin(self, what: str, **options: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **options}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the simulated agents ended; their error is above")
        return dict(json.loads(line))


class Usage:
    """CPU time and memory of processes, read from outside."""

    def __init__(self, find: Callable[[], list[psutil.Process]]) -> None:
        self._find = find

    def cpu_seconds(self) -> float:
        return float(sum(sum(process.cpu_times()[:2]) for process in self._find()))

    def resident_kb(self) -> float:
        return float(sum(process.memory_info().rss for process in self._find())) / 1e3


def usage_of(pid: int) -> Usage:
    process = psutil.Process(pid)
    return Usage(lambda: [process])


@contextmanager
def module(name: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a module of the bench that ends with its stdin, in a session of its own."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


@contextmanager
def connected_load(target: str, identities: Path, agents: int) -> Iterator[Load]:
    options = ["--target", target, "--identities", str(identities), "--agents", str(agents)]
    with module("scale_load", *options, "--bystanders", str(bystanders(agents))) as process:
        yield Load(process)


def bystanders(agents: int) -> int:
    return agents // 20


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What all measurements of a run share."""

    folder: Path
    certificates: list[AgentCertificate]

    @property
    def identities(self) -> Path:
        return self.folder / "identities"

    @property
    def controller(self) -> Path:
        return self.folder / "controller"


def measure_controller(world: World, database: str, agents: int) -> Figures:
    figures = Figures(server=database, agents=agents)
    with ExitStack() as stack:
        url, database_usage = stack.enter_context(fresh_database(world, database))
        enrol(url, world.certificates[: agents + bystanders(agents)])
        options = ("--database-url", url, "--sync-interval", f"{SYNC_SECONDS}s", "--log-level", "WARNING")
        controller = ControllerProcess(folder=world.controller, options=options)
        stack.callback(controller.kill)
        controller.start()
        usage = usage_of(pid(controller))
        with Client.from_config(controller.operator_file) as client:
            figures.add(intend(world, client))
            before_kb = usage.resident_kb()
            load = stack.enter_context(connected_load(controller.addresses["fleet"], world.identities, agents))
            figures.add(connect(load, usage, before_kb, agents))
            figures.add(steady(load, usage, database_usage))
            figures.add(storm(load))
            figures.add(roll_out(client, load, usage, figures.values["CPU share"]))
        figures.add(restart(controller, load))
        assert controller.stop() == 0, controller.log()[-4000:]
        figures.add(tick(world.controller, url))
    return figures


def measure_bare(world: World, agents: int) -> Figures:
    figures = Figures(server="bare echo", agents=agents)
    with module("echo_server", "--pki", str(world.controller / "pki"), "--interval", str(SYNC_SECONDS)) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        usage = usage_of(process.pid)
        before_kb = usage.resident_kb()
        with connected_load(f"127.0.0.1:{port}", world.identities, agents) as load:
            figures.add(connect(load, usage, before_kb, agents))
            figures.add(steady(load, usage, None))
            figures.add(storm(load))
    return figures


@contextmanager
def fresh_database(world: World, database: str) -> Iterator[tuple[str, Usage | None]]:
    """A migrated database, and the usage of its own processes where it has any."""
    if database == "sqlite":
        with TemporaryDirectory(dir=world.folder) as folder:
            url = f"sqlite:///{folder}/lineside.db"
            migrate(url)
            yield url, None
        return
    with running_postgres() as server, server.fresh_database(migrated=True) as url:
        # The tests' server need not survive anything; one that is measured must.
        server.execute("ALTER SYSTEM RESET ALL")
        server.execute("SELECT pg_reload_conf()")
        ((data,),) = server.execute("SHOW data_directory")
        postmaster = psutil.Process(int(Path(str(data), "postmaster.pid").read_text().split()[0]))
        yield url, Usage(lambda: [postmaster, *postmaster.children(recursive=True)])


def enrol(url: str, certificates: list[AgentCertificate]) -> None:
    async def run() -> None:
        store = open_store(url)
        try:
            await bulk_enrolment.enrol(store, certificates)
        finally:
            await store.close()

    asyncio.run(run())


def pid(controller: ControllerProcess) -> int:
    assert controller.process is not None
    return controller.process.pid


def intend(world: World, client: Client) -> dict[str, float]:
    """Two versions of each model, and a deployment of the first on every agent."""
    seconds = []
    for number, model in enumerate(MODELS):
        for version in (1, 2):
            folder = world.folder / "models" / model / str(version)
            if not folder.exists():
                models.classifier_ir(folder, bias=1.0 + number + version / 10)
            client.models.publish(model, folder)
        begin = time.monotonic()
        client.deployments.create(model, model=model, version=1, selector="station", allow_empty=True)
        seconds.append(time.monotonic() - begin)
    return {"deployments create": max(seconds)}


def connect(load: Load, usage: Usage, before_kb: float, agents: int) -> dict[str, float]:
    cpu_seconds = usage.cpu_seconds()
    connected = load.do("connect")
    everybody = agents + bystanders(agents)
    cpu_seconds = usage.cpu_seconds() - cpu_seconds
    load.do("measure", seconds=SYNC_SECONDS)
    return {
        "first connection of all": connected["seconds"],
        "CPU a connection": cpu_seconds * 1e3 / everybody,
        "memory an agent": (usage.resident_kb() - before_kb) / everybody,
    }


def steady(
    load: Load, usage: Usage, database: Usage | None, *, measure_seconds: float = MEASURE_SECONDS
) -> dict[str, float]:
    cpu_seconds = usage.cpu_seconds()
    database_seconds = database.cpu_seconds() if database else 0.0
    begin = time.monotonic()
    seen = load.do("measure", seconds=measure_seconds)
    seconds = time.monotonic() - begin
    cpu_seconds = usage.cpu_seconds() - cpu_seconds
    figures = {
        "CPU share": cpu_seconds / seconds * 100,
        "CPU a sync message": cpu_seconds * 1e6 / seen["messages"],
        "sync latency p50": seen["p50_ms"],
        "sync latency p99": seen["p99_ms"],
        "worst sync latency": seen["worst_ms"],
    }
    if database:
        figures["CPU share of the database"] = (database.cpu_seconds() - database_seconds) / seconds * 100
    return figures


def storm(load: Load) -> dict[str, float]:
    seen = load.do("storm")
    load.do("measure", seconds=CALM_SECONDS)
    return {
        "reconnect of all at once": seen["seconds"],
        "worst sync of a bystander meanwhile": seen["bystander_worst_seconds"],
        "bystanders cut off": seen["bystanders_lost"],
        "connections refused": seen["refused"],
    }


def roll_out(client: Client, load: Load, usage: Usage, share: float) -> dict[str, float]:
    """A rollout of each deployment to everybody at once, whose gate then waits for inferences."""
    gate, told, returned = rollout_pb2.GatePolicy(min_inferences=1), [], []
    for model in MODELS:
        load.begin("await", slot=model, version=f"models/{model}/versions/2")
        load.answer()
        begin = time.monotonic()
        client.rollouts.start(model, model=model, version=2, waves=["100%"], gate=gate)
        returned.append(time.monotonic() - begin)
        told.append(load.answer()["last"] - begin)
        calm(load)
    busy = steady(load, usage, None, measure_seconds=SYNC_SECONDS)
    return {
        "rollouts start": statistics.median(returned),
        "rollouts start until the last agent is told": statistics.median(told),
        "the slowest of four": max(told),
        "CPU share with four rollouts under way": busy["CPU share"],
        "CPU of the rollouts each second": (busy["CPU share"] - share) / 100,
        "worst sync latency with four rollouts under way": busy["worst sync latency"],
    }


def calm(load: Load) -> None:
    """Wait until the fleet is as quiet as before: a change that meets the last one's work measures both."""
    for _ in range(CALMS_MAX):
        if load.do("measure", seconds=CALM_SECONDS)["p50_ms"] < CALM_LATENCY_MS:
            return


def restart(controller: ControllerProcess, load: Load) -> dict[str, float]:
    controller.kill()
    controller.start()
    begin = time.monotonic()
    return {"all back after kill -9 of the controller": load.do("rejoin")["last"] - begin}


def tick(folder: Path, url: str) -> dict[str, float]:
    with module("tick_cost", "--dir", str(folder), "--database-url", url) as process:
        assert process.stdout is not None
        return dict(json.loads(process.stdout.readline()))


UNITS: Final = {
    "deployments create": "s",
    "first connection of all": "s",
    "CPU a connection": "ms",
    "memory an agent": "kB",
    "CPU share": "%",
    "CPU share of the database": "%",
    "CPU a sync message": "us",
    "sync latency p50": "ms",
    "sync latency p99": "ms",
    "worst sync latency": "ms",
    "reconnect of all at once": "s",
    "worst sync of a bystander meanwhile": "s",
    "bystanders cut off": "",
    "connections refused": "",
    "rollouts start": "s",
    "rollouts start until the last agent is told": "s",
    "the slowest of four": "s",
    "CPU share with four rollouts under way": "%",
    "CPU of the rollouts each second": "s",
    "worst sync latency with four rollouts under way": "ms",
    "first tick, CPU": "s",
    "one tick, CPU": "s",
    "all back after kill -9 of the controller": "s",
}
"""In the order of the table."""


def publish(measured: list[Figures]) -> None:
    FOLDER.mkdir(exist_ok=True)
    records = [{"server": one.server, "agents": one.agents, "figures": one.values} for one in measured]
    (FOLDER / "fleet.json").write_text(json.dumps(records, indent=2) + "\n")
    title = f"{1 + 1 / 20:.0%} of the agents, enrolled in bulk, syncing every {SYNC_SECONDS} s"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("unit")
    for one in measured:
        table.add_column(f"{one.server}\n{one.agents}", justify="right")
    for name, unit in UNITS.items():
        cells = [f"{one.values[name]:.3g}" if name in one.values else "-" for one in measured]
        table.add_row(name, unit, *cells)
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print("", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--databases", nargs="*", choices=DATABASES, default=DATABASES)
    parser.add_argument("--bare", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--growth", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    # Whoever ends it early leaves no process and no folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sizes = sorted({options.agents // 10, options.agents} if options.growth else {options.agents})
    measured = []
    with TemporaryDirectory(prefix="lineside-bench-") as name:
        folder = Path(name)
        done = ControllerProcess(folder=folder / "controller").init()
        assert done.returncode == 0, done.stderr
        certificates = bulk_enrolment.sign(
            folder / "controller" / "pki", folder / "identities", agents=max(sizes) + bystanders(max(sizes))
        )
        world = World(folder=folder, certificates=certificates)
        for agents in sizes:
            if options.bare:
                measured.append(measure_bare(world, agents))
            for database in options.databases:
                measured.append(measure_controller(world, database, agents))
    publish(sorted(measured, key=lambda one: one.server))


if __name__ == "__main__":
    main()
