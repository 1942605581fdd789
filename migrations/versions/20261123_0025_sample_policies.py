"""More reasons for samples, how useful each seemed, and statistics of inputs with samples and windows."""

import sqlalchemy as sa
from alembic import op

revision = "5a1c7e90d3b2"
down_revision = "9d27a5b6e0f1"
branch_labels = None
depends_on = None

JSON = sa.JSON()
OLD_REASONS = "reason IN ('RANDOM', 'LEAST_CONFIDENCE')"
REASONS = (
    "reason IN ('RANDOM', 'LEAST_CONFIDENCE', 'MARGIN', 'ENTROPY', 'CLASS_QUOTA', 'OUTLIER', 'SHADOW_DISAGREEMENT',"
    " 'IMPORTED')"
)


def upgrade() -> None:
    op.add_column("metric_window", sa.Column("input_statistics", JSON, nullable=False, server_default="{}"))
    op.add_column("sample", sa.Column("value", sa.Double(), nullable=False, server_default="0"))
    op.add_column("sample", sa.Column("input_statistics", JSON, nullable=False, server_default="{}"))
    op.add_column("sample", sa.Column("label_hint", sa.Text(), nullable=False, server_default=""))
    check_reasons(REASONS)


def downgrade() -> None:
    op.execute("UPDATE sample SET reason = 'LEAST_CONFIDENCE' WHERE reason IN ('MARGIN', 'ENTROPY')")
    op.execute("UPDATE sample SET reason = 'RANDOM' WHERE reason <> 'LEAST_CONFIDENCE'")
    check_reasons(OLD_REASONS)
    for table, columns in (
        ("sample", ("label_hint", "input_statistics", "value")),
        ("metric_window", ("input_statistics",)),
    ):
        for column in columns:
            op.drop_column(table, column)


def check_reasons(condition: str) -> None:
    """Replace the check of a sample's reason. SQLite cannot alter one: there the table is written anew, from what it
    says of itself but the old check."""
    name = op.f("ck_sample_reason")
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(name, "sample", type_="check")
        op.create_check_constraint(name, "sample", condition)
        return
    table = sa.Table("sample", sa.MetaData(), autoload_with=op.get_bind())
    for constraint in list(table.constraints):
        if isinstance(constraint, sa.CheckConstraint):
            table.constraints.remove(constraint)
    with op.batch_alter_table("sample", copy_from=table, recreate="always") as sample:
        sample.create_check_constraint(name, condition)
