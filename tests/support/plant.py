"""A small plant of real processes that stays up while one rollout after the other is tried on it.

Three stations, `a1` and `a2` on line 3 and `b1` on line 4, serve the model `solar`: version 1 and 2 judge alike,
version 3 says the opposite, version 4 cannot infer. Deployment `plant` holds them all. There are two operators, `admin`
and `anna`.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineside.v1 import agent_pb2

from tests.support import models
from tests.support.line import Line, Load, wait_until

STATIONS = {"a1": "3", "a2": "3", "b1": "4"}
QUICK = ("--min-inferences", "0")
"""A gate that asks for installs alone."""
ENDED = frozenset({"SUCCEEDED", "ROLLED_BACK", "ABORTED", "SUPERSEDED"})
ROLLOUT_SECONDS_MAX = 90.0


@dataclass(slots=True)
class Plant:
    line: Line
    anna: Path = field(init=False)
    """The second operator's file."""

    def start(self) -> None:
        """Start everything; every station serves version 1."""
        line = self.line
        line.start_controller()
        token = self.words("operators", "create", "anna")
        first = line.controller.operator_file
        self.anna = first.with_name("anna.toml")
        self.anna.write_text(first.read_text().replace(tomllib.loads(first.read_text())["token"], token))
        for bias in (1.0, 3.0, -3.0):
            line.publish("solar", models.classifier_ir(line.folder / f"solar{bias}", bias=bias))
        line.publish("solar", models.failing_model_ir(line.folder / "failing"))
        for name, number in STATIONS.items():
            line.start_agent(name, labels=[f"line={number}", "site=east"])
        line.deploy("plant", "solar", 1, selector="site=east")
        self.wait_all(1)

    # --- what operators do ---

    def words(self, *arguments: str, status: int = 0, operator: Path | None = None) -> str:
        """Run the command line, which must end with `status`; return what it says: stdout where that is 0 or 3."""
        done = self.line.lineside(*arguments, config=operator)
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return (done.stdout if status in {0, 3} else done.stderr).strip()

    def json(self, *arguments: str) -> Any:
        return self.line.json(*arguments)

    def refused(self, *arguments: str, operator: Path | None = None) -> dict[str, str]:
        """Run a command that must be refused; return the refusal."""
        told: dict[str, str] = json.loads(self.words(*arguments, "--output", "json", status=1, operator=operator))[
            "error"
        ]
        assert told["remedy"], told
        return told

    def roll_out(self, version: int, *options: str, waves: str = "1,100%", deployment: str = "plant") -> str:
        """Start a rollout; return its id."""
        return self.words("rollouts", "start", deployment, "--version", str(version), "--waves", waves, *options)

    def rollout(self, rollout: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.json("rollouts", "show", rollout)
        return shown

    def explain(self, agent: str, model: str = "solar") -> dict[str, str]:
        """Reasons of the slot, of both kinds, with their words."""
        (slot,) = self.json("agents", "explain", agent, "--model", model)["slots"]
        return {told["reason"]: told["message"] for told in [*slot["because"], *slot["would_change"]]}

    def audit(self, *options: str) -> list[dict[str, Any]]:
        """Decisions, oldest first."""
        events: list[dict[str, Any]] = self.json("audit", "list", "--oldest-first", "--limit", "500", *options)
        return events

    # --- what is waited for ---

    def wait_rollout(self, rollout: str, *states: str, seconds_max: float = ROLLOUT_SECONDS_MAX) -> Any:
        """Return the rollout, as a message, once its state or reason is one of these."""
        last: list[Any] = []

        def reached() -> Any:
            found = self.line.rollout(rollout)
            last[:] = [found]
            return found if {_state(found), found.reason} & set(states) else None

        return wait_until(reached, what=f"{rollout} to be {states}: {last}", seconds_max=seconds_max)

    def wait_all(self, version: int, agents: Sequence[str] = tuple(STATIONS)) -> None:
        for name in agents:
            self.line.wait_serving(name, "solar", version)

    def versions(self) -> dict[str, str]:
        """What each station serves, by name."""
        with self.line.client() as client:
            return {
                agent.name.removeprefix("agents/"): slot.serving_version.rpartition("/")[2]
                for agent in client.agents.list()
                for slot in agent.slots
                if slot.slot == "solar"
            }

    def reset(self) -> None:
        """End what is under way, start who is down, and bring every station to version 1."""
        for name, agent in self.line.agents.items():
            if agent.process is None:
                agent.start()
                self.line.wait_state(name, agent_pb2.Agent.STATE_CONNECTED)
        with self.line.client() as client:
            for rollout in client.rollouts.list():
                if _state(rollout) not in ENDED:
                    client.rollouts.abort(rollout.name)
            at = client.deployments.get("plant")
            kept = set(self.versions().values()) != {"1"}
            if at.model_version != "models/solar/versions/1" or kept:
                self.wait_rollout(self.roll_out(1, *QUICK, waves="100%"), "SUCCEEDED")
        self.wait_all(1)

    @contextmanager
    def loads(self, prefix: str, *, tolerate_absence: bool = False) -> Iterator[dict[str, Load]]:
        """Light load on every station; none of it may fail."""
        with ExitStack() as stack:
            loads = {
                name: stack.enter_context(
                    Load(
                        self.line.agents[name].grpc_address,
                        "solar",
                        f"{prefix}-{name}",
                        threads=1,
                        pause_seconds=0.01,
                        tolerate_absence=tolerate_absence,
                    )
                )
                for name in STATIONS
            }
            yield loads
        assert not [load.failures for load in loads.values() if load.failures]


def _state(rollout: Any) -> str:
    return str(type(rollout).State.Name(rollout.state)).removeprefix("STATE_")


def log_events(log: str, after: int = 0) -> list[dict[str, Any]]:
    """Events of an agent's log from a position on."""
    return [json.loads(line) for line in log[after:].splitlines() if re.match(r"\{.*\}$", line)]
