"""Pictures that operators bring: each file once a model, what is broken told, the rest stored."""

import asyncio
from datetime import UTC

import pytest

from controlplane import limits
from controlplane.app.sample_imports import ImportedPicture, SampleImports, import_id
from controlplane.domain.dataset import digest_of
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError
from controlplane.domain.ids import ModelId
from controlplane.domain.lake import Place
from controlplane.domain.sample import SampleReason
from controlplane.domain.split import Side
from controlplane.imaging.reading import PillowReader
from tests.support.contended_store import ContendedStore
from tests.support.dataset_factories import picture
from tests.support.factories import SOLAR, WELD, after_seconds, make_model
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import VirtualClock

PLACE = Place(site="suzhou", line="3", station="st-9")


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    async with store.write() as work:
        await work.models.add(make_model())
        await work.models.add(make_model(id="weld"))
    return store


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


def imports_over(store: MemoryStore | ContendedStore, blobs: MemoryBlobStore) -> SampleImports:
    return SampleImports(store=store, blobs=blobs, reader=PillowReader(), clock=VirtualClock())


@pytest.fixture
def imports(store: MemoryStore, blobs: MemoryBlobStore) -> SampleImports:
    return imports_over(store, blobs)


async def test_a_picture_is_a_sample_with_its_part_time_and_place(
    imports: SampleImports, store: MemoryStore, blobs: MemoryBlobStore
) -> None:
    content = picture(1)
    (outcome,) = await imports.store(
        SOLAR, [ImportedPicture(content=content, part_id="cell-1", capture_time=after_seconds(-60))], place=PLACE
    )
    assert (outcome.duplicate, outcome.error) == (False, "")
    assert outcome.sample_id == import_id(SOLAR, digest_of(content))
    async with store.read() as work:
        sample = await work.samples.get(outcome.sample_id)
        read = (await work.pictures.find([sample.digest]))[sample.digest]
    assert (sample.reason, sample.agent_id, sample.place) == (SampleReason.IMPORTED, "", PLACE)
    assert (sample.result.part_id, sample.capture_time) == ("cell-1", after_seconds(-60))
    assert sample.capture_time.tzinfo is UTC
    assert blobs.blobs[sample.digest] == content
    assert (read.readable, read.width, read.height) == (True, 48, 40)


@pytest.mark.parametrize("format", ["JPEG", "BMP", "TIFF", "WEBP"])
async def test_other_formats_are_kept_as_png(
    imports: SampleImports, store: MemoryStore, blobs: MemoryBlobStore, format: str
) -> None:
    (outcome,) = await imports.store(SOLAR, [ImportedPicture(content=picture(1, format=format))], place=Place())
    assert outcome.sample_id is not None
    async with store.read() as work:
        sample = await work.samples.get(outcome.sample_id)
    assert sample.content_type == "image/png"
    assert blobs.blobs[sample.digest].startswith(b"\x89PNG")


async def test_the_same_file_is_the_same_sample_once_a_model(imports: SampleImports, store: MemoryStore) -> None:
    files = [ImportedPicture(content=picture(number)) for number in (1, 2, 1)]
    first = await imports.store(SOLAR, files, place=Place())
    assert [outcome.duplicate for outcome in first] == [False, False, True]
    again = await imports.store(SOLAR, files, place=PLACE)
    assert [outcome.duplicate for outcome in again] == [True] * 3
    assert [outcome.sample_id for outcome in again] == [outcome.sample_id for outcome in first]
    (other,) = await imports.store(WELD, files[:1], place=Place())
    assert (other.duplicate, other.sample_id == first[0].sample_id) == (False, False)
    async with store.read() as work:
        listed = await work.samples.list(model_id=SOLAR, agent_id=None, reason=None, before=None, limit=9)
    assert len(listed) == 2


async def test_two_imports_at_once_store_each_file_once(imports: SampleImports, store: MemoryStore) -> None:
    files = [ImportedPicture(content=picture(number)) for number in range(6)]
    outcomes = await asyncio.gather(*(imports.store(SOLAR, files, place=Place()) for _ in range(3)))
    for same in zip(*outcomes, strict=True):
        assert sorted(outcome.duplicate for outcome in same) == [False, True, True]


async def test_what_is_broken_is_told_and_the_rest_is_stored(imports: SampleImports, blobs: MemoryBlobStore) -> None:
    whole = picture(1)
    wide = picture(2, format="TIFF", mode="I;16")
    broken = [b"", b"no picture", whole[: len(whole) // 2], b"\x89PNG\r\n\x1a\n" + bytes(64), wide]
    files = [whole, *broken, picture(3)]
    outcomes = await imports.store(SOLAR, [ImportedPicture(content=content) for content in files], place=Place())
    assert [bool(outcome.sample_id) for outcome in outcomes] == [True, *([False] * len(broken)), True]
    assert all(outcome.error.startswith("content: ") for outcome in outcomes[1:-1])
    assert len(blobs.blobs) == 2


async def test_a_lost_race_is_run_again(store: MemoryStore, blobs: MemoryBlobStore) -> None:
    contended = ContendedStore(store, losses=3)
    (outcome,) = await imports_over(contended, blobs).store(SOLAR, [ImportedPicture(content=picture(1))], place=Place())
    assert (outcome.duplicate, contended.losses) == (False, 0)


async def test_it_is_found_by_the_digest_of_the_file(imports: SampleImports) -> None:
    stored = picture(1, format="JPEG")
    (outcome,) = await imports.store(SOLAR, [ImportedPicture(content=stored)], place=Place())
    digests = [digest_of(picture(2)), digest_of(stored)]
    assert list(await imports.find(SOLAR, digests)) == [None, outcome.sample_id]
    with pytest.raises(FieldInvalidError):
        await imports.find(SOLAR, ["sha256:no"])


async def test_an_unknown_model_and_too_many_pictures_are_refused(
    imports: SampleImports, blobs: MemoryBlobStore
) -> None:
    with pytest.raises(ResourceNotFoundError):
        await imports.store(ModelId("no"), [ImportedPicture(content=picture(1))], place=Place())
    with pytest.raises(FieldInvalidError) as refusal:
        await imports.store(SOLAR, [ImportedPicture(content=b"x")] * (limits.IMPORT_PICTURES_MAX + 1), place=Place())
    assert refusal.value.field == "pictures"
    assert blobs.blobs == {}


async def test_a_side_that_is_given_is_kept_and_another_is_told(imports: SampleImports, store: MemoryStore) -> None:
    """Also for what was stored before without one."""
    fitted, unseen, plain = (ImportedPicture(content=picture(number), part_id=f"cell-{number}") for number in range(3))
    await imports.store(SOLAR, [fitted], place=Place())
    stored = await imports.store(SOLAR, [fitted, plain], place=Place(), side=Side.TRAINING)
    assert [(one.duplicate, one.error) for one in stored] == [(True, ""), (False, "")]
    stored = await imports.store(SOLAR, [unseen, fitted], place=Place(), side=Side.HOLDOUT)
    assert stored[0].error == ""
    assert stored[1].sample_id is not None
    assert stored[1].error.startswith("side: it stands on the side TRAINING")
    async with store.read() as work:
        members = await work.datasets.list_members(SOLAR)
    by_part = {member.candidate.part_id: member for member in members}
    assert {part: member.side for part, member in by_part.items()} == {
        "cell-0": Side.TRAINING,
        "cell-1": Side.HOLDOUT,
        "cell-2": Side.TRAINING,
    }
    assert all(member.candidate.difference_hash is not None for member in members)

    digests = [digest_of(each.content) for each in (fitted, unseen, plain)]
    ids = [import_id(SOLAR, digest) for digest in digests]
    assert list(await imports.find(SOLAR, digests, side=Side.TRAINING)) == [ids[0], None, ids[2]]
    assert list(await imports.find(SOLAR, digests)) == ids
