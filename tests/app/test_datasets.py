"""Datasets: what is labelled, frozen, and the holdout out of every trainer's reach."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from controlplane.app.contact_sheets import ContactSheets
from controlplane.app.datasets import Datasets
from controlplane.app.labels import LabelEntry, Labels
from controlplane.app.ports import AuditFilter
from controlplane.domain.dataset import Dataset, DatasetItem, DatasetRule, LeftOut, WeightKey, WeightRule
from controlplane.domain.errors import (
    FieldInvalidError,
    ForbiddenError,
    PreconditionError,
    Reason,
    ResourceExistsError,
    ResourceNotFoundError,
)
from controlplane.domain.ids import DatasetId, ModelId, SampleId
from controlplane.domain.lake import Place
from controlplane.domain.split import TRAINING_SPLITS, Candidate, Side, Split, SplitMember
from controlplane.imaging.reading import PillowReader
from controlplane.imaging.sheet import PillowSheets
from tests.support.contended_store import ContendedStore, OvertakenStore
from tests.support.dataset_factories import picture
from tests.support.factories import SOLAR, digest_of, make_agent, make_model, make_result, make_sample
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore
from tests.support.virtual_time import CountingIds, VirtualClock

RULE = DatasetRule(holdout_percent=40, validation_percent=20)


class Line:
    """A line whose samples a test adds and labels."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.blobs = MemoryBlobStore()
        self.clock = VirtualClock()
        self.ids = CountingIds()
        self.labels = Labels(store=self.store, clock=self.clock, ids=self.ids)
        self.datasets = self.over(self.store)

    def over(self, store: Any) -> Datasets:
        return Datasets(store=store, blobs=self.blobs, reader=PillowReader(), clock=self.clock, ids=self.ids)

    async def begin(self) -> None:
        async with self.store.write() as work:
            await work.models.add(make_model())
            await work.agents.add(make_agent(labels={"site": "s", "line": "3", "station": "st-1"}))

    async def sample(
        self, name: str, content: bytes, label: str = "good", *, part: str = "", annotator: str = "anna", **fields: Any
    ) -> None:
        """Keep a sample with its content, and label it unless the label is empty."""
        result = make_result(batch=-1, index=-1, part_id=part)
        sample = make_sample(
            **{"id": name, "digest": digest_of(content), "size_bytes": len(content), "result": result, **fields}
        )
        await self.blobs.put_bytes(sample.digest, content)
        async with self.store.write() as work:
            await work.samples.add(sample)
        if label:
            await self.label(name, label, annotator=annotator)

    async def label(self, target: str, label: str, *, annotator: str = "anna", **fields: Any) -> None:
        entry = LabelEntry(target=target, label=label, annotator=annotator, **fields)
        outcome = await self.labels.add(SOLAR, [entry], actor="operators/anna")
        assert not outcome.errors

    async def cells(self, count: int, *, start: int = 0) -> None:
        for number in range(start, start + count):
            label = ("good", "crack")[number % 2]
            await self.sample(f"s-{number:03}", picture(number), label, part=f"cell-{number}")

    async def freeze(self, rule: DatasetRule = RULE, **options: Any) -> Dataset:
        return await self.datasets.freeze(SOLAR, rule=rule, actor="operators/anna", **options)

    async def split_of(self, dataset: Dataset) -> dict[str, Split]:
        items = [*await self.datasets.items(dataset.id), *await self.datasets.holdout(dataset.id)]
        return {item.sample_id: item.split for item in items}


@pytest.fixture
async def line() -> Line:
    line = Line()
    await line.begin()
    return line


async def test_a_dataset_names_every_sample_label_and_place(line: Line) -> None:
    await line.cells(30)
    dataset = await line.freeze(description="first")
    splits = await line.split_of(dataset)
    assert (dataset.id, dataset.number, dataset.creator) == ("solar-1", 1, "operators/anna")
    assert set(splits) == {f"s-{number:03}" for number in range(30)}
    assert {split: list(splits.values()).count(split) for split in Split} == {
        split: dataset.count(split) for split in Split
    }
    assert all(dataset.count(split) for split in Split)
    item = (await line.datasets.items(dataset.id))[0]
    assert (item.annotators, item.site, item.line, item.station, item.agent_id) == (("anna",), "s", "3", "st-1", "st-1")
    async with line.store.read() as work:
        labels = {label.id: label.sample_id for label in await work.labels.list_of(SOLAR)}
        (event,) = await work.audit.list(AuditFilter(action="dataset."), after=None, limit=9)
    assert [labels[label_id] for label_id in item.label_ids] == [item.sample_id]
    assert event.happening.resource == "datasets/solar-1"


async def test_the_same_samples_labels_and_rule_are_the_same_dataset(line: Line) -> None:
    await line.cells(10)
    first = await line.freeze()
    assert await line.freeze() == first
    other = await line.freeze(DatasetRule(weights=(WeightRule(key=WeightKey.LABEL, value="crack", weight=2.0),)))
    assert (other.id, other.digest == first.digest) == ("solar-2", False)
    await line.label("s-001", "good", annotator="anna")
    assert (await line.freeze()).id == "solar-3"
    assert [one.id for one in (await line.datasets.list(model_id=SOLAR)).items] == ["solar-3", "solar-2", "solar-1"]


async def test_weights_are_frozen_with_the_items(line: Line) -> None:
    await line.cells(6)
    rule = DatasetRule(
        holdout_percent=0, validation_percent=0, weights=(WeightRule(key=WeightKey.LABEL, value="crack", weight=4.0),)
    )
    items = await line.datasets.items((await line.freeze(rule)).id)
    assert {(item.label, item.weight) for item in items} == {("good", 1.0), ("crack", 4.0)}


async def test_what_is_in_conflict_broken_or_there_twice_is_left_out(line: Line) -> None:
    await line.cells(4)
    await line.label("s-000", "crack", annotator="bea")
    await line.sample("broken", picture(50)[:200], "good")
    await line.sample("no-array", b"not an array", "good", content_type="application/x-npy")
    await line.sample("lost", picture(51), "good")
    del line.blobs.blobs[digest_of(picture(51))]
    await line.sample("again", picture(1), "crack")
    await line.sample("one", picture(60), "good")
    await line.sample("other", picture(60), "crack")
    await line.sample("unlabelled", picture(61), "")
    dataset = await line.freeze()
    assert dict(dataset.left_out) == {
        LeftOut.CONFLICT: 1,
        LeftOut.UNREADABLE: 3,
        LeftOut.DUPLICATE: 1,
        LeftOut.CONTRADICTION: 2,
    }
    assert len(await line.split_of(dataset)) == 3
    await line.label("s-000", "good", annotator="lead", adjudicates=True)
    assert "s-000" in await line.split_of(await line.freeze())


async def test_nothing_labelled_is_no_dataset(line: Line) -> None:
    await line.sample("s-1", picture(1), "")
    with pytest.raises(PreconditionError) as refusal:
        await line.freeze()
    assert (refusal.value.reason, bool(refusal.value.remedy)) == (Reason.DATASET_EMPTY, True)
    with pytest.raises(ResourceNotFoundError):
        await line.datasets.freeze(ModelId("no"), rule=RULE, actor="operators/anna")


async def test_an_id_is_checked_and_taken_once(line: Line) -> None:
    await line.cells(4)
    assert (await line.freeze(dataset_id="spring")).id == "spring"
    await line.cells(4, start=4)
    with pytest.raises(ResourceExistsError):
        await line.freeze(dataset_id="spring")
    with pytest.raises(FieldInvalidError):
        await line.freeze(dataset_id="No Id")
    assert [one.id for one in (await line.datasets.list()).items] == ["spring"]


async def held_out(line: Line, dataset: Dataset) -> Sequence[DatasetItem]:
    items = await line.datasets.holdout(dataset.id)
    assert items
    return items


async def test_planted_duplicates_of_held_out_cells_never_reach_a_trainer(line: Line, tmp_path: Path) -> None:
    """The held-out cell comes back as another picture of its part, as its own bytes without a part, and as the
    same picture at another size: each under a name and a digest that nobody has seen."""
    await line.cells(20)
    target = (await held_out(line, await line.freeze()))[0]
    number = int(target.sample_id.removeprefix("s-"))
    planted = {
        "part": picture(900),
        "bytes": picture(number),
        "resized": picture(number, size=(96, 80)),
        "recompressed": picture(number, compress_level=1),
    }
    for name, content in planted.items():
        await line.sample(f"x-{name}", content, target.label, part=target.part_id if name == "part" else "")
    await line.cells(20, start=100)
    later = await line.freeze()
    splits = await line.split_of(later)
    assert {splits.get(f"x-{name}", Split.HOLDOUT) for name in planted} == {Split.HOLDOUT}
    assert splits["x-resized"] is Split.HOLDOUT
    await line.datasets.materialise(later.id, tmp_path)
    written = {path.stem for path in (tmp_path / "images").iterdir()}
    assert not written & {digest_of(content).removeprefix("sha256:") for content in planted.values()}


async def test_round_after_round_nothing_held_out_is_trained_on(line: Line) -> None:
    trained: set[str] = set()
    held: set[str] = set()
    for round_ in range(5):
        await line.cells(12, start=round_ * 12)
        rule = DatasetRule(holdout_percent=(40, 20, 60, 10, 30)[round_], validation_percent=10)
        splits = await line.split_of(await line.freeze(rule))
        trained |= {name for name, split in splits.items() if split in TRAINING_SPLITS}
        now_held = {name for name, split in splits.items() if split is Split.HOLDOUT}
        assert held <= now_held
        held |= now_held
        assert trained.isdisjoint(held)
    assert trained
    assert held


async def test_two_that_freeze_at_once_give_each_sample_one_side(line: Line) -> None:
    await line.cells(20)
    rules = [DatasetRule(holdout_percent=percent) for percent in (0, 40, 80)]
    frozen = await asyncio.gather(*(line.freeze(rule) for rule in rules))
    assert sorted(dataset.number for dataset in frozen) == [1, 2, 3]
    sides: dict[str, set[bool]] = {}
    for dataset in frozen:
        for name, split in (await line.split_of(dataset)).items():
            sides.setdefault(name, set()).add(split is Split.HOLDOUT)
    assert all(len(side) == 1 for side in sides.values())


async def test_a_lost_race_is_run_again(line: Line) -> None:
    await line.cells(4)
    contended = ContendedStore(line.store, losses=3)
    dataset = await line.over(contended).freeze(SOLAR, rule=RULE, actor="operators/anna")
    assert (dataset.number, contended.losses) == (1, 0)


async def test_a_trainers_folder_holds_what_is_not_held_out_and_tells_nothing_of_the_rest(
    line: Line, tmp_path: Path
) -> None:
    await line.cells(24)
    dataset = await line.freeze()
    await line.datasets.materialise(dataset.id, tmp_path)
    document = json.loads((tmp_path / "dataset.json").read_text())
    assert (document["dataset"], document["model"]) == ("datasets/solar-1", "models/solar")
    assert document["labels"] == ["crack", "good"]
    assert {item["split"] for item in document["items"]} == {"TRAIN", "VALIDATION"}
    for item in document["items"]:
        content = (tmp_path / item["file"]).read_bytes()
        assert (digest_of(content), item["weight"], item["line"]) == (item["digest"], 1.0, "3")
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for item in await held_out(line, dataset):
        for secret in (item.sample_id, item.digest.removeprefix("sha256:"), f'"{item.part_id}"'):
            assert secret.encode() not in everything
    assert dataset.holdout_manifest.encode() not in everything
    assert len(list((tmp_path / "images").iterdir())) == len(document["items"]) == dataset.count(*TRAINING_SPLITS)


async def test_a_trainer_may_be_given_one_split_and_never_the_holdout(line: Line, tmp_path: Path) -> None:
    await line.cells(24)
    dataset = await line.freeze()
    await line.datasets.materialise(dataset.id, tmp_path / "train", {Split.TRAIN})
    assert len(list((tmp_path / "train" / "images").iterdir())) == dataset.count(Split.TRAIN)
    for splits in ({Split.HOLDOUT}, set(Split)):
        with pytest.raises(ForbiddenError) as refusal:
            await line.datasets.materialise(dataset.id, tmp_path / "all", splits)
        assert (refusal.value.reason, bool(refusal.value.remedy)) == (Reason.HOLDOUT_GUARDED, True)
    assert not (tmp_path / "all").exists()


async def test_the_second_guard_stops_what_the_rows_call_held_out(line: Line, tmp_path: Path) -> None:
    """A manifest that was changed behind our back: the rows still know better."""
    await line.cells(12)
    dataset = await line.freeze()
    trained = (await line.datasets.items(dataset.id))[0]
    key = (SOLAR, trained.sample_id)
    candidate = Candidate(sample_id=trained.sample_id, digest=trained.digest)
    async with line.store.write() as work:
        assert any(member.candidate.sample_id == key[1] for member in await work.datasets.list_members(SOLAR))
        twin = SplitMember(
            candidate=Candidate(sample_id=type(key[1])("twin"), digest=candidate.digest), side=Side.HOLDOUT
        )
        await work.datasets.add_members(SOLAR, [twin])
    with pytest.raises(ForbiddenError) as refusal:
        await line.datasets.materialise(dataset.id, tmp_path / "out")
    assert refusal.value.reason is Reason.HOLDOUT_GUARDED
    assert not (tmp_path / "out").exists()


async def test_a_side_that_was_given_holds_whatever_the_rule_says(line: Line) -> None:
    """Another picture of a part follows it, and what nobody gave a side falls by the rule."""
    await line.cells(40)
    fitted, unseen = {f"s-{number:03}" for number in range(10)}, {f"s-{number:03}" for number in range(10, 20)}
    async with line.store.write() as work:
        for sample in await work.samples.list_of([SampleId(name) for name in fitted | unseen]):
            side = Side.TRAINING if sample.id in fitted else Side.HOLDOUT
            candidate = Candidate(sample_id=sample.id, digest=sample.digest, part_id=sample.result.part_id)
            await work.datasets.add_members(SOLAR, [SplitMember(candidate=candidate, side=side)])
    await line.sample("again", picture(900), part="cell-15")
    splits = await line.split_of(await line.freeze())
    assert {splits[name] for name in fitted} <= TRAINING_SPLITS
    assert {splits[name] for name in unseen | {"again"}} == {Split.HOLDOUT}
    rest = {split for name, split in splits.items() if name not in fitted | unseen}
    assert rest == set(Split)


async def test_a_side_that_is_given_while_a_dataset_is_frozen_is_not_contradicted(line: Line) -> None:
    await line.cells(20)
    name = SampleId(next(name for name, split in (await _trial()).items() if split is Split.HOLDOUT))

    async def give() -> None:
        async with line.store.write() as work:
            (sample,) = await work.samples.list_of([name])
            candidate = Candidate(sample_id=name, digest=sample.digest, part_id=sample.result.part_id)
            await work.datasets.add_members(SOLAR, [SplitMember(candidate=candidate, side=Side.TRAINING)])

    overtaken = line.over(OvertakenStore(line.store, give))
    dataset = await overtaken.freeze(SOLAR, rule=RULE, actor="operators/anna")
    assert (await line.split_of(dataset))[name] in TRAINING_SPLITS


async def _trial() -> dict[str, Split]:
    """Where the same cells fall on another line."""
    other = Line()
    await other.begin()
    await other.cells(20)
    return await other.split_of(await other.freeze())


async def test_a_content_that_was_changed_is_not_trained_on(line: Line, tmp_path: Path) -> None:
    await line.cells(12)
    dataset = await line.freeze()
    item = (await line.datasets.items(dataset.id))[0]
    line.blobs.blobs[item.digest] = picture(999)
    with pytest.raises(PreconditionError) as refusal:
        await line.datasets.materialise(dataset.id, tmp_path)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert not (tmp_path / "dataset.json").exists()


async def test_who_is_handed_the_holdout_is_written_down(line: Line) -> None:
    await line.cells(20)
    dataset = await line.freeze()
    given = await line.datasets.list_items(dataset.id, page_size=1000)
    assert {item.split for item in given.items} <= TRAINING_SPLITS
    released = await line.datasets.list_items(dataset.id, released_to="operators/bea", page_size=1000)
    assert list(released.items) == list(await line.datasets.holdout(dataset.id))
    async with line.store.read() as work:
        (event,) = await work.audit.list(AuditFilter(action="dataset.release_holdout"), after=None, limit=9)
    assert (event.happening.actor, event.happening.resource) == ("operators/bea", "datasets/solar-1")


async def test_items_are_paged_by_sample(line: Line) -> None:
    await line.cells(20)
    dataset = await line.freeze()
    seen: list[str] = []
    token = ""
    while True:
        page = await line.datasets.list_items(dataset.id, page_size=5, page_token=token)
        seen += [item.sample_id for item in page.items]
        token = page.next_token
        if not token:
            break
    assert seen == [item.sample_id for item in await line.datasets.items(dataset.id)]


async def test_a_dataset_is_checked_to_be_the_models(line: Line) -> None:
    await line.cells(4)
    dataset = await line.freeze()
    await line.datasets.check(dataset.id, SOLAR)
    with pytest.raises(FieldInvalidError) as refusal:
        await line.datasets.check(dataset.id, ModelId("weld"))
    assert refusal.value.field == "training_run.dataset"
    with pytest.raises(ResourceNotFoundError):
        await line.datasets.check(DatasetId("no"), SOLAR)


async def test_a_sample_keeps_its_own_place_before_its_agents(line: Line) -> None:
    await line.sample("s-1", picture(1), place=Place(site="elsewhere", line="7"))
    await line.sample("s-2", picture(2))
    dataset = await line.freeze(DatasetRule(holdout_percent=0))
    places = {item.sample_id: (item.site, item.line) for item in await line.datasets.items(dataset.id)}
    assert places == {"s-1": ("elsewhere", "7"), "s-2": ("s", "3")}


async def test_a_contact_sheet_shows_a_row_each_split_and_class(line: Line) -> None:
    await line.cells(16)
    dataset = await line.freeze()
    sheets = ContactSheets(datasets=line.datasets, painter=PillowSheets())
    assert (await sheets.draw(dataset.id, pictures_max=3)).startswith(b"\x89PNG")
    async with line.store.read() as work:
        assert await work.audit.list(AuditFilter(action="dataset.release_holdout"), after=None, limit=9) == []
    await sheets.draw(dataset.id, released_to="operators/bea")
    async with line.store.read() as work:
        assert len(await work.audit.list(AuditFilter(action="dataset.release_holdout"), after=None, limit=9)) == 1
    with pytest.raises(FieldInvalidError):
        await sheets.draw(dataset.id, pictures_max=10_000)
