"""Enrolment over real databases, where many ask at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.app import credentials
from controlplane.app.enrollment import Enrollment, EnrollmentRequest
from controlplane.app.notices import Notices
from controlplane.app.tokens import JoinTokenRequest, JoinTokens, adopt_operator_token, create_operator_token
from controlplane.domain.errors import CredentialError, DomainError, FieldInvalidError, Reason, ResourceExistsError
from controlplane.domain.ids import AgentId
from controlplane.identity.authority import LocalAuthority, create_ca
from controlplane.store import SqlStore, open_store
from controlplane.system import SystemClock, SystemIds
from tests.app.log import happenings_of
from tests.support.contended_store import ContendedStore
from tests.support.wire import Box


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[SqlStore]:
    store = open_store(database_url)
    yield store
    await store.close()


ANNA = "operators/anna"


@pytest.fixture
def authority(tmp_path: Path) -> LocalAuthority:
    create_ca(tmp_path / "pki", now=datetime.now(UTC))
    return LocalAuthority(tmp_path / "pki", agent_certificate_ttl=timedelta(days=1))


@pytest.fixture
def enrollment(store: SqlStore, authority: LocalAuthority) -> Enrollment:
    return Enrollment(store=store, clock=SystemClock(), ids=SystemIds(), authority=authority, notifier=Notices())


@pytest.fixture
def tokens(store: SqlStore, authority: LocalAuthority) -> JoinTokens:
    return JoinTokens(
        store=store, clock=SystemClock(), ids=SystemIds(), ca_certificate_der=authority.ca_certificate_der
    )


def ask(name: str, token: str) -> EnrollmentRequest:
    box = Box(name=name, ca_certificate=b"")
    return EnrollmentRequest(token=token, agent_id=name, labels={}, csr_der=box.csr())


def wanted(uses: int = 1, request_id: str = "") -> JoinTokenRequest:
    return JoinTokenRequest(uses=uses, ttl=timedelta(hours=1), labels={}, request_id=request_id)


async def test_uses_are_counted_exactly_however_many_ask_at_once(
    store: SqlStore, enrollment: Enrollment, tokens: JoinTokens
) -> None:
    token = await tokens.create(wanted(uses=3), actor=ANNA)
    asked = (enrollment.enroll(ask(f"st-{number}", token.text)) for number in range(12))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(refused) == 9
    assert {error.reason for error in refused if isinstance(error, DomainError)} == {Reason.JOIN_TOKEN_EXHAUSTED}
    async with store.read() as work:
        assert (await work.tokens.get_join_token(token.token.id)).used == 3
        assert len(await work.agents.list_all()) == 3


async def test_of_two_keys_that_ask_for_one_name_at_once_one_gets_it(
    store: SqlStore, enrollment: Enrollment, tokens: JoinTokens
) -> None:
    token = await tokens.create(wanted(uses=5), actor=ANNA)
    asked = (enrollment.enroll(ask("st-1", token.text)) for _ in range(4))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(error) for error in refused] == [ResourceExistsError] * 3
    async with store.read() as work:
        assert (await work.tokens.get_join_token(token.token.id)).used == 1


async def test_a_renewal_that_loses_a_race_is_run_again(
    store: SqlStore, authority: LocalAuthority, enrollment: Enrollment, tokens: JoinTokens
) -> None:
    await enrollment.enroll(ask("st-1", (await tokens.create(wanted(), actor=ANNA)).text))
    contended = ContendedStore(store, losses=3)
    renewing = Enrollment(
        store=contended, clock=SystemClock(), ids=SystemIds(), authority=authority, notifier=Notices()
    )
    signed = await renewing.renew(AgentId("st-1"), ask("st-1", "").csr_der)
    async with store.read() as work:
        assert await work.certificates.find(signed.certificate.serial) is not None


async def test_a_revoked_token_enrols_nobody(enrollment: Enrollment, tokens: JoinTokens) -> None:
    token = await tokens.create(wanted(), actor=ANNA)
    for _ in range(2):
        assert (await tokens.revoke(token.token.id, actor=ANNA)).revoked
    with pytest.raises(CredentialError) as refusal:
        await enrollment.enroll(ask("st-1", token.text))
    assert refusal.value.reason is Reason.JOIN_TOKEN_INVALID


async def test_a_repeated_request_is_refused_since_its_secret_was_shown(tokens: JoinTokens) -> None:
    request = wanted(request_id="5b0b5a0e-6f0a-4b7e-9a55-0f5e2f0b7f3d")
    await tokens.create(request, actor=ANNA)
    with pytest.raises(ResourceExistsError) as refusal:
        await tokens.create(request, actor=ANNA)
    assert refusal.value.reason is Reason.REQUEST_ID_REUSED
    assert len((await tokens.list(page_size=0, page_token="")).items) == 1


@pytest.mark.parametrize(
    ("uses", "ttl", "labels", "field"),
    [
        (0, timedelta(hours=1), {}, "join_token.uses"),
        (10_001, timedelta(hours=1), {}, "join_token.uses"),
        (1, timedelta(0), {}, "join_token.ttl"),
        (1, timedelta(days=366), {}, "join_token.ttl"),
        (1, timedelta(hours=1), {"os": "linux"}, "join_token.labels"),
    ],
)
async def test_a_token_that_cannot_be_is_refused_by_field(
    tokens: JoinTokens, uses: int, ttl: timedelta, labels: dict[str, str], field: str
) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await tokens.create(JoinTokenRequest(uses=uses, ttl=ttl, labels=labels), actor=ANNA)
    assert refusal.value.field == field
    assert not (await tokens.list(page_size=0, page_token="")).items


async def test_tokens_are_listed_newest_first_in_pages(tokens: JoinTokens) -> None:
    created = [(await tokens.create(wanted(), actor=ANNA)).token.id for _ in range(3)]
    first = await tokens.list(page_size=2, page_token="")
    second = await tokens.list(page_size=2, page_token=first.next_token)
    assert [token.id for token in (*first.items, *second.items)] == created[::-1]
    assert second.next_token == ""


async def test_an_operators_secret_is_not_in_the_store(store: SqlStore) -> None:
    text = await create_operator_token(store=store, clock=SystemClock(), ids=SystemIds(), description="d")
    secret = credentials.parse_operator_token(text)
    async with store.read() as work:
        stored = await work.tokens.find_operator_token(credentials.hash_secret(secret))
    assert stored is not None
    assert secret not in repr(stored)
    again = await adopt_operator_token(text, store=store, clock=SystemClock(), ids=SystemIds(), description="d")
    assert not again


async def test_who_made_and_revoked_a_token_is_in_the_log(store: SqlStore, tokens: JoinTokens) -> None:
    created = await tokens.create(wanted(uses=2), actor=ANNA)
    await tokens.revoke(created.token.id, actor="operators/ben")
    await tokens.revoke(created.token.id, actor="operators/cleo")
    made, revoked = await happenings_of(store, f"joinTokens/{created.token.id}")
    assert (made.actor, made.action, made.evidence) == (ANNA, "token.create", {"uses": 2, "labels": {}})
    assert (revoked.actor, revoked.action) == ("operators/ben", "token.revoke")
    assert created.text not in repr((made, revoked))
