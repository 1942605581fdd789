"""Results in the table from before there was a lake: listed as they were, and moved without a loss."""

from datetime import UTC
from typing import Any

import pytest
import sqlalchemy as sa

from controlplane.app.lake_keeping import LakeKeeping
from controlplane.domain.errors import StaleWriteError
from controlplane.domain.evidence import LabelScore, Result
from controlplane.domain.lake import FIRST_ARRIVAL, ResultFilter
from controlplane.lake.codec import ParquetCodec
from controlplane.store import SqlStore
from controlplane.store.tables import evidence_batch, result
from controlplane.system import SystemIds
from tests.support.factories import NOW, SOLAR, ST_1, make_agent, make_batch, make_result
from tests.support.lake import make_evidence, make_results, memory_objects


def row_of(one: Result) -> dict[str, Any]:
    """As the release before wrote it."""
    return {
        "agent_id": one.agent_id,
        "batch": one.batch,
        "result_index": one.index,
        "model_id": one.slot,
        "version": one.version,
        "device": one.device,
        "infer_time": one.infer_time.astimezone(UTC),
        "part_id": one.part_id,
        "request_id": one.request_id,
        "outcome": one.outcome.value,
        "labels": [[label.label, label.score] for label in one.labels],
        "latency_us": one.latency_us,
        "error": one.error,
        "batch_index": one.batch_index,
    }


async def add_old(store: SqlStore, *results: Result) -> None:
    async with store.write() as work:
        transaction = work.evidence._transaction  # type: ignore[attr-defined]
        for batch in sorted({one.batch for one in results}):
            row = {"agent_id": ST_1, "batch": batch, "receive_time": NOW, "dropped_results": 0}
            await transaction.change(sa.insert(evidence_batch).values(row))
        await transaction.insert_all(result, [row_of(one) for one in results])


OLD = [
    make_result(batch=7, index=index, part_id=f"old-{index % 3}", version=1 + index % 2, slot="solar")
    for index in range(6)
] + [make_result(batch=8, labels=(LabelScore(label="défaut", score=0.1 + 0.2),), part_id="")]


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (ResultFilter(), [0, 1, 2, 3, 4, 5, 6]),
        (ResultFilter(model_id=SOLAR, version=2), [1, 3, 5]),
        (ResultFilter(part_id="old-1"), [1, 4]),
        (ResultFilter(agent_id=ST_1), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
async def test_old_results_are_listed_with_new_ones_before_and_after_they_move(
    store: SqlStore, wanted: ResultFilter, indices: list[int]
) -> None:
    objects = memory_objects()
    await add_old(store, *OLD)
    new = make_result(batch=9, version=2, part_id="old-1")
    await make_evidence(store, objects).report(make_batch(batch=9, windows=(), results=(new,)))
    async with store.write() as work:
        await work.agents.add(make_agent(labels={"line": "3"}))
    results = make_results(store, objects)
    expected = [*(OLD[index] for index in indices), new]
    assert (await results.list(wanted)).items == expected
    for _ in range(2):
        keeping = LakeKeeping(store=store, objects=objects, codec=ParquetCodec(), ids=SystemIds())
        await keeping.move_rows(NOW)
        assert (await results.list(wanted)).items == expected
        assert (await results.list(wanted, newest_first=True)).items == expected[::-1]
    async with store.read() as work:
        assert await work.evidence.list_results(ResultFilter(), after=None, limit=9) == []
        moved = await work.result_index.list(ResultFilter(), after=None, beyond=None, limit=9)
    assert moved[0].last_arrival < FIRST_ARRIVAL <= moved[1].first_arrival


async def test_rows_that_somebody_else_has_moved_are_not_moved_again(store: SqlStore) -> None:
    await add_old(store, *OLD)
    async with store.read() as work:
        rows = await work.evidence.list_results(ResultFilter(), after=None, limit=9)
    async with store.write() as work:
        await work.result_index.move_rows(rows[:3], [])
    with pytest.raises(StaleWriteError):
        async with store.write() as work:
            await work.result_index.move_rows(rows[2:], [])
    async with store.read() as work:
        assert await work.evidence.list_results(ResultFilter(), after=None, limit=9) == rows[3:]
