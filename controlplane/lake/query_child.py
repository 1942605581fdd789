"""The child that answers one question over results, with nothing else within its reach.

It is told the question on stdin as JSON: `files` (paths within folders named `site=`, `line=`, `station=`, `day=`),
`sql`, `parameters`, `row_limit`, `memory_bytes`, `output_bytes_max`. It answers on stdout with one JSON object, either
`{"columns": [[name, type]], "rows": [[...]], "truncated": bool}` or `{"refused": text, "kind": "sql" | "memory"}`.

What holds before the question is looked at:
- It is one SELECT (DESCRIBE, SHOW and SUMMARIZE are) or one EXPLAIN.
- DuckDB reads the listed files and nothing else, writes nothing, loads no extension, sees no Python variable, and lets
  nobody change that again. The operating system forbids the process to write any file.
"""

import json
import math
import os
import resource
import sys
from datetime import date, datetime, time, timedelta
from typing import Any

import duckdb

from controlplane import limits
from controlplane.lake.schema import COLUMNS

_PLACE = {"site": "VARCHAR", "line": "VARCHAR", "station": "VARCHAR", "day": "DATE"}
_EXACT = 1 << 53
"""Above it a JSON number of another language is no longer exact."""
_ROWS_A_TIME = 1024


def main() -> None:
    asked = json.load(sys.stdin)
    try:
        answer = answered(asked)
    except duckdb.OutOfMemoryException:
        answer = {"refused": "the question takes too much memory", "kind": "memory"}
    except (duckdb.Error, ValueError, OverflowError) as error:
        answer = {"refused": str(error), "kind": "sql"}
    json.dump(answer, sys.stdout)


def answered(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a question; raises duckdb.Error."""
    connection = open_locked(asked["files"], memory_bytes=asked["memory_bytes"])
    statements = connection.extract_statements(asked["sql"])
    allowed = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
    if len(statements) != 1 or statements[0].type not in allowed:
        return {"refused": "it is not one SELECT", "kind": "sql"}
    reader: Any = connection.execute(statements[0], asked["parameters"]).to_arrow_reader(_ROWS_A_TIME)
    kinds = [str(column[1]) for column in connection.description or ()]
    columns = [[name, kind] for name, kind in zip(reader.schema.names, kinds, strict=True)]
    rows: list[list[Any]] = []
    room_bytes = asked["output_bytes_max"]
    for batch in reader:
        # By position: a question may give two columns one name.
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            told = [jsonable(value) for value in row]
            room_bytes -= len(json.dumps(told))
            if len(rows) == asked["row_limit"] or room_bytes < 0:
                return {"columns": columns, "rows": rows, "truncated": True}
            rows.append(told)
    return {"columns": columns, "rows": rows, "truncated": False}


def open_locked(files: list[str], *, memory_bytes: int) -> duckdb.DuckDBPyConnection:
    """Return a connection that has the view `results` over the files, and nothing else."""
    connection = duckdb.connect(":memory:")
    for name, value in (
        ("threads", 2),
        ("memory_limit", f"{memory_bytes}B"),
        ("max_temp_directory_size", "0B"),
        ("preserve_insertion_order", "false"),
        ("python_enable_replacements", "false"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
    ):
        connection.execute(f"SET {name} = '{value}'")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE VIEW results AS {_view(files)}")
    connection.execute(f"SET allowed_paths = {_list(files)}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _view(files: list[str]) -> str:
    columns = ", ".join(f'"{name}"' for name in (*COLUMNS.names, *_PLACE))
    if not files:
        nothing = duckdb.from_arrow(COLUMNS.empty_table())
        typed = [f'NULL::{kind} AS "{name}"' for name, kind in zip(nothing.columns, nothing.types, strict=True)]
        typed += [f'NULL::{kind} AS "{name}"' for name, kind in _PLACE.items()]
        return f"SELECT {', '.join(typed)} WHERE false"
    kinds = ", ".join(f"'{name}': {kind}" for name, kind in _PLACE.items())
    return f"SELECT {columns} FROM read_parquet({_list(files)}, hive_partitioning = true, hive_types = {{{kinds}}})"  # noqa: S608 - our own names and paths


def _list(texts: list[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def jsonable(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int() | float():
            return value if math.isfinite(value) and (isinstance(value, float) or abs(value) <= _EXACT) else str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case list() | tuple():
            return [jsonable(each) for each in value]
        case dict():
            return {str(key): jsonable(each) for key, each in value.items()}
        case _:
            return str(value)


if __name__ == "__main__":
    os.nice(limits.LAKE_QUERY_NICENESS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
