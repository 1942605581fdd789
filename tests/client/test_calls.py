"""What every call has: the token, a deadline, pinned TLS, retries where they are safe, refusals taken apart."""

from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from lineside.v1 import agent_pb2, deployment_pb2, model_pb2

from controlplane.client import ApiError, Client, UnreachableError, limits
from controlplane.client.pages import iterate
from controlplane.client.retry import Pacing
from tests.client.certificates import make_identity
from tests.client.fake_controller import TOKEN, FakeController, Refusal
from tests.client.stepped_time import SteppedTime

GONE = Refusal(code=grpc.StatusCode.UNAVAILABLE)
LOST_RACE = Refusal(code=grpc.StatusCode.ABORTED, reason="STALE_WRITE")


def test_every_call_carries_the_token_and_a_deadline(fake: FakeController, client: Client) -> None:
    assert list(client.agents.list()) == []
    call = fake.calls[-1]
    assert call.authorization == f"Bearer {TOKEN}"
    assert call.seconds_left is not None
    assert 0 < call.seconds_left <= limits.CALL_SECONDS


def test_a_refusal_is_taken_apart(fake: FakeController, client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.agents.get("st-9")
    error = caught.value
    assert (error.code, error.reason, error.field) == ("NOT_FOUND", "RESOURCE_NOT_FOUND", "name")
    assert (error.message, error.remedy) == ("agents/st-9 does not exist", "list what there is")
    assert str(error) == "name: agents/st-9 does not exist; list what there is"


def test_a_bare_status_is_a_refusal_too(fake: FakeController, client: Client) -> None:
    fake.refusals["GetAgent"].append(Refusal(code=grpc.StatusCode.INTERNAL, message="internal error 7f3a"))
    with pytest.raises(ApiError, match="internal error 7f3a") as caught:
        client.agents.get("st-1")
    assert (caught.value.code, caught.value.field) == ("INTERNAL", "")


def test_a_wrong_token_is_refused(fake: FakeController) -> None:
    with (
        Client(replace(fake.config, token="lso1.other")) as other,
        pytest.raises(ApiError, match="no such token") as caught,
    ):
        other.models.get("solar")
    assert caught.value.reason == "OPERATOR_TOKEN_INVALID"


def test_another_ca_is_not_trusted(fake: FakeController, time: SteppedTime) -> None:
    config = replace(fake.config, ca_certificate=make_identity().ca)
    with (
        Client(config, pacing=Pacing(clock=time.now, sleep=time.sleep)) as other,
        pytest.raises(UnreachableError) as caught,
    ):
        other.models.get("solar")
    assert "pinned" in caught.value.remedy
    assert fake.calls == []


def test_nobody_there_is_told_with_the_address(fake: FakeController, time: SteppedTime) -> None:
    config = fake.config
    fake.stop()
    with (
        Client(config, pacing=Pacing(clock=time.now, sleep=time.sleep)) as other,
        pytest.raises(UnreachableError, match=config.controller) as caught,
    ):
        other.models.get("solar")
    assert caught.value.remedy
    assert sum(time.sleeps) <= limits.CALL_RETRY_SECONDS


@pytest.mark.parametrize("refusal", [GONE, LOST_RACE])
def test_what_is_safe_is_repeated(fake: FakeController, client: Client, time: SteppedTime, refusal: Refusal) -> None:
    fake.models["models/solar"] = model_pb2.Model(name="models/solar")
    fake.refusals["GetModel"].extend([refusal, refusal])
    assert client.models.get("solar").name == "models/solar"
    assert len(fake.requests("GetModel")) == 3
    assert len(time.sleeps) == 2


def test_a_create_is_repeated_with_its_request_id(fake: FakeController, client: Client) -> None:
    fake.refusals["CreateModel"].append(GONE)
    client.models.create("solar", description="cells")
    first, second = fake.requests("CreateModel")
    assert first.request_id
    assert first == second


def test_a_join_token_is_never_asked_for_twice(fake: FakeController, client: Client) -> None:
    fake.refusals["CreateJoinToken"].append(GONE)
    with pytest.raises(UnreachableError):
        client.tokens.create(uses=1, ttl=timedelta(hours=1))
    assert len(fake.requests("CreateJoinToken")) == 1


def test_a_delete_is_repeated_only_after_a_lost_race(fake: FakeController, client: Client) -> None:
    fake.deployments["deployments/d"] = deployment_pb2.Deployment(name="deployments/d")
    fake.refusals["DeleteDeployment"].append(GONE)
    with pytest.raises(UnreachableError):
        client.deployments.delete("d")
    fake.refusals["DeleteDeployment"].append(LOST_RACE)
    client.deployments.delete("d")
    assert fake.deployments == {}


def test_a_lost_race_against_an_etag_is_the_callers(fake: FakeController, client: Client) -> None:
    fake.refusals["PauseRollout"].append(LOST_RACE)
    with pytest.raises(ApiError) as caught:
        client.rollouts.pause("r1", etag="3")
    assert caught.value.code == "ABORTED"
    assert fake.requests("PauseRollout")[0].etag == "3"


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_other_refusals_are_not_repeated(fake: FakeController, client: Client, code: grpc.StatusCode) -> None:
    fake.refusals["GetModel"].append(Refusal(code=code, reason="LIMIT_EXCEEDED"))
    with pytest.raises(ApiError):
        client.models.get("solar")
    assert len(fake.requests("GetModel")) == 1


def test_waits_grow_and_end_within_their_budget(fake: FakeController, client: Client, time: SteppedTime) -> None:
    fake.refusals["GetModel"].extend([GONE] * 1000)
    with pytest.raises(UnreachableError):
        client.models.get("solar")
    bound = limits.RETRY_FIRST_SECONDS
    for slept in time.sleeps:
        assert 0 <= slept <= bound
        bound = min(2 * bound, limits.RETRY_CAP_SECONDS)
    assert 0 < sum(time.sleeps) <= limits.CALL_RETRY_SECONDS


def test_lists_go_through_every_page(fake: FakeController, client: Client) -> None:
    names = [f"agents/st-{number}" for number in range(5)]
    fake.agents.update({name: agent_pb2.Agent(name=name) for name in names})
    assert [agent.name for agent in client.agents.list(selector="line=3")] == names
    requests = fake.requests("ListAgents")
    assert [request.page_token for request in requests] == ["", "2", "4"]
    assert {request.selector for request in requests} == {"line=3"}


def test_a_limit_asks_for_no_more_than_it_needs(fake: FakeController, client: Client) -> None:
    fake.agents.update({f"agents/st-{n}": agent_pb2.Agent(name=f"agents/st-{n}") for n in range(5)})
    assert len(list(client.agents.list(limit=3))) == 3
    assert [request.page_size for request in fake.requests("ListAgents")] == [3, 1]


def test_pages_come_when_they_are_wanted(fake: FakeController, client: Client) -> None:
    fake.agents.update({f"agents/st-{n}": agent_pb2.Agent(name=f"agents/st-{n}") for n in range(5)})
    agents = client.agents.list()
    assert fake.requests("ListAgents") == []
    next(agents)
    assert len(fake.requests("ListAgents")) == 1


def test_a_page_larger_than_asked_is_cut() -> None:
    assert list(iterate(lambda size, token: (["a", "b", "c"], "more"), limit=2)) == ["a", "b"]


def test_an_unavailable_store_is_the_controllers_word(fake: FakeController, client: Client) -> None:
    fake.refusals["GetModel"].append(Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORAGE_UNAVAILABLE"))
    with pytest.raises(ApiError) as caught:
        client.models.get("solar")
    assert caught.value.reason == "STORAGE_UNAVAILABLE"
