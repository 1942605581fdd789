"""Samples without their contents."""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa

from controlplane.domain.ids import AgentId, Digest, ModelId, SampleId
from controlplane.domain.sample import Sample, SampleReason
from controlplane.store.mapping.evidence import sample_from_row, sample_to_row
from controlplane.store.tables import sample as samples
from controlplane.store.transaction import Transaction, batches, found


class SqlSampleRepository:
    """The SampleRepository over SQL."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    async def add(self, sample: Sample) -> bool:
        return await self._transaction.insert_once(samples, sample_to_row(sample))

    async def get(self, sample_id: SampleId) -> Sample:
        row = await self._transaction.row(sa.select(samples).where(samples.c.id == sample_id))
        return sample_from_row(found(row, resource=f"samples/{sample_id}"))

    async def list_of(self, sample_ids: Collection[SampleId]) -> Sequence[Sample]:
        listed: list[Sample] = []
        for batch in batches(sorted(set(sample_ids))):
            statement = sa.select(samples).where(samples.c.id.in_(batch)).order_by(samples.c.id)
            listed += await self._transaction.mapped(statement, sample_from_row)
        return listed

    async def find_targets(self, model_id: ModelId, targets: Collection[str]) -> Sequence[tuple[SampleId, Digest, str]]:
        matching: set[tuple[SampleId, Digest, str]] = set()
        columns = (samples.c.id, samples.c.digest, samples.c.part_id)
        for batch in batches(sorted(set(targets))):
            # There is no index of digests: only what may be one is looked for among them.
            digests = [target for target in batch if target.startswith("sha256:")]
            for column in columns if digests else (samples.c.id, samples.c.part_id):
                statement = sa.select(*columns).where(samples.c.model_id == model_id, column.in_(batch))
                matching.update(
                    (SampleId(row[0]), Digest(row[1]), row[2]) for row in await self._transaction.tuples(statement)
                )
        return sorted(matching)

    async def list(
        self,
        *,
        model_id: ModelId | None,
        agent_id: AgentId | None,
        reason: SampleReason | None,
        before: tuple[datetime, SampleId] | None,
        limit: int,
    ) -> Sequence[Sample]:
        key = sa.tuple_(samples.c.create_time, samples.c.id)
        statement = sa.select(samples).order_by(samples.c.create_time.desc(), samples.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(key < before)
        for column, value in (
            (samples.c.model_id, model_id),
            (samples.c.agent_id, agent_id),
            (samples.c.reason, None if reason is None else reason.value),
        ):
            if value is not None:
                statement = statement.where(column == value)
        return [sample_from_row(row) for row in await self._transaction.rows(statement)]
