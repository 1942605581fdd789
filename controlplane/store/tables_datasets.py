"""Labels, datasets, and what was read of pictures; `tables.py` says which rules hold."""

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, Index, Table

from controlplane.domain.split import Side
from controlplane.store.tables import _id, _integer, _json, _one_of, _text, _time, metadata

label = Table(
    "label",
    metadata,
    _id("id", primary_key=True),
    _id("model_id"),
    _id("sample_id"),
    _id("annotator"),
    _time("create_time"),
    _text("label"),
    _json("regions"),
    _text("source"),
    Column("adjudicates", sa.Boolean(), nullable=False),
    Index(None, "model_id", "sample_id", "id"),
    Index(None, "model_id", "create_time"),
    Index(None, "sample_id", "id"),
)
"""They only grow."""

dataset = Table(
    "dataset",
    metadata,
    _id("id", primary_key=True),
    _id("model_id"),
    _integer("number"),
    _time("create_time"),
    _id("creator"),
    _text("description"),
    _id("digest"),
    _id("training_manifest"),
    _id("holdout_manifest"),
    _json("rule"),
    _json("counts"),
    _json("left_out"),
    sa.UniqueConstraint("model_id", "number"),
    CheckConstraint("number >= 1", name="number"),
    Index(None, "model_id", "digest"),
    Index(None, "create_time", "id"),
    Index(None, "model_id", "create_time", "id"),
)

split_member = Table(
    "split_member",
    metadata,
    _id("model_id", primary_key=True),
    _id("sample_id", primary_key=True),
    _text("side"),
    _id("digest"),
    _id("part_id"),
    Column("difference_hash", sa.Text(), nullable=True),
    _one_of("side", Side),
)
"""On which side a sample stands, by the first dataset that held it or by its import: a row never changes."""

picture = Table(
    "picture",
    metadata,
    _id("digest", primary_key=True),
    Column("readable", sa.Boolean(), nullable=False),
    _integer("width"),
    _integer("height"),
    Column("difference_hash", sa.Text(), nullable=True),
)
"""What was read of a content."""
