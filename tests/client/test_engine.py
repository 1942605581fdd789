"""The log, operators, pins, labels and yanks through the client."""

from datetime import UTC, datetime

import grpc
import pytest
from lineside.v1 import agent_pb2, audit_pb2, model_pb2

from controlplane.client import Client, UnreachableError
from tests.client.fake_controller import FakeController, Refusal

GONE = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed")


def test_the_log_is_read_over_its_pages(fake: FakeController, client: Client) -> None:
    fake.events.extend(audit_pb2.AuditEvent(name=f"auditEvents/{number}") for number in range(5))
    start = datetime(2026, 3, 1, tzinfo=UTC)
    names = [event.name[-1] for event in client.audit.list(start_time=start, end_time=start, oldest_first=True)]
    assert names == ["0", "1", "2", "3", "4"]
    assert [event.name[-1] for event in client.audit.list(limit=3)] == ["4", "3", "2"]
    request = fake.requests("ListAuditEvents")[0]
    assert request.start_time.ToDatetime(tzinfo=UTC) == request.end_time.ToDatetime(tzinfo=UTC) == start
    assert not fake.requests("ListAuditEvents")[-1].HasField("start_time")


def test_an_operator_is_created_once(fake: FakeController, client: Client) -> None:
    fake.refusals["CreateOperator"].append(GONE)
    with pytest.raises(UnreachableError):
        client.operators.create("bea")
    assert len(fake.requests("CreateOperator")) == 1, "a token that was made and lost is not made twice"
    assert client.operators.create("bea", description="night").token.startswith("lso1.")
    client.operators.create("carl")
    client.operators.create("dora")
    assert [operator.name for operator in client.operators.list()] == [
        "operators/bea",
        "operators/carl",
        "operators/dora",
    ]
    assert client.operators.revoke("bea").revoked
    assert client.operators.current().name == "operators/anna"


def test_an_agent_is_named_by_id(fake: FakeController, client: Client) -> None:
    fake.agents["agents/st-1"] = agent_pb2.Agent(name="agents/st-1", labels={"old": "1"})
    assert client.agents.pin("st-1", model="solar", version=2, reason="glare").pins[0].reason == "glare"
    assert not client.agents.unpin("agents/st-1", model="models/solar").pins
    assert dict(client.agents.update_labels("st-1", set={"line": "3"}, remove=["old"]).labels) == {"line": "3"}


def test_a_version_is_yanked_and_allowed_again(fake: FakeController, client: Client) -> None:
    fake.versions["models/solar"].append(model_pb2.ModelVersion(name="models/solar/versions/1", number=1))
    assert client.models.yank("solar", 1, reason="glare").yank_reason == "glare"
    assert not client.models.unyank("solar", 1).HasField("yank_time")
