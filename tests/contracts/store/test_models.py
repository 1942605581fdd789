"""What ModelRepository promises."""

from dataclasses import replace

import pytest

from controlplane.app.ports import Store
from controlplane.domain.catalog import Yank
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import ModelId
from tests.support.factories import SOLAR, WELD, after_seconds, digest_of, make_artifact, make_model, make_version


@pytest.fixture
async def with_model(store: Store) -> Store:
    async with store.write() as work:
        await work.models.add(make_model())
    return store


async def test_get_names_what_is_missing(store: Store) -> None:
    async with store.read() as work:
        assert await work.models.find(SOLAR) is None
        with pytest.raises(ResourceNotFoundError, match="models/solar"):
            await work.models.get(SOLAR)
        with pytest.raises(ResourceNotFoundError, match="models/solar/versions/3"):
            await work.models.get_version(SOLAR, 3)


async def test_adding_twice_is_refused(with_model: Store) -> None:
    async with with_model.write() as work:
        with pytest.raises(ResourceExistsError, match="model_id: models/solar"):
            await work.models.add(make_model(uid="another"))


async def test_save_returns_the_next_revision(with_model: Store) -> None:
    async with with_model.write() as work:
        saved = await work.models.save(make_model(description="cells", latest_version=2))
        assert saved == make_model(description="cells", latest_version=2, revision=1)
        assert await work.models.get(SOLAR) == saved


async def test_saving_a_revision_that_is_not_stored_is_stale(with_model: Store) -> None:
    async with with_model.write() as work:
        await work.models.save(make_model())
        for revision in (0, 2):
            with pytest.raises(StaleWriteError):
                await work.models.save(make_model(revision=revision))
        with pytest.raises(StaleWriteError):
            await work.models.save(make_model(id="nobody"))


async def test_models_are_paged_by_id_in_code_point_order(store: Store) -> None:
    ids = ["a-b", "a1", "ab", "b"]
    async with store.write() as work:
        for model_id in reversed(ids):
            await work.models.add(make_model(id=model_id))
    async with store.read() as work:
        first = await work.models.list(after=None, limit=3)
        rest = await work.models.list(after=first[-1].id, limit=3)
    assert [model.id for model in [*first, *rest]] == sorted(ids)
    assert len(first) == 3


async def test_a_version_is_kept_whole(with_model: Store) -> None:
    version = make_version(artifact=make_artifact("graph", "weights"), notes="trained on line 3")
    async with with_model.write() as work:
        await work.models.add_version(version)
    async with with_model.read() as work:
        assert await work.models.get_version(SOLAR, 1) == version


async def test_adding_a_version_twice_is_refused(with_model: Store) -> None:
    async with with_model.write() as work:
        await work.models.add_version(make_version())
        with pytest.raises(ResourceExistsError, match="models/solar/versions/1"):
            await work.models.add_version(make_version(uid="another"))


async def test_a_version_is_found_by_its_artifact_within_its_model(with_model: Store) -> None:
    version = make_version()
    async with with_model.write() as work:
        await work.models.add(make_model(id="weld"))
        await work.models.add_version(version)
        assert await work.models.find_version_by_digest(SOLAR, version.artifact.digest) == version
        assert await work.models.find_version_by_digest(WELD, version.artifact.digest) is None
        assert await work.models.find_version_by_digest(SOLAR, digest_of("other")) is None


async def test_a_version_may_hold_one_content_under_two_paths(with_model: Store) -> None:
    version = make_version(artifact=make_artifact("same", "same"))
    async with with_model.write() as work:
        await work.models.add_version(version)
        assert await work.models.get_version(SOLAR, 1) == version


async def test_versions_are_paged_newest_first(with_model: Store) -> None:
    versions = [make_version(number=number) for number in range(1, 12)]
    async with with_model.write() as work:
        for version in versions:
            await work.models.add_version(version)
        first = await work.models.list_versions(SOLAR, before=None, limit=8)
        rest = await work.models.list_versions(SOLAR, before=first[-1].number, limit=8)
    assert [*first, *rest] == versions[::-1]
    assert len(first) == 8


async def test_many_versions_are_got_at_once_and_the_missing_left_out(with_model: Store) -> None:
    versions = [make_version(number=1), make_version(number=2), make_version(model_id="weld")]
    async with with_model.write() as work:
        await work.models.add(make_model(id="weld"))
        for version in versions:
            await work.models.add_version(version)
        wanted = [(SOLAR, 1), (WELD, 1), (SOLAR, 3), (ModelId("nobody"), 1), (WELD, 1)]
        assert await work.models.get_versions(wanted) == {(SOLAR, 1): versions[0], (WELD, 1): versions[2]}
        assert await work.models.get_versions([]) == {}
        assert len(await work.models.get_versions([(SOLAR, number) for number in range(1, 1500)])) == 2


async def test_latest_version_and_version_are_saved_together(with_model: Store) -> None:
    async with with_model.write() as work:
        model = await work.models.get(SOLAR)
        await work.models.add_version(make_version())
        await work.models.save(replace(model, latest_version=1))
    async with with_model.read() as work:
        assert (await work.models.get(SOLAR)).latest_version == 1


async def test_a_version_of_an_unknown_model_is_refused(store: Store) -> None:
    async def add() -> None:
        async with store.write() as work:
            await work.models.add_version(make_version())

    with pytest.raises(ResourceNotFoundError):
        await add()


async def test_a_version_is_yanked_and_allowed_again(with_model: Store) -> None:
    yank = Yank(time=after_seconds(1), reason="wrong classes", actor="operators/anna")
    async with with_model.write() as work:
        await work.models.add_version(make_version(number=1))
        await work.models.add_version(make_version(number=2, uid="another"))
        assert await work.models.list_yanked() == frozenset()
        assert await work.models.set_yank(SOLAR, 2, yank) == make_version(number=2, uid="another", yank=yank)
        assert await work.models.list_yanked() == {(SOLAR, 2)}
        assert (await work.models.get_version(SOLAR, 2)).yank == yank
        assert (await work.models.get_version(SOLAR, 1)).yank is None
        assert (await work.models.set_yank(SOLAR, 2, None)).yank is None
        assert await work.models.list_yanked() == frozenset()


async def test_a_version_that_does_not_exist_is_not_yanked(with_model: Store) -> None:
    async with with_model.write() as work:
        with pytest.raises(ResourceNotFoundError, match="models/solar/versions/3"):
            await work.models.set_yank(SOLAR, 3, None)
