"""Which results a deployment keeps."""

import sqlalchemy as sa
from alembic import op

revision = "b7d20f4c9e15"
down_revision = "7a3c9e51d208"
branch_labels = None
depends_on = None

_TABLES = ("deployment", "desired_slot")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(
            table, sa.Column("result_policy", sa.JSON(none_as_null=True), nullable=False, server_default="{}")
        )


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "result_policy")
