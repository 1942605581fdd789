"""Count the changes of each observation, so that a reader knows without decoding it whether it has it already."""

import sqlalchemy as sa
from alembic import op

revision = "9d27a5b6e0f1"
down_revision = "c4e08d21b6f3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("observation", sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("observation", "change")
