"""The index of the results lake. The table of results stays: what is in it is listed from there, and a job moves it."""

import sqlalchemy as sa
from alembic import op

revision = "e1a94c7d2b38"
down_revision = "5a1c7e90d3b2"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("evidence_batch", sa.Column("omitted_results", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "result_object",
        sa.Column("key", _ID, nullable=False),
        sa.Column("folder", _ID, nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("start_time", _TIME, nullable=False),
        sa.Column("end_time", _TIME, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("first_part", _ID, nullable=False),
        sa.Column("last_part", _ID, nullable=False),
        sa.Column("first_arrival", sa.BigInteger(), nullable=False),
        sa.Column("last_arrival", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_result_object")),
    )
    for columns in (
        ["first_arrival"],
        ["last_arrival"],
        ["level", "folder", "create_time"],
        ["end_time"],
        ["create_time"],
    ):
        op.create_index(op.f(f"ix_result_object_{'_'.join(columns)}"), "result_object", columns)
    op.create_table(
        "result_scope",
        sa.Column("object_key", _ID, nullable=False),
        sa.Column("agent_id", _ID, nullable=False),
        sa.Column("model_id", _ID, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("first_arrival", sa.BigInteger(), nullable=False),
        sa.Column("last_arrival", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["object_key"], ["result_object.key"], name=op.f("fk_result_scope_object_key_result_object")
        ),
        sa.PrimaryKeyConstraint("object_key", "agent_id", "model_id", "version", name=op.f("pk_result_scope")),
    )
    for who in ("model_id", "agent_id"):
        for which in ("first_arrival", "last_arrival"):
            op.create_index(op.f(f"ix_result_scope_{who}_{which}"), "result_scope", [who, which])
    op.create_table(
        "result_arrival",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_result_arrival")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "result_waste",
        sa.Column("key", _ID, nullable=False),
        sa.Column("create_time", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_result_waste")),
    )
    op.create_index(op.f("ix_result_waste_create_time"), "result_waste", ["create_time"])


def downgrade() -> None:
    op.drop_table("result_waste")
    op.drop_table("result_arrival")
    op.drop_table("result_scope")
    op.drop_table("result_object")
    op.drop_column("evidence_batch", "omitted_results")
