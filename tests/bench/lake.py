"""Ten million results: how quickly a part is found and a day's defect rate is told, and how many bytes a result takes.

The lake is made as stations make it: files of batches by line, station and day, then merged by the leader's own job.
Questions are asked as an operator's are, through the index and the child process, on files that the disk has cached.
"""

import argparse
import asyncio
import io
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from controlplane import limits
from controlplane.app.lake_keeping import LakeKeeping
from controlplane.app.rejudging import SampleJudges
from controlplane.app.result_questions import ResultQuestions
from controlplane.app.results import Results
from controlplane.artifacts.object_store import LocalObjectStore
from controlplane.domain.evidence import EvidenceBatch
from controlplane.domain.ids import AgentId
from controlplane.domain.lake import Place, ResultSpan, batch_key, stored
from controlplane.inspection.evaluation import OpenVinoEvaluator
from controlplane.lake.codec import ParquetCodec
from controlplane.lake.query import DuckDbQuestions
from controlplane.lake.schema import COLUMNS, WRITING
from controlplane.store import SqlStore, migrate, open_store
from controlplane.system import SystemIds
from tests.bench.report import Row, alone, publish
from tests.support.memory_blobs import MemoryBlobStore

FIRST_DAY = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 5
LINES, STATIONS = 4, 5
BATCH_ROWS = 4_000
ASKED_TIMES = 5
LABELS = np.array(["good", "defect", "scratch"])


def files(total: int, rng: np.random.Generator) -> Iterator[tuple[Place, AgentId, int, datetime, bytes]]:
    """Batches of every station, in order of time, with what each is of."""
    stations = [(f"{line}", f"st-{line}-{number}") for line in range(LINES) for number in range(STATIONS)]
    batches = max(1, total // (BATCH_ROWS * len(stations)))
    step = timedelta(days=DAYS) / batches
    for batch in range(batches):
        begin = FIRST_DAY + batch * step
        for line, station in stations:
            place = Place(site="suzhou", line=line, station=station)
            yield place, AgentId(station), batch, begin, parquet(station, batch, begin, rng)


def parquet(agent: str, batch: int, begin: datetime, rng: np.random.Generator) -> bytes:
    """As an agent writes a batch: serials that count up, scores of a 32-bit model, a quarter of a second apart."""
    rows = BATCH_ROWS
    labels = LABELS[rng.choice(3, rows, p=(0.95, 0.04, 0.01))]
    scores = rng.beta(8, 2, rows).astype(np.float32).astype(np.float64)
    both = np.column_stack([scores, 1.0 - scores]).ravel()
    names = np.column_stack([labels, np.where(labels == "good", "defect", "good")]).ravel()
    offsets = pa.array(np.arange(0, 2 * rows + 1, 2, dtype=np.int32))
    micros = int(begin.timestamp() * 1_000_000) + np.arange(rows) * 1_000 + rng.integers(0, 900, rows)
    columns = {
        "agent": pa.array([agent] * rows),
        "batch": pa.array(np.full(rows, batch)),
        "index": pa.array(np.arange(rows, dtype=np.int32)),
        "model": pa.array(["solar"] * rows),
        "version": pa.array(np.full(rows, 1 + batch % 2)),
        "device": pa.array(["CPU"] * rows),
        "infer_time": pa.array(micros, pa.timestamp("us", tz="UTC")),
        "part_id": pa.array([f"{agent}-{batch * rows + number:010d}" for number in range(rows)]),
        "lot": pa.array([f"lot-{batch}"] * rows),
        "application": pa.array(["plc"] * rows),
        "request_id": pa.array([""] * rows),
        "outcome": pa.array(["OK"] * rows),
        "label": pa.array(labels),
        "score": pa.array(scores),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(names)),
        "scores": pa.ListArray.from_arrays(offsets, pa.array(both)),
        "latency_us": pa.array(rng.gamma(30, 300, rows).astype(np.int64)),
        "error": pa.array([""] * rows),
        "batch_index": pa.array(np.zeros(rows, dtype=np.int32)),
    }
    file = io.BytesIO()
    pq.write_table(
        pa.table([columns[name].cast(COLUMNS.field(name).type) for name in COLUMNS.names], schema=COLUMNS),
        file,
        **WRITING,
    )
    return file.getvalue()


async def fill(store: SqlStore, objects: LocalObjectStore, total: int) -> int:
    """Put and index every batch as the controller does; return how many results there are."""
    codec, ids, rows = ParquetCodec(), SystemIds(), 0
    made = files(total, np.random.default_rng(1))
    while chunk := [one for one, _ in zip(made, range(200), strict=False)]:
        async with store.write() as work:
            for place, agent, batch, begin, content in chunk:
                file = codec.check(content, agent_id=agent, batch=batch)
                key = batch_key(place, file.day, agent_id=agent, batch=batch, nonce=ids.short_id())
                path = objects.path(key)
                assert path is not None
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)  # a bench's lake need not survive a power cut
                came = begin + timedelta(seconds=10)
                evidence = EvidenceBatch(agent_id=agent, batch=batch, receive_time=came, windows=(), results=())
                await work.evidence.add(evidence, [stored(file, key=key, create_time=came)])
                rows += file.rows
    return rows


async def measure(store: SqlStore, objects: LocalObjectStore, folder: Path, *, state: str) -> list[Row]:
    results = Results(store=store, objects=objects, codec=ParquetCodec())
    judges = SampleJudges(store=store, blobs=MemoryBlobStore(), evaluator=OpenVinoEvaluator(), workspace=folder)
    questions = ResultQuestions(store=store, objects=objects, engine=DuckDbQuestions(), judges=judges, workspace=folder)
    async with store.read() as work:
        held = await work.result_index.list_span(ResultSpan(), limit=100_000)
    rows, size = sum(one.rows for one in held), sum(one.size_bytes for one in held)
    part = f"st-2-3-{(held[len(held) // 2].rows // 2):010d}"
    day = FIRST_DAY + timedelta(days=2)
    span = ResultSpan(start_time=day, end_time=day + timedelta(days=1))
    rate = (
        "SELECT line, avg((label <> 'good')::int) AS rate, count(*) AS n FROM results "
        f"WHERE day = '{day.date()}' GROUP BY line ORDER BY line"
    )

    async def seconds(ask: object) -> float:
        taken = []
        for _ in range(ASKED_TIMES):
            begin = time.monotonic()
            await ask()  # type: ignore[operator]
            taken.append(time.monotonic() - begin)
        return statistics.median(taken)

    async def by_trace() -> None:
        assert len((await results.trace(part)).items) == 1

    async def by_sql() -> None:
        sql = f"SELECT agent, version, label, score FROM results WHERE part_id = '{part}'"
        assert len((await questions.query(sql, span=ResultSpan())).answer.rows) == 1

    async def by_line() -> None:
        told = await questions.query(rate, span=span)
        assert len(told.answer.rows) == LINES

    async def over_all() -> None:
        sql = "SELECT line, day, avg((label <> 'good')::int) FROM results GROUP BY ALL"
        assert len((await questions.query(sql, span=ResultSpan())).answer.rows) == LINES * DAYS

    return [
        alone(f"{state}: files", len(held), "files"),
        alone(f"{state}: size", size / rows, "bytes a result"),
        alone(f"{state}: trace of a part", await seconds(by_trace), "s"),
        alone(f"{state}: SQL for a part, all files", await seconds(by_sql), "s"),
        alone(f"{state}: a day's defect rate by line", await seconds(by_line), "s"),
        alone(f"{state}: defect rate by line and day, all files", await seconds(over_all), "s"),
    ]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[SqlStore]:
    url = f"sqlite:///{folder / 'lineside.db'}"
    await asyncio.to_thread(migrate, url)
    store = open_store(url)
    try:
        yield store
    finally:
        await store.close()


async def run(total: int, folder: Path) -> list[Row]:
    objects = LocalObjectStore(folder / "artifacts")
    async with opened(folder) as store:
        rows = await fill(store, objects, total)
        print(f"{rows} results in files of batches", flush=True)
        found = [alone("results", rows, "results"), *await measure(store, objects, folder, state="as they come")]
        keeping = LakeKeeping(store=store, objects=objects, codec=ParquetCodec(), ids=SystemIds())
        begin, now = time.monotonic(), FIRST_DAY + timedelta(days=DAYS + 2)
        while await remaining(store, now):
            await keeping.merge(now)
        merging = time.monotonic() - begin
        found += await measure(store, objects, folder, state="merged")
        found.append(alone("merged", 2 * rows / merging, "results a second"))
        return found


async def remaining(store: SqlStore, now: datetime) -> bool:
    async with store.read() as work:
        return any(
            [await work.result_index.list_unmerged(level=level, created_before=now, limit=1) for level in (0, 1)]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=10_000_000)
    total: int = parser.parse_args().results
    assert total // BATCH_ROWS <= limits.LAKE_QUERY_FILES_MAX, "one question may not read so many files"
    with tempfile.TemporaryDirectory(prefix="lineside-lake-") as folder:
        rows = asyncio.run(run(total, Path(folder)))
    publish("lake", rows, baseline="nothing")


if __name__ == "__main__":
    main()
