"""The columns of a file of results, the same whether an agent or the controller wrote it.

Agents have the same columns on their side of the wire (`agent/storage/result_columns.py`); the check that every file
passes before it is indexed holds the two together.
"""

from types import MappingProxyType
from typing import Any

import pyarrow as pa

TIME = pa.timestamp("us", tz="UTC")
COLUMNS = pa.schema(
    [
        pa.field("agent", pa.string(), nullable=False),
        pa.field("batch", pa.int64(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("infer_time", TIME, nullable=False),
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
"""`label` and `score` are the first of `labels` and `scores`, which are best first."""
ARRIVAL = pa.field("arrival", pa.int64(), nullable=False)
"""In merged files alone: of a batch's file the index knows the first, and the rows go on from it."""

WRITING: "MappingProxyType[str, Any]" = MappingProxyType(
    {
        "compression": "zstd",
        # The numbers of a model come from 32-bit floats: half of their bytes are zeros, which lie together so.
        "use_dictionary": [
            "agent", "model", "version", "device", "part_id", "lot", "application", "outcome", "label",
            "labels.list.element", "error", "batch",
        ],
        "column_encoding": {
            "score": "BYTE_STREAM_SPLIT",
            "scores.list.element": "BYTE_STREAM_SPLIT",
            "infer_time": "DELTA_BINARY_PACKED",
            "latency_us": "DELTA_BINARY_PACKED",
            "index": "DELTA_BINARY_PACKED",
        },
        # Arrow's own copy of the schema would be a third of a small file, and says nothing more.
        "store_schema": False,
    }
)  # fmt: skip
