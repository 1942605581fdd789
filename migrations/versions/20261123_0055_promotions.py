"""Promotions of training runs, and training policies."""

import sqlalchemy as sa
from alembic import op

revision = "7a3c9e51d208"
down_revision = "5d0e7f3b9c14"
branch_labels = None
depends_on = None

JSON = sa.JSON()
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "promotion",
        sa.Column("id", ID, nullable=False),
        sa.Column("uid", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("dataset_id", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("judgement", JSON, nullable=False),
        sa.Column("decider", ID, nullable=False),
        sa.Column("decide_time", TIME, nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("deployment_id", ID, nullable=True),
        sa.Column("strategy", JSON, nullable=True),
        sa.Column("rollout_id", ID, nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('WITHHELD', 'PROPOSED', 'APPROVED', 'PUBLISHED', 'RELEASED', 'DECLINED')",
            name=op.f("ck_promotion_state"),
        ),
        sa.CheckConstraint("version >= 1", name=op.f("ck_promotion_version")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion")),
        sa.UniqueConstraint("uid", name=op.f("uq_promotion_uid")),
    )
    op.create_index(op.f("ix_promotion_model_id_uid"), "promotion", ["model_id", "uid"])
    op.create_index(op.f("ix_promotion_model_id_version"), "promotion", ["model_id", "version"])
    op.create_index(op.f("ix_promotion_state"), "promotion", ["state"])
    op.create_table(
        "training_policy",
        sa.Column("id", ID, nullable=False),
        sa.Column("update_time", TIME, nullable=False),
        sa.Column("actor", ID, nullable=False),
        sa.Column("policy", JSON, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_policy")),
    )


def downgrade() -> None:
    op.drop_table("training_policy")
    op.drop_table("promotion")
