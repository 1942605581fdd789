"""What is remembered of agents equals what one would find anew, whatever has changed since."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from controlplane.domain.admission import Views, view_target
from controlplane.domain.assignment import find_contenders
from controlplane.domain.device_class import device_class
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord, ObservedSlot, ObservedState, SlotState
from controlplane.domain.progress import Hearing, Sight, install_state
from controlplane.domain.rollout import Rollout
from controlplane.domain.selector import facts
from tests.support.factories import (
    SOLAR,
    WELD,
    after_seconds,
    make_agent,
    make_deployment,
    make_device,
    make_host,
    make_observation,
    make_observed_slot,
    make_rollout,
)

AGENTS = tuple(AgentId(f"st-{number}") for number in range(4))
CPU, GPU = make_device(device="CPU"), make_device(device="GPU")


def test_facts_follow_labels_host_and_devices() -> None:
    before = AgentRecord(agent=make_agent(labels={"line": "3"}))
    assert facts(before) == {"line": "3", "agent": before.agent.id}
    assert facts(before) is facts(before)
    relabelled = replace(before, agent=replace(before.agent, labels={"line": "4"}))
    assert facts(relabelled)["line"] == "4"
    heard = replace(relabelled, observation=make_observation(host=make_host(os="Linux"), devices=(CPU,)))
    assert facts(heard) == {"line": "4", "agent": before.agent.id, "os": "linux", "device.cpu": "true"}
    assert heard.observation is not None
    moved = replace(heard, observation=replace(heard.observation, devices=(GPU,)))
    assert facts(moved) == {"line": "4", "agent": before.agent.id, "os": "linux", "device.gpu": "true"}
    other = replace(moved, observation=make_observation(host=make_host(os="Windows"), devices=(GPU,)))
    assert facts(other)["os"] == "windows"


def test_a_device_class_follows_host_and_devices() -> None:
    first = AgentRecord(agent=make_agent(), observation=make_observation(host=make_host(), devices=(CPU,)))
    assert first.observation is not None
    second = replace(first, observation=replace(first.observation, devices=(CPU, GPU)))
    third = replace(second, observation=make_observation(host=make_host(architecture="aarch64"), devices=(CPU, GPU)))
    found = [device_class(record) for record in (first, second, third)]
    assert ["GPU" in one for one in found] == [False, True, True]
    assert [one.partition("/")[0] for one in found] == ["unknown", "unknown", "aarch64"]


def test_contenders_follow_agents_and_deployments() -> None:
    deployments = [make_deployment(id="a", selector="line=3"), make_deployment(id="b", selector="device.gpu")]
    record = AgentRecord(agent=make_agent(labels={"line": "3"}))

    def contenders(record: AgentRecord) -> list[str]:
        found = find_contenders([record], deployments)
        return sorted(one.id for one in found.get(record.agent.id, ()))

    assert contenders(record) == ["a"]
    heard = replace(record, observation=make_observation(host=make_host(), devices=(GPU,)))
    assert contenders(heard) == ["a", "b"]
    assert contenders(replace(heard, agent=replace(heard.agent, labels={"line": "4"}))) == ["b"]
    assert contenders(replace(heard, agent=replace(heard.agent, revoked=True))) == []
    deployments[0] = replace(deployments[0], priority=7)
    assert contenders(heard) == ["a", "b"]
    assert find_contenders([heard], deployments)[heard.agent.id][0].priority == 7
    deployments[1] = replace(deployments[1], selector="device.npu")
    assert contenders(heard) == ["a"]


class Fleet:
    """A few agents of which some change from one sight to the next, each in one way."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._seconds = 0.0
        self._records = {agent: AgentRecord(agent=make_agent(id=agent), desired_generation=3) for agent in AGENTS}
        self._offer = 1

    def move(self) -> tuple[Sight, Mapping[AgentId, bool]]:
        """Let time pass and things happen; return what is seen, and whose window is open."""
        self._seconds += self._rng.choice((0.5, 9.0))
        for agent in self._rng.sample(AGENTS, 2):
            self._records[agent] = self._rng.choice((self._report, self._report, self._repeat, self._assign))(agent)
        if self._rng.random() < 0.1:
            self._offer += 1
        present = [agent for agent in AGENTS if self._rng.random() < 0.95]
        sight = Sight(
            targets={agent: self._records[agent] for agent in present},
            offer=self._offer,
            now=after_seconds(self._seconds),
            silent_seconds_max=15.0,
            listening_since=after_seconds(-60.0),
            released=dict.fromkeys(AGENTS, after_seconds(0)),
        )
        return sight, {agent: self._rng.random() < 0.9 for agent in AGENTS}

    def _report(self, agent: AgentId) -> AgentRecord:
        slots = (make_observed_slot(slot=WELD), self._slot())[self._rng.randint(0, 1) :]
        observed = ObservedState(
            generation=self._rng.randint(2, 4),
            slots=slots,
            nack_message=self._rng.choice(("", "", "no such slot")),
            nack_generation=3,
        )
        observation = make_observation(agent_id=agent, observed=observed, receive_time=after_seconds(self._seconds))
        return replace(self._records[agent], observation=observation)

    def _slot(self) -> ObservedSlot:
        return make_observed_slot(
            slot=SOLAR,
            serving_version=self._rng.choice((1, 2)),
            target_version=self._rng.choice((1, 2)),
            offer=self._rng.choice((self._offer, self._offer - 1)),
            state=self._rng.choice((SlotState.SERVING, SlotState.PREPARING, SlotState.FAILED)),
            prefetched_version=self._rng.choice((0, 2)),
            prefetch_failure=self._rng.choice(("", "disk full")),
        )

    def _repeat(self, agent: AgentId) -> AgentRecord:
        """It says the same again, of another generation."""
        record = self._records[agent]
        if record.observation is None:
            return record
        observed = replace(record.observation.observed, generation=self._rng.randint(2, 4))
        heard = replace(record.observation, observed=observed, receive_time=after_seconds(self._seconds))
        return replace(record, observation=heard)

    def _assign(self, agent: AgentId) -> AgentRecord:
        """It is labelled, or should run something else."""
        record = self._records[agent]
        labels = {"site": self._rng.choice(("north", "south")), "line": self._rng.choice(("", "3"))}
        agent_after = replace(record.agent, labels=labels)
        return replace(record, agent=agent_after, desired_generation=self._rng.randint(2, 4))


ROLLOUTS: tuple[Rollout, ...] = (
    make_rollout(model_id=SOLAR, target_version=2),
    make_rollout(model_id=SOLAR, target_version=1),
    make_rollout(model_id=WELD, target_version=2),
)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_seen_of_a_fleet_equals_what_one_would_see_anew(seed: int) -> None:
    rng = random.Random(seed)
    fleet, hearing, views = Fleet(rng), Hearing(), Views()
    rollout = ROLLOUTS[seed % len(ROLLOUTS)]
    for _ in range(60):
        sight, is_open = fleet.move()
        sight = replace(sight, hearing=hearing)
        if rng.random() < 0.05:
            rollout = rng.choice(ROLLOUTS)
        anew = replace(sight, hearing=Hearing())
        targets = sight.targets.items()
        assert sight.installs(rollout) == {agent: install_state(record, rollout, anew) for agent, record in targets}
        seen = views.look(rollout, sight, lambda record, is_open=is_open: is_open[record.agent.id])  # type: ignore[misc]
        assert seen == {
            agent: view_target(record, rollout, anew, swap_open=is_open[agent]) for agent, record in targets
        }


def test_what_has_not_changed_is_not_looked_at_again() -> None:
    rng = random.Random(1)
    fleet, hearing, views = Fleet(rng), Hearing(), Views()
    for _ in range(20):
        sight, _ = fleet.move()
    sight, rollout = replace(sight, hearing=hearing), ROLLOUTS[0]
    first = views.look(rollout, sight, None)
    again = views.look(rollout, replace(sight, now=sight.now), None)
    assert sight.in_reach
    assert all(again[agent] is first[agent] for agent in sight.in_reach)
