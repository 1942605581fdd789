"""Samples: content and row once, each agent its own."""

import asyncio
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.samples import Samples
from controlplane.domain.errors import FieldInvalidError, ForbiddenError, Reason, ResourceNotFoundError
from controlplane.domain.ids import AgentId, ModelId, SampleId
from controlplane.domain.sample import Sample, SampleReason
from tests.support.contended_store import ContendedStore
from tests.support.factories import digest_of, make_sample
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import VirtualClock

CONTENT = b"an image"


def sample_of(content: bytes = CONTENT, **overrides: Any) -> Sample:
    return make_sample(**{"digest": digest_of(content), "size_bytes": len(content), **overrides})


@pytest.fixture
def blobs() -> MemoryBlobStore:
    return MemoryBlobStore()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def samples(blobs: MemoryBlobStore, clock: VirtualClock) -> Samples:
    return Samples(store=MemoryStore(), blobs=blobs, clock=clock)


async def test_a_sample_is_stored_once_with_its_content(samples: Samples, clock: VirtualClock) -> None:
    received = clock.advance(10)
    assert await samples.store(sample_of(), CONTENT) is False
    clock.advance(10)
    assert await samples.store(sample_of(), CONTENT) is True
    stored = await samples.get(SampleId("sample-1"))
    assert (stored.create_time, stored.digest) == (received, digest_of(CONTENT))
    assert b"".join([chunk async for chunk in samples.read_content(stored.id)]) == CONTENT


async def test_a_lost_race_is_run_again(blobs: MemoryBlobStore, clock: VirtualClock) -> None:
    contended = ContendedStore(MemoryStore(), losses=3)
    assert await Samples(store=contended, blobs=blobs, clock=clock).store(sample_of(), CONTENT) is False
    assert contended.losses == 0


async def test_two_deliveries_at_once_store_it_once(samples: Samples) -> None:
    answers = await asyncio.gather(*(samples.store(sample_of(), CONTENT) for _ in range(5)))
    assert sorted(answers) == [False, True, True, True, True]
    assert len((await samples.list()).items) == 1


async def test_an_agent_does_not_get_at_anothers_sample(samples: Samples, blobs: MemoryBlobStore) -> None:
    await samples.store(sample_of(), CONTENT)
    with pytest.raises(ForbiddenError) as refusal:
        await samples.store(sample_of(b"another image", agent_id="st-2"), b"another image")
    assert set(blobs.blobs) == {digest_of(CONTENT)}
    assert refusal.value.reason is Reason.NOT_YOURS
    assert refusal.value.field == "sample_id"
    assert refusal.value.remedy


async def test_an_id_that_two_agents_bring_at_once_is_the_firsts(samples: Samples) -> None:
    outcomes = await asyncio.gather(
        samples.store(sample_of(), CONTENT),
        samples.store(sample_of(agent_id="st-2"), CONTENT),
        samples.store(sample_of(id="sample-2", agent_id="st-2"), CONTENT),
        return_exceptions=True,
    )
    assert [outcomes[0], type(outcomes[1]), outcomes[2]] == [False, ForbiddenError, False]
    assert (await samples.get(SampleId("sample-1"))).agent_id == "st-1"


@pytest.mark.parametrize(
    ("overrides", "content", "field", "reason"),
    [
        ({"id": "A B"}, CONTENT, "sample_id", Reason.FIELD_INVALID),
        ({"digest": "sha256:no"}, CONTENT, "sample.digest", Reason.FIELD_INVALID),
        ({"content_type": "text/html"}, CONTENT, "sample.content_type", Reason.FIELD_INVALID),
        ({"size_bytes": 3}, CONTENT, "sample.size_bytes", Reason.FIELD_INVALID),
        ({}, CONTENT[::-1], "sample.digest", Reason.DIGEST_MISMATCH),
        ({}, bytes(limits.SAMPLE_BYTES_MAX + 1), "content", Reason.FIELD_INVALID),
    ],
)
async def test_what_is_not_as_it_says_is_refused_and_not_kept(
    samples: Samples, blobs: MemoryBlobStore, *, overrides: dict[str, Any], content: bytes, field: str, reason: Reason
) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await samples.store(sample_of(**overrides), content)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)
    assert refusal.value.remedy
    assert blobs.blobs == {}
    assert (await samples.list()).items == []


async def test_lists_newest_first_by_what_is_asked(samples: Samples, clock: VirtualClock) -> None:
    for number in range(4):
        clock.advance(1)
        reason = (SampleReason.RANDOM, SampleReason.LEAST_CONFIDENCE)[number % 2]
        await samples.store(sample_of(id=f"s-{number}", agent_id=f"st-{number // 2}", reason=reason), CONTENT)
    page = await samples.list(page_size=3)
    rest = await samples.list(page_size=3, page_token=page.next_token)
    assert [[sample.id for sample in p.items] for p in (page, rest)] == [["s-3", "s-2", "s-1"], ["s-0"]]
    assert [s.id for s in (await samples.list(agent_id=AgentId("st-1"))).items] == ["s-3", "s-2"]
    assert [s.id for s in (await samples.list(reason=SampleReason.RANDOM)).items] == ["s-2", "s-0"]
    assert (await samples.list(model_id=ModelId("wind"))).items == []


@pytest.mark.parametrize("token", ["x", "WyJub3QgYSB0aW1lIiwicy0xIl0"])
async def test_a_forged_page_token_is_refused(samples: Samples, token: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await samples.list(page_token=token)
    assert refusal.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_an_unknown_sample_is_not_found(samples: Samples) -> None:
    with pytest.raises(ResourceNotFoundError):
        await samples.get(SampleId("no"))
    with pytest.raises(ResourceNotFoundError):
        _ = [chunk async for chunk in samples.read_content(SampleId("no"))]
