"""Let rollouts queue, release their agents one by one and keep versions behind; pins, yanks, the audit log, leases and
shadow windows."""

import sqlalchemy as sa
from alembic import op

revision = "c4e08d21b6f3"
down_revision = "5b1f0c9e7a42"
branch_labels = None
depends_on = None

# Ids order by code point on every database.
ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON()

OLD_STATES = "state IN ('RUNNING', 'PAUSED', 'ROLLING_BACK', 'SUCCEEDED', 'ROLLED_BACK', 'ABORTED')"
NEW_STATES = (
    "state IN ('QUEUED', 'RUNNING', 'PAUSED', 'ROLLING_BACK', 'SUCCEEDED', 'ROLLED_BACK', 'ABORTED', 'SUPERSEDED')"
)
LOG_TABLES = ("audit_event", "audit_resource")

# Names within op.f are whole; the naming convention would put ck_<table>_ before them again. New columns of old tables
# have defaults of the database: a controller of the release before goes on writing rows without them.


def upgrade() -> None:
    op.add_column("deployment", sa.Column("priority", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("deployment", sa.Column("kept_versions", JSON, nullable=False, server_default="{}"))
    op.add_column("deployment", sa.Column("conditions", JSON, nullable=False, server_default="[]"))
    op.add_column("model_version", sa.Column("yank", JSON, nullable=True))
    op.add_column("desired_slot", sa.Column("prefetch_version", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("desired_slot", sa.Column("shadow", JSON, nullable=True))
    op.add_column(
        "desired_slot", sa.Column("fetch_bytes_per_second_max", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("metric_window", sa.Column("label_counts", JSON, nullable=False, server_default="{}"))
    check_states(NEW_STATES)
    op.add_column("rollout", sa.Column("creator", ID, nullable=False, server_default=""))
    op.add_column("rollout", sa.Column("related_id", ID, nullable=True))
    op.add_column("rollout", sa.Column("prefetches", JSON, nullable=False, server_default="{}"))
    create_small_tables()
    create_shadow_windows()
    create_log()


def create_small_tables() -> None:
    op.create_table(
        "pin",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("actor", ID, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "model_id", name="pk_pin"),
    )
    op.create_table(
        "lease",
        sa.Column("name", ID, nullable=False),
        sa.Column("holder", ID, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    op.create_index(
        "ix_model_version_yanked",
        "model_version",
        ["model_id", "number"],
        sqlite_where=sa.text("yank IS NOT NULL"),
        postgresql_where=sa.text("yank IS NOT NULL"),
    )


def create_shadow_windows() -> None:
    op.create_table(
        "shadow_window",
        sa.Column("agent_id", ID, nullable=False),
        sa.Column("batch", sa.BigInteger(), nullable=False),
        sa.Column("window_index", sa.BigInteger(), nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("serving_version", sa.BigInteger(), nullable=False),
        sa.Column("candidate_version", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("start_time", TIME, nullable=False),
        sa.Column("end_time", TIME, nullable=False),
        sa.Column("receive_time", TIME, nullable=False),
        sa.Column("compared", sa.BigInteger(), nullable=False),
        sa.Column("agreed", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("candidate_latency", JSON, nullable=False),
        sa.Column("serving_latency", JSON, nullable=False),
        sa.Column("score_distance_histogram", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id", "batch"],
            ["evidence_batch.agent_id", "evidence_batch.batch"],
            name="fk_shadow_window_agent_id_batch_evidence_batch",
        ),
        sa.PrimaryKeyConstraint("agent_id", "batch", "window_index", name="pk_shadow_window"),
    )
    op.create_index(
        "ix_shadow_window_model_id_candidate_version_receive_time",
        "shadow_window",
        ["model_id", "candidate_version", "receive_time"],
    )


def create_log() -> None:
    op.create_table(
        "audit_event",
        sa.Column("id", ID, nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("actor", ID, nullable=False),
        sa.Column("action", ID, nullable=False),
        sa.Column("resource", ID, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("evidence", JSON, nullable=False),
        sa.Column("related", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_event"),
    )
    op.create_index("ix_audit_event_action_id", "audit_event", ["action", "id"])
    op.create_index("ix_audit_event_actor_id", "audit_event", ["actor", "id"])
    op.create_index("ix_audit_event_create_time_id", "audit_event", ["create_time", "id"])
    op.create_table(
        "audit_resource",
        sa.Column("resource", ID, nullable=False),
        sa.Column("event_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["event_id"], ["audit_event.id"], name="fk_audit_resource_event_id_audit_event"),
        sa.PrimaryKeyConstraint("resource", "event_id", name="pk_audit_resource"),
    )
    if on_sqlite():
        for table in LOG_TABLES:
            for change in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER tr_{table}_{change.lower()} BEFORE {change} ON {table}"
                    " BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION refuse_change_of_audit() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the audit log only grows'; END $$"
    )
    for table in LOG_TABLES:
        op.execute(
            f"CREATE TRIGGER tr_{table} BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_audit()"
        )


def downgrade() -> None:
    """Loses what the older release has no place for. A queued or superseded rollout becomes an aborted one, and a wave
    in shadow one that is not admitted."""
    op.drop_table("audit_resource")
    op.drop_table("audit_event")
    if not on_sqlite():
        op.execute("DROP FUNCTION refuse_change_of_audit()")
    op.drop_table("shadow_window")
    op.drop_table("lease")
    op.drop_table("pin")
    op.drop_index("ix_model_version_yanked", "model_version")
    op.execute(
        "UPDATE rollout SET state = 'ABORTED', end_time = coalesce(end_time, update_time)"
        " WHERE state IN ('QUEUED', 'SUPERSEDED')"
    )
    if on_sqlite():
        op.execute("""UPDATE rollout SET waves = replace(waves, '"state": "SHADOWING"', '"state": "PENDING"')""")
    else:
        op.execute(
            """UPDATE rollout SET waves = replace(waves::text, '"state": "SHADOWING"', '"state": "PENDING"')::json"""
        )
    for table, columns in (
        ("rollout", ("creator", "related_id", "prefetches")),
        ("metric_window", ("label_counts",)),
        ("desired_slot", ("prefetch_version", "shadow", "fetch_bytes_per_second_max")),
        ("model_version", ("yank",)),
        ("deployment", ("priority", "kept_versions", "conditions")),
    ):
        for column in columns:
            op.drop_column(table, column)
    check_states(OLD_STATES)


def check_states(condition: str) -> None:
    """Replace the check of a rollout's state. SQLite cannot alter one: there the table is written anew, from what it
    says of itself but the old check."""
    name = op.f("ck_rollout_state")
    if not on_sqlite():
        op.drop_constraint(name, "rollout", type_="check")
        op.create_check_constraint(name, "rollout", condition)
        return
    table = sa.Table("rollout", sa.MetaData(), autoload_with=op.get_bind())
    for constraint in list(table.constraints):
        if isinstance(constraint, sa.CheckConstraint):
            table.constraints.remove(constraint)
    with op.batch_alter_table("rollout", copy_from=table, recreate="always") as rollout:
        rollout.create_check_constraint(name, condition)


def on_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
