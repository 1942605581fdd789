"""Operators: created, listed, revoked, and never all of them."""

import pytest

from controlplane.app import credentials
from controlplane.app.operators import Operators
from controlplane.app.tokens import adopt_operator_token, create_operator_token
from controlplane.domain.errors import DomainError, Reason, ResourceNotFoundError
from tests.app.fleet import ANNA
from tests.app.log import actions_of
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock


class Scene:
    """Operators over a store in memory, where `init` has made the first one."""

    def __init__(self) -> None:
        self.store, self.clock, self.ids = MemoryStore(), VirtualClock(), CountingIds()
        self.operators = Operators(store=self.store, clock=self.clock, ids=self.ids)

    async def adopt(self, text: str = "lso1.first") -> bool:
        return await adopt_operator_token(text, store=self.store, clock=self.clock, ids=self.ids, description="init")

    async def names(self) -> list[str]:
        return [operator.id for operator in (await self.operators.list()).items]


async def test_an_operator_has_a_token_that_is_shown_once_and_kept_as_a_hash() -> None:
    scene = Scene()
    created = await scene.operators.create("anna", description="night shift", actor="operators/admin")
    secret_sha256 = credentials.hash_secret(credentials.parse_operator_token(created.text))
    async with scene.store.read() as work:
        assert await work.tokens.find_operator_token(secret_sha256) == created.operator
    assert created.text not in repr((await scene.operators.list()).items)
    assert await actions_of(scene.store, "operators/anna") == [("operators/admin", "operator.create")]


@pytest.mark.parametrize(
    ("operator_id", "description", "reason", "field"),
    [
        ("Anna B", "", Reason.FIELD_INVALID, "operator_id"),
        ("", "", Reason.FIELD_INVALID, "operator_id"),
        ("ben", "x" * 4097, Reason.FIELD_INVALID, "operator.description"),
        ("anna", "", Reason.RESOURCE_EXISTS, "operator_id"),
    ],
)
async def test_a_refusal_names_field_and_remedy(operator_id: str, description: str, reason: Reason, field: str) -> None:
    scene = Scene()
    await scene.operators.create("anna", actor=ANNA)
    with pytest.raises(DomainError) as refusal:
        await scene.operators.create(operator_id, description=description, actor=ANNA)
    assert (refusal.value.reason, refusal.value.field) == (reason, field)
    assert refusal.value.remedy
    assert await scene.names() == ["anna"]


async def test_the_last_operator_cannot_be_revoked_whoever_was_revoked_before() -> None:
    scene = Scene()
    for name in ("anna", "ben", "cleo"):
        await scene.operators.create(name, actor=ANNA)
    assert (await scene.operators.revoke("anna", actor="operators/ben")).revoked
    assert (await scene.operators.revoke("anna", actor="operators/cleo")).revoked
    await scene.operators.revoke("ben", actor=ANNA)
    with pytest.raises(DomainError) as refusal:
        await scene.operators.revoke("cleo", actor="operators/cleo")
    assert (refusal.value.reason, refusal.value.field) == (Reason.LAST_OPERATOR, "name")
    assert [operator.revoked for operator in (await scene.operators.list()).items] == [True, True, False]
    log = await actions_of(scene.store, "operators/anna")
    assert log == [(ANNA, "operator.create"), ("operators/ben", "operator.revoke")]
    with pytest.raises(ResourceNotFoundError):
        await scene.operators.revoke("dora", actor=ANNA)


async def test_pages_follow_one_another() -> None:
    scene = Scene()
    for name in ("anna", "ben", "cleo"):
        await scene.operators.create(name, actor=ANNA)
    first = await scene.operators.list(page_size=2)
    second = await scene.operators.list(page_size=2, page_token=first.next_token)
    assert [operator.id for operator in (*first.items, *second.items)] == ["anna", "ben", "cleo"]
    assert second.next_token == ""


async def test_the_first_operator_is_admin_and_a_folder_made_anew_has_one_of_its_own() -> None:
    scene = Scene()
    assert await scene.adopt()
    assert not await scene.adopt()
    assert await scene.names() == ["admin"]
    assert await scene.adopt("lso1.another")
    names = await scene.names()
    assert len(names) == 2
    assert names[1].startswith("admin-")
    assert await actions_of(scene.store, "operators/admin") == [("rules/host", "operator.create")]


async def test_an_operator_made_on_the_host_may_have_a_name() -> None:
    scene = Scene()
    store, clock, ids = scene.store, scene.clock, scene.ids
    await create_operator_token(store=store, clock=clock, ids=ids, description="night shift", operator_id="night")
    await create_operator_token(store=store, clock=clock, ids=ids, description="nameless")
    assert "night" in await scene.names()
    assert len(await scene.names()) == 2
