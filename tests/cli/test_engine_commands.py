"""Plans, rehearsals, explanations, pins, yanks, the log and operators: what is asked for and what is shown."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    agent_pb2,
    agent_service_pb2,
    audit_pb2,
    deployment_pb2,
    model_pb2,
    rollout_pb2,
    rollout_service_pb2,
)

from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController

PlanPart, Change = rollout_service_pb2.PlanRolloutResponse, rollout_service_pb2.WatchRolloutResponse
NOON = Timestamp(seconds=1_800_000_000)
CHECK = rollout_pb2.GateCheck(
    name="errors",
    device_class="x86_64/GPU(FP16)",
    outcome=rollout_pb2.GateVerdict.OUTCOME_PENDING,
    message="0 of 10 failed",
    low=0.25,
    high=7.5,
    limit=10,
    samples=40,
)


def event(number: int, **fields: str) -> audit_pb2.AuditEvent:
    said = {"actor": "rules/gate", "action": "wave.admit", "resource": "rollouts/r1", **fields}
    return audit_pb2.AuditEvent(name=f"auditEvents/{number:04}", create_time=NOON, **said)


@pytest.fixture
def rollout(fake: FakeController) -> rollout_pb2.Rollout:
    first = rollout_pb2.Wave(
        size="1",
        state=rollout_pb2.Wave.STATE_ADMITTED,
        agents=["agents/st-1", "agents/st-2"],
        released_agents=["agents/st-1"],
        approver="operators/bea",
        verdict=rollout_pb2.GateVerdict(outcome=rollout_pb2.GateVerdict.OUTCOME_PENDING, checks=[CHECK]),
    )
    strategy = rollout_pb2.RolloutStrategy(
        waves=["1", "100%"],
        canary_per_device_class=True,
        approval=rollout_pb2.ApprovalPolicy(scope=rollout_pb2.ApprovalPolicy.SCOPE_AFTER_CANARY, second_person=True),
        windows=[
            rollout_pb2.MaintenanceWindow(
                selector="site=suzhou", cron="0 2 * * SAT", duration=Duration(seconds=7200), time_zone="Asia/Shanghai"
            )
        ],
        pace=rollout_pb2.Pace(agents_per_minute=10),
        gate=rollout_pb2.GatePolicy(max_latency_ms_p99=25, max_silent_per_mille=50),
    )
    running = rollout_pb2.Rollout(
        name="rollouts/r1",
        deployment="deployments/line-3",
        target_version="models/solar/versions/2",
        state=rollout_pb2.Rollout.STATE_RUNNING,
        reason="WAITS_FOR_APPROVAL",
        message="wave 2 waits for an approval",
        creator="operators/anna",
        strategy=strategy,
        waves=[first, rollout_pb2.Wave(index=1, size="100%", state=rollout_pb2.Wave.STATE_PENDING)],
    )
    fake.rollouts[running.name] = running
    fake.deployments["deployments/line-3"] = deployment_pb2.Deployment(name="deployments/line-3", model="models/solar")
    return running


def test_a_rollout_shows_its_checks_releases_and_approvals(lineside: Lineside, rollout: rollout_pb2.Rollout) -> None:
    shown = lineside("rollouts", "show", rollout.name).out
    for expected in (
        *("anna", "bea", "1 of 2", "errors", "0.25 to 7.5", "x86_64/GPU(FP16)", "approval AFTER_CANARY"),
        *("at most 10 agents a minute", "site=suzhou; 0 2 * * SAT", "p99 of at most 25 ms", "at most 5% silent"),
    ):
        assert expected in shown
    document = json.loads(lineside("rollouts", "show", "r1", "--output", "json").out)
    assert document["waves"][0]["verdict"]["checks"][0]["high"] == 7.5


def test_a_large_wave_names_a_screen_of_agents(lineside: Lineside, rollout: rollout_pb2.Rollout) -> None:
    rollout.waves[1].agents.extend(f"agents/line-{number}" for number in range(25))
    shown = lineside("rollouts", "show", "r1").out
    assert "line-19" in shown
    assert "line-20" not in shown
    assert "and 5 more" in shown


def test_a_watch_tells_decisions_checks_and_what_is_waited_for(
    lineside: Lineside, fake: FakeController, rollout: rollout_pb2.Rollout
) -> None:
    ended = rollout_pb2.Rollout(name="rollouts/r1", state=rollout_pb2.Rollout.STATE_SUCCEEDED)
    started = event(1, actor="operators/anna", action="rollout.start")
    admitted = event(2, reason="WAVE_ADMITTED", message="wave 1 of 2")
    changes = [Change(rollout=rollout, events=[started]), Change(rollout=ended, events=[admitted])]
    fake.watches.append([*changes])
    assert lineside("rollouts", "watch", "r1").out.splitlines() == [
        "08:00:00Z operators/anna: rollout.start r1",
        "wave 1 of 2, 1: ADMITTED, gate PENDING",
        "wave 1 of 2, 1, errors on x86_64/GPU(FP16): PENDING, 0 of 10 failed",
        "rollout: RUNNING, wave 2 waits for an approval",
        "08:00:00Z rules/gate: wave.admit r1, WAVE_ADMITTED, wave 1 of 2",
        "rollout: SUCCEEDED",
    ]
    fake.watches.append([*changes])
    lines = [json.loads(line) for line in lineside("rollouts", "watch", "r1", "--output", "json").out.splitlines()]
    assert [[told["action"] for told in line["events"]] for line in lines] == [["rollout.start"], ["wave.admit"]]


@pytest.mark.usefixtures("rollout")
def test_a_wave_is_approved_by_its_number(lineside: Lineside, fake: FakeController) -> None:
    assert lineside("rollouts", "approve", "r1", "--wave", "1").status == 1
    assert lineside("rollouts", "approve", "r1", "--wave", "0").status == 2
    assert lineside("rollouts", "approve", "r1", "--wave", "2").status == 0
    assert [request.wave for request in fake.requests("ApproveRollout")] == [0, 1]
    assert fake.rollouts["rollouts/r1"].waves[1].approver == "operators/anna"
    lineside("rollouts", "approve", "r1")
    assert not fake.requests("ApproveRollout")[-1].HasField("wave")


@pytest.mark.usefixtures("rollout")
@pytest.mark.parametrize(("words", "keep"), [((), False), (("--revert",), False), (("--keep",), True)])
def test_an_abort_says_what_becomes_of_targets(
    lineside: Lineside, fake: FakeController, words: tuple[str, ...], keep: bool
) -> None:
    assert lineside("rollouts", "abort", "r1", *words).status == 0
    assert fake.requests("AbortRollout")[0].keep is keep
    assert lineside("rollouts", "abort", "r1", "--keep", "--revert").status == 2


@pytest.mark.usefixtures("rollout")
def test_a_plan_shows_waves_targets_and_who_is_left_out(lineside: Lineside, fake: FakeController) -> None:
    wave = rollout_service_pb2.PlannedWave(size="100%", agent_count=2, needs_approval=True, admit_time_estimate=NOON)
    parts = [
        PlanPart(
            plan=rollout_service_pb2.RolloutPlan(
                waves=[wave], target_count=2, left_out_count=1, fetch_bytes=2_000_000, warnings=["no traffic known"]
            )
        ),
        PlanPart(
            targets=[
                rollout_service_pb2.PlannedTarget(agent="agents/st-1", warning="too little disk", disk_free_bytes=5),
                rollout_service_pb2.PlannedTarget(agent="agents/st-2", connected=True, swap_time_earliest=NOON),
            ]
        ),
        PlanPart(left_out=[rollout_service_pb2.LeftOutAgent(agent="agents/st-9", reason="PINNED", message="to 1")]),
    ]
    fake.plans.extend([parts, parts])
    shown = lineside("rollouts", "plan", "line-3", "--version", "2").out
    for expected in ("2.0 MB", "no traffic known", "needed", "cannot be said", "too little disk", "never", "PINNED"):
        assert expected in shown
    document = json.loads(lineside("rollouts", "plan", "line-3", "--version", "2", "--output", "json").out)
    assert [target["agent"] for target in document["targets"]] == ["agents/st-1", "agents/st-2"]
    assert [target["disk_free_bytes"] for target in document["targets"]] == [5, None]
    assert (document["left_out"][0]["reason"], document["target_count"]) == ("PINNED", 2)


@pytest.mark.usefixtures("rollout")
def test_a_rehearsal_sends_its_assumptions_and_shows_the_spread(lineside: Lineside, fake: FakeController) -> None:
    spread = rollout_service_pb2.Spread(min=60, p50=120, p95=3600, max=7200)
    report = rollout_service_pb2.RehearsalReport(
        outcomes={"SUCCEEDED": 97, "ROLLED_BACK": 3},
        seconds=spread,
        exposed_agents=rollout_service_pb2.Spread(max=4),
        stopped_in_wave={0: 3},
        horizon=Duration(seconds=86400),
    )
    part = rollout_service_pb2.RehearseRolloutResponse
    script = [part(plays_done=50, plays=100), part(plays_done=100, plays=100, report=report)]
    fake.rehearsals.extend([script, script])
    words = ("rollouts", "rehearse", "line-3", "--version", "2", "--plays", "100", "--first-seed", "7")
    outcome = lineside(
        *(*words, "--loss", "200", "--offline", "50", "--outage", "20m", "--restarts-per-day", "0.5"),
        *("--install-failures", "3", "--errors", "20", "--errors-device-class", "GPU"),
        *("--inferences-per-second", "2", "--fetch-bytes-per-second", "1MB"),
    )
    for expected in ("97 of 100 plays", "stopped in wave 1", "1h", "2h", "1d"):
        assert expected in outcome.out
    (request,) = fake.requests("RehearseRollout")
    assert (request.plays, request.first_seed) == (100, 7)
    assert request.assumptions == rollout_service_pb2.RehearsalAssumptions(
        message_loss_per_mille=200,
        offline_per_mille=50,
        outage=Duration(seconds=1200),
        restarts_per_day=0.5,
        install_failures_per_mille=3,
        errors_per_mille=20,
        errors_device_class="GPU",
        inferences_per_second=2,
        fetch_bytes_per_second=1_000_000,
    )
    document = json.loads(lineside(*words, "--output", "json").out)
    assert document["outcomes"] == {"ROLLED_BACK": 3, "SUCCEEDED": 97}
    assert lineside(*words, "--loss", "1001").status == 2


def test_an_agent_is_explained(lineside: Lineside, fake: FakeController) -> None:
    fact = agent_service_pb2.Explanation
    fake.explanations["agents/st-1"] = agent_service_pb2.AgentExplanation(
        agent="agents/st-1",
        slots=[
            agent_service_pb2.SlotExplanation(
                slot="solar",
                desired_version="models/solar/versions/2",
                deployment="deployments/line-3",
                because=[fact(reason="SELECTOR_MATCHES", message="line=3 holds")],
                would_change=[fact(reason="UNPIN", message="lineside agents unpin st-1 solar")],
            )
        ],
    )
    shown = lineside("agents", "explain", "st-1", "--model", "solar").out
    for expected in ("runs nothing", "solar:2", "line-3", "SELECTOR_MATCHES", "line=3 holds", "UNPIN"):
        assert expected in shown
    assert fake.requests("ExplainAgent")[0].model == "models/solar"
    document = json.loads(lineside("agents", "explain", "st-1", "--output", "json").out)
    assert document["slots"][0]["because"][0]["reason"] == "SELECTOR_MATCHES"


def test_an_agent_is_labelled_pinned_and_unpinned(lineside: Lineside, fake: FakeController) -> None:
    fake.agents["agents/st-1"] = agent_pb2.Agent(name="agents/st-1", labels={"line": "3", "old": "1"})
    assert "cell=a,line=4" in lineside("agents", "label", "st-1", "line=4", "cell=a", "old-").out
    (request,) = fake.requests("UpdateAgentLabels")
    assert (dict(request.set), list(request.remove)) == ({"line": "4", "cell": "a"}, ["old"])
    assert "solar:1 by anna" in lineside("agents", "pin", "st-1", "solar:1", "--reason", "glare").out
    (pin,) = fake.requests("PinAgent")
    assert (pin.model_version, pin.reason) == ("models/solar/versions/1", "glare")
    assert "solar:1" not in lineside("agents", "unpin", "st-1", "solar").out
    assert fake.requests("UnpinAgent")[0].model == "models/solar"


@pytest.mark.parametrize(
    "words",
    [
        ("agents", "label", "st-1"),
        ("agents", "label", "st-1", "line"),
        ("agents", "label", "st-1", "-"),
        ("agents", "label", "st-1", "=3"),
        ("agents", "pin", "st-1", "solar", "--reason", "r"),
        ("agents", "pin", "st-1", "solar:1"),
        ("models", "yank", "solar", "--reason", "r"),
        ("models", "yank", "solar:2"),
        ("models", "unyank", "solar"),
        ("audit", "list", "--resource", "r1"),
        ("audit", "list", "--limit", "0"),
        ("audit", "list", "--since", "yesterday"),
        ("operators", "create"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_right_is_usage(lineside: Lineside, fake: FakeController, words: tuple[str, ...]) -> None:
    outcome = lineside(*words)
    assert (outcome.status, outcome.out, fake.calls) == (2, "", [])
    assert outcome.err.count("\n") == 1


def test_a_version_is_yanked_and_allowed_again(lineside: Lineside, fake: FakeController) -> None:
    fake.models["models/solar"] = model_pb2.Model(name="models/solar")
    fake.versions["models/solar"].append(model_pb2.ModelVersion(name="models/solar/versions/1", number=1))
    assert "reads glare" in lineside("models", "yank", "solar:1", "--reason", "reads glare").out
    assert "reads glare" in lineside("models", "show", "solar").out
    assert "yanked" not in lineside("models", "unyank", "solar:1").out
    assert [request.name for request in fake.requests("UnyankModelVersion")] == ["models/solar/versions/1"]


def test_the_log_is_asked_for_as_written(lineside: Lineside, fake: FakeController) -> None:
    fake.events.extend(event(number, message=f"wave {number}") for number in range(3))
    listed = lineside("audit", "list")
    assert listed.out.index("wave 2") < listed.out.index("wave 0")
    assert "2027-01-15 08:00:00" in listed.out
    lineside(
        *("audit", "list", "--resource", "rollouts/r1", "--actor", "anna", "--action", "rollout", "--since", "2h"),
        *("--oldest-first", "--limit", "5"),
    )
    request = fake.requests("ListAuditEvents")[-1]
    assert (request.resource, request.actor, request.action) == ("rollouts/r1", "operators/anna", "rollout.")
    assert request.oldest_first
    assert request.HasField("start_time")
    lineside("audit", "list", "--actor", "rules/gate", "--action", "wave.admit")
    request = fake.requests("ListAuditEvents")[-1]
    assert (request.actor, request.action) == ("rules/gate", "wave.admit")
    document = json.loads(lineside("audit", "list", "--oldest-first", "--output", "json").out)
    assert [told["message"] for told in document] == ["wave 0", "wave 1", "wave 2"]


def test_a_long_log_says_that_there_is_more(lineside: Lineside, fake: FakeController) -> None:
    fake.events.extend(event(number) for number in range(101))
    assert "--limit" in lineside("audit", "list").err
    assert len(json.loads(lineside("audit", "list", "--limit", "101", "--output", "json").out)) == 101


def test_operators_are_created_listed_and_revoked(lineside: Lineside, fake: FakeController) -> None:
    created = lineside("operators", "create", "bea", "--description", "night shift")
    assert (created.status, created.out, created.err) == (0, "lso1.c2VjcmV0\n", "")
    assert "night shift" in lineside("operators", "list").out
    assert "revoked" in lineside("operators", "revoke", "bea").out
    assert "anna" in lineside("operators", "whoami").out
    assert json.loads(lineside("operators", "whoami", "--output", "json").out)["name"] == "operators/anna"
    assert fake.operators["operators/bea"].revoked


def test_a_deployment_takes_a_priority(lineside: Lineside, fake: FakeController) -> None:
    words = ("deployments", "create", "line-3", "--model", "solar", "--selector", "line=3")
    assert lineside(*words, "--priority", "-7").status == 0
    assert fake.requests("CreateDeployment")[0].deployment.priority == -7
    assert "-7" in lineside("deployments", "show", "line-3").out
    assert lineside(*words, "--priority", "99999999999").status == 2
