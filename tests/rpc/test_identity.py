"""Who may call what, over real TLS: each refusal with its code, reason, field and remedy."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from lineside.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    evidence_service_pb2,
    evidence_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    slot_pb2,
)

from controlplane import limits
from controlplane.app import credentials
from controlplane.domain.ids import AgentId
from controlplane.identity.authority import LocalAuthority, create_ca
from tests.rpc.conftest import Served
from tests.support.wire import Box, bearer, refused, tls_channel

Code = grpc.StatusCode


async def say(*messages: fleet_service_pb2.SyncRequest, until: asyncio.Event | None = None) -> AsyncIterator[Any]:
    for message in messages:
        yield message
    if until is not None:
        await until.wait()


def observed(generation: int = 0) -> fleet_service_pb2.SyncRequest:
    return fleet_service_pb2.SyncRequest(observed_state=slot_pb2.ObservedState(generation=generation))


async def list_agents(served: Served, metadata: tuple[tuple[str, str], ...] | None) -> Any:
    async with tls_channel(served.api, served.ca_certificate) as channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        return await stub.ListAgents(agent_service_pb2.ListAgentsRequest(), metadata=metadata, timeout=10)


async def revoke(served: Served, name: str) -> None:
    async with tls_channel(served.api, served.ca_certificate) as channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        request = agent_service_pb2.RevokeAgentRequest(name=f"agents/{name}")
        await stub.RevokeAgent(request, metadata=bearer(served.operator_token), timeout=10)


async def renew(served: Served, box: Box) -> Any:
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
        return await stub.RenewCertificate(fleet_service_pb2.RenewCertificateRequest(csr_der=box.csr()), timeout=10)


# --- enrolment ------------------------------------------------------------------------------------


async def test_a_box_becomes_an_agent_with_the_labels_of_its_token(served: Served) -> None:
    box = served.box("st-1")
    response = await box.enroll(served.api, await served.join_token(), labels={"line": "9", "station": "1"})
    assert response.agent == "agents/st-1"
    assert response.endpoints.fleet == served.fleet
    agents = await list_agents(served, bearer(served.operator_token))
    assert [(agent.name, dict(agent.labels)) for agent in agents.agents] == [
        ("agents/st-1", {"line": "3", "station": "1"})
    ]


async def test_a_forged_token_is_refused(served: Served) -> None:
    genuine = credentials.parse_join_token(await served.join_token())
    forged = credentials.encode_join_token(
        credentials.JoinTokenText(id=genuine.id, secret="guess", ca_certificate_der=genuine.ca_certificate_der)
    )
    for text in (forged, "lsj1.e30", "lso1.x", ""):
        refusal = await refused(served.box("st-1").enroll(served.api, text))
        assert (refusal.code, refusal.reason, refusal.field) == (Code.UNAUTHENTICATED, "JOIN_TOKEN_INVALID", "token")
        assert refusal.remedy


async def test_an_expired_token_is_refused(served: Served) -> None:
    token = await served.join_token(ttl=timedelta(microseconds=1))
    refusal = await refused(served.box("st-1").enroll(served.api, token))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "JOIN_TOKEN_EXPIRED")


async def test_a_used_up_token_is_refused_and_enrols_nobody(served: Served) -> None:
    token = await served.join_token(uses=1)
    await served.box("st-1").enroll(served.api, token)
    refusal = await refused(served.box("st-2").enroll(served.api, token))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "JOIN_TOKEN_EXHAUSTED")
    agents = await list_agents(served, bearer(served.operator_token))
    assert [agent.name for agent in agents.agents] == ["agents/st-1"]


async def test_of_many_that_enrol_at_once_exactly_as_many_succeed_as_the_token_has_uses(served: Served) -> None:
    token = await served.join_token(uses=1)
    boxes = [served.box(f"st-{number}") for number in range(8)]
    outcomes = await asyncio.gather(*(box.enroll(served.api, token) for box in boxes), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    async with served.parts.store.read() as work:
        stored = await work.tokens.get_join_token(credentials.parse_join_token(token).id)
        assert (stored.used, len(await work.agents.list_all())) == (1, 1)


async def test_the_same_key_again_takes_no_use_and_keeps_both_certificates_good(served: Served) -> None:
    token = await served.join_token(uses=1)
    box = served.box("st-1")
    first = await box.enroll(served.api, token)
    second = await box.enroll(served.api, token)
    assert first.certificate_pem != second.certificate_pem
    for certificate in (first.certificate_pem, second.certificate_pem):
        box.certificate = certificate.encode()
        assert (await renew(served, box)).certificate_pem


async def test_another_key_cannot_take_a_name(served: Served) -> None:
    await served.agent("st-1")
    refusal = await refused(served.box("st-1").enroll(served.api, await served.join_token()))
    assert (refusal.code, refusal.reason, refusal.field) == (Code.ALREADY_EXISTS, "RESOURCE_EXISTS", "agent_id")
    assert refusal.remedy


async def test_a_revoked_name_is_not_enrolled_again(served: Served) -> None:
    box = await served.agent("st-1")
    await revoke(served, "st-1")
    refusal = await refused(box.enroll(served.api, await served.join_token()))
    assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "AGENT_REVOKED")


@pytest.mark.parametrize(
    ("name", "labels", "field"),
    [
        ("Not An Id", {}, "agent_id"),
        ("", {}, "agent_id"),
        ("st-1", {"device.npu": "true"}, "labels"),
        ("st-1", {"-": "x"}, "labels"),
        ("st-1", {"line": "a b"}, "labels"),
    ],
)
async def test_bad_names_and_labels_are_refused(served: Served, name: str, labels: dict[str, str], field: str) -> None:
    box = served.box(name)
    refusal = await refused(box.enroll(served.api, await served.join_token(), labels=labels))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, field)
    assert refusal.remedy


async def test_a_request_that_is_none_is_refused(served: Served) -> None:
    async with tls_channel(served.api, served.ca_certificate) as channel:
        stub: Any = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
        request = enrollment_service_pb2.EnrollAgentRequest(
            token=await served.join_token(), agent_id="st-1", csr_der=b"nonsense"
        )
        refusal = await refused(stub.EnrollAgent(request, timeout=10))
    assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "csr_der")


# --- operators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "lso1.guess", "lsj1.guess"])
async def test_a_missing_or_wrong_operator_token_is_refused(served: Served, token: str | None) -> None:
    refusal = await refused(list_agents(served, None if token is None else bearer(token)))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "OPERATOR_TOKEN_INVALID")
    assert refusal.field == "authorization"


async def test_an_oversize_message_is_refused(served: Served) -> None:
    async with tls_channel(served.api, served.ca_certificate) as channel:
        stub: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        model = model_pb2.Model(description="x" * (limits.MESSAGE_BYTES_MAX + 1))
        request = model_service_pb2.CreateModelRequest(model_id="m", model=model)
        refusal = await refused(stub.CreateModel(request, metadata=bearer(served.operator_token), timeout=20))
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    async with served.parts.store.read() as work:
        assert not await work.models.list(after=None, limit=1)


async def test_a_stale_etag_revokes_nobody(served: Served) -> None:
    await served.agent("st-1")
    async with tls_channel(served.api, served.ca_certificate) as channel:
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        request = agent_service_pb2.RevokeAgentRequest(name="agents/st-1", etag="77")
        refusal = await refused(stub.RevokeAgent(request, metadata=bearer(served.operator_token), timeout=10))
    assert (refusal.code, refusal.field) == (Code.ABORTED, "etag")
    async with served.parts.store.read() as work:
        assert not (await work.agents.get(AgentId("st-1"))).agent.revoked


# --- agents ---------------------------------------------------------------------------------------


async def test_a_box_without_a_certificate_cannot_even_connect(served: Served) -> None:
    async with tls_channel(served.fleet, served.ca_certificate) as channel:
        stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
        refusal = await refused(stub.RenewCertificate(fleet_service_pb2.RenewCertificateRequest(), timeout=10))
    assert refusal.code is Code.UNAVAILABLE


async def test_a_certificate_of_another_ca_cannot_even_connect(served: Served, tmp_path: Path) -> None:
    box = served.box("st-1")
    create_ca(tmp_path / "other", now=datetime.now(UTC))
    other = LocalAuthority(tmp_path / "other", agent_certificate_ttl=timedelta(days=1))
    signed = other.sign(box.csr(), agent_id=AgentId("st-1"), now=datetime.now(UTC))
    box.certificate = signed.certificate_pem.encode()
    refusal = await refused(renew(served, box))
    assert refusal.code is Code.UNAVAILABLE


async def test_a_certificate_that_the_store_does_not_know_is_refused(served: Served) -> None:
    box = served.box("st-1")
    signed = served.parts.authority.sign(box.csr(), agent_id=AgentId("st-1"), now=datetime.now(UTC))
    box.certificate = signed.certificate_pem.encode()
    refusal = await refused(renew(served, box))
    assert (refusal.code, refusal.reason) == (Code.UNAUTHENTICATED, "CERTIFICATE_INVALID")


async def test_the_servers_own_certificate_names_no_agent(served: Served) -> None:
    pki = served.parts.settings.pki_dir
    credentials_of_server = grpc.ssl_channel_credentials(
        served.ca_certificate, (pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes()
    )
    options = (("grpc.ssl_target_name_override", "controlplane.lineside.internal"),)
    async with grpc.aio.secure_channel(served.fleet, credentials_of_server, options=options) as channel:
        stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
        refusal = await refused(stub.RenewCertificate(fleet_service_pb2.RenewCertificateRequest(), timeout=10))
    assert refusal.code in {Code.UNAUTHENTICATED, Code.UNAVAILABLE}


async def test_an_agent_renews_with_a_new_key_and_goes_on_with_it(served: Served) -> None:
    old = await served.agent("st-1")
    new = served.box("st-1")
    async with old.mtls_channel(served.fleet) as channel:
        stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
        answer = await stub.RenewCertificate(fleet_service_pb2.RenewCertificateRequest(csr_der=new.csr()), timeout=10)
    new.certificate = answer.certificate_pem.encode()
    assert (await renew(served, new)).certificate_pem
    # The old one is good until it expires: the answer may have been lost.
    assert (await renew(served, old)).certificate_pem


async def test_an_agent_reports_as_itself_whatever_name_it_writes(served: Served) -> None:
    box = await served.agent("st-1")
    await served.agent("st-2")
    async with box.mtls_channel(served.fleet) as channel:
        evidence: Any = evidence_service_pb2_grpc.EvidenceServiceStub(channel)
        request = evidence_service_pb2.ReportEvidenceRequest(batch=1)
        request.results.add(agent="agents/st-2", slot="m", model_version="models/m/versions/1")
        refusal = await refused(evidence.ReportEvidence(request, timeout=10))
    assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "NOT_YOURS")


async def test_revocation_ends_a_live_stream_and_every_further_call(served: Served) -> None:
    box = await served.agent("st-1")
    open_end = asyncio.Event()
    async with box.mtls_channel(served.fleet) as channel:
        stub: Any = fleet_service_pb2_grpc.FleetServiceStub(channel)
        stream = stub.Sync(say(observed(), until=open_end))
        first = await stream.read()
        assert first.endpoints.fleet == served.fleet
        await revoke(served, "st-1")
        async with asyncio.timeout(5):
            refusal = await refused(stream.read())
        assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "AGENT_REVOKED")
        refusal = await refused(renew(served, box))
        assert (refusal.code, refusal.reason) == (Code.PERMISSION_DENIED, "AGENT_REVOKED")
        open_end.set()


async def test_an_internal_failure_tells_an_id_and_nothing_else(served: Served) -> None:
    box = await served.agent("st-1")
    await served.parts.database.close()
    (served.parts.settings.dir / "lineside.db").rename(served.parts.settings.dir / "gone.db")
    (served.parts.settings.dir / "lineside.db").mkdir()
    refusal = await refused(renew(served, box))
    assert refusal.code in {Code.INTERNAL, Code.UNAVAILABLE}
    assert "Traceback" not in refusal.message
    assert "sqlalche" not in refusal.message
