"""Promotions of training runs, and training policies; `tables.py` says which rules hold."""

from sqlalchemy import CheckConstraint, Index, Table

from controlplane.domain.promotion import PromotionState
from controlplane.store.tables import _id, _integer, _json, _one_of, _text, _time, metadata

promotion = Table(
    "promotion",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _id("model_id"),
    _id("dataset_id"),
    _time("create_time"),
    _time("update_time"),
    _text("state"),
    _json("judgement"),
    _id("decider"),
    _time("decide_time", nullable=True),
    _text("message"),
    _integer("version", nullable=True),
    _id("deployment_id", nullable=True),
    _json("strategy", nullable=True),
    _id("rollout_id", nullable=True),
    _integer("revision"),
    _one_of("state", PromotionState),
    CheckConstraint("version >= 1", name="version"),
    Index(None, "model_id", "uid"),
    Index(None, "model_id", "version"),
    Index(None, "state"),
)
"""One a judged run: its id is the run's."""

training_policy = Table(
    "training_policy",
    metadata,
    _id("id", primary_key=True),
    _time("update_time"),
    _id("actor"),
    _json("policy"),
    _integer("revision"),
)
"""One a model: its id is the model's."""
