"""Models and versions."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import sqlalchemy as sa

from controlplane.domain.catalog import Model, ModelVersion, Yank
from controlplane.domain.ids import Digest, ModelId
from controlplane.store.mapping.catalog import (
    model_from_row,
    model_to_row,
    version_from_row,
    version_to_blob_rows,
    version_to_row,
    yank_to_json,
)
from controlplane.store.tables import model as models
from controlplane.store.tables import model_version as versions
from controlplane.store.tables import version_blob
from controlplane.store.transaction import Transaction, batches, found


class SqlModelRepository:
    """The ModelRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, model: Model) -> None:
        await self._transaction.add(models, model_to_row(model), resource=f"models/{model.id}", field="model_id")

    async def get(self, model_id: ModelId) -> Model:
        return found(await self.find(model_id), resource=f"models/{model_id}")

    async def find(self, model_id: ModelId) -> Model | None:
        row = await self._transaction.row(sa.select(models).where(models.c.id == model_id))
        return None if row is None else model_from_row(row)

    async def save(self, model: Model) -> Model:
        return model_from_row(await self._transaction.save(models, model_to_row(model), resource=f"models/{model.id}"))

    async def list(self, *, after: ModelId | None, limit: int) -> Sequence[Model]:
        statement = sa.select(models).order_by(models.c.id).limit(limit)
        if after is not None:
            statement = statement.where(models.c.id > after)
        return [model_from_row(row) for row in await self._transaction.rows(statement)]

    async def add_version(self, version: ModelVersion) -> None:
        await self._transaction.add(versions, version_to_row(version), resource=version.name)
        await self._transaction.insert_all(version_blob, version_to_blob_rows(version))

    async def get_version(self, model_id: ModelId, number: int) -> ModelVersion:
        row = await self._transaction.row(
            sa.select(versions).where(versions.c.model_id == model_id, versions.c.number == number)
        )
        return version_from_row(found(row, resource=f"models/{model_id}/versions/{number}"))

    async def find_version_by_digest(self, model_id: ModelId, digest: Digest) -> ModelVersion | None:
        statement = (
            sa.select(versions)
            .where(versions.c.model_id == model_id, versions.c.artifact_digest == digest)
            .order_by(versions.c.number)
            .limit(1)
        )
        row = await self._transaction.row(statement)
        return None if row is None else version_from_row(row)

    async def list_versions(self, model_id: ModelId, *, before: int | None, limit: int) -> Sequence[ModelVersion]:
        statement = (
            sa.select(versions).where(versions.c.model_id == model_id).order_by(versions.c.number.desc()).limit(limit)
        )
        if before is not None:
            statement = statement.where(versions.c.number < before)
        return [version_from_row(row) for row in await self._transaction.rows(statement)]

    async def get_versions(self, wanted: Iterable[tuple[ModelId, int]]) -> Mapping[tuple[ModelId, int], ModelVersion]:
        existing: dict[tuple[ModelId, int], ModelVersion] = {}
        for batch in batches(sorted(set(wanted))):
            # By model, because SQLite seeks pairs (model, number) IN (...) through the whole table.
            of_models = [
                sa.and_(versions.c.model_id == model_id, versions.c.number.in_([number for _, number in pairs]))
                for model_id, pairs in groupby(batch, key=itemgetter(0))
            ]
            for row in await self._transaction.rows(sa.select(versions).where(sa.or_(*of_models))):
                version = version_from_row(row)
                existing[version.model_id, version.number] = version
        return existing

    async def set_yank(self, model_id: ModelId, number: int, yank: Yank | None) -> ModelVersion:
        await self._transaction.execute(
            sa.update(versions)
            .where(versions.c.model_id == model_id, versions.c.number == number)
            .values(yank=yank_to_json(yank))
        )
        return await self.get_version(model_id, number)

    async def list_yanked(self) -> frozenset[tuple[ModelId, int]]:
        statement = sa.select(versions.c.model_id, versions.c.number).where(versions.c.yank.is_not(None))
        return frozenset((ModelId(row["model_id"]), row["number"]) for row in await self._transaction.rows(statement))
