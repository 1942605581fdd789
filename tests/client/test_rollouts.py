from datetime import timedelta

import grpc
import pytest
from lineside.v1 import rollout_pb2

from controlplane.client import ApiError, Client, UnreachableError, WaitTimeoutError, limits
from controlplane.client.rollouts import Change
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
    told: list[Change] = []
    assert client.rollouts.wait("r1", changed=told.append) == SUCCEEDED
    assert [change.rollout for change in told] == [RUNNING, SUCCEEDED]


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
