"""Labels, datasets, and what was read of pictures."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa

from controlplane.app.ports_datasets import LabelFilter, Picture
from controlplane.domain.dataset import Dataset
from controlplane.domain.errors import ResourceExistsError, StaleWriteError
from controlplane.domain.ids import DatasetId, Digest, LabelId, ModelId, SampleId
from controlplane.domain.label import Label
from controlplane.domain.split import Side, SplitMember
from controlplane.store.mapping import dataset as mapping
from controlplane.store.tables_datasets import dataset as datasets
from controlplane.store.tables_datasets import label as labels
from controlplane.store.tables_datasets import picture as pictures
from controlplane.store.tables_datasets import split_member as members
from controlplane.store.transaction import Transaction, batches, found


class SqlLabelRepository:
    """The LabelRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, given: Sequence[Label]) -> None:
        await self._transaction.insert_all(labels, [mapping.label_to_row(label) for label in given])

    async def list(self, wanted: LabelFilter, *, before: LabelId | None, limit: int) -> Sequence[Label]:
        statement = sa.select(labels).order_by(labels.c.id.desc()).limit(limit)
        for column, value in (
            (labels.c.model_id, wanted.model_id),
            (labels.c.sample_id, wanted.sample_id),
            (labels.c.annotator, wanted.annotator),
        ):
            if value is not None:
                statement = statement.where(column == value)
        if before is not None:
            statement = statement.where(labels.c.id < before)
        return await self._transaction.mapped(statement, mapping.label_from_row)

    async def list_of(self, model_id: ModelId, sample_ids: Collection[SampleId] | None = None) -> Sequence[Label]:
        statement = sa.select(labels).where(labels.c.model_id == model_id)
        ordered = statement.order_by(labels.c.sample_id, labels.c.id)
        if sample_ids is None:
            return await self._transaction.mapped(ordered, mapping.label_from_row)
        given: list[Label] = []
        for batch in batches(sorted(set(sample_ids))):
            some = ordered.where(labels.c.sample_id.in_(batch))
            given += await self._transaction.mapped(some, mapping.label_from_row)
        return given

    async def list_labelled(self, model_id: ModelId, *, after: SampleId | None, limit: int) -> Sequence[SampleId]:
        statement = sa.select(labels.c.sample_id).distinct().where(labels.c.model_id == model_id)
        if after is not None:
            statement = statement.where(labels.c.sample_id > after)
        rows = await self._transaction.tuples(statement.order_by(labels.c.sample_id).limit(limit))
        return [SampleId(row[0]) for row in rows]

    async def count_samples(self, model_id: ModelId, *, since: datetime | None = None) -> int:
        statement = sa.select(sa.func.count(labels.c.sample_id.distinct())).where(labels.c.model_id == model_id)
        if since is not None:
            statement = statement.where(labels.c.create_time >= since)
        return int(await self._transaction.scalar(statement))


class SqlDatasetRepository:
    """The DatasetRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, dataset: Dataset) -> None:
        if await self._transaction.insert_once(datasets, mapping.dataset_to_row(dataset)):
            return
        taken = await self._transaction.scalar(sa.select(datasets.c.id).where(datasets.c.id == dataset.id))
        if taken is not None:
            raise ResourceExistsError(
                f"datasets/{dataset.id} exists already", field="dataset_id", remedy="choose another name"
            )
        raise StaleWriteError(
            f"another dataset of models/{dataset.model_id} was frozen meanwhile", remedy="freeze again"
        )

    async def get(self, dataset_id: DatasetId) -> Dataset:
        row = await self._transaction.row(sa.select(datasets).where(datasets.c.id == dataset_id))
        return mapping.dataset_from_row(found(row, resource=f"datasets/{dataset_id}"))

    async def find_by_digest(self, model_id: ModelId, digest: Digest) -> Dataset | None:
        matches = sa.and_(datasets.c.model_id == model_id, datasets.c.digest == digest)
        row = await self._transaction.row(sa.select(datasets).where(matches).order_by(datasets.c.number).limit(1))
        return None if row is None else mapping.dataset_from_row(row)

    async def last_number(self, model_id: ModelId) -> int:
        statement = sa.select(sa.func.max(datasets.c.number)).where(datasets.c.model_id == model_id)
        return int(await self._transaction.scalar(statement) or 0)

    async def list(
        self, *, model_id: ModelId | None, before: tuple[datetime, DatasetId] | None, limit: int
    ) -> Sequence[Dataset]:
        key = sa.tuple_(datasets.c.create_time, datasets.c.id)
        statement = sa.select(datasets).order_by(datasets.c.create_time.desc(), datasets.c.id.desc()).limit(limit)
        if model_id is not None:
            statement = statement.where(datasets.c.model_id == model_id)
        if before is not None:
            statement = statement.where(key < before)
        return await self._transaction.mapped(statement, mapping.dataset_from_row)

    async def list_members(self, model_id: ModelId) -> Sequence[SplitMember]:
        statement = sa.select(members).where(members.c.model_id == model_id).order_by(members.c.sample_id)
        return await self._transaction.mapped(statement, mapping.member_from_row)

    async def find_sides(self, model_id: ModelId, sample_ids: Collection[SampleId]) -> Mapping[SampleId, Side]:
        sides: dict[SampleId, Side] = {}
        for batch in batches(sorted(set(sample_ids))):
            of_model = members.c.model_id == model_id
            statement = sa.select(members.c.sample_id, members.c.side).where(of_model, members.c.sample_id.in_(batch))
            for row in await self._transaction.rows(statement):
                sides[SampleId(row["sample_id"])] = Side(row["side"])
        return sides

    async def add_members(self, model_id: ModelId, given: Sequence[SplitMember]) -> None:
        if given:
            rows = [mapping.member_to_row(model_id, member) for member in given]
            await self._transaction.change(self._transaction.insert(members).on_conflict_do_nothing(), rows)


class SqlPictureRepository:
    """The PictureRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, given: Sequence[Picture]) -> None:
        if given:
            rows = [mapping.picture_to_row(picture) for picture in given]
            await self._transaction.change(self._transaction.insert(pictures).on_conflict_do_nothing(), rows)

    async def find(self, digests: Collection[Digest]) -> Mapping[Digest, Picture]:
        known: dict[Digest, Picture] = {}
        for batch in batches(sorted(set(digests))):
            statement = sa.select(pictures).where(pictures.c.digest.in_(batch))
            for picture in await self._transaction.mapped(statement, mapping.picture_from_row):
                known[picture.digest] = picture
        return known
