"""When and how fast a rollout goes at a plant of real processes: windows, preparation, lines, pace, shadow runs; and
what becomes of agents that are away, flap, or come back with an old disk."""

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from lineside.v1 import agent_pb2, fleet_service_pb2, fleet_service_pb2_grpc, slot_pb2

from tests.support.line import Line, wait_until
from tests.support.plant import QUICK, STATIONS, Plant, log_events
from tests.support.wire import Box

pytestmark = [pytest.mark.e2e, pytest.mark.openvino, pytest.mark.slow]

PAUSE = threading.Event()
"""Never set: to wait on it takes its time."""
SOON = timedelta(seconds=20)
"""A window opens no sooner, so that it is seen closed."""


@pytest.fixture(scope="module")
def shared_plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    plant = Plant(Line(tmp_path_factory.mktemp("plant")))
    try:
        plant.start()
        yield plant
    finally:
        plant.line.close()


@pytest.fixture
def plant(shared_plant: Plant) -> Plant:
    shared_plant.reset()
    return shared_plant


def coming_window(selector: str, *, scope: str = "swap") -> tuple[str, datetime]:
    """A window that opens at a full minute after SOON, and when that is."""
    opens = (datetime.now(UTC) + SOON).replace(second=0, microsecond=0) + timedelta(minutes=1)
    local = opens + timedelta(hours=8)
    return f"{selector}; {local.minute} {local.hour} * * *; 30m; Asia/Shanghai; {scope}", opens


def first_wave(rollout: Any) -> list[str]:
    return [name.removeprefix("agents/") for name in rollout.waves[0].agents]


# --- shadow runs ---


# First of all, and the one that ends with a swap as the second: no shadow run begins within a minute of a swap.
@pytest.mark.parametrize("version", [3, 2], ids=["disagrees", "agrees"])
def test_a_candidate_answers_only_after_it_agreed_in_shadow(plant: Plant, version: int) -> None:
    with plant.loads(f"shadow{version}") as loads:
        rollout = plant.roll_out(
            version, *QUICK, "--shadow", "100", "--shadow-agreement", "90%", "--max-errors-per-mille", "200"
        )
        (name,) = first_wave(plant.wait_rollout(rollout, "SHADOWING"))
        assert "SHADOWS" in plant.explain(name)
        ended = plant.wait_rollout(rollout, "SUCCEEDED", "ROLLED_BACK")
        assert loads[name].answered
    shown = plant.rollout(rollout)
    checks = {check["name"]: check for check in shown["waves"][0]["verdict"]["checks"]}
    answers = {answer for load in loads.values() for answer, _ in load.answered.values()}
    if version == 2:
        assert shown["state"] == "SUCCEEDED"
        steps = [event["action"] for event in plant.audit("--resource", f"rollouts/{rollout}")]
        assert steps.index("wave.shadow") < steps.index("wave.admit") < steps.index("wave.release")
    else:
        assert (shown["state"], checks["shadow"]["outcome"]) == ("ROLLED_BACK", "FAIL")
        assert int(checks["shadow"]["samples"]) > 0
        assert not ended.waves[0].released_agents
        assert answers == {"1"}, "it was stopped before it answered anything"


# --- windows, and what is prepared before them ---


def test_agents_prepare_before_their_window_and_swap_in_it_at_once(plant: Plant) -> None:
    """Station b1 is bound to a window to come, the two of line 3 to none."""
    window, opens = coming_window("line=4")
    strategy = (*QUICK, "--window", window)
    plan = plant.json("rollouts", "plan", "plant", "--version", "2", *strategy)
    planned = {target["agent"]: datetime.fromisoformat(target["swap_time_earliest"]) for target in plan["targets"]}
    assert planned["agents/b1"] == opens
    assert planned["agents/a1"] < opens

    rollout = plant.roll_out(2, *strategy, waves="100%")
    plant.wait_all(2, ["a1", "a2"])
    with plant.line.client() as client:
        wait_until(
            lambda: any(slot.prefetched_version == "models/solar/versions/2" for slot in client.agents.get("b1").slots),
            what="b1 to have it prepared",
        )
    explained = plant.explain("b1")
    assert "WAITS_FOR_WINDOW" in explained["WAITS_IN_WAVE"]
    assert plant.versions()["b1"] == "1"
    wait_until(lambda: plant.rollout(rollout)["reason"] == "WAITS_FOR_WINDOW", what="the next tick to say so")
    agent = plant.line.agents["b1"]
    seen = len(agent.log())
    assert datetime.now(UTC) < opens, "it was all done before"

    plant.wait_rollout(rollout, "SUCCEEDED", seconds_max=150)
    releases = plant.audit("--resource", f"rollouts/{rollout}", "--action", "wave.release")
    (release,) = [one for one in releases if "agents/b1" in one["related_resources"]]
    assert datetime.fromisoformat(release["create_time"]) >= opens
    told = [event["event"] for event in log_events(agent.log(), seen)]
    assert "version_serves" in told
    assert not {"artifact_fetched", "device_chosen"} & set(told), "nothing is fetched or measured at the swap"


@pytest.mark.nightly  # mostly a minute of waiting
def test_a_wave_waits_for_its_start_window(plant: Plant) -> None:
    window, opens = coming_window("", scope="start")
    rollout = plant.roll_out(2, *QUICK, "--window", window, waves="100%")
    shown = plant.rollout(rollout)
    assert (shown["state"], shown["reason"]) == ("RUNNING", "WAITS_FOR_WINDOW")
    assert f"{opens:%Y-%m-%dT%H:%M:%SZ}" in shown["message"]
    assert f"{opens:%Y-%m-%dT%H:%M:%SZ}" in plant.explain("a1")["WAIT"]
    assert plant.rollout(rollout)["waves"][0]["state"] == "PENDING"
    plant.wait_rollout(rollout, "SUCCEEDED", seconds_max=150)
    admitted = datetime.fromisoformat(plant.rollout(rollout)["waves"][0]["admit_time"])
    assert opens <= admitted <= opens + timedelta(seconds=15)


# --- lines and pace ---


def test_redundant_stations_of_a_line_never_swap_together(plant: Plant) -> None:
    with plant.loads("line") as loads:
        rollout = plant.roll_out(2, "--max-errors-per-mille", "200", "--max-unavailable-per-line", "1", waves="100%")
        together: list[dict[str, str]] = []
        while plant.line.rollout(rollout).end_time.seconds == 0:
            with plant.line.client() as client:
                between = {
                    agent.name.removeprefix("agents/"): slot.serving_version + slot.target_version
                    for agent in client.agents.list(selector="line=3")
                    for slot in agent.slots
                    if slot.slot == "solar" and slot.target_version != slot.serving_version
                }
            together += [between] if len(between) > 1 else []
        for load in loads.values():
            load.wait_answers(5)
    assert plant.rollout(rollout)["state"] == "SUCCEEDED"
    assert not together
    releases = plant.audit("--resource", f"rollouts/{rollout}", "--action", "wave.release")
    groups = [set(json.loads(event["evidence_json"])["first"]) for event in releases]
    assert not any({"a1", "a2"} <= group for group in groups)
    assert set().union(*groups) == set(STATIONS)


@pytest.mark.nightly  # mostly a minute of waiting
def test_no_more_agents_a_minute_than_the_pace(plant: Plant) -> None:
    rollout = plant.roll_out(2, *QUICK, "--agents-per-minute", "6", waves="100%")
    plant.wait_rollout(rollout, "SUCCEEDED")
    times = [
        datetime.fromisoformat(event["create_time"])
        for event in plant.audit("--resource", f"rollouts/{rollout}", "--action", "wave.release")
    ]
    assert len(times) == len(STATIONS)
    gaps = [after - before for before, after in pairwise(times)]
    assert all(timedelta(seconds=7) <= gap <= timedelta(seconds=25) for gap in gaps), gaps


# --- awkward agents ---


def test_a_rollout_carries_on_without_an_agent_that_is_away_and_it_catches_up(plant: Plant) -> None:
    agent = plant.line.agents["a2"]
    agent.kill()
    plant.line.wait_state("a2", agent_pb2.Agent.STATE_DISCONNECTED)
    plan = plant.json("rollouts", "plan", "plant", "--version", "2")
    assert {target["agent"]: target["warning"] for target in plan["targets"] if target["warning"]} == {
        "agents/a2": "out of reach"
    }
    rollout = plant.roll_out(2, *QUICK, "--offline-wait", "3s", waves="100%")
    found = plant.wait_rollout(rollout, "SUCCEEDED")
    assert found.waves[0].verdict.installed == 2, "who is away is no success"
    assert "a2" not in [name.removeprefix("agents/") for name in found.waves[0].released_agents]
    explained = plant.explain("a2")
    assert "BRING_BACK" in explained
    agent.start()
    plant.line.wait_serving("a2", "solar", 2)


def test_a_flapping_agent_neither_stops_nor_passes_a_wave(plant: Plant) -> None:
    with plant.loads("flap", tolerate_absence=True) as loads:
        rollout = plant.roll_out(2, "--max-errors-per-mille", "200", waves="100%")
        for _ in range(3):
            plant.line.agents["a1"].kill()
            plant.line.agents["a1"].start()
        plant.wait_rollout(rollout, "SUCCEEDED")
        plant.wait_all(2)
        for load in loads.values():
            load.wait_answers(5)
    answered = {part for load in loads.values() for part in load.answered}
    parts: list[str] = []

    def delivered() -> bool:
        parts[:] = [result.part_id for result in plant.line.results("solar") if result.part_id.startswith("flap")]
        return answered <= set(parts)

    wait_until(delivered, what="every result to come back")
    assert len(parts) == len(set(parts)), "none has come twice"


def test_an_agent_with_an_old_copy_of_its_folder_converges_and_doubles_nothing(plant: Plant) -> None:
    """Its disk goes back to a time at which it ran version 1 and had delivered less."""
    agent = plant.line.agents["b1"]
    with plant.loads("old") as loads:
        loads["b1"].wait_answers(30)
    agent.stop()
    copy = agent.folder.with_name("b1.old")
    shutil.copytree(agent.folder, copy)
    agent.start()
    with plant.loads("lost") as lost:
        plant.wait_rollout(plant.roll_out(2, *QUICK, waves="100%"), "SUCCEEDED")
        lost["b1"].wait_answers(30)
    expected = {part for load in (*loads.values(), *lost.values()) for part in load.answered}
    wait_until(
        lambda: expected <= {result.part_id for result in plant.line.results("solar")},
        what="every result to come back before the disk is restored",
    )
    agent.kill()
    shutil.rmtree(agent.folder)
    shutil.move(copy, agent.folder)
    agent.start()
    plant.line.wait_serving("b1", "solar", 2)
    with plant.loads("new") as new:
        new["b1"].wait_answers(30)
    expected |= {part for load in new.values() for part in load.answered}
    wait_until(
        lambda: expected <= {result.part_id for result in plant.line.results("solar")},
        what="every result to come back, also of numbers that were used before",
    )
    parts = [result.part_id for result in plant.line.results("solar") if result.part_id in expected]
    assert len(parts) == len(set(parts)), "none has come twice"


# Last: the agent stays enrolled, and revoked.


async def test_an_agent_whose_clock_is_years_off_is_moved_as_any_other(plant: Plant) -> None:
    controller = plant.line.controller
    box = Box(name="c9", ca_certificate=controller.ca_certificate)
    token = await asyncio.to_thread(controller.create_join_token, labels=["site=east", "line=9"])
    await box.enroll(controller.api, token)
    async with box.mtls_channel(controller.addresses["fleet"]) as channel:
        agent = asyncio.create_task(play_agent(channel, datetime(1999, 12, 31, tzinfo=UTC)))
        await asyncio.to_thread(look_at_clock, plant)
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
    plant.words("agents", "revoke", "c9")


def look_at_clock(plant: Plant) -> None:
    plant.line.wait_serving("c9", "solar", 1)
    (condition,) = [one for one in plant.json("agents", "show", "c9")["conditions"] if one["type"] == "ClockSkewed"]
    assert (condition["state"], condition["reason"]) == ("TRUE", "ClockBehind")
    assert "NTP" in plant.explain("c9")["SET_CLOCK"]
    found = plant.wait_rollout(plant.roll_out(2, *QUICK, waves="100%"), "SUCCEEDED")
    assert found.waves[0].verdict.installed == len(STATIONS) + 1
    plant.line.wait_serving("c9", "solar", 2)


async def play_agent(channel: Any, clock: datetime) -> None:
    """Speak as an agent that serves at once whatever it is told to."""
    stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
    stream = stub.Sync()
    observed = slot_pb2.ObservedState(boot_count=1)
    while True:
        observed.agent_time.FromDatetime(clock)
        await stream.write(fleet_service_pb2.SyncRequest(observed_state=observed))
        answer = await stream.read()
        if not answer.HasField("desired_state"):
            await asyncio.to_thread(PAUSE.wait, answer.sync_interval.ToTimedelta().total_seconds())
            continue
        observed.generation = answer.desired_state.generation
        del observed.slots[:]
        for wanted in answer.desired_state.slots:
            observed.slots.add(
                slot=wanted.slot,
                target_version=wanted.model_version,
                serving_version=wanted.model_version,
                offer=wanted.offer,
                state=slot_pb2.ObservedSlot.STATE_SERVING,
            )
