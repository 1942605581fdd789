"""Training runs; `tables.py` says which rules hold."""

from sqlalchemy import Index, Table

from controlplane.domain.training_run import TrainingState
from controlplane.store.tables import _id, _integer, _json, _one_of, _text, _time, metadata

training_run = Table(
    "training_run",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _time("create_time"),
    _time("update_time"),
    _id("model_id"),
    _integer("base_version"),
    _id("dataset_id"),
    _text("trainer"),
    _id("creator"),
    _json("parameters"),
    _text("state"),
    _text("reason"),
    _text("message"),
    _integer("attempt"),
    _id("runner"),
    _time("start_time", nullable=True),
    _time("end_time", nullable=True),
    _json("progress", nullable=True),
    _json("warnings"),
    _json("reported_metrics"),
    _json("candidate", nullable=True),
    _id("cancel_actor"),
    _id("log_digest", nullable=True),
    _integer("revision"),
    _one_of("state", TrainingState),
    Index(None, "state", "uid"),
    Index(None, "model_id", "uid"),
)
