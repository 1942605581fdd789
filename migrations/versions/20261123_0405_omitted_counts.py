"""How many inferences of a window have results that are not kept."""

import sqlalchemy as sa
from alembic import op

revision = "3f6a9d17c0e4"
down_revision = "b7d20f4c9e15"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("metric_window", sa.Column("omitted_count", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("metric_window", "omitted_count")
