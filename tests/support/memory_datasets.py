"""Labels, datasets and pictures in memory."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from controlplane.app.ports_datasets import LabelFilter, Picture
from controlplane.domain.dataset import Dataset
from controlplane.domain.errors import ResourceExistsError, StaleWriteError
from controlplane.domain.ids import DatasetId, Digest, LabelId, ModelId, SampleId
from controlplane.domain.label import Label
from controlplane.domain.split import Side, SplitMember
from tests.support.memory_tables import Tables, add_row, found


class MemoryLabels:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, labels: Sequence[Label]) -> None:
        for label in labels:
            add_row(self._tables.labels, label.id, label, resource=f"labels/{label.id}")

    async def list(self, wanted: LabelFilter, *, before: LabelId | None, limit: int) -> Sequence[Label]:
        return [
            label
            for _, label in sorted(self._tables.labels.items(), reverse=True)
            if wanted.model_id in (None, label.model_id)
            and wanted.sample_id in (None, label.sample_id)
            and wanted.annotator in (None, label.annotator)
            and (before is None or label.id < before)
        ][:limit]

    async def list_of(self, model_id: ModelId, sample_ids: Collection[SampleId] | None = None) -> Sequence[Label]:
        return sorted(
            (
                label
                for label in self._tables.labels.values()
                if label.model_id == model_id and (sample_ids is None or label.sample_id in sample_ids)
            ),
            key=lambda label: (label.sample_id, label.id),
        )

    async def list_labelled(self, model_id: ModelId, *, after: SampleId | None, limit: int) -> Sequence[SampleId]:
        labelled = {label.sample_id for label in self._tables.labels.values() if label.model_id == model_id}
        return [sample_id for sample_id in sorted(labelled) if after is None or sample_id > after][:limit]

    async def count_samples(self, model_id: ModelId, *, since: datetime | None = None) -> int:
        return len(
            {
                label.sample_id
                for label in self._tables.labels.values()
                if label.model_id == model_id and (since is None or label.create_time >= since)
            }
        )


class MemoryDatasets:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, dataset: Dataset) -> None:
        if dataset.id in self._tables.datasets:
            raise ResourceExistsError(
                f"datasets/{dataset.id} exists already", field="dataset_id", remedy="choose another name"
            )
        if dataset.number <= await self.last_number(dataset.model_id):
            raise StaleWriteError(
                f"another dataset of models/{dataset.model_id} was frozen meanwhile", remedy="freeze again"
            )
        self._tables.datasets[dataset.id] = dataset

    async def get(self, dataset_id: DatasetId) -> Dataset:
        return found(self._tables.datasets.get(dataset_id), f"datasets/{dataset_id}")

    async def find_by_digest(self, model_id: ModelId, digest: Digest) -> Dataset | None:
        same = [
            dataset
            for dataset in self._tables.datasets.values()
            if (dataset.model_id, dataset.digest) == (model_id, digest)
        ]
        return min(same, key=lambda dataset: dataset.number, default=None)

    async def last_number(self, model_id: ModelId) -> int:
        return max((one.number for one in self._tables.datasets.values() if one.model_id == model_id), default=0)

    async def list(
        self, *, model_id: ModelId | None, before: tuple[datetime, DatasetId] | None, limit: int
    ) -> Sequence[Dataset]:
        newest = sorted(self._tables.datasets.values(), key=lambda one: (one.create_time, one.id), reverse=True)
        return [
            dataset
            for dataset in newest
            if model_id in (None, dataset.model_id) and (before is None or (dataset.create_time, dataset.id) < before)
        ][:limit]

    async def list_members(self, model_id: ModelId) -> Sequence[SplitMember]:
        return [member for (model, _), member in sorted(self._tables.split_members.items()) if model == model_id]

    async def find_sides(self, model_id: ModelId, sample_ids: Collection[SampleId]) -> Mapping[SampleId, Side]:
        keys = [(model_id, sample_id) for sample_id in sample_ids]
        return {key[1]: self._tables.split_members[key].side for key in keys if key in self._tables.split_members}

    async def add_members(self, model_id: ModelId, members: Sequence[SplitMember]) -> None:
        for member in members:
            self._tables.split_members.setdefault((model_id, member.candidate.sample_id), member)


class MemoryPictures:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, pictures: Sequence[Picture]) -> None:
        for picture in pictures:
            self._tables.pictures.setdefault(picture.digest, picture)

    async def find(self, digests: Collection[Digest]) -> Mapping[Digest, Picture]:
        return {digest: self._tables.pictures[digest] for digest in digests if digest in self._tables.pictures}
