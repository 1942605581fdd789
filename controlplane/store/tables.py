"""The tables, as the newest migration leaves them (`alembic check` holds the two together).

Rules kept here:
- What is queried, ordered or guarded has a column; a value that is only ever read whole with its row is JSON.
- Times are aware UTC. Ids order by code point on every database, so that a page key means the same everywhere.
- Floats live in JSON alone: SQLite turns a NaN column into NULL (see mapping/values.py).
- A column that joined its table later has a default of the database: controllers of the release before go on writing.
- Foreign keys hold within an aggregate (versions of a model, the observation of an agent). Between aggregates a row
  names the other by id: use cases check those, and history (rollouts, results, samples) outlives what it names.
"""

from datetime import UTC, datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, MetaData, Table

from controlplane.domain.evidence import ResultOutcome
from controlplane.domain.rollout import RolloutState
from controlplane.domain.sample import SampleReason

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


class UtcTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC datetime. SQLite keeps text without a zone, of fixed width, so that it also sorts as time."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive datetime: it is a programmer's error."""
        if value is None:
            return None
        assert value.tzinfo is not None, f"{value!r} has no time zone"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Return it aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_JSON = sa.JSON(none_as_null=True)
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only where the type is exactly INTEGER."""


def _one_of(column: str, words: type[StrEnum]) -> CheckConstraint:
    allowed = ", ".join(f"'{word.value}'" for word in words)
    return CheckConstraint(f"{column} IN ({allowed})", name=column)


def _id(
    name: str,
    *,
    primary_key: bool = False,
    unique: bool = False,
    nullable: bool = False,
    default: str | None = None,
) -> Column[str]:
    return Column(name, _ID, primary_key=primary_key, unique=unique or None, nullable=nullable, server_default=default)


def _text(name: str) -> Column[str]:
    return Column(name, sa.Text(), nullable=False)


def _integer(
    name: str, *, primary_key: bool = False, nullable: bool = False, default: str | None = None
) -> Column[int]:
    return Column(
        name,
        sa.BigInteger(),
        primary_key=primary_key,
        nullable=nullable,
        autoincrement=False,
        server_default=default,
    )


def _time(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcTime(), nullable=nullable)


def _json(name: str, *, nullable: bool = False, default: str | None = None) -> Column[object]:
    return Column(name, _JSON, nullable=nullable, server_default=default)


model = Table(
    "model",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _time("create_time"),
    _text("description"),
    _integer("latest_version"),
    _integer("revision"),
)

model_version = Table(
    "model_version",
    metadata,
    _id("model_id", primary_key=True),
    _integer("number", primary_key=True),
    _id("uid", unique=True),
    _time("create_time"),
    _id("artifact_digest"),
    _json("artifact"),
    _json("signature"),
    _text("notes"),
    _json("yank", nullable=True),
    ForeignKeyConstraint(["model_id"], ["model.id"]),
    CheckConstraint("number >= 1", name="number"),
    Index(None, "model_id", "artifact_digest"),
    # Asked at every round: of all versions only the few that are forbidden are read.
    Index(
        "ix_model_version_yanked",
        "model_id",
        "number",
        sqlite_where=sa.text("yank IS NOT NULL"),
        postgresql_where=sa.text("yank IS NOT NULL"),
    ),
)

version_blob = Table(
    "version_blob",
    metadata,
    _id("model_id", primary_key=True),
    _integer("number", primary_key=True),
    _id("digest", primary_key=True),
    ForeignKeyConstraint(["model_id", "number"], ["model_version.model_id", "model_version.number"]),
)
"""Digests of a version's files: what an agent that should run it may fetch."""

agent = Table(
    "agent",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _time("create_time"),
    _json("labels"),
    Column("revoked", sa.Boolean(), nullable=False),
    _integer("revision"),
    # Asked every second: of a large fleet only the few that are revoked are read.
    Index("ix_agent_revoked", "id", sqlite_where=sa.text("revoked = 1"), postgresql_where=sa.text("revoked")),
)

observation = Table(
    "observation",
    metadata,
    _id("agent_id", primary_key=True),
    _json("observed"),
    _time("receive_time"),
    _json("host", nullable=True),
    _json("devices", nullable=True),
    Column("change", sa.BigInteger(), nullable=False, server_default="0"),
    ForeignKeyConstraint(["agent_id"], ["agent.id"]),
)
"""Apart from `agent`: it changes with every heartbeat, the agent itself hardly ever."""

agent_certificate = Table(
    "agent_certificate",
    metadata,
    _id("serial", primary_key=True),
    _id("agent_id"),
    _id("public_key_sha256"),
    _time("not_before"),
    _time("expire_time"),
    Index(None, "agent_id", "public_key_sha256"),
)

join_token = Table(
    "join_token",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _text("secret_sha256"),
    _time("create_time"),
    _time("expire_time"),
    _integer("uses"),
    _integer("used"),
    _json("labels"),
    Column("revoked", sa.Boolean(), nullable=False),
    _integer("revision"),
    CheckConstraint("used >= 0 AND used <= uses", name="used"),
)

operator_token = Table(
    "operator_token",
    metadata,
    _id("id", primary_key=True),
    _id("secret_sha256", unique=True),
    _time("create_time"),
    _text("description"),
    Column("revoked", sa.Boolean(), nullable=False),
)

deployment = Table(
    "deployment",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _time("create_time"),
    _time("update_time"),
    _id("model_id"),
    _integer("version", nullable=True),
    _text("selector"),
    _json("runtime_policy"),
    _json("sample_policy"),
    _integer("offer"),
    _integer("revision"),
    _integer("priority", default="0"),
    _json("kept_versions", default="{}"),
    _json("conditions", default="[]"),
    _json("result_policy", default="{}"),
)

rollout = Table(
    "rollout",
    metadata,
    _id("id", primary_key=True),
    _id("uid", unique=True),
    _time("create_time"),
    _time("update_time"),
    _id("deployment_id"),
    _id("model_id"),
    _integer("target_version"),
    _integer("previous_version", nullable=True),
    _json("strategy"),
    _text("state"),
    _text("reason"),
    _text("message"),
    _json("waves"),
    _time("end_time", nullable=True),
    _integer("revision"),
    _id("creator", default=""),
    _id("related_id", nullable=True),
    _json("prefetches", default="{}"),
    _one_of("state", RolloutState),
    Index(None, "deployment_id", "uid"),
    Index(None, "state", "uid"),
)

desired_state = Table(
    "desired_state",
    metadata,
    _id("agent_id", primary_key=True),
    _integer("generation"),
)

desired_slot = Table(
    "desired_slot",
    metadata,
    _id("agent_id", primary_key=True),
    _id("model_id", primary_key=True),
    _integer("version"),
    _id("deployment_id"),
    _json("runtime_policy"),
    _json("sample_policy"),
    _integer("offer"),
    _integer("prefetch_version", default="0"),
    _json("shadow", nullable=True),
    _integer("fetch_bytes_per_second_max", default="0"),
    _json("result_policy", default="{}"),
    ForeignKeyConstraint(["agent_id"], ["desired_state.agent_id"]),
)

pin = Table(
    "pin",
    metadata,
    _id("agent_id", primary_key=True),
    _id("model_id", primary_key=True),
    _integer("version"),
    _text("reason"),
    _time("create_time"),
    _id("actor"),
)

lease = Table(
    "lease",
    metadata,
    _id("name", primary_key=True),
    _id("holder"),
    _integer("epoch"),
    _time("expire_time"),
)
"""Who leads: free when `expire_time` is past, by the database's clock."""

audit_event = Table(
    "audit_event",
    metadata,
    _id("id", primary_key=True),
    _time("create_time"),
    _id("actor"),
    _id("action"),
    _id("resource"),
    _text("reason"),
    _text("message"),
    _json("evidence"),
    _json("related"),
    Index(None, "action", "id"),
    Index(None, "actor", "id"),
    Index(None, "create_time", "id"),
)
"""Decisions. Triggers, made by the migration, refuse to change or remove a row of this table and of the next."""

audit_resource = Table(
    "audit_resource",
    metadata,
    _id("resource", primary_key=True),
    _id("event_id", primary_key=True),
    ForeignKeyConstraint(["event_id"], ["audit_event.id"]),
)
"""Every resource that an event touches, its own and the related: what the log is searched by."""

evidence_batch = Table(
    "evidence_batch",
    metadata,
    _id("agent_id", primary_key=True),
    _integer("batch", primary_key=True),
    _time("receive_time"),
    _integer("dropped_results"),
    _integer("omitted_results", default="0"),
)

metric_window = Table(
    "metric_window",
    metadata,
    _id("agent_id", primary_key=True),
    _integer("batch", primary_key=True),
    _integer("window_index", primary_key=True),
    _id("model_id"),
    _integer("version"),
    _text("device"),
    _time("start_time"),
    _time("end_time"),
    _time("receive_time"),
    _integer("inference_count"),
    _integer("error_count"),
    _integer("refused_count"),
    _json("latency"),
    _json("confidence_histogram"),
    _json("label_counts", default="{}"),
    _json("input_statistics", default="{}"),
    _integer("omitted_count", default="0"),
    ForeignKeyConstraint(["agent_id", "batch"], ["evidence_batch.agent_id", "evidence_batch.batch"]),
    Index(None, "model_id", "version", "receive_time"),
    Index(None, "model_id", "start_time"),
)

shadow_window = Table(
    "shadow_window",
    metadata,
    _id("agent_id", primary_key=True),
    _integer("batch", primary_key=True),
    _integer("window_index", primary_key=True),
    _id("model_id"),
    _integer("serving_version"),
    _integer("candidate_version"),
    _text("device"),
    _time("start_time"),
    _time("end_time"),
    _time("receive_time"),
    _integer("compared"),
    _integer("agreed"),
    _integer("errors"),
    _integer("skipped"),
    _json("candidate_latency"),
    _json("serving_latency"),
    _json("score_distance_histogram"),
    ForeignKeyConstraint(["agent_id", "batch"], ["evidence_batch.agent_id", "evidence_batch.batch"]),
    Index(None, "model_id", "candidate_version", "receive_time"),
)

result = Table(
    "result",
    metadata,
    Column("arrival", _SERIAL, primary_key=True, autoincrement=True),
    _id("agent_id"),
    _integer("batch"),
    _integer("result_index"),
    _id("model_id"),
    _integer("version"),
    _text("device"),
    _time("infer_time"),
    _id("part_id"),
    _text("request_id"),
    _text("outcome"),
    _json("labels"),
    _integer("latency_us"),
    _text("error"),
    _integer("batch_index"),
    sa.UniqueConstraint("agent_id", "batch", "result_index"),
    ForeignKeyConstraint(["agent_id", "batch"], ["evidence_batch.agent_id", "evidence_batch.batch"]),
    _one_of("outcome", ResultOutcome),
    Index(None, "model_id", "arrival"),
    Index(None, "model_id", "version", "arrival"),
    Index(None, "agent_id", "arrival"),
    Index(None, "part_id", "arrival"),
    sqlite_autoincrement=True,
)
"""Results from before there was a lake: read, moved into it by a job, never added to."""

sample = Table(
    "sample",
    metadata,
    _id("id", primary_key=True),
    _id("agent_id"),
    _id("model_id"),
    _time("capture_time"),
    _time("create_time"),
    _text("reason"),
    _json("result"),
    _text("content_type"),
    _id("digest"),
    _integer("size_bytes"),
    _text("input_name"),
    Column("value", sa.Double(), nullable=False, server_default="0"),
    _json("input_statistics", default="{}"),
    Column("label_hint", sa.Text(), nullable=False, server_default=""),
    _id("part_id", default=""),
    _json("place", default="{}"),
    _one_of("reason", SampleReason),
    Index(None, "model_id", "part_id"),
    Index(None, "create_time", "id"),
    Index(None, "model_id", "create_time", "id"),
    Index(None, "agent_id", "create_time", "id"),
)

create_request = Table(
    "create_request",
    metadata,
    _id("id", primary_key=True),
    _text("fingerprint"),
    _text("resource"),
    _time("create_time"),
)
"""Outcomes of creates by request id (AIP-155)."""
