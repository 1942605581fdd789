"""The migrations: up, down and up again, as the tables are written, by many processes at once."""

import ast
import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from controlplane.domain.errors import FieldInvalidError, Reason, StorageError
from controlplane.store import migrate
from controlplane.store.engine import open_migration_engine
from controlplane.store.migration import alembic_config, migrations_folder
from controlplane.store.tables import metadata

MIGRATIONS = sorted((migrations_folder() / "versions").glob("*.py"))


@contextmanager
def connected(database_url: str) -> Iterator[sa.Connection]:
    engine = open_migration_engine(database_url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def readable(value: Any) -> Any:
    """The value with SQL and types as text, so that it compares by what it says."""
    if isinstance(value, dict):
        return {key: readable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [readable(inner) for inner in value]
    return repr(value) if isinstance(value, sa.types.TypeEngine) else str(value)


def describe(database_url: str) -> dict[str, Any]:
    """Everything that the database says about its tables but Alembic's own."""
    with connected(database_url) as connection:
        inspector = sa.inspect(connection)
        tables = [name for name in inspector.get_table_names() if name != "alembic_version"]
        return {
            name: {
                "columns": readable(inspector.get_columns(name)),
                "primary key": readable(inspector.get_pk_constraint(name)),
                "foreign keys": sorted(readable(inspector.get_foreign_keys(name)), key=repr),
                "unique": sorted(readable(inspector.get_unique_constraints(name)), key=repr),
                "checks": sorted(readable(inspector.get_check_constraints(name)), key=repr),
                "indexes": sorted(readable(inspector.get_indexes(name)), key=repr),
                "options": readable(inspector.get_table_options(name)),
            }
            for name in tables
        }


def test_the_newest_schema_is_the_one_that_the_tables_describe(empty_database_url: str) -> None:
    migrate(empty_database_url)
    migrated = describe(empty_database_url)
    with connected(empty_database_url) as connection:
        command.check(alembic_config(connection))
        command.downgrade(alembic_config(connection), "base")
        metadata.create_all(connection)
    assert describe(empty_database_url) == migrated
    assert set(migrated) == set(metadata.tables)


def test_every_migration_goes_up_down_and_up_again(empty_database_url: str) -> None:
    with connected(empty_database_url) as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
        oldest_first = [script.revision for script in scripts.walk_revisions()][::-1]
        for revision in oldest_first:
            command.upgrade(alembic_config(connection), revision)
            command.downgrade(alembic_config(connection), "-1")
            command.upgrade(alembic_config(connection), revision)
    upgraded = describe(empty_database_url)
    with connected(empty_database_url) as connection:
        command.downgrade(alembic_config(connection), "base")
    assert describe(empty_database_url) == {}
    migrate(empty_database_url)
    assert describe(empty_database_url) == upgraded


def test_migrating_again_changes_nothing(database_url: str) -> None:
    before = describe(database_url)
    migrate(database_url)
    assert describe(database_url) == before


def test_there_is_one_head(sqlite_url: str) -> None:
    with connected(sqlite_url) as connection:
        scripts = ScriptDirectory.from_config(alembic_config(connection))
    assert len(scripts.get_heads()) == 1
    assert len(scripts.get_bases()) == 1


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: path.stem)
def test_a_migration_is_named_by_its_time_and_imports_nothing_of_ours(path: Path) -> None:
    assert re.fullmatch(r"\d{8}_\d{4}_[a-z0-9_]+", path.stem)
    tree = ast.parse(path.read_text())
    imported = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.split(".")[0] for name in imported} <= {"sqlalchemy", "alembic"}
    revisions = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "revision"
    ]
    assert re.fullmatch(r"[0-9a-f]{12}", revisions[0])


def test_processes_that_migrate_at_once_all_succeed(empty_database_url: str) -> None:
    program = (
        "import sys; from controlplane.store import migrate;"
        " print('ready', flush=True); sys.stdin.readline(); migrate(sys.argv[1])"
    )
    command_line = [sys.executable, "-c", program, empty_database_url]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert set(describe(empty_database_url)) == set(metadata.tables)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(empty_database_url: str) -> None:
    with connected(empty_database_url) as connection:
        connection.exec_driver_sql("CREATE TABLE sample (id TEXT)")
    before = describe(empty_database_url)
    with pytest.raises(sa.exc.DBAPIError):
        migrate(empty_database_url)
    assert describe(empty_database_url) == before


def test_the_database_file_is_its_owners_alone(sqlite_url: str, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "lineside.db").stat().st_mode) == 0o600


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as refusal:
        migrate(f"sqlite:///{tmp_path / 'nowhere' / 'lineside.db'}")
    assert (refusal.value.reason, refusal.value.field) == (Reason.STORAGE_UNAVAILABLE, "database_url")


@pytest.mark.parametrize(
    "database_url", ["", "lineside.db", "sqlite://", "sqlite:///:memory:", "mysql://db/lineside", "postgresql:"]
)
def test_any_other_url_is_refused(database_url: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        migrate(database_url)
    assert refusal.value.field == "database_url"
    assert "sqlite:///PATH" in refusal.value.remedy


def old_rollout(state: str, wave_state: str) -> str:
    """A row as the release before wrote it."""
    strategy = '{"waves": [], "bake_seconds": 1.0, "gate": {}}'
    wave = f'[{{"index": 0, "agents": ["st-1"], "state": "{wave_state}", "admit_time": null}}]'
    return (
        "INSERT INTO rollout (id, uid, create_time, update_time, deployment_id, model_id, target_version, strategy,"
        " state, reason, message, waves, revision) VALUES ('r', 'u', '2026-11-22 10:00:00.000000',"
        f" '2026-11-22 10:00:01.000000', 'd', 'm', 2, '{strategy}', '{state}', '', '', '{wave}', 3)"
    )


def test_a_row_of_the_release_before_is_completed_by_the_database(empty_database_url: str) -> None:
    with connected(empty_database_url) as connection:
        command.upgrade(alembic_config(connection), "5b1f0c9e7a42")
        connection.exec_driver_sql(old_rollout("RUNNING", "ADMITTED"))
    migrate(empty_database_url)
    with connected(empty_database_url) as connection:
        row = connection.execute(sa.select(metadata.tables["rollout"])).mappings().one()
    assert (row["id"], row["state"], row["revision"]) == ("r", "RUNNING", 3)
    assert (row["creator"], row["related_id"], row["prefetches"]) == ("", None, {})


def test_a_controller_of_the_release_before_goes_on_writing(database_url: str) -> None:
    with connected(database_url) as connection:
        connection.exec_driver_sql(old_rollout("RUNNING", "ADMITTED"))
        assert connection.exec_driver_sql("SELECT count(*) FROM rollout").scalar() == 1


def test_the_way_back_leaves_states_that_the_release_before_knows(database_url: str) -> None:
    with connected(database_url) as connection:
        connection.exec_driver_sql(old_rollout("QUEUED", "SHADOWING"))
        command.downgrade(alembic_config(connection), "5b1f0c9e7a42")
        state, waves, ended = connection.exec_driver_sql("SELECT state, waves, end_time FROM rollout").one()
    assert state == "ABORTED"
    assert '"state": "PENDING"' in (waves if isinstance(waves, str) else json.dumps(waves))
    assert ended is not None


@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = 'x'", "DELETE FROM {}"])
@pytest.mark.parametrize(("table", "column"), [("audit_event", "message"), ("audit_resource", "resource")])
def test_the_database_refuses_to_change_the_audit_log(
    database_url: str, statement: str, table: str, column: str
) -> None:
    with connected(database_url) as connection:
        connection.exec_driver_sql(
            "INSERT INTO audit_event VALUES ('u', '2026-11-22 10:00:00.000000', 'a', 'b', 'c', '', '', '{}', '[]')"
        )
        connection.exec_driver_sql("INSERT INTO audit_resource VALUES ('c', 'u')")

    def change() -> None:
        with connected(database_url) as connection:
            connection.exec_driver_sql(statement.format(table, column))

    with pytest.raises(sa.exc.DBAPIError, match="the audit log only grows"):
        change()
