from datetime import timedelta

import grpc
import pytest
from lineside.v1 import audit_pb2, rollout_pb2, rollout_service_pb2

from controlplane.client import ApiError, Client, IntegrityError, UnreachableError, WaitTimeoutError, limits
from controlplane.client.rollouts import Change, Strategy
from tests.client.fake_controller import FakeController, Refusal
from tests.client.stepped_time import SteppedTime

Rollout = rollout_pb2.Rollout
RUNNING = Rollout(name="rollouts/r1", state=Rollout.STATE_RUNNING)
WAVE_2 = Rollout(name="rollouts/r1", state=Rollout.STATE_RUNNING, reason="WAVE_ADMITTED")
SUCCEEDED = Rollout(name="rollouts/r1", state=Rollout.STATE_SUCCEEDED)
GONE = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")


def test_a_rollout_is_started_as_asked(fake: FakeController, client: Client) -> None:
    gate = rollout_pb2.GatePolicy(min_inferences=0)
    client.rollouts.start(
        "line-3", model="solar", version=2, waves=["1", "100%"], bake=timedelta(seconds=90), gate=gate
    )
    (request,) = fake.requests("CreateRollout")
    assert request.rollout.deployment == "deployments/line-3"
    assert request.rollout.target_version == "models/solar/versions/2"
    assert list(request.rollout.strategy.waves) == ["1", "100%"]
    assert request.rollout.strategy.bake.seconds == 90
    assert request.rollout.strategy.gate.HasField("min_inferences")
    assert not request.rollout.strategy.gate.HasField("max_errors_per_mille")


def test_a_watch_ends_with_the_rollout(fake: FakeController, client: Client) -> None:
    fake.watches.append([RUNNING, WAVE_2, SUCCEEDED])
    assert [change.rollout for change in client.rollouts.watch("r1")] == [RUNNING, WAVE_2, SUCCEEDED]


def test_a_broken_watch_is_opened_again_and_repeats_nothing(fake: FakeController, client: Client) -> None:
    fake.watches.extend([[RUNNING, GONE], [GONE], [RUNNING, WAVE_2], [WAVE_2, SUCCEEDED]])
    assert [change.rollout for change in client.rollouts.watch("r1")] == [RUNNING, WAVE_2, SUCCEEDED]


def test_a_watch_that_never_recovers_ends_in_time(fake: FakeController, client: Client, time: SteppedTime) -> None:
    fake.watches.append([RUNNING])
    fake.watches.extend([[GONE]] * 10_000)
    with pytest.raises(UnreachableError):
        list(client.rollouts.watch("r1"))
    assert time.seconds <= limits.TRANSFER_RETRY_SECONDS


def test_a_refused_watch_is_not_opened_again(fake: FakeController, client: Client) -> None:
    fake.watches.append([Refusal(code=grpc.StatusCode.NOT_FOUND, reason="RESOURCE_NOT_FOUND")])
    with pytest.raises(ApiError):
        list(client.rollouts.watch("r1"))


def test_a_watch_has_a_deadline_of_its_own(fake: FakeController, client: Client) -> None:
    fake.watches.append([SUCCEEDED])
    client.rollouts.wait("r1", timeout_seconds=20)
    (left,) = [call.seconds_left for call in fake.calls if call.method == "WatchRollout"]
    assert left is not None
    assert 0 < left <= 20


def test_waiting_ends_when_its_time_is_over(fake: FakeController, client: Client, time: SteppedTime) -> None:
    fake.watches.extend([[RUNNING]] * 10_000)
    with pytest.raises(WaitTimeoutError, match="20 s") as caught:
        client.rollouts.wait("r1", timeout_seconds=20)
    assert "rollouts watch r1" in caught.value.remedy
    assert time.seconds <= 20 + limits.RETRY_CAP_SECONDS


def test_waiting_tells_every_change(fake: FakeController, client: Client) -> None:
    fake.watches.append([RUNNING, SUCCEEDED])
    heard: list[Change] = []
    assert client.rollouts.wait("r1", changed=heard.append) == SUCCEEDED
    assert [change.rollout for change in heard] == [RUNNING, SUCCEEDED]


@pytest.mark.parametrize(
    ("act", "state"),
    [
        ("pause", Rollout.STATE_PAUSED),
        ("resume", Rollout.STATE_RUNNING),
        ("abort", Rollout.STATE_ABORTED),
        ("rollback", Rollout.STATE_ROLLING_BACK),
        ("retry", Rollout.STATE_RUNNING),
    ],
)
def test_hands_reach_the_rollout(
    fake: FakeController, client: Client, act: str, state: rollout_pb2.Rollout.State.ValueType
) -> None:
    fake.rollouts["rollouts/r1"] = Rollout(name="rollouts/r1")
    assert getattr(client.rollouts, act)("r1").state == state
    assert fake.rollouts["rollouts/r1"].state == state


def decided(number: int) -> audit_pb2.AuditEvent:
    return audit_pb2.AuditEvent(name=f"auditEvents/{number:04}", action="wave.admit")


def told(rollout: Rollout, *numbers: int) -> Change:
    return Change(rollout=rollout, events=map(decided, numbers))


def test_each_decision_is_told_once_over_all_streams(fake: FakeController, client: Client) -> None:
    # The first message of a stream tells everything since the rollout began.
    fake.watches.extend(
        [
            [told(RUNNING, 1, 2), GONE],
            [told(RUNNING, 1, 2), told(RUNNING, 3), GONE],
            [told(WAVE_2, 1, 2, 3, 4), told(SUCCEEDED, 5)],
        ]
    )
    changes = list(client.rollouts.watch("r1"))
    assert changes == [told(RUNNING, 1, 2), told(RUNNING, 3), told(WAVE_2, 4), told(SUCCEEDED, 5)]


def test_a_superseded_rollout_has_ended(fake: FakeController, client: Client) -> None:
    superseded = Rollout(name="rollouts/r1", state=Rollout.STATE_SUPERSEDED)
    fake.watches.append([Rollout(name="rollouts/r1", state=Rollout.STATE_QUEUED), superseded])
    assert client.rollouts.wait("r1") == superseded


PLAN_PARTS = [
    rollout_service_pb2.PlanRolloutResponse(plan=rollout_service_pb2.RolloutPlan(target_count=3)),
    rollout_service_pb2.PlanRolloutResponse(targets=[rollout_service_pb2.PlannedTarget(agent="agents/a")]),
    rollout_service_pb2.PlanRolloutResponse(
        targets=[rollout_service_pb2.PlannedTarget(agent="agents/b")],
        left_out=[rollout_service_pb2.LeftOutAgent(agent="agents/c")],
    ),
]


def test_a_plan_is_whole_also_after_a_break(fake: FakeController, client: Client) -> None:
    fake.plans.extend([[*PLAN_PARTS[:2], GONE], PLAN_PARTS])
    plan = client.rollouts.plan("line-3", model="solar", version=2, strategy=Strategy(waves=["100%"]))
    assert plan.summary.target_count == 3
    assert [target.agent for target in plan.targets] == ["agents/a", "agents/b"]
    assert [agent.agent for agent in plan.left_out] == ["agents/c"]
    assert fake.requests("PlanRollout")[0].rollout.target_version == "models/solar/versions/2"


def test_a_refused_plan_is_not_asked_for_again(fake: FakeController, client: Client) -> None:
    fake.plans.append([Refusal(code=grpc.StatusCode.FAILED_PRECONDITION, reason="VERSION_YANKED")])
    with pytest.raises(ApiError, match="scripted"):
        client.rollouts.plan("line-3", model="solar", version=2, strategy=Strategy(waves=["100%"]))


def test_a_rehearsal_tells_its_progress(fake: FakeController, client: Client) -> None:
    report = rollout_service_pb2.RehearsalReport(outcomes={"SUCCEEDED": 2})
    part = rollout_service_pb2.RehearseRolloutResponse
    fake.rehearsals.append([part(plays_done=1, plays=2), part(plays_done=2, plays=2, report=report)])
    seen: list[tuple[int, int]] = []
    found = client.rollouts.rehearse(
        "line-3",
        model="solar",
        version=2,
        strategy=Strategy(waves=["100%"]),
        plays=2,
        progress=lambda done, plays: seen.append((done, plays)),
    )
    assert (found, seen) == (report, [(1, 2), (2, 2)])


def test_a_rehearsal_without_a_report_is_none(fake: FakeController, client: Client) -> None:
    fake.rehearsals.append([rollout_service_pb2.RehearseRolloutResponse(plays_done=1, plays=2)])
    with pytest.raises(IntegrityError) as caught:
        client.rollouts.rehearse("line-3", model="solar", version=2, strategy=Strategy(waves=["100%"]))
    assert caught.value.remedy


@pytest.mark.parametrize(("etag", "calls"), [("7", 1), ("", 2)])
def test_a_lost_race_is_the_callers_where_an_etag_says_what_was_seen(
    fake: FakeController, client: Client, etag: str, calls: int
) -> None:
    waves = [rollout_pb2.Wave(state=rollout_pb2.Wave.STATE_PENDING)]
    fake.rollouts["rollouts/r1"] = Rollout(name="rollouts/r1", waves=waves)
    fake.refusals["ApproveRollout"].append(Refusal(code=grpc.StatusCode.ABORTED, reason="STALE_WRITE"))
    if etag:
        with pytest.raises(ApiError):
            client.rollouts.approve("r1", etag=etag)
    else:
        assert client.rollouts.approve("r1").waves[0].approver == "operators/anna"
    assert len(fake.requests("ApproveRollout")) == calls
