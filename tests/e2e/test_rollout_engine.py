"""The commands of the rollout engine at a plant of real processes, as operators use them: what they say, what happens,
and how it is explained afterwards."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.line import Line, wait_until
from tests.support.plant import QUICK, STATIONS, Plant

# One plant for all of them. Each test leaves it at version 1, or the next one brings it there.
pytestmark = [pytest.mark.e2e, pytest.mark.openvino, pytest.mark.slow]


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


def actions(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["action"], event["actor"].removeprefix("operators/")) for event in events]


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


# First: the stations have not fetched version 2 yet.


def test_a_plan_says_what_then_happens(plant: Plant) -> None:
    plant.words("agents", "pin", "b1", "solar:1", "--reason", "the lamp is being changed", operator=plant.anna)
    strategy = ("--version", "2", "--waves", "1,100%", "--bake", "2s", "--min-inferences", "0")
    before = plant.json("audit", "list")
    plan = plant.json("rollouts", "plan", "plant", *strategy)
    assert plant.json("audit", "list") == before
    assert plant.json("rollouts", "list") == []

    with plant.line.client() as client:
        size_bytes = sum(int(file.size_bytes) for file in client.models.get_version("solar", 2).artifact.files)
    assert (plan["target_count"], [wave["agent_count"] for wave in plan["waves"]]) == (2, [1, 1])
    assert int(plan["fetch_bytes"]) == 2 * size_bytes
    assert all(target["connected"] and int(target["disk_free_bytes"]) > size_bytes for target in plan["targets"])
    (left_out,) = plan["left_out"]
    assert (left_out["agent"], left_out["reason"]) == ("agents/b1", "PINNED")
    assert "operators/anna" in left_out["message"]
    assert "the lamp is being changed" in left_out["message"]
    explained = plant.explain("b1")
    assert "anna" in explained["PINNED"]
    assert "lineside agents unpin b1 solar" in explained["UNPIN"]

    begun = datetime.now(UTC)
    rollout = plant.words("rollouts", "start", "plant", *strategy)
    plant.wait_rollout(rollout, "SUCCEEDED")
    shown = plant.rollout(rollout)
    planned = {target["agent"]: target["wave"] for target in plan["targets"]}
    assert {agent: wave["index"] for wave in shown["waves"] for agent in wave["agents"]} == planned
    two_bakes, minute = timedelta(seconds=4), timedelta(minutes=1)
    estimated = time_of(plan["end_time_estimate"]) - time_of(plan["waves"][0]["admit_time_estimate"])
    assert two_bakes <= estimated <= minute, "two bake times and what installs may take"
    assert two_bakes <= time_of(shown["end_time"]) - begun <= minute
    assert plant.versions() == {"a1": "2", "a2": "2", "b1": "1"}
    again = plant.json("rollouts", "plan", "plant", "--version", "2")
    assert int(again["fetch_bytes"]) == 0, "what a station serves is not fetched again"

    plant.words("agents", "unpin", "b1", "solar")
    plant.line.wait_serving("b1", "solar", 2)


def test_a_second_person_approves_and_the_log_tells_each_step(plant: Plant) -> None:
    rollout = plant.roll_out(2, *QUICK, "--approval", "after-canary", "--second-person")
    plant.wait_rollout(rollout, "WAITS_FOR_APPROVAL")
    first, second = plant.rollout(rollout)["waves"]
    waiting = second["agents"][0].removeprefix("agents/")
    explained = plant.explain(waiting)
    assert f"rollouts/{rollout}" in explained["WAVE_NOT_ADMITTED"]
    assert "WAITS_FOR_APPROVAL" in explained["WAVE_NOT_ADMITTED"]
    assert f"lineside rollouts approve {rollout}" in explained["APPROVE"]
    assert "ROLLOUT_RELEASED" in plant.explain(first["agents"][0].removeprefix("agents/"))

    assert plant.refused("rollouts", "approve", rollout)["reason"] == "SECOND_PERSON"
    wrong = plant.refused("rollouts", "approve", rollout, "--wave", "1", operator=plant.anna)
    assert (wrong["reason"], wrong["field"]) == ("APPROVAL_NOT_DUE", "wave")
    plant.words("rollouts", "approve", rollout, "--wave", "2", operator=plant.anna)
    plant.wait_rollout(rollout, "SUCCEEDED")

    shown = plant.rollout(rollout)
    assert (shown["creator"], shown["waves"][1]["approver"]) == ("operators/admin", "operators/anna")
    events = plant.audit("--resource", f"rollouts/{rollout}")
    steps = [step for step in actions(events) if step[0] != "rollout.wait"]
    assert steps == [
        ("rollout.start", "admin"),
        ("wave.admit", "rules/gate"),
        ("wave.release", "rules/admission"),
        ("wave.pass", "rules/gate"),
        ("wave.approve", "anna"),
        ("wave.admit", "rules/gate"),
        ("wave.release", "rules/admission"),
        ("wave.pass", "rules/gate"),
        ("rollout.succeed", "rules/gate"),
    ]
    assert ("rollout.wait", "rules/approval") in actions(events)
    assert all(event["reason"] and event["message"] for event in events)
    gates = [json.loads(event["evidence_json"]) for event in events if event["action"] == "wave.pass"]
    assert [gate["checks"] for gate in gates], "a verdict keeps its numbers"

    plant.words("rollouts", "rollback", rollout)
    told = plant.words("rollouts", "watch", rollout, status=3)
    assert "operators/admin: rollout.rollback" in told
    assert "rules/rollback: rollout.return" in told
    plant.wait_all(1)


def test_pause_resume_and_both_ways_to_abort(plant: Plant) -> None:
    rollout = plant.roll_out(2, *QUICK, "--bake", "1h", waves="1,2,100%")
    first = plant.wait_rollout(rollout, "RUNNING").waves[0].agents[0].removeprefix("agents/")
    plant.line.wait_serving(first, "solar", 2)
    assert "PAUSED" in plant.words("rollouts", "pause", rollout)
    assert plant.refused("rollouts", "pause", rollout)["reason"] == "ROLLOUT_STATE"
    other = next(name for name in STATIONS if name != first)
    assert f"lineside rollouts resume {rollout}" in plant.explain(other)["RESUME"]
    assert "RUNNING" in plant.words("rollouts", "resume", rollout)
    assert plant.words("rollouts", "abort", rollout, "--keep", "--revert", status=2)
    plant.words("rollouts", "abort", rollout, "--keep")
    assert plant.rollout(rollout)["state"] == "ABORTED"
    assert plant.versions()[first] == "2"
    assert "2" in plant.explain(first)["KEPT"]

    # A later rollout moves it on, and its revert brings each back to what it had.
    later = plant.roll_out(3, *QUICK, "--bake", "1h", waves="100%")
    plant.wait_all(3)
    plant.words("rollouts", "abort", later, "--revert")
    plant.line.wait_serving(first, "solar", 2)
    plant.wait_all(1, [name for name in STATIONS if name != first])


def test_a_yanked_version_returns_and_is_given_to_nobody(plant: Plant) -> None:
    rollout = plant.roll_out(2, *QUICK, "--bake", "1h")
    first = plant.wait_rollout(rollout, "RUNNING").waves[0].agents[0].removeprefix("agents/")
    plant.line.wait_serving(first, "solar", 2)
    plant.words("models", "yank", "solar:2", "--reason", "reads glare as cracks", operator=plant.anna)
    try:
        plant.wait_rollout(rollout, "ROLLED_BACK")
        plant.wait_all(1)
        assert plant.rollout(rollout)["reason"] == "VERSION_YANKED"
        refusal = plant.refused("rollouts", "start", "plant", "--version", "2")
        assert (refusal["reason"], refusal["field"]) == ("VERSION_YANKED", "rollout.target_version")
        for words in (
            ("rollouts", "plan", "plant", "--version", "2"),
            ("agents", "pin", "a1", "solar:2", "--reason", "r"),
        ):
            assert plant.refused(*words)["reason"] == "VERSION_YANKED"
        assert "reads glare as cracks" in plant.words("models", "show", "solar:2")
        assert ("version.yank", "anna") in actions(plant.audit("--resource", "models/solar"))
        assert ("rollout.rollback", "rules/yank") in actions(plant.audit("--resource", f"rollouts/{rollout}"))
    finally:
        plant.words("models", "unyank", "solar:2")


def test_a_new_rollout_queues_behind_a_running_one_and_supersedes_a_paused_one(plant: Plant) -> None:
    slow = (*QUICK, "--bake", "1h")
    first = plant.roll_out(2, *slow)
    exposed = plant.wait_rollout(first, "RUNNING").waves[0].agents[0].removeprefix("agents/")
    plant.line.wait_serving(exposed, "solar", 2)
    refusal = plant.refused("rollouts", "start", "plant", "--version", "3", "--when-active", "refuse")
    assert refusal["reason"] == "ROLLOUT_ACTIVE"
    queued = plant.roll_out(3, *slow)
    shown = plant.rollout(queued)
    assert (shown["state"], shown["related_rollout"]) == ("QUEUED", f"rollouts/{first}")
    assert f"rollouts/{queued}" in plant.explain("b1")["ROLLOUT_QUEUED"]
    newer = plant.roll_out(3, *slow)
    assert plant.rollout(queued)["state"] == "SUPERSEDED", "one waits at a time"
    plant.words("rollouts", "abort", first)
    (chosen,) = plant.wait_rollout(newer, "RUNNING").waves[0].agents
    plant.wait_all(3, [chosen.removeprefix("agents/")])
    plant.line.wait_serving(exposed, "solar", 3 if exposed in chosen else 1)

    plant.words("rollouts", "pause", newer)
    last = plant.roll_out(2, *QUICK)
    assert plant.rollout(newer)["related_rollout"] == f"rollouts/{last}"
    plant.wait_rollout(last, "SUCCEEDED")
    plant.wait_all(2)
    assert "SUPERSEDED" in plant.words("rollouts", "watch", newer, status=3)


def test_a_relabelled_agent_converges_by_itself_and_priorities_decide(plant: Plant) -> None:
    line, create = plant.line, ("deployments", "create")
    plant.words(
        *create, "lamp-9", "--model", "solar:2", "--selector", "device.cpu,line=9", "--priority", "5", "--allow-empty"
    )
    plant.words(*create, "lamp-8", "--model", "solar:2", "--selector", "line=8,os!=windows", "--allow-empty")
    try:
        overlap = plant.refused(*create, "same", "--model", "solar:2", "--selector", "line=4")
        assert (overlap["reason"], overlap["field"]) == ("DEPLOYMENT_OVERLAP", "deployment.selector")
        assert "priority" in overlap["remedy"]

        plant.words("agents", "label", "b1", "line=9")
        line.wait_serving("b1", "solar", 2)
        explained = plant.explain("b1")
        assert "lamp-9" in explained["SELECTOR_MATCHES"]
        assert "priority 5 is above 0" in explained["HELD_BY_PRIORITY"]
        (left_out,) = plant.json("rollouts", "plan", "plant", "--version", "2")["left_out"]
        assert (left_out["agent"], left_out["reason"]) == ("agents/b1", "HELD_BY_OTHER_DEPLOYMENT")

        plant.words("agents", "label", "b1", "line=8")
        line.wait_serving("b1", "solar", 1)
        assert "equal priority 0" in plant.explain("b1")["HELD_BY_PRIORITY"]
        condition = wait_until(lambda: overlapping(plant, "lamp-8"), what="the overlap to be shown")
        assert "deployments/plant" in condition["message"]
        assert "b1" in condition["message"]
        assert ("agent.label", "admin") in actions(plant.audit("--resource", "agents/b1"))
    finally:
        plant.words("agents", "label", "b1", "line=4")
        for deployment in ("lamp-8", "lamp-9"):
            plant.words("deployments", "delete", deployment)


def overlapping(plant: Plant, deployment: str) -> dict[str, Any] | None:
    """The condition, where it is true."""
    conditions: list[dict[str, Any]] = plant.json("deployments", "show", deployment)["conditions"]
    return next((told for told in conditions if (told["type"], told["state"]) == ("Overlapping", "TRUE")), None)


def test_a_version_that_an_agent_gave_up_is_offered_again_by_retry_alone(plant: Plant) -> None:
    rollout = plant.roll_out(4, *QUICK, "--on-failure", "pause", waves="1,100%")
    found = plant.wait_rollout(rollout, "PAUSED")
    name = found.waves[0].agents[0].removeprefix("agents/")
    agent = plant.line.agents[name]

    def tries() -> int:
        return agent.log().count('"event": "version_failed"')

    tried = tries()
    assert tried
    agent.kill()
    heard = agent.log().count('"event": "controller_heard"')
    agent.start()
    wait_until(lambda: agent.log().count('"event": "controller_heard"') > heard, what="it to be back")
    assert plant.versions()[name] == "1", "the last-known-good serves"
    explained = plant.explain(name)
    assert f"lineside rollouts retry {rollout}" in explained["RETRY"]
    assert tries() == tried, "what failed is not tried again by itself"
    plant.words("rollouts", "retry", rollout)
    wait_until(lambda: tries() > tried, what="the version to be tried again")
    plant.wait_rollout(rollout, "PAUSED")
    # A stuck agent does not hold up what comes next.
    following = plant.roll_out(2, *QUICK)
    plant.wait_rollout(following, "SUCCEEDED")
    plant.wait_all(2)
