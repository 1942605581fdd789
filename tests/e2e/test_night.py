"""A night: thirty agents of three sites on two controllers and one PostgreSQL. In mid-wave the leader falls silent, a
third of the agents is killed, and a site is cut off; the rollout ends as it should, and the log explains each step."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lineside.v1 import rollout_pb2

from agent.composition import enroll_agent
from agent.storage.folder import AgentFolder
from controlplane import limits, observability
from controlplane.client import Client
from tests.support import models
from tests.support.agent_process import AgentProcess
from tests.support.controller import ControllerProcess
from tests.support.line import Line, Load, wait_until
from tests.support.tcp_proxy import Uplink, uplink

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.e2e,
    pytest.mark.openvino,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

SITES = ("north", "south", "west")
"""North is connected to the first controller, south to the second, west to the second through an uplink of its own."""
AGENTS_A_SITE = 10
AGENTS_A_LINE = 2
AT_ONCE = 3
"""Processes that are started at a time: each takes a core for a second or two."""
WAIT_SECONDS = 240.0
TAKE_OVER_SECONDS = limits.LEASE_SECONDS + limits.LEASE_TRY_SECONDS + 20.0
STRATEGY = (
    *("--waves", "3,50%,100%", "--bake", "2s", "--max-unavailable-per-line", "1"),
    *("--max-errors-per-mille", "100", "--offline-wait", "25s", "--max-silent", "50%"),
)


@dataclass(slots=True)
class Night:
    folder: Path
    database_url: str
    first: ControllerProcess = field(init=False)
    second: ControllerProcess = field(init=False)
    agents: dict[str, AgentProcess] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "blobs").mkdir()
        options = ("--database-url", self.database_url, "--artifact-url", (self.folder / "blobs").as_uri())
        self.first = ControllerProcess(folder=self.folder / "first", options=(*options, "--sync-interval", "1s"))
        self.second = ControllerProcess(folder=self.folder / "second", options=self.first.options)

    @property
    def line(self) -> Line:
        """The command line and the client of an operator who goes by the second controller."""
        line = Line(self.folder)
        line.controller = self.second
        return line

    def start_controllers(self) -> None:
        assert self.first.init("--database-url", self.database_url).returncode == 0
        joined = self.second.init("--database-url", self.database_url, "--join", str(self.first.folder))
        assert joined.returncode == 0, joined.stderr
        self.first.start()
        wait_until(self.taken, what="the first to lead")
        self.second.start()

    def start_agents(self) -> None:
        """Enrol them as the command does, without a process for each, and start them."""
        asyncio.run(self._enroll())
        self.start(list(self.agents))

    def start(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.agents[name].start(), names))

    async def _enroll(self) -> None:
        port = self.second.api.rpartition(":")[2]
        reached = {"north": self.first.api, "south": self.second.api, "west": f"127.0.0.2:{port}"}
        for site in SITES:
            token = self.second.create_join_token(uses=AGENTS_A_SITE, labels=[f"site={site}"])
            for number in range(AGENTS_A_SITE):
                name = f"{site}-{number}"
                agent = AgentProcess(folder=self.folder / name, name=name)
                agent.folder.mkdir(mode=0o700)
                labels = {"line": str(number // AGENTS_A_LINE)}
                await enroll_agent(
                    AgentFolder(agent.folder), controller=reached[site], token=token, name=name, labels=labels
                )
                self.agents[name] = agent

    def serving(self) -> Counter[str]:
        """How many agents say that they serve each version."""
        with Client.from_config(self.second.operator_file) as client:
            slots = [slot for agent in client.agents.list() for slot in agent.slots]
        return Counter(slot.serving_version.rpartition("/")[2] for slot in slots)

    def audit(self, *options: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self.line.json("audit", "list", "--oldest-first", "--limit", "1000", *options)
        return events

    def taken(self) -> list[dict[str, Any]]:
        """Each time that a controller began to lead."""
        line = Line(self.folder)
        line.controller = self.second if self.second.process else self.first
        events: list[dict[str, Any]] = line.json("audit", "list", "--oldest-first", "--action", "leadership.take")
        return events

    def close(self) -> None:
        for agent in self.agents.values():
            agent.kill()
        for controller in (self.first, self.second):
            if controller.process is not None:
                controller.process.send_signal(signal.SIGCONT)
            controller.kill()


@pytest.fixture
def night(tmp_path: Path, empty_postgres_url: str) -> Iterator[Night]:
    made = Night(tmp_path, empty_postgres_url)
    try:
        made.start_controllers()
        yield made
    finally:
        made.close()


def test_a_rollout_ends_as_it_should_through_a_bad_night(night: Night) -> None:
    line = night.line
    for bias in (1.0, 3.0):
        line.publish("solar", models.classifier_ir(night.folder / f"solar{bias}", bias=bias))
    line.deploy("night", "solar", 1, selector="site in (north,south,west)")
    ports = [int(night.second.addresses[name].rpartition(":")[2]) for name in ("api", "fleet", "agent_bytes")]
    with ExitStack() as stack:
        west = stack.enter_context(uplink("127.0.0.2", to="127.0.0.1", ports=ports))
        night.start_agents()
        everyone = len(night.agents)
        wait_until(lambda: night.serving()["1"] == everyone, what="all to serve version 1", seconds_max=WAIT_SECONDS)
        loads = [stack.enter_context(light_load(name, agent)) for name, agent in night.agents.items()]
        rollout = line.lineside("rollouts", "start", "night", "--version", "2", *STRATEGY).stdout.strip()
        go_through_the_night(night, west, rollout)
        wait_until(lambda: night.serving()["2"] == everyone, what="all to serve version 2", seconds_max=WAIT_SECONDS)
    assert not [load.failures for load in loads if load.failures]
    assert {version for load in loads for version, _ in load.answered.values()} == {"1", "2"}
    check_the_log(night, rollout)


def light_load(name: str, agent: AgentProcess) -> Load:
    return Load(agent.grpc_address, "solar", name, threads=1, pause_seconds=0.2, tolerate_absence=True)


def go_through_the_night(night: Night, west: Uplink, rollout: str) -> None:
    """Return when the rollout has succeeded."""
    line, leader = night.line, night.first
    assert leader.process is not None

    def wave(index: int) -> Any:
        return line.rollout(rollout).waves[index]

    wait_until(lambda: wave(1).released_agents, what="the second wave to be under way", seconds_max=WAIT_SECONDS)
    leader.process.send_signal(signal.SIGSTOP)
    west.cut()
    victims = sorted(night.agents)[::3]
    for name in victims:
        night.agents[name].kill()
    night.start(victims)
    wait_until(lambda: len(night.taken()) >= 2, what="the other to lead", seconds_max=TAKE_OVER_SECONDS)
    leader.process.send_signal(signal.SIGCONT)
    wait_until(lambda: observability.LEADERSHIP_LOST in leader.log(), what="the woken leader to notice")
    wait_until(lambda: wave(2).released_agents, what="the last wave to be under way", seconds_max=WAIT_SECONDS)
    west.mend()
    done = line.lineside("rollouts", "watch", rollout, "--timeout", f"{WAIT_SECONDS:g}s", timeout_seconds=300)
    assert done.returncode == 0, done.stdout[-4000:]
    assert line.rollout(rollout).state == rollout_pb2.Rollout.STATE_SUCCEEDED


def check_the_log(night: Night, rollout: str) -> None:
    """Each step has who or which rule, why, and on what."""
    events = night.audit("--resource", f"rollouts/{rollout}")
    assert all(event["actor"] and event["reason"] and event["message"] for event in events), events
    by_action: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_action.setdefault(event["action"], []).append(event)
    assert [event["actor"] for event in by_action["rollout.start"]] == ["operators/admin"]
    for action in ("wave.admit", "wave.pass"):
        assert [event["actor"] for event in by_action[action]] == ["rules/gate"] * 3, action
    checks = [json.loads(event["evidence_json"])["checks"] for event in by_action["wave.pass"]]
    assert all({"installs", "errors"} <= {check["name"] for check in made} for made in checks)
    released = sum(json.loads(event["evidence_json"])["agents"] for event in by_action["wave.release"])
    taken_back = sum(json.loads(event["evidence_json"])["agents"] for event in by_action.get("wave.withdraw", []))
    shown = night.line.rollout(rollout)
    assert released - taken_back == sum(len(wave.released_agents) for wave in shown.waves)
    assert sorted(name for wave in shown.waves for name in wave.agents) == sorted(
        f"agents/{name}" for name in night.agents
    )
    assert by_action["rollout.succeed"][0]["actor"] == "rules/gate"
    assert events[-1]["action"] == "rollout.succeed"
    leaders = night.taken()
    # On a machine that is too busy to renew a lease another may take over once more.
    assert [json.loads(event["evidence_json"])["epoch"] for event in leaders] == [*range(1, len(leaders) + 1)]
    assert leaders[0]["resource"] != leaders[1]["resource"]
    assert all(event["actor"] == "rules/lease" and event["message"] for event in leaders)
