"""`app.ports_lake.ResultCodec` in Parquet."""

import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from controlplane import limits
from controlplane.app.evidence import within_bounds
from controlplane.app.ports_lake import ResultSource
from controlplane.domain.evidence import LabelScore, Result, ResultOutcome
from controlplane.domain.ids import AgentId, Digest, ModelId
from controlplane.domain.lake import ResultFile, ResultFilter, ResultScope, day_of
from controlplane.lake.checking import checked
from controlplane.lake.schema import ARRIVAL, COLUMNS, WRITING


class ParquetCodec:
    """Parquet with zstd."""

    def encode(self, results: Sequence[Result]) -> Sequence[ResultFile]:
        return [
            _file(_table(list(of_day)))
            for _, of_day in groupby(sorted(results, key=_day), key=_day)  # sorted() keeps the order within a day
        ]

    def encode_arrived(self, numbered: Sequence[tuple[int, Result]]) -> Sequence[ResultFile]:
        ordered = sorted(numbered, key=lambda pair: (_day(pair[1]), pair[1].part_id, pair[0]))
        files = []
        for _, group in groupby(ordered, key=lambda pair: _day(pair[1])):
            of_day = list(group)
            arrivals = pa.array([arrival for arrival, _ in of_day], pa.int64())
            table = _table([result for _, result in of_day]).append_column(ARRIVAL, arrivals)
            files.append(_file(table, merged=True))
        return files

    def check(self, content: bytes, *, agent_id: AgentId, batch: int) -> ResultFile:
        table, as_it_was = checked(content, agent_id=agent_id, batch=batch)
        if as_it_was:
            return _file(table, content=content)
        return _file(_table([within_bounds(_result(row)) for row in table.to_pylist()]))

    def read(
        self,
        source: ResultSource,
        wanted: ResultFilter,
        *,
        first_arrival: int,
        after: int | None,
        limit: int,
        newest_first: bool,
    ) -> Sequence[tuple[int, Result]]:
        table = _arrived(source, first_arrival, filters=_part(wanted))
        for column, value in (
            ("model", wanted.model_id),
            ("version", wanted.version),
            ("agent", wanted.agent_id),
            ("part_id", wanted.part_id),
        ):
            if value is not None:
                table = table.filter(pc.equal(table[column], pa.scalar(value, table.schema.field(column).type)))
        if after is not None:
            beyond = pc.less if newest_first else pc.greater
            table = table.filter(beyond(table["arrival"], after))
        table = table.sort_by([("arrival", "descending" if newest_first else "ascending")]).slice(0, limit)
        return [(row["arrival"], _result(row)) for row in table.to_pylist()]

    def merge(self, sources: Sequence[tuple[ResultSource, int]]) -> ResultFile:
        merged = pa.concat_tables([_arrived(source, first_arrival) for source, first_arrival in sources])
        return _file(merged.sort_by([("part_id", "ascending"), ("arrival", "ascending")]), merged=True)


_MERGED = COLUMNS.append(ARRIVAL)


def _day(result: Result) -> Any:
    return day_of(result.infer_time.astimezone(UTC))


def _table(results: Sequence[Result]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "agent": [one.agent_id for one in results],
        "batch": [one.batch for one in results],
        "index": [one.index for one in results],
        "model": [one.slot for one in results],
        "version": [one.version for one in results],
        "device": [one.device for one in results],
        "infer_time": [one.infer_time for one in results],
        "part_id": [one.part_id for one in results],
        "lot": [one.lot for one in results],
        "application": [one.application for one in results],
        "request_id": [one.request_id for one in results],
        "outcome": [one.outcome.value for one in results],
        "label": [one.labels[0].label if one.labels else None for one in results],
        "score": [one.labels[0].score if one.labels else None for one in results],
        "labels": [[each.label for each in one.labels] for one in results],
        "scores": [[each.score for each in one.labels] for one in results],
        "latency_us": [one.latency_us for one in results],
        "error": [one.error for one in results],
        "batch_index": [one.batch_index for one in results],
    }
    return pa.table(columns, schema=COLUMNS)


def _file(table: pa.Table, *, merged: bool = False, content: bytes | None = None) -> ResultFile:
    """The table, which has a row at least, as a file; `content` is that file where it is known already."""
    if content is None:
        content = _written(table, merged=merged)
    times = pc.min_max(table["infer_time"]).as_py()
    named = table["part_id"].filter(pc.not_equal(table["part_id"], ""))
    parts = pc.min_max(named).as_py()
    arrivals = pc.min_max(table[ARRIVAL.name]).as_py() if merged else {"min": 0, "max": 0}
    scopes = table.group_by(["agent", "model", "version"]).aggregate([]).to_pylist()
    return ResultFile(
        content=content,
        digest=Digest("sha256:" + hashlib.sha256(content).hexdigest()),
        day=day_of(times["min"].astimezone(UTC)),
        rows=table.num_rows,
        start_time=times["min"].astimezone(UTC),
        end_time=times["max"].astimezone(UTC),
        scopes=tuple(
            ResultScope(agent_id=AgentId(one["agent"]), model_id=ModelId(one["model"]), version=one["version"])
            for one in sorted(scopes, key=lambda one: (one["agent"], one["model"], one["version"]))
        ),
        first_part=parts["min"] or "",
        last_part=parts["max"] or "",
        first_arrival=arrivals["min"],
        last_arrival=arrivals["max"],
    )


def _written(table: pa.Table, *, merged: bool) -> bytes:
    written = io.BytesIO()
    options: dict[str, Any] = dict(WRITING)
    if merged:
        options |= {
            "row_group_size": limits.LAKE_ROWS_A_GROUP,
            "bloom_filter_options": {"part_id": True},
            "sorting_columns": [pq.SortingColumn(table.schema.get_field_index("part_id"))],
        }
    pq.write_table(table, written, **options)
    return written.getvalue()


def _opened(source: ResultSource) -> Any:
    return source if isinstance(source, Path) else pa.BufferReader(source)


def _part(wanted: ResultFilter) -> Any:
    return None if wanted.part_id is None else pc.field("part_id") == wanted.part_id


def _arrived(source: ResultSource, first_arrival: int, *, filters: Any = None) -> pa.Table:
    """The rows with their arrival numbers; `filters` may leave out rows of a merged file, which has the numbers."""
    file = pq.ParquetFile(_opened(source))
    try:
        if ARRIVAL.name in file.schema_arrow.names:
            table = pq.read_table(_opened(source), filters=filters, partitioning=None)
        else:
            table = file.read()
            arrivals = pa.array(range(first_arrival, first_arrival + table.num_rows), pa.int64())
            table = table.append_column(ARRIVAL, arrivals)
    finally:
        file.close()
    return table.select(_MERGED.names).cast(_MERGED)


def _result(row: dict[str, Any]) -> Result:
    infer_time: datetime = row["infer_time"]
    return Result(
        agent_id=AgentId(row["agent"]),
        batch=row["batch"],
        index=row["index"],
        slot=ModelId(row["model"]),
        version=row["version"],
        device=row["device"],
        infer_time=infer_time.astimezone(UTC),
        part_id=row["part_id"],
        request_id=row["request_id"],
        outcome=ResultOutcome(row["outcome"]),
        labels=tuple(
            LabelScore(label=label, score=score) for label, score in zip(row["labels"], row["scores"], strict=True)
        ),
        latency_us=row["latency_us"],
        error=row["error"],
        batch_index=row["batch_index"],
        lot=row["lot"],
        application=row["application"],
    )
