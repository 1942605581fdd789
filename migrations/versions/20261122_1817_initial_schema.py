"""Create every table of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "5b1f0c9e7a42"
down_revision = None
branch_labels = None
depends_on = None

# Ids order by code point on every database.
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON()
# SQLite numbers rows by itself only where the type is exactly INTEGER.
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# Names within op.f are whole; the naming convention would put ck_<table>_ before them again.


def upgrade() -> None:
    op.create_table(
        "agent",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent"),
        sa.UniqueConstraint("uid", name="uq_agent_uid"),
    )
    op.create_index(
        "ix_agent_revoked", "agent", ["id"], sqlite_where=sa.text("revoked = 1"), postgresql_where=sa.text("revoked")
    )

    op.create_table(
        "agent_certificate",
        sa.Column("serial", ID, nullable=False),
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("public_key_sha256", ID, nullable=False),
        sa.Column("not_before", TIME, nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("serial", name="pk_agent_certificate"),
    )
    op.create_index(
        "ix_agent_certificate_agent_id_public_key_sha256", "agent_certificate", ["agent_id", "public_key_sha256"]
    )

    op.create_table(
        "create_request",
        sa.Column("id", ID, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_create_request"),
    )
    op.create_table(
        "deployment",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("runtime_policy", JSON, nullable=False),
        sa.Column("sample_policy", JSON, nullable=False),
        sa.Column("offer", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deployment"),
        sa.UniqueConstraint("uid", name="uq_deployment_uid"),
    )
    op.create_table(
        "desired_state",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name="pk_desired_state"),
    )
    op.create_table(
        "evidence_batch",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("receive_time", TIME, nullable=False),
        sa.Column("dropped_results", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "batch", name="pk_evidence_batch"),
    )
    op.create_table(
        "join_token",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("used >= 0 AND used <= uses", name=op.f("ck_join_token_used")),
        sa.PrimaryKeyConstraint("id", name="pk_join_token"),
        sa.UniqueConstraint("uid", name="uq_join_token_uid"),
    )
    op.create_table(
        "model",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("latest_version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("uid", name="uq_model_uid"),
    )
    op.create_table(
        "operator_token",
        sa.Column("id", ID, nullable=False),
        sa.Column("secret_sha256", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_operator_token"),
        sa.UniqueConstraint("secret_sha256", name="uq_operator_token_secret_sha256"),
    )
    op.create_table(
        "rollout",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("deployment_id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("target_version", sa.BigInteger(), nullable=False),
        sa.Column("previous_version", sa.BigInteger(), nullable=True),
        sa.Column("strategy", JSON, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("waves", JSON, nullable=False),
        sa.Column("end_time", TIME, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('RUNNING', 'PAUSED', 'ROLLING_BACK', 'SUCCEEDED', 'ROLLED_BACK', 'ABORTED')",
            name=op.f("ck_rollout_state"),
        ),
        sa.PrimaryKeyConstraint("id", name="pk_rollout"),
        sa.UniqueConstraint("uid", name="uq_rollout_uid"),
    )
    op.create_index("ix_rollout_deployment_id_uid", "rollout", ["deployment_id", "uid"])
    op.create_index("ix_rollout_state_uid", "rollout", ["state", "uid"])

    op.create_table(
        "sample",
        sa.Column("id", ID, nullable=False),
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("capture_time", TIME, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("result", JSON, nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("digest", ID, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("input_name", sa.Text(), nullable=False),
        sa.CheckConstraint("reason IN ('RANDOM', 'LEAST_CONFIDENCE')", name=op.f("ck_sample_reason")),
        sa.PrimaryKeyConstraint("id", name="pk_sample"),
    )
    op.create_index("ix_sample_agent_id_create_time_id", "sample", ["agent_id", "create_time", "id"])
    op.create_index("ix_sample_create_time_id", "sample", ["create_time", "id"])
    op.create_index("ix_sample_model_id_create_time_id", "sample", ["model_id", "create_time", "id"])

    op.create_table(
        "desired_slot",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("deployment_id", ID, nullable=False),
        sa.Column("runtime_policy", JSON, nullable=False),
        sa.Column("sample_policy", JSON, nullable=False),
        sa.Column("offer", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["desired_state.agent_id"], name="fk_desired_slot_agent_id_desired_state"
        ),
        sa.PrimaryKeyConstraint("agent_id", "model_id", name="pk_desired_slot"),
    )
    op.create_table(
        "metric_window",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("window_index", sa.BigInteger(), nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("start_time", TIME, nullable=False),
        sa.Column("end_time", TIME, nullable=False),
        sa.Column("receive_time", TIME, nullable=False),
        sa.Column("inference_count", sa.BigInteger(), nullable=False),
        sa.Column("error_count", sa.BigInteger(), nullable=False),
        sa.Column("refused_count", sa.BigInteger(), nullable=False),
        sa.Column("latency", JSON, nullable=False),
        sa.Column("confidence_histogram", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id", "batch"],
            ["evidence_batch.agent_id", "evidence_batch.batch"],
            name="fk_metric_window_agent_id_batch_evidence_batch",
        ),
        sa.PrimaryKeyConstraint("agent_id", "batch", "window_index", name="pk_metric_window"),
    )
    op.create_index("ix_metric_window_model_id_start_time", "metric_window", ["model_id", "start_time"])
    op.create_index(
        "ix_metric_window_model_id_version_receive_time", "metric_window", ["model_id", "version", "receive_time"]
    )

    op.create_table(
        "model_version",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("artifact_digest", ID, nullable=False),
        sa.Column("artifact", JSON, nullable=False),
        sa.Column("signature", JSON, nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_model_version_number")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_model_version_model_id_model"),
        sa.PrimaryKeyConstraint("model_id", "number", name="pk_model_version"),
        sa.UniqueConstraint("uid", name="uq_model_version_uid"),
    )
    op.create_index("ix_model_version_model_id_artifact_digest", "model_version", ["model_id", "artifact_digest"])

    op.create_table(
        "observation",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("observed", JSON, nullable=False),
        sa.Column("receive_time", TIME, nullable=False),
        sa.Column("host", JSON, nullable=True),
        sa.Column("devices", JSON, nullable=True),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], name="fk_observation_agent_id_agent"),
        sa.PrimaryKeyConstraint("agent_id", name="pk_observation"),
    )
    op.create_table(
        "result",
        sa.Column("arrival", SERIAL, autoincrement=True, nullable=False),
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("result_index", sa.BigInteger(), nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("infer_time", TIME, nullable=False),
        sa.Column("part_id", ID, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("latency_us", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("batch_index", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("outcome IN ('OK', 'ERROR')", name=op.f("ck_result_outcome")),
        sa.ForeignKeyConstraint(
            ["agent_id", "batch"],
            ["evidence_batch.agent_id", "evidence_batch.batch"],
            name="fk_result_agent_id_batch_evidence_batch",
        ),
        sa.PrimaryKeyConstraint("arrival", name="pk_result"),
        sa.UniqueConstraint("agent_id", "batch", "result_index", name="uq_result_agent_id_batch_result_index"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_result_agent_id_arrival", "result", ["agent_id", "arrival"])
    op.create_index("ix_result_model_id_arrival", "result", ["model_id", "arrival"])
    op.create_index("ix_result_model_id_version_arrival", "result", ["model_id", "version", "arrival"])
    op.create_index("ix_result_part_id_arrival", "result", ["part_id", "arrival"])

    op.create_table(
        "version_blob",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("digest", ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id", "number"],
            ["model_version.model_id", "model_version.number"],
            name="fk_version_blob_model_id_number_model_version",
        ),
        sa.PrimaryKeyConstraint("model_id", "number", "digest", name="pk_version_blob"),
    )


def downgrade() -> None:
    op.drop_table("version_blob")
    op.drop_table("result")
    op.drop_table("observation")
    op.drop_table("model_version")
    op.drop_table("metric_window")
    op.drop_table("desired_slot")
    op.drop_table("sample")
    op.drop_table("rollout")
    op.drop_table("operator_token")
    op.drop_table("model")
    op.drop_table("join_token")
    op.drop_table("evidence_batch")
    op.drop_table("desired_state")
    op.drop_table("deployment")
    op.drop_table("create_request")
    op.drop_table("agent_certificate")
    op.drop_table("agent")
