"""What each command asks of the controller and what it prints, as scripts see it."""

import hashlib
import json
from pathlib import Path

import pytest
from lineside.v1 import (
    agent_pb2,
    condition_pb2,
    deployment_pb2,
    evidence_pb2,
    result_service_pb2,
    rollout_pb2,
    sample_pb2,
    slot_pb2,
)

from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController

LONG_ID = "station-with-a-name-that-is-exactly-as-long-as-names-may-be-063"


def add_agent(fake: FakeController, agent_id: str = "st-1") -> agent_pb2.Agent:
    slot = slot_pb2.ObservedSlot(
        slot="solar",
        serving_version="models/solar/versions/2",
        target_version="models/solar/versions/2",
        state=slot_pb2.ObservedSlot.STATE_SERVING,
        device="GPU.0",
        device_reason="GPU.0 gave 120 infer/s, CPU 90 infer/s",
        measurements=[slot_pb2.DeviceMeasurement(device="GPU.0", ok=True, latency_ms_p50=8.25, chosen=True)],
    )
    agent = agent_pb2.Agent(
        name=f"agents/{agent_id}",
        labels={"line": "3", "station": "1"},
        state=agent_pb2.Agent.STATE_CONNECTED,
        host=agent_pb2.Host(hostname="box", os="linux", memory_bytes=16_000_000_000),
        devices=[agent_pb2.Device(device="CPU", auto_choice=True), agent_pb2.Device(device="GPU.0")],
        slots=[slot],
        conditions=[condition_pb2.Condition(type="Connected", state=condition_pb2.Condition.STATE_TRUE)],
    )
    agent.last_sync_time.GetCurrentTime()
    fake.agents[agent.name] = agent
    return agent


def add_result(fake: FakeController, part: str) -> None:
    result = evidence_pb2.Result(
        name=f"agents/st-1/results/1-{len(fake.results)}",
        agent="agents/st-1",
        model_version="models/solar/versions/2",
        device="CPU",
        part_id=part,
        outcome=evidence_pb2.Result.OUTCOME_OK,
        labels=[evidence_pb2.LabelScore(label="defect", score=0.75)],
        latency_us=8500,
    )
    fake.results.append(result)


def test_publish_prints_the_version_alone(lineside: Lineside, fake: FakeController, tmp_path: Path) -> None:
    (tmp_path / "solar.onnx").write_bytes(b"onnx")
    outcome = lineside("models", "publish", "solar", str(tmp_path / "solar.onnx"), "--wait", "--notes", "more data")
    assert (outcome.status, outcome.out, outcome.err) == (0, "solar:1\n", "")
    assert fake.versions["models/solar"][0].notes == "more data"


def test_publish_as_json_is_the_version(lineside: Lineside, tmp_path: Path) -> None:
    (tmp_path / "solar.onnx").write_bytes(b"onnx")
    outcome = lineside("models", "publish", "solar", str(tmp_path / "solar.onnx"), "--output", "json")
    document = json.loads(outcome.out)
    assert document["name"] == "models/solar/versions/1"
    assert document["number"] == 1
    assert document["artifact"]["files"][0]["path"] == "solar.onnx"


def test_a_model_shows_its_versions(lineside: Lineside, tmp_path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        (tmp_path / "solar.onnx").write_bytes(content)
        lineside("models", "publish", "solar", str(tmp_path / "solar.onnx"))
    shown = lineside("models", "show", "solar").out
    assert [version in shown for version in ("solar:1", "solar:2", "solar:3")] == [True] * 3
    document = json.loads(lineside("models", "show", "solar", "--output", "json").out)
    assert [version["number"] for version in document["versions"]] == [3, 2, 1]
    assert document["latest_version"] == 3
    version = lineside("models", "show", "solar:2").out
    assert "UINT8 [1,?,300,1]" in version
    assert "sha256:" in version
    assert json.loads(lineside("--output", "json", "models", "show", "solar:2").out)["number"] == 2
    assert "solar" in lineside("models", "list").out


@pytest.mark.parametrize("place", ["before", "after", "equals"])
def test_output_may_stand_anywhere(lineside: Lineside, fake: FakeController, place: str) -> None:
    add_agent(fake)
    words = {
        "before": ("--output", "json", "agents", "list"),
        "after": ("agents", "list", "--output", "json"),
        "equals": ("agents", "--output=json", "list"),
    }[place]
    (document,) = json.loads(lineside(*words).out)
    assert document["state"] == "CONNECTED"
    assert document["slots"][0]["serving_version"] == "models/solar/versions/2"


def test_agents_are_listed_in_100_columns_with_ids_whole(lineside: Lineside, fake: FakeController) -> None:
    for number in range(5):
        add_agent(fake, f"st-{number}")
    add_agent(fake, LONG_ID)
    outcome = lineside("agents", "list", "--selector", "line=3")
    assert max(map(len, outcome.out.splitlines())) <= 100
    assert LONG_ID in outcome.out
    assert "solar:2" in outcome.out
    assert {request.selector for request in fake.requests("ListAgents")} == {"line=3"}


def test_lists_take_a_limit(lineside: Lineside, fake: FakeController) -> None:
    for number in range(5):
        add_agent(fake, f"st-{number}")
    assert len(json.loads(lineside("agents", "list", "--limit", "3", "--output", "json").out)) == 3


def test_an_empty_list_is_an_empty_array(lineside: Lineside) -> None:
    assert json.loads(lineside("agents", "list", "--output", "json").out) == []
    outcome = lineside("agents", "list")
    assert outcome.out == ""
    assert "no agents" in outcome.err


def test_an_agent_shows_its_box_and_why_the_device(lineside: Lineside, fake: FakeController) -> None:
    add_agent(fake)
    shown = lineside("agents", "show", "st-1").out
    for expected in ("CONNECTED", "16.0 GB", "GPU.0 gave 120 infer/s", "8.25", "Connected"):
        assert expected in shown
    assert json.loads(lineside("agents", "show", "st-1", "--output", "json").out)["name"] == "agents/st-1"


def test_an_agent_shows_what_became_of_its_samples(lineside: Lineside, fake: FakeController) -> None:
    agent = add_agent(fake)
    assert "samples kept" not in lineside("agents", "show", "st-1").out
    agent.sample_counts.CopyFrom(
        slot_pb2.SampleCounts(
            kept_counts={"RANDOM": 3, "OUTLIER": 17, "MARGIN": 0},
            skipped_counts={"near_duplicate": 5, "quota": 0},
            waiting_count=2,
            waiting_bytes=3_000_000,
        )
    )
    shown = lineside("agents", "show", "st-1").out
    for expected in ("20: 17 outlier, 3 random", "5 near_duplicate", "2, 3.0 MB"):
        assert expected in shown
    assert "quota" not in shown
    counts = json.loads(lineside("agents", "show", "st-1", "--output", "json").out)["sample_counts"]
    assert (counts["kept_counts"]["OUTLIER"], counts["waiting_count"]) == (17, 2)


def test_what_a_box_reports_is_shown_and_not_obeyed(lineside: Lineside, fake: FakeController) -> None:
    add_agent(fake).host.hostname = "\x1b[2Jbox [red]"
    shown = lineside("agents", "show", "st-1").out
    assert "\x1b" not in shown
    assert "box [red]" in shown


def test_an_agent_is_revoked(lineside: Lineside, fake: FakeController) -> None:
    add_agent(fake)
    assert "REVOKED" in lineside("agents", "revoke", "st-1").out
    assert fake.agents["agents/st-1"].state == agent_pb2.Agent.STATE_REVOKED


def test_a_join_token_is_printed_alone(lineside: Lineside, fake: FakeController) -> None:
    outcome = lineside(
        "tokens", "create", "--uses", "3", "--ttl", "1h30m", "--label", "line=3", "--label", "site=a", "shift=b"
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "lsj1.c2VjcmV0\n", "")
    (request,) = fake.requests("CreateJoinToken")
    assert (request.join_token.uses, request.join_token.ttl.seconds) == (3, 5400)
    assert dict(request.join_token.labels) == {"line": "3", "site": "a", "shift": "b"}
    document = json.loads(lineside("tokens", "create", "--uses", "1", "--ttl", "1h", "--output", "json").out)
    assert document["token"] == "lsj1.c2VjcmV0"
    assert document["expire_time"].endswith("Z")


def test_join_tokens_are_listed_and_revoked(lineside: Lineside) -> None:
    lineside("tokens", "create", "--uses", "2", "--ttl", "2d")
    listed = lineside("tokens", "list").out
    assert "usable" in listed
    assert "0 of 2" in listed
    assert "revoked" in lineside("tokens", "revoke", "t1").out


def test_a_deployment_is_asked_for_as_written(lineside: Lineside, fake: FakeController) -> None:
    outcome = lineside(
        *("deployments", "create", "line-3", "--model", "solar:1", "--selector", "line in (3,4)"),
        *("--hint", "THROUGHPUT", "--precision", "f32", "--device", "GPU.0", "--device", "CPU"),
        *("--sample-random", "0.01", "--sample-below", "0.6", "--sample-budget", "200MB", "--allow-empty"),
    )
    assert (outcome.status, outcome.out) == (0, "line-3\n")
    (request,) = fake.requests("CreateDeployment")
    assert request.deployment_id == "line-3"
    assert request.allow_empty
    assert request.deployment == deployment_pb2.Deployment(
        model="models/solar",
        model_version="models/solar/versions/1",
        selector="line in (3,4)",
        runtime_policy=slot_pb2.RuntimePolicy(
            hint=slot_pb2.PERFORMANCE_HINT_THROUGHPUT, inference_precision="f32", devices=["GPU.0", "CPU"]
        ),
        sample_policy=slot_pb2.SamplePolicy(
            random_fraction=0.01, confidence_below=0.6, budget_bytes_per_day=200_000_000
        ),
    )


def test_a_deployment_without_a_version_or_samples_leaves_them_to_the_controller(
    lineside: Lineside, fake: FakeController
) -> None:
    lineside("deployments", "create", "line-3", "--model", "solar", "--selector", "line=3")
    (request,) = fake.requests("CreateDeployment")
    assert request.deployment.model_version == ""
    assert not request.deployment.sample_policy.ListFields()
    assert not request.allow_empty


def test_what_a_sample_policy_leaves_out_is_left_to_the_controller(lineside: Lineside, fake: FakeController) -> None:
    lineside("deployments", "create", "line-3", "--model", "solar", "--selector", "line=3", "--sample-random", "0.5")
    (request,) = fake.requests("CreateDeployment")
    policy = request.deployment.sample_policy
    assert policy.random_fraction == 0.5
    assert not policy.HasField("confidence_below")
    assert not policy.HasField("budget_bytes_per_day")


def test_a_sample_policy_is_asked_for_as_written(lineside: Lineside, fake: FakeController) -> None:
    outcome = lineside(
        *("deployments", "create", "line-3", "--model", "solar:1", "--selector", "line=3"),
        *("--sample-margin", "0.2", "--sample-entropy", "0.9", "--sample-outlier", "4.5", "--no-sample-disagreement"),
        *("--sample-quota", "crack=5", "--sample-quota", "*=1", "--sample-near", "-1", "--sample-images", "300"),
        *("--redact", "0,0,0.3,0.1", "--redact", "0.5,0.5,0.5,0.5,blur"),
    )
    assert outcome.status == 0
    (request,) = fake.requests("CreateDeployment")
    assert request.deployment.sample_policy == slot_pb2.SamplePolicy(
        margin_below=0.2,
        entropy_above=0.9,
        outlier_above=4.5,
        shadow_disagreement=False,
        class_quota_per_day={"crack": 5, "": 1},
        near_duplicate_distance=-1,
        budget_images_per_day=300,
        redaction=[
            slot_pb2.RedactedRegion(width=0.3, height=0.1, method=slot_pb2.RedactedRegion.METHOD_FILL),
            slot_pb2.RedactedRegion(x=0.5, y=0.5, width=0.5, height=0.5, method=slot_pb2.RedactedRegion.METHOD_BLUR),
        ],
    )


@pytest.mark.parametrize("option", ["--sample-quota=crack", "--redact=0,0,0.5", "--redact=0,0,wide,1"])
def test_a_sample_option_that_cannot_be_read_is_refused_before_anything_is_asked_for(
    lineside: Lineside, fake: FakeController, option: str
) -> None:
    assert lineside("deployments", "create", "d", "--model", "solar", "--selector", "line=3", option).status != 0
    assert list(fake.requests("CreateDeployment")) == []


def test_deployments_are_listed_shown_and_deleted(lineside: Lineside, fake: FakeController) -> None:
    lineside("deployments", "create", "line-3", "--model", "solar:1", "--selector", "line=3")
    assert "0 of 3" in lineside("deployments", "list").out
    assert "every one" in lineside("deployments", "show", "line-3").out
    assert json.loads(lineside("deployments", "show", "line-3", "--output", "json").out)["selector"] == "line=3"
    assert lineside("deployments", "delete", "line-3").status == 0
    assert fake.deployments == {}


def test_samples_are_listed_and_fetched(
    lineside: Lineside, fake: FakeController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\x89PNG image"
    fake.contents["samples/s1"] = content
    fake.samples["samples/s1"] = sample_pb2.Sample(
        name="samples/s1",
        agent="agents/st-1",
        reason=sample_pb2.Sample.REASON_LEAST_CONFIDENCE,
        content_type="image/png",
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size_bytes=len(content),
    )
    monkeypatch.chdir(tmp_path)
    outcome = lineside("samples", "list", "--model", "solar", "--agent", "st-1", "--reason", "least-confidence")
    assert "LEAST_CONFIDENCE" in outcome.out
    (request,) = fake.requests("ListSamples")
    assert (request.model, request.agent) == ("models/solar", "agents/st-1")
    assert request.reason == sample_pb2.Sample.REASON_LEAST_CONFIDENCE
    assert lineside("samples", "get", "s1").out == "s1.png\n"
    assert (tmp_path / "s1.png").read_bytes() == content
    document = json.loads(lineside("samples", "get", "s1", "--out", "other.png", "--output", "json").out)
    assert (document["file"], document["reason"]) == ("other.png", "LEAST_CONFIDENCE")
    refused = lineside("samples", "get", "s1", "--out", "nowhere/s1.png")
    assert refused.status == 2
    assert refused.err.startswith("error: out: cannot write nowhere/s1.png")
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["other.png", "s1.png"]


def test_results_come_newest_first_and_say_when_there_are_more(lineside: Lineside, fake: FakeController) -> None:
    for number in range(103):
        add_result(fake, f"part-{number}")
    listed = lineside("results", "list", "--model", "solar", "--version", "solar:2", "--agent", "st-1", "--part", "p")
    assert listed.out.index("part-102") < listed.out.index("part-101")
    assert "defect 0.750" in listed.out
    assert "the newest 100" in listed.err
    request = fake.requests("ListResults")[0]
    assert (request.model, request.version, request.agent, request.part_id) == ("models/solar", 2, "agents/st-1", "p")
    every = json.loads(lineside("results", "list", "--model", "solar", "--all", "--output", "json").out)
    assert [result["part_id"] for result in every] == [f"part-{number}" for number in range(103)]
    assert every[0]["labels"] == [{"label": "defect", "score": 0.75}]
    assert len(json.loads(lineside("results", "list", "--model", "solar", "--limit", "7", "--output", "json").out)) == 7


def test_results_of_a_version_may_be_asked_for_in_one_word(lineside: Lineside, fake: FakeController) -> None:
    lineside("results", "list", "--model", "solar:2")
    assert fake.requests("ListResults")[0].version == 2
    assert lineside("results", "list", "--model", "solar", "--version", "other:2").status == 2
    assert lineside("results", "list", "--model", "solar", "--all", "--limit", "2").status == 2


def test_metrics_are_shown(lineside: Lineside, fake: FakeController) -> None:
    fake.summaries.append(
        result_service_pb2.MetricSummary(
            model_version="models/solar/versions/2", agent="agents/st-1", inference_count=1200, latency_ms_p95=9.125
        )
    )
    shown = lineside("metrics", "show", "--model", "solar", "--by-agent", "--since", "1h").out
    for expected in ("solar:2", "st-1", "1200", "9.12"):
        assert expected in shown
    (request,) = fake.requests("QueryMetrics")
    assert request.by_agent
    assert request.HasField("start_time")
    (document,) = json.loads(lineside("metrics", "show", "--model", "solar", "--output", "json").out)
    assert document["inference_count"] == 1200
    assert "NOT KEPT" not in shown


def test_metrics_tell_of_results_that_are_not_kept(lineside: Lineside, fake: FakeController) -> None:
    fake.summaries.extend(
        result_service_pb2.MetricSummary(
            model_version=f"models/solar/versions/{version}",
            inference_count=1200,
            omitted_count=omitted,
            dropped_results=7,
        )
        for version, omitted in ((1, 0), (2, 1150))
    )
    outcome = lineside("metrics", "show", "--model", "solar")
    assert "NOT KEPT" in outcome.out
    assert "1150" in outcome.out
    assert "7 results of solar were dropped" in outcome.err
    documents = json.loads(lineside("metrics", "show", "--model", "solar", "--output", "json").out)
    assert [document["omitted_count"] for document in documents] == [0, 1150]


def rollout_at(state: rollout_pb2.Rollout.State.ValueType, verdict: str) -> rollout_pb2.Rollout:
    wave = rollout_pb2.Wave(size="1", state=rollout_pb2.Wave.STATE_ADMITTED, agents=["agents/st-1"])
    wave.verdict.outcome = rollout_pb2.GateVerdict.OUTCOME_PENDING
    wave.verdict.message = verdict
    return rollout_pb2.Rollout(
        name="rollouts/r1",
        deployment="deployments/line-3",
        target_version="models/solar/versions/2",
        state=state,
        waves=[wave, rollout_pb2.Wave(index=1, size="100%", state=rollout_pb2.Wave.STATE_PENDING)],
    )


RUNNING = rollout_at(rollout_pb2.Rollout.STATE_RUNNING, "0 of 1 agents have installed it")
BAKING = rollout_at(rollout_pb2.Rollout.STATE_RUNNING, "bakes for 7 s more")
SUCCEEDED = rollout_at(rollout_pb2.Rollout.STATE_SUCCEEDED, "")
ROLLED_BACK = rollout_at(rollout_pb2.Rollout.STATE_ROLLED_BACK, "2 errors in 10")


@pytest.fixture
def deployed(fake: FakeController) -> None:
    fake.deployments["deployments/line-3"] = deployment_pb2.Deployment(name="deployments/line-3", model="models/solar")


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("version", ["2", "solar:2"])
def test_a_rollout_is_started_as_written(lineside: Lineside, fake: FakeController, version: str) -> None:
    outcome = lineside(
        *("rollouts", "start", "line-3", "--version", version, "--waves", "1,50%,100%", "--bake", "10s"),
        *("--min-inferences", "0", "--max-errors-per-mille", "5", "--max-failed-installs", "1"),
        *("--on-failure", "pause"),
    )
    assert (outcome.status, outcome.out, outcome.err) == (0, "r1\n", "")
    rollout = fake.requests("CreateRollout")[0].rollout
    assert rollout.target_version == "models/solar/versions/2"
    assert list(rollout.strategy.waves) == ["1", "50%", "100%"]
    assert rollout.strategy.bake.seconds == 10
    assert rollout.strategy.gate == rollout_pb2.GatePolicy(
        min_inferences=0,
        max_errors_per_mille=5,
        max_failed_installs=1,
        on_failure=rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE,
    )


@pytest.mark.usefixtures("deployed")
def test_a_gate_that_is_not_written_is_the_controllers(lineside: Lineside, fake: FakeController) -> None:
    lineside("rollouts", "start", "line-3", "--version", "2")
    gate = fake.requests("CreateRollout")[0].rollout.strategy.gate
    assert not gate.HasField("min_inferences")
    assert not gate.HasField("max_errors_per_mille")
    assert not gate.HasField("max_failed_installs")


@pytest.mark.usefixtures("deployed")
def test_waiting_shows_progress_and_ends_with_0_on_success(lineside: Lineside, fake: FakeController) -> None:
    fake.watches.append([RUNNING, BAKING, SUCCEEDED])
    outcome = lineside("rollouts", "start", "line-3", "--version", "2", "--wait")
    assert (outcome.status, outcome.out) == (0, "r1\n")
    assert outcome.err.splitlines() == [
        "wave 1 of 2, 1: ADMITTED, gate PENDING, 0 of 1 agents have installed it",
        "rollout: RUNNING",
        "wave 1 of 2, 1: ADMITTED, gate PENDING, bakes for 7 s more",
        "wave 1 of 2, 1: ADMITTED, gate PENDING",
        "rollout: SUCCEEDED",
    ]


@pytest.mark.usefixtures("deployed")
def test_waiting_ends_with_3_on_anything_else(lineside: Lineside, fake: FakeController) -> None:
    fake.watches.append([RUNNING, ROLLED_BACK])
    outcome = lineside("rollouts", "start", "line-3", "--version", "2", "--wait", "--output", "json")
    assert outcome.status == 3
    assert json.loads(outcome.out)["state"] == "ROLLED_BACK"


@pytest.mark.usefixtures("deployed")
def test_waiting_ends_with_3_when_its_time_is_over(lineside: Lineside, fake: FakeController) -> None:
    outcome = lineside("rollouts", "start", "line-3", "--version", "2", "--wait", "--timeout", "0s")
    assert (outcome.status, outcome.out) == (3, "r1\n")
    assert "rollouts watch r1" in outcome.err


def test_a_watch_tells_people_lines_and_programs_objects(lineside: Lineside, fake: FakeController) -> None:
    fake.watches.append([RUNNING, SUCCEEDED])
    outcome = lineside("rollouts", "watch", "r1")
    assert outcome.status == 0
    assert outcome.out.splitlines()[-1] == "rollout: SUCCEEDED"
    fake.watches.append([RUNNING, ROLLED_BACK])
    outcome = lineside("rollouts", "watch", "r1", "--output", "json")
    assert outcome.status == 3
    assert [json.loads(line)["state"] for line in outcome.out.splitlines()] == ["RUNNING", "ROLLED_BACK"]


@pytest.mark.parametrize(
    ("act", "state"),
    [
        ("pause", "PAUSED"),
        ("resume", "RUNNING"),
        ("abort", "ABORTED"),
        ("rollback", "ROLLING_BACK"),
        ("retry", "RUNNING"),
    ],
)
def test_hands_reach_the_rollout(lineside: Lineside, fake: FakeController, act: str, state: str) -> None:
    fake.rollouts["rollouts/r1"] = rollout_at(rollout_pb2.Rollout.STATE_UNSPECIFIED, "")
    assert state in lineside("rollouts", act, "r1").out
    assert json.loads(lineside("rollouts", "show", "r1", "--output", "json").out)["state"] == state


def test_rollouts_are_listed_and_shown(lineside: Lineside, fake: FakeController) -> None:
    fake.rollouts["rollouts/r1"] = BAKING
    assert "0 of 2 passed" in lineside("rollouts", "list", "--deployment", "line-3").out
    assert json.loads(lineside("rollouts", "list", "--deployment", "other", "--output", "json").out) == []
    shown = lineside("rollouts", "show", "r1").out
    for expected in ("solar:2", "st-1", "bakes for 7 s more"):
        assert expected in shown
