"""Training runs."""

import sqlalchemy as sa
from alembic import op

revision = "5d0e7f3b9c14"
down_revision = "e7d4b1a90c63"
branch_labels = None
depends_on = None

JSON = sa.JSON()
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "training_run",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("base_version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dataset_id", ID, nullable=False),
        sa.Column("trainer", sa.Text(), nullable=False),
        sa.Column("creator", ID, nullable=False),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("runner", ID, nullable=False),
        sa.Column("start_time", TIME, nullable=True),
        sa.Column("end_time", TIME, nullable=True),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("warnings", JSON, nullable=False),
        sa.Column("reported_metrics", JSON, nullable=False),
        sa.Column("candidate", JSON, nullable=True),
        sa.Column("cancel_actor", ID, nullable=False),
        sa.Column("log_digest", ID, nullable=True),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.CheckConstraint(
            "state IN ('QUEUED', 'RUNNING', 'JUDGING', 'SUCCEEDED', 'FAILED', 'CANCELLED')",
            name=op.f("ck_training_run_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_run")),
        sa.UniqueConstraint("uid", name=op.f("uq_training_run_uid")),
    )
    op.create_index(op.f("ix_training_run_state_uid"), "training_run", ["state", "uid"])
    op.create_index(op.f("ix_training_run_model_id_uid"), "training_run", ["model_id", "uid"])


def downgrade() -> None:
    op.drop_table("training_run")
