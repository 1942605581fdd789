"""Bad input as a user and an adversary would try it: each told with its code, field and remedy, and nothing changed.

The rows are in tables beside this file; one line of real processes is the same for all.
"""

import queue
from collections.abc import Iterator
from typing import Any

import pytest
from lineside.v1 import agent_pb2, fleet_service_pb2, fleet_service_pb2_grpc

from tests.e2e import refused_identities, refused_inferences, refused_requests, refused_rollouts
from tests.e2e.refused_line import SECONDS_MAX, Outcome, RefusedLine, Row, make_refused_line, outcome_of
from tests.support.line import Line, Load, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]

ROWS = (
    *refused_requests.INTENT,
    *refused_requests.PAGES,
    *refused_requests.MODEL_FILES,
    *refused_rollouts.ROWS,
    *refused_identities.ENROLMENT,
    *refused_identities.CREDENTIALS,
    *refused_identities.AGENTS,
    *refused_identities.UPLOAD_ROWS,
    *refused_inferences.CLIENTS,
    *refused_inferences.MESSAGES,
    *refused_inferences.BODIES,
)


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefusedLine]:
    line = Line(tmp_path_factory.mktemp("refused"))
    try:
        made = make_refused_line(line)
        yield made
        made.client.close()
    finally:
        line.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_bad_input_is_told_and_changes_nothing(refused: RefusedLine, row: Row) -> None:
    before = refused.snapshot()
    told = row.act(refused)
    assert (told.code, told.reason) == (row.code, row.reason), told
    assert row.field in (told.field or told.text), told
    assert row.remedy, "each refusal says what to do"
    assert row.remedy in (told.remedy or told.text), told
    assert "Traceback" not in told.text
    assert refused.snapshot() == before


# The last of the module: who is revoked stays so.


def told_revoked(told: Outcome) -> bool:
    return (told.code, told.reason) == ("PERMISSION_DENIED", "AGENT_REVOKED") and bool(told.remedy)


def test_a_revoked_agents_live_stream_ends_and_nothing_is_open_to_it_again(refused: RefusedLine) -> None:
    messages: queue.SimpleQueue[fleet_service_pb2.SyncRequest | None] = queue.SimpleQueue()
    with refused.channel("fleet", refused.identity_of("raw-2")) as channel:
        stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
        answers = stub.Sync(iter(messages.get, None), timeout=SECONDS_MAX)
        messages.put(fleet_service_pb2.SyncRequest())
        next(answers)
        refused.client.agents.revoke("raw-2")
        # It says nothing more: the stream ends by itself.
        assert told_revoked(outcome_of(lambda: list(answers)))
        messages.put(None)
    for call, listener in (
        (refused_identities.REPORT, "fleet"),
        (refused_identities.RENEW, "fleet"),
        (refused_identities.read_blob(), "agent_bytes"),
    ):
        # The process of the bytes learns of it within a second.
        wait_until(lambda: told_revoked(refused.agent(*call, listener=listener, box="raw-2")), what=f"{call[1]} to end")  # noqa: B023
    again = refused.enroll(refused.tokens["good"], name="raw-2", box=refused.boxes["raw-2"])
    assert told_revoked(again), again
    other_key = refused.enroll(refused.tokens["good"], name="raw-2")
    assert (other_key.code, other_key.reason) == ("ALREADY_EXISTS", "RESOURCE_EXISTS")


def test_a_revoked_station_goes_on_inferring(refused: RefusedLine) -> None:
    agent = refused.line.agents["st-2"]
    with Load(agent.grpc_address, "n", "revoked") as load:
        load.wait_answers(20)
        assert refused.command("agents", "revoke", "st-2").code == "0"
        wait_until(lambda: "AGENT_REVOKED" in agent.log(), what="the agent to hear of it")
        load.wait_answers(50)
    assert not load.failures
    assert refused.client.agents.get("st-2").state == agent_pb2.Agent.STATE_REVOKED
    assert "Traceback" not in agent.log()
