"""What TokenRepository and RequestRepository promise."""

from dataclasses import replace

import pytest

from controlplane.app.ports import Store
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import JoinTokenId
from tests.support.factories import NOW, make_join_token, make_operator_token

TOKEN_1 = JoinTokenId("token-1")


async def test_a_join_token_is_kept_whole(store: Store) -> None:
    async with store.write() as work:
        await work.tokens.add_join_token(make_join_token())
        assert await work.tokens.get_join_token(TOKEN_1) == make_join_token()
        assert await work.tokens.find_join_token(TOKEN_1) == make_join_token()


async def test_get_names_what_is_missing(store: Store) -> None:
    async with store.read() as work:
        assert await work.tokens.find_join_token(TOKEN_1) is None
        with pytest.raises(ResourceNotFoundError, match="joinTokens/token-1"):
            await work.tokens.get_join_token(TOKEN_1)


async def test_adding_twice_is_refused(store: Store) -> None:
    async with store.write() as work:
        await work.tokens.add_join_token(make_join_token())
        await work.tokens.add_operator_token(make_operator_token())
        with pytest.raises(ResourceExistsError, match="joinTokens/token-1"):
            await work.tokens.add_join_token(make_join_token(uid="another"))
        with pytest.raises(ResourceExistsError):
            await work.tokens.add_operator_token(make_operator_token(secret_sha256="another"))


async def test_one_use_cannot_be_taken_twice(store: Store) -> None:
    async with store.write() as work:
        await work.tokens.add_join_token(make_join_token(uses=1))
        saved = await work.tokens.save_join_token(make_join_token(uses=1, used=1))
        assert saved == make_join_token(uses=1, used=1, revision=1)
        with pytest.raises(StaleWriteError):
            await work.tokens.save_join_token(make_join_token(uses=1, used=1))
        revoked = await work.tokens.save_join_token(replace(saved, revoked=True))
        assert await work.tokens.get_join_token(TOKEN_1) == revoked


async def test_join_tokens_are_paged_newest_first_by_uid(store: Store) -> None:
    tokens = [make_join_token(id=f"t-{9 - number}", uid=f"uid-{number}") for number in range(5)]
    async with store.write() as work:
        for token in tokens:
            await work.tokens.add_join_token(token)
        first = await work.tokens.list_join_tokens(before=None, limit=3)
        rest = await work.tokens.list_join_tokens(before=first[-1].uid, limit=3)
    assert [*first, *rest] == tokens[::-1]
    assert len(first) == 3


async def test_an_operator_token_is_found_by_the_digest_of_its_secret(store: Store) -> None:
    token = make_operator_token(revoked=True)
    async with store.write() as work:
        await work.tokens.add_operator_token(token)
        assert await work.tokens.find_operator_token(token.secret_sha256) == token
        assert await work.tokens.find_operator_token(token.id) is None


async def test_a_request_id_is_remembered_once(store: Store) -> None:
    async with store.write() as work:
        assert await work.requests.find("r-1") is None
        await work.requests.add("r-1", fingerprint="f", resource="models/solar", create_time=NOW)
        assert await work.requests.find("r-1") == ("f", "models/solar")
        with pytest.raises(ResourceExistsError):
            await work.requests.add("r-1", fingerprint="g", resource="models/weld", create_time=NOW)
        assert await work.requests.find("r-1") == ("f", "models/solar")


async def test_operators_are_listed_by_id_and_revoked_once_and_for_all(store: Store) -> None:
    async with store.write() as work:
        for name in ("c", "a", "b-1", "b"):
            await work.tokens.add_operator_token(make_operator_token(id=name, secret_sha256=f"sha-{name}"))
        first = await work.tokens.list_operator_tokens(after=None, limit=2)
        rest = await work.tokens.list_operator_tokens(after=first[-1].id, limit=5)
        assert [token.id for token in (*first, *rest)] == ["a", "b", "b-1", "c"]
        revoked = await work.tokens.revoke_operator_token("b")
        assert revoked == make_operator_token(id="b", secret_sha256="sha-b", revoked=True)
        assert await work.tokens.revoke_operator_token("b") == revoked
        assert await work.tokens.get_operator_token("b") == revoked
        assert not (await work.tokens.get_operator_token("b-1")).revoked


async def test_a_missing_operator_is_named(store: Store) -> None:
    async with store.write() as work:
        with pytest.raises(ResourceNotFoundError, match="operators/nobody"):
            await work.tokens.get_operator_token("nobody")
        with pytest.raises(ResourceNotFoundError, match="operators/nobody"):
            await work.tokens.revoke_operator_token("nobody")
