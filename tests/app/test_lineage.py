"""Lineage: back to the version that was published by hand, forward to who serves it now."""

from dataclasses import dataclass, field

import pytest

from controlplane import limits
from controlplane.app.datasets import Datasets
from controlplane.app.lineage import Lineages
from controlplane.domain.dataset import write_manifests
from controlplane.domain.errors import ResourceNotFoundError
from controlplane.domain.ids import DatasetId, ModelId
from controlplane.domain.promotion import PromotionState
from controlplane.domain.split import Split
from controlplane.imaging.reading import PillowReader
from tests.app.fleet import LINE_3, SOLAR, Fleet
from tests.support.dataset_factories import make_dataset, make_item
from tests.support.factories import digest_of, make_model, make_version
from tests.support.judging import make_promotion
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.training import make_run


@dataclass
class Scene:
    """Versions, each made of the one before."""

    fleet: Fleet = field(default_factory=Fleet)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)

    @property
    def lineages(self) -> Lineages:
        fleet = self.fleet
        datasets = Datasets(
            store=fleet.store, blobs=self.blobs, reader=PillowReader(), clock=fleet.clock, ids=fleet.ids
        )
        return Lineages(store=fleet.store, datasets=datasets)

    async def prepare(self, versions: int, *, base_of: dict[int, int] | None = None) -> None:
        async with self.fleet.store.write() as work:
            await work.models.add(make_model(id=SOLAR, latest_version=versions))
            for number in range(1, versions + 1):
                await work.models.add_version(make_version(model_id=SOLAR, number=number, uid=f"v{number}"))
        for number in range(2, versions + 1):
            await self._made(number, (base_of or {}).get(number, number - 1))

    async def _made(self, number: int, base: int) -> None:
        items = [
            make_item(sample_id=f"{number}-a", agent_id="st-1", site="suzhou", line="3"),
            make_item(sample_id=f"{number}-b", split=Split.HOLDOUT, label="defect", annotators=("anna", "bo")),
        ]
        dataset = make_dataset(number=number)
        manifests = write_manifests(SOLAR, dataset.rule, items)
        names = {digest_of(content): content for content in (manifests.training, manifests.holdout)}
        self.blobs.blobs.update(names)
        kept = make_dataset(
            number=number,
            digest=manifests.digest,
            training_manifest=digest_of(manifests.training),
            holdout_manifest=digest_of(manifests.holdout),
        )
        run = make_run(f"r{number}", base_version=base, dataset_id=DatasetId(kept.id))
        promotion = make_promotion(
            f"r{number}", state=PromotionState.RELEASED, version=number, decider="operators/anna"
        )
        async with self.fleet.store.write() as work:
            await work.datasets.add(kept)
            await work.training_runs.add(run)
            await work.promotions.add(promotion)


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_version_is_followed_back_to_where_it_was_published_by_hand(scene: Scene) -> None:
    await scene.prepare(3)
    lineage = await scene.lineages.get(SOLAR, 3)
    assert [one.version for one in lineage.ancestors] == [3, 2, 1]
    first = lineage.ancestors[0].training
    assert first is not None
    assert (first.run_id, first.dataset_id, first.base_version, first.decider) == ("r3", "solar-3", 2, "operators/anna")
    assert dict(first.origins.splits) == {"train": 1, "holdout": 1}
    assert dict(first.origins.agents) == {"st-1": 1, "": 1}
    assert dict(first.origins.lines) == {"suzhou/3": 1, "": 1}
    assert dict(first.origins.annotators) == {"anna": 2, "bo": 1}
    assert lineage.ancestors[2].training is None
    assert not lineage.truncated


async def test_a_version_is_followed_forward_to_who_serves_it(scene: Scene) -> None:
    await scene.prepare(2)
    await scene.fleet.enrol("st-1", site="suzhou", line="3", station="a")
    await scene.fleet.enrol("st-2", line="3")
    await scene.fleet.deploy()
    await scene.fleet.sync("st-1", "st-2")
    await scene.fleet.roll_out(2)
    await scene.fleet.sync("st-1", "st-2")
    lineage = await scene.lineages.get(SOLAR, 2)
    assert [use.deployment_id for use in lineage.rollouts] == [LINE_3]
    (use,) = lineage.agents
    assert use.agent_id in {"st-1", "st-2"}
    older = await scene.lineages.get(SOLAR, 1)
    assert len(older.agents) == 1
    assert {agent.place for agent in (*lineage.agents, *older.agents)} == {"suzhou/3/a", "3"}
    assert older.rollouts == ()


async def test_a_circle_ends(scene: Scene) -> None:
    """A candidate with the bytes of an older version is that version."""
    await scene.prepare(3, base_of={2: 3})
    lineage = await scene.lineages.get(SOLAR, 3)
    assert [one.version for one in lineage.ancestors] == [3, 2]


async def test_a_long_line_is_cut_and_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINEAGE_DEPTH_MAX", 2)
    await scene.prepare(3)
    lineage = await scene.lineages.get(SOLAR, 3)
    assert [one.version for one in lineage.ancestors] == [3, 2]
    assert lineage.truncated


async def test_an_unknown_version_is_refused(scene: Scene) -> None:
    await scene.prepare(1)
    with pytest.raises(ResourceNotFoundError):
        await scene.lineages.get(SOLAR, 9)
    with pytest.raises(ResourceNotFoundError):
        await scene.lineages.get(ModelId("weld"), 1)
