"""Drifts, and which batches wait to be looked at."""

import sqlalchemy as sa
from alembic import op

revision = "e7d4b1a90c63"
down_revision = "b81f3d5c2a97"
branch_labels = None
depends_on = None

ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
JSON = sa.JSON()
SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "drift",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("transition_time", TIME, nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("serving", sa.Boolean(), nullable=False),
        sa.Column("last_batch", sa.BigInteger(), nullable=False),
        sa.Column("last_time", TIME, nullable=False),
        sa.Column("start_time", TIME, nullable=False),
        sa.Column("inference_count", sa.BigInteger(), nullable=False),
        sa.Column("reference_count", sa.BigInteger(), nullable=False),
        sa.Column("episode_count", sa.BigInteger(), nullable=False),
        sa.Column("learned", JSON, nullable=False),
        sa.Column("progress", JSON, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "model_id", "version", name=op.f("pk_drift")),
        sa.CheckConstraint("state IN ('LEARNING', 'STEADY', 'DRIFTED')", name=op.f("ck_drift_state")),
    )
    op.create_index(op.f("ix_drift_model_id_agent_id"), "drift", ["model_id", "agent_id"])
    op.create_index(
        "ix_drift_drifted",
        "drift",
        ["agent_id", "model_id"],
        sqlite_where=sa.text("state = 'DRIFTED'"),
        postgresql_where=sa.text("state = 'DRIFTED'"),
    )
    op.create_table(
        "drift_inbox",
        sa.Column("arrival", SERIAL, autoincrement=True, nullable=False),
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("arrival", name=op.f("pk_drift_inbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_metric_window_agent_id_model_id_start_time"), "metric_window", ["agent_id", "model_id", "start_time"]
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_metric_window_agent_id_model_id_start_time"), table_name="metric_window")
    op.drop_table("drift_inbox")
    op.drop_index("ix_drift_drifted", table_name="drift")
    op.drop_index(op.f("ix_drift_model_id_agent_id"), table_name="drift")
    op.drop_table("drift")
