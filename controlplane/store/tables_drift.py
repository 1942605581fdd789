"""Drifts, and which batches wait to be looked at; `tables.py` says which rules hold."""

import sqlalchemy as sa
from sqlalchemy import Column, Index, Table

from controlplane.domain.drift import DriftState
from controlplane.store.tables import _SERIAL, _id, _integer, _json, _one_of, _text, _time, metadata, metric_window

drift = Table(
    "drift",
    metadata,
    _id("agent_id", primary_key=True),
    _id("model_id", primary_key=True),
    _integer("version", primary_key=True),
    _text("state"),
    _time("transition_time"),
    _text("message"),
    Column("serving", sa.Boolean(), nullable=False),
    _integer("last_batch"),
    _time("last_time"),
    _time("start_time"),
    _integer("inference_count"),
    _integer("reference_count"),
    _integer("episode_count"),
    _json("learned"),
    _json("progress"),
    _integer("revision"),
    _one_of("state", DriftState),
    Index(None, "model_id", "agent_id"),
    # Asked for every page of agents and at every round: of a large fleet only the few that have drifted are read.
    Index(
        "ix_drift_drifted",
        "agent_id",
        "model_id",
        sqlite_where=sa.text("state = 'DRIFTED'"),
        postgresql_where=sa.text("state = 'DRIFTED'"),
    ),
)

drift_inbox = Table(
    "drift_inbox",
    metadata,
    Column("arrival", _SERIAL, primary_key=True, autoincrement=True),
    _id("agent_id"),
    _integer("batch"),
    sqlite_autoincrement=True,
)
"""Batches that nobody has looked at for drift yet: a queue, so that none is looked at twice or passed over, in whatever
order their transactions commit."""

# What the history of one slot is read by.
Index(None, metric_window.c.agent_id, metric_window.c.model_id, metric_window.c.start_time)
