"""Labels, datasets, what was read of pictures; the part and the place of a sample."""

import sqlalchemy as sa
from alembic import op

revision = "b81f3d5c2a97"
down_revision = "e1a94c7d2b38"
branch_labels = None
depends_on = None

JSON = sa.JSON()
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("sample", sa.Column("part_id", ID, nullable=False, server_default=""))
    op.add_column("sample", sa.Column("place", JSON, nullable=False, server_default="{}"))
    op.create_index(op.f("ix_sample_model_id_part_id"), "sample", ["model_id", "part_id"])
    sqlite = op.get_bind().dialect.name == "sqlite"
    part = "json_extract(result, '$.part_id')" if sqlite else "result ->> 'part_id'"
    op.execute(f"UPDATE sample SET part_id = coalesce({part}, '')")  # noqa: S608  # one of the two above
    op.create_table(
        "label",
        sa.Column("id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("sample_id", ID, nullable=False),
        sa.Column("annotator", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("regions", JSON, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("adjudicates", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label")),
    )
    op.create_index(op.f("ix_label_model_id_sample_id_id"), "label", ["model_id", "sample_id", "id"])
    op.create_index(op.f("ix_label_model_id_create_time"), "label", ["model_id", "create_time"])
    op.create_index(op.f("ix_label_sample_id_id"), "label", ["sample_id", "id"])
    create_datasets()
    op.create_table(
        "picture",
        sa.Column("digest", ID, nullable=False),
        sa.Column("readable", sa.Boolean(), nullable=False),
        sa.Column("width", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("height", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("difference_hash", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_picture")),
    )


def create_datasets() -> None:
    op.create_table(
        "dataset",
        sa.Column("id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("creator", ID, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("digest", ID, nullable=False),
        sa.Column("training_manifest", ID, nullable=False),
        sa.Column("holdout_manifest", ID, nullable=False),
        sa.Column("rule", JSON, nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("left_out", JSON, nullable=False),
        sa.CheckConstraint("number >= 1", name=op.f("ck_dataset_number")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset")),
        sa.UniqueConstraint("model_id", "number", name=op.f("uq_dataset_model_id_number")),
    )
    op.create_index(op.f("ix_dataset_model_id_digest"), "dataset", ["model_id", "digest"])
    op.create_index(op.f("ix_dataset_create_time_id"), "dataset", ["create_time", "id"])
    op.create_index(op.f("ix_dataset_model_id_create_time_id"), "dataset", ["model_id", "create_time", "id"])
    op.create_table(
        "split_member",
        sa.Column("model_id", ID, nullable=False),
        sa.Column("sample_id", ID, nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("digest", ID, nullable=False),
        sa.Column("part_id", ID, nullable=False),
        sa.Column("difference_hash", sa.Text(), nullable=True),
        sa.CheckConstraint("side IN ('TRAINING', 'HOLDOUT')", name=op.f("ck_split_member_side")),
        sa.PrimaryKeyConstraint("model_id", "sample_id", name=op.f("pk_split_member")),
    )


def downgrade() -> None:
    for table in ("picture", "split_member", "dataset", "label"):
        op.drop_table(table)
    op.drop_index(op.f("ix_sample_model_id_part_id"), table_name="sample")
    op.drop_column("sample", "place")
    op.drop_column("sample", "part_id")
