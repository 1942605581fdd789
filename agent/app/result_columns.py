"""Results in columns: what a batch is on its way to the controller, a Parquet file for each UTC day.

The columns are those that the controller keeps (`docs/results.md`); it checks every file before it stores it.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agent.app.evidence import micros_since_epoch
from agent.domain.result import Result

COLUMNS = pa.schema(
    [
        pa.field("agent", pa.string(), nullable=False),
        pa.field("batch", pa.int64(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("infer_time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("part_id", pa.string(), nullable=False),
        pa.field("lot", pa.string(), nullable=False),
        pa.field("application", pa.string(), nullable=False),
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("labels", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
        pa.field("scores", pa.list_(pa.field("element", pa.float64(), nullable=False)), nullable=False),
        pa.field("latency_us", pa.int64(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("batch_index", pa.int32(), nullable=False),
    ]
)
_DICTIONARIES = (
    "agent", "batch", "model", "version", "device", "part_id", "lot", "application", "outcome", "label",
    "labels.list.element", "error",
)  # fmt: skip
_ENCODINGS = MappingProxyType(
    {
        # Scores come from 32-bit floats: half of their bytes are zeros, which lie together so.
        "score": "BYTE_STREAM_SPLIT",
        "scores.list.element": "BYTE_STREAM_SPLIT",
        "infer_time": "DELTA_BINARY_PACKED",
        "latency_us": "DELTA_BINARY_PACKED",
        "index": "DELTA_BINARY_PACKED",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """Results of one UTC day."""

    day: date
    rows: int
    content: bytes

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.content).hexdigest()


def result_files(results: Sequence[Result], *, agent: str, batch: int) -> Sequence[ResultFile]:
    """The results of a batch, in order, as files by day. A result's place in the batch is its index, whatever file it
    is in."""
    days: dict[date, list[tuple[int, Result]]] = defaultdict(list)
    for index, result in enumerate(results):
        days[result.infer_time.astimezone(UTC).date()].append((index, result))
    return [
        ResultFile(
            day=day,
            rows=len(of_day),
            content=_parquet(of_day, agent=agent, batch=batch),
        )
        for day, of_day in sorted(days.items())
    ]


def _parquet(numbered: Sequence[tuple[int, Result]], *, agent: str, batch: int) -> bytes:
    results = [result for _, result in numbered]
    columns: dict[str, list[Any]] = {
        "agent": [agent] * len(results),
        "batch": [batch] * len(results),
        "index": [index for index, _ in numbered],
        "model": [one.slot for one in results],
        "version": [one.version for one in results],
        "device": [one.device for one in results],
        "infer_time": [micros_since_epoch(one.infer_time) for one in results],
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
    file = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=COLUMNS),
        file,
        compression="zstd",
        use_dictionary=list(_DICTIONARIES),
        column_encoding=dict(_ENCODINGS),
        # Arrow's own copy of the schema would be a third of a small file, and says nothing more.
        store_schema=False,
    )
    return file.getvalue()
