"""What agents hand on from applications and models, and what a database makes of it."""

from dataclasses import replace

import pytest

from controlplane import limits
from controlplane.app.samples import Samples
from controlplane.domain.evidence import LabelScore
from controlplane.domain.lake import ResultFilter
from controlplane.store import SqlStore
from tests.support.factories import (
    digest_of,
    make_agent,
    make_batch,
    make_observation,
    make_result,
    make_sample,
    make_window,
)
from tests.support.lake import make_evidence, make_results, memory_objects
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.virtual_time import VirtualClock

ODD = ["a\0b", "\0", "x" * (limits.RESULT_TEXT_CHARS_MAX + 1), "\ufffe\u202e'\"\\", "\U0001f98a"]


def told(text: str) -> str:
    """What is kept of a text."""
    text = text.replace("\0", "\ufffd")
    return text if len(text) <= limits.RESULT_TEXT_CHARS_MAX else text[: limits.RESULT_TEXT_CHARS_MAX - 1] + "…"


@pytest.mark.parametrize("text", ODD)
async def test_no_text_makes_a_batch_undeliverable(store: SqlStore, text: str) -> None:
    objects = memory_objects()
    evidence = make_evidence(store, objects)
    odd = make_result(
        index=1, part_id=text, request_id=text, error=text, device=text, labels=(LabelScore(label=text, score=0.5),)
    )
    batch = make_batch(results=(make_result(), odd), windows=(make_window(device=text),))
    assert await evidence.report(batch) is False
    assert await evidence.report(batch) is True
    first, second = (await make_results(store, objects).list(ResultFilter())).items
    assert first == make_result()
    kept = told(text)
    assert (second.part_id, second.request_id, second.error, second.device) == (kept,) * 4
    assert [label.label for label in second.labels] == [kept]


@pytest.mark.parametrize("text", ODD)
async def test_no_text_makes_a_sample_undeliverable(store: SqlStore, text: str) -> None:
    samples = Samples(store=store, blobs=MemoryBlobStore(), clock=VirtualClock())
    sample = make_sample(
        digest=digest_of(b"x"), size_bytes=1, input_name=text, result=replace(make_result(), part_id=text)
    )
    assert await samples.store(sample, b"x") is False
    stored = await samples.get(sample.id)
    assert (stored.input_name, stored.result.part_id) == (told(text), told(text))


@pytest.mark.parametrize("text", ODD)
async def test_no_text_of_one_agent_keeps_back_the_reports_of_all(store: SqlStore, text: str) -> None:
    """Observations are written many at a time; texts in them lie in JSON, which has a word for NUL."""
    observed = replace(make_observation().observed, nack_message=text)
    async with store.write() as work:
        await work.agents.add(make_agent())
        await work.agents.record([replace(make_observation(), observed=observed)])
    async with store.read() as work:
        record = await work.agents.get(make_agent().id)
    assert record.observation is not None
    assert record.observation.observed.nack_message == text
