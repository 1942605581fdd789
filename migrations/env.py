"""Runs migrations on the connection that `controlplane.store.migrate` hands over, or, from Alembic's command line, on
`-x database_url=...` (`alembic -x database_url=sqlite:///x.db revision --autogenerate -m "add a table"`)."""

import sqlalchemy as sa
from alembic import context

from controlplane.store.engine import open_migration_engine
from controlplane.store.migration import lock_schema
from controlplane.store.tables import metadata


def run(connection: sa.Connection) -> None:
    """Run within the connection's transaction, all or nothing."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_command_line() -> None:
    """Open the database that the command line names."""
    database_url = context.get_x_argument(as_dictionary=True).get("database_url")
    if not database_url:
        raise SystemExit("name the database: alembic -x database_url=sqlite:///PATH ...")
    engine = open_migration_engine(database_url)
    with engine.begin() as connection:
        lock_schema(connection)
        run(connection)
    engine.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is None:
    run_from_command_line()
else:
    run(handed_over)
