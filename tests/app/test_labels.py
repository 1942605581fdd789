"""Imports of labels: whole or not at all, every fault with its line."""

import time
from typing import Any

import pytest

from controlplane import limits
from controlplane.app.labels import LabelEntry, LabelImport, Labels
from controlplane.app.ports import AuditFilter
from controlplane.app.ports_datasets import LabelFilter
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError
from controlplane.domain.ids import ModelId, SampleId
from controlplane.domain.label import ConsensusState
from controlplane.store import open_store
from tests.support.contended_store import ContendedStore
from tests.support.factories import SOLAR, digest_of, make_model, make_result, make_sample
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock


@pytest.fixture
async def store() -> MemoryStore:
    """A model with three samples; the last two are of one part."""
    store = MemoryStore()
    async with store.write() as work:
        await work.models.add(make_model())
        await work.models.add(make_model(id="weld"))
        for number, part in ((1, "cell-1"), (2, "cell-2"), (3, "cell-2")):
            result = make_result(batch=-1, index=-1, part_id=part)
            await work.samples.add(make_sample(id=f"s-{number}", result=result))
        await work.samples.add(make_sample(id="w-1", model_id="weld"))
    return store


@pytest.fixture
def labels(store: MemoryStore) -> Labels:
    return Labels(store=store, clock=VirtualClock(), ids=CountingIds())


def entry(target: str, label: str = "good", **overrides: Any) -> LabelEntry:
    return LabelEntry(target=target, label=label, **overrides)


async def add(labels: Labels, *entries: LabelEntry, actor: str = "operators/anna", **options: Any) -> LabelImport:
    return await labels.add(SOLAR, entries, actor=actor, source="labels.csv", **options)


async def stored(labels: Labels) -> list[tuple[str, str, str]]:
    page = await labels.list(LabelFilter(), page_size=1000)
    return sorted((label.sample_id, label.annotator, label.label) for label in page.items)


async def test_labels_are_stored_with_who_and_where_from(labels: Labels, store: MemoryStore) -> None:
    outcome = await add(labels, entry("s-1", "crack"), entry("s-2", annotator="bea"))
    assert (outcome.added, outcome.unchanged, outcome.samples, outcome.errors) == (2, 0, 2, ())
    assert dict(outcome.classes) == {"crack": 1, "good": 1}
    assert await stored(labels) == [("s-1", "anna", "crack"), ("s-2", "bea", "good")]
    assert {label.source for label in (await labels.list(LabelFilter())).items} == {"labels.csv"}
    async with store.read() as work:
        (event,) = await work.audit.list(AuditFilter(action="label."), after=None, limit=9)
    assert (event.happening.actor, event.happening.resource) == ("operators/anna", "models/solar")


@pytest.mark.parametrize("target", ["s-2", "cell-2", digest_of("s-2")])
async def test_a_sample_is_named_by_id_content_or_part(labels: Labels, target: str) -> None:
    outcome = await add(labels, entry(target))
    assert outcome.samples == (2 if target == "cell-2" else 1)
    assert ("s-2", "anna", "good") in await stored(labels)


async def test_the_same_file_again_changes_nothing(labels: Labels, store: MemoryStore) -> None:
    entries = [entry("s-1", "crack"), entry("cell-2")]
    await add(labels, *entries)
    again = await add(labels, *entries)
    assert (again.added, again.unchanged) == (0, 3)
    assert len(await stored(labels)) == 3
    async with store.read() as work:
        assert len(await work.audit.list(AuditFilter(), after=None, limit=9)) == 1


async def test_who_changes_his_mind_is_heard(labels: Labels) -> None:
    for label in ("crack", "good", "crack"):
        assert (await add(labels, entry("s-1", label))).added == 1
    (consensus,) = (await labels.list_consensus(SOLAR)).items
    assert (consensus.label, len(consensus.opinions)) == ("crack", 1)


async def test_with_one_fault_nothing_is_stored_and_every_fault_has_its_line(labels: Labels) -> None:
    outcome = await add(
        labels,
        entry("s-1", line=2),
        entry("nobody", line=3),
        entry("w-1", line=4),
        entry("s-2", " ", line=5),
        entry("s-2", "x" * 999, line=6),
        entry("s-2", annotator="a\0b", line=7),
        entry("s-3", regions=(("crack", 0.5, 0.5, 0.9, 0.1),), line=8),
        entry("s-3", regions=(("crack", 0.0, 0.0, 0.1, 0.1),) * (limits.REGIONS_MAX + 1), line=9),
        entry("", line=10),
    )
    assert [(error.line, error.field) for error in outcome.errors] == [
        (3, "target"), (4, "target"), (5, "label"), (6, "label"), (7, "annotator"), (8, "regions"), (9, "regions"),
        (10, "target"),
    ]  # fmt: skip
    assert all(error.message and error.remedy for error in outcome.errors)
    assert (outcome.added, await stored(labels)) == (0, [])


async def test_who_contradicts_himself_in_one_file_is_told_both_lines(labels: Labels) -> None:
    outcome = await add(labels, entry("s-2", "crack", line=2), entry("s-1", line=3), entry("cell-2", "good", line=9))
    (error,) = outcome.errors
    assert error.line == 9
    assert "'crack' in line or item 2" in error.message
    assert await stored(labels) == []
    two = await add(labels, entry("s-2", "crack"), entry("s-2", "good", annotator="bea"))
    assert (two.errors, two.added, two.conflicts) == ((), 2, ("s-2",))


async def test_the_same_line_twice_is_one_label(labels: Labels) -> None:
    outcome = await add(labels, entry("s-1"), entry("cell-1"))
    assert (outcome.errors, outcome.added) == ((), 1)


async def test_a_dry_run_tells_everything_and_stores_nothing(labels: Labels) -> None:
    await add(labels, entry("s-1", "crack"))
    tried = await add(labels, entry("s-1", "good"), entry("s-2"), actor="operators/bea", dry_run=True)
    assert (tried.added, tried.conflicts) == (2, ("s-1",))
    assert len(await stored(labels)) == 1
    assert await add(labels, entry("s-1", "good"), entry("s-2"), actor="operators/bea") == tried


async def test_conflicts_are_listed_until_somebody_adjudicates(labels: Labels) -> None:
    await add(labels, entry("s-1", "crack"), entry("s-2"), entry("s-3"))
    outcome = await add(labels, entry("s-1", "good"), entry("s-2"), actor="operators/bea")
    assert outcome.conflicts == ("s-1",)
    listed = (await labels.list_consensus(SOLAR, state=ConsensusState.CONFLICT)).items
    assert [(one.sample_id, len(one.opinions)) for one in listed] == [("s-1", 2)]
    assert (await add(labels, entry("s-1", "good", adjudicates=True), actor="operators/lead")).conflicts == ()
    assert (await labels.list_consensus(SOLAR, state=ConsensusState.CONFLICT)).items == []


async def test_consensus_is_paged_by_sample_also_where_few_match(labels: Labels) -> None:
    await add(labels, *(entry(f"s-{number}") for number in (1, 2, 3)))
    await add(labels, entry("s-1", "crack"), entry("s-3", "crack"), actor="operators/bea")
    seen: list[SampleId] = []
    token = ""
    for _ in range(3):
        page = await labels.list_consensus(SOLAR, state=ConsensusState.CONFLICT, page_size=1, page_token=token)
        seen += [one.sample_id for one in page.items]
        token = page.next_token
        if not token:
            break
    assert seen == ["s-1", "s-3"]


async def test_an_unknown_model_and_too_many_entries_are_refused(labels: Labels) -> None:
    with pytest.raises(ResourceNotFoundError):
        await labels.add(ModelId("no"), [entry("s-1")], actor="operators/anna")
    with pytest.raises(FieldInvalidError) as refusal:
        await add(labels, *([entry("s-1")] * (limits.LABEL_ENTRIES_MAX + 1)))
    assert refusal.value.field == "entries"


async def test_a_lost_race_is_run_again(store: MemoryStore) -> None:
    contended = ContendedStore(store, losses=3)
    labels = Labels(store=contended, clock=VirtualClock(), ids=CountingIds())
    assert (await add(labels, entry("s-1"))).added == 1
    assert (contended.losses, len(await stored(labels))) == (0, 1)


async def test_a_thousand_labels_take_a_second_in_one_transaction(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    try:
        async with store.write() as work:
            await work.models.add(make_model())
            for number in range(1000):
                result = make_result(batch=-1, index=-1, part_id=f"cell-{number}")
                await work.samples.add(make_sample(id=f"s-{number}", result=result))
        labels = Labels(store=store, clock=VirtualClock(), ids=CountingIds())
        started = time.process_time()
        outcome = await add(labels, *(entry(f"cell-{number}") for number in range(1000)))
        spent_seconds = time.process_time() - started
        assert outcome.added == 1000
        assert spent_seconds < 2
        async with store.read() as work:
            (event,) = await work.audit.list(AuditFilter(), after=None, limit=9)
            assert event.happening.evidence["added"] == 1000
    finally:
        await store.close()
