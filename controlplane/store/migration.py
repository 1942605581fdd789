"""Brings a database to the newest schema. The migrations themselves lie in `migrations/` and import nothing of ours.

Every replica calls this when it starts. One of them migrates, in one transaction; the others wait and find nothing
left to do.
"""

import errno
import os
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from controlplane import limits
from controlplane.domain.errors import Reason, StorageError
from controlplane.store.engine import open_migration_engine, sqlite_path
from controlplane.store.refusals import translated

_MIGRATION_LOCK = 0x4C53_4D49
"""Key of PostgreSQL's advisory lock on the schema ("LSMI")."""


def migrate(database_url: str) -> None:
    """Upgrade to the newest schema; nothing happens where it is there already. Blocks: call it through a thread.
    Raises StorageError where the database cannot be used, FieldInvalidError where the URL is wrong."""
    path = sqlite_path(database_url)
    if path is not None and not path.exists():
        _create_private(path)
    engine = open_migration_engine(database_url)
    try:
        with translated(), engine.begin() as connection:
            lock_schema(connection)
            command.upgrade(alembic_config(connection), "head")
    finally:
        engine.dispose()


def alembic_config(connection: sa.Connection) -> Config:
    """Alembic's configuration for an open transaction."""
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def lock_schema(connection: sa.Connection) -> None:
    """Wait until no other process migrates; held until the transaction ends. On SQLite BEGIN IMMEDIATE did so."""
    if connection.dialect.name != "postgresql":
        return
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{limits.MIGRATION_WAIT_SECONDS:.0f}s'")
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{limits.MIGRATION_LOCK_SECONDS:.0f}s'")


def migrations_folder() -> Path:
    """Where the migrations lie: inside this package when installed, at the top of a checkout."""
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "migrations"


def _create_private(path: Path) -> None:
    """Create the file for its owner alone: it holds digests of secrets."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise StorageError(
            f"{path} cannot be created: {error.strerror}",
            field="database_url",
            remedy="free space, then try again" if full else "name a folder that exists and can be written to",
            reason=Reason.STORAGE_FULL if full else Reason.STORAGE_UNAVAILABLE,
        ) from error
