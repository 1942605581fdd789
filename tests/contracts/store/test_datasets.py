"""What LabelRepository, DatasetRepository and PictureRepository promise, and what samples are found by."""

import pytest

from controlplane.app.ports import Store
from controlplane.app.ports_datasets import LabelFilter, Picture
from controlplane.domain.dataset import DatasetCount, DatasetRule, LeftOut, WeightKey, WeightRule
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import DatasetId, LabelId, SampleId
from controlplane.domain.label import LabeledRegion
from controlplane.domain.lake import Place
from controlplane.domain.sample import SampleReason
from controlplane.domain.split import Candidate, Side, Split, SplitMember
from tests.support.dataset_factories import make_dataset, make_label
from tests.support.factories import SOLAR, WELD, after_seconds, digest_of, make_result, make_sample

REGION = LabeledRegion(label="crack", x=0.125, y=0.25, width=0.5, height=0.75)


async def test_labels_come_back_as_they_went_in_by_what_is_asked(store: Store) -> None:
    labels = [
        make_label(id="1", sample_id="a", annotator="anna", regions=(REGION,), source="x.csv", adjudicates=True),
        make_label(id="2", sample_id="b", annotator="bea", create_time=after_seconds(5)),
        make_label(id="3", sample_id="a", annotator="bea", create_time=after_seconds(9)),
        make_label(id="4", sample_id="c", model_id="weld"),
    ]
    async with store.write() as work:
        await work.labels.add(labels)
        await work.labels.add([])
    async with store.read() as work:
        assert await work.labels.list(LabelFilter(), before=None, limit=2) == [labels[3], labels[2]]
        assert await work.labels.list(LabelFilter(), before=LabelId("3"), limit=9) == [labels[1], labels[0]]
        wanted = LabelFilter(model_id=SOLAR, sample_id=SampleId("a"), annotator="bea")
        assert await work.labels.list(wanted, before=None, limit=9) == [labels[2]]
        assert await work.labels.list_of(SOLAR) == [labels[0], labels[2], labels[1]]
        assert await work.labels.list_of(SOLAR, [SampleId("b"), SampleId("c"), SampleId("b")]) == [labels[1]]
        assert await work.labels.list_of(SOLAR, []) == []
        assert await work.labels.list_labelled(SOLAR, after=None, limit=9) == ["a", "b"]
        assert await work.labels.list_labelled(SOLAR, after=SampleId("a"), limit=1) == ["b"]
        assert await work.labels.count_samples(SOLAR) == 2
        assert await work.labels.count_samples(SOLAR, since=after_seconds(6)) == 1
        assert await work.labels.count_samples(WELD, since=after_seconds(6)) == 0


async def test_a_thousand_labels_are_found_of_a_thousand_samples(store: Store) -> None:
    labels = [make_label(id=f"{number:05}", sample_id=f"s-{number:05}") for number in range(1200)]
    async with store.write() as work:
        await work.labels.add(labels)
        assert await work.labels.list_of(SOLAR, [label.sample_id for label in labels]) == labels


async def test_datasets_come_back_as_they_went_in_newest_first(store: Store) -> None:
    first = make_dataset(
        number=1,
        rule=DatasetRule(holdout_percent=30, weights=(WeightRule(key=WeightKey.LINE, value="poly", weight=1.5),)),
        counts=(DatasetCount(split=Split.TRAIN, label="good", line="3", count=7),),
        left_out={LeftOut.CONFLICT: 2},
        description="the first",
    )
    second = make_dataset(number=2, create_time=after_seconds(5))
    other = make_dataset(number=1, id="weld-1", model_id="weld", create_time=after_seconds(5))
    async with store.write() as work:
        for dataset in (first, second, other):
            await work.datasets.add(dataset)
    async with store.read() as work:
        assert await work.datasets.get(DatasetId("solar-1")) == first
        assert await work.datasets.list(model_id=None, before=None, limit=2) == [other, second]
        assert await work.datasets.list(model_id=SOLAR, before=None, limit=9) == [second, first]
        before = (second.create_time, second.id)
        assert await work.datasets.list(model_id=None, before=before, limit=9) == [first]
        assert await work.datasets.find_by_digest(SOLAR, first.digest) == first
        assert await work.datasets.find_by_digest(WELD, first.digest) == other
        assert await work.datasets.find_by_digest(SOLAR, digest_of("another")) is None
        assert [await work.datasets.last_number(model) for model in (SOLAR, WELD)] == [2, 1]
        with pytest.raises(ResourceNotFoundError) as refusal:
            await work.datasets.get(DatasetId("no"))
    assert "datasets/no" in str(refusal.value)


async def test_an_id_and_a_number_are_taken_once(store: Store) -> None:
    async with store.write() as work:
        await work.datasets.add(make_dataset(number=1))
    with pytest.raises(ResourceExistsError):
        async with store.write() as work:
            await work.datasets.add(make_dataset(number=2, id="solar-1"))
    with pytest.raises(StaleWriteError):
        async with store.write() as work:
            await work.datasets.add(make_dataset(number=1, id="another"))


async def test_a_side_is_kept_for_good(store: Store) -> None:
    def member(sample: str, side: Side, bits: int | None = None) -> SplitMember:
        candidate = Candidate(
            sample_id=SampleId(sample), digest=digest_of(sample), part_id=f"of {sample}", difference_hash=bits
        )
        return SplitMember(candidate=candidate, side=side)

    held, trained = member("b", Side.HOLDOUT, (1 << 256) - 1), member("a", Side.TRAINING, 0)
    async with store.write() as work:
        await work.datasets.add_members(SOLAR, [held, trained])
        await work.datasets.add_members(SOLAR, [member("b", Side.TRAINING), member("c", Side.HOLDOUT)])
        await work.datasets.add_members(WELD, [member("b", Side.TRAINING)])
        await work.datasets.add_members(SOLAR, [])
    async with store.read() as work:
        assert await work.datasets.list_members(SOLAR) == [trained, held, member("c", Side.HOLDOUT)]
        asked = [SampleId(sample) for sample in ("a", "b", "d", "a")]
        assert await work.datasets.find_sides(SOLAR, asked) == {"a": Side.TRAINING, "b": Side.HOLDOUT}
        assert await work.datasets.find_sides(WELD, asked) == {"b": Side.TRAINING}
        assert await work.datasets.find_sides(SOLAR, []) == {}


async def test_what_was_read_of_a_content_is_kept_once(store: Store) -> None:
    read = Picture(digest=digest_of("a"), readable=True, width=300, height=200, difference_hash=1 << 255)
    broken = Picture(digest=digest_of("b"), readable=False)
    async with store.write() as work:
        await work.pictures.add([read, broken])
        await work.pictures.add([Picture(digest=read.digest, readable=False)])
        await work.pictures.add([])
    async with store.read() as work:
        found = await work.pictures.find([read.digest, broken.digest, digest_of("c")])
    assert found == {read.digest: read, broken.digest: broken}


async def test_samples_are_found_by_id_content_and_part(store: Store) -> None:
    samples = [
        make_sample(id="s-1", result=make_result(batch=-1, index=-1, part_id="cell-1")),
        make_sample(id="s-2", result=make_result(batch=-1, index=-1, part_id="cell-1")),
        make_sample(id="s-3", result=make_result(batch=-1, index=-1, part_id="")),
        make_sample(id="s-4", model_id="weld", result=make_result(batch=-1, index=-1, part_id="cell-1")),
        make_sample(
            id="s-5", agent_id="", reason=SampleReason.IMPORTED, place=Place(site="s", line="3", station="st-1")
        ),
    ]
    async with store.write() as work:
        for sample in samples:
            assert await work.samples.add(sample)
    async with store.read() as work:
        listed = await work.samples.list_of([SampleId("s-5"), SampleId("s-1"), SampleId("no")])
        assert listed == [samples[0], samples[4]]
        found = await work.samples.find_targets(SOLAR, {"cell-1", "s-3", str(samples[4].digest), "nothing"})
        assert [entry[0] for entry in found] == ["s-1", "s-2", "s-3", "s-5"]
        assert found[0] == ("s-1", samples[0].digest, "cell-1")
        assert await work.samples.find_targets(WELD, {"s-1"}) == []
        assert await work.samples.find_targets(SOLAR, set()) == []
