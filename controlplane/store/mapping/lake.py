"""Objects of the results lake."""

from collections.abc import Sequence
from typing import Any

from controlplane.domain.ids import AgentId, Digest, ModelId
from controlplane.domain.lake import ResultObject, ResultScope
from controlplane.store.mapping.values import Row


def object_to_row(one: ResultObject) -> dict[str, Any]:
    """Without the scopes, which are rows of their own."""
    return {
        "key": one.key,
        "folder": one.folder,
        "level": one.level,
        "rows": one.rows,
        "size_bytes": one.size_bytes,
        "digest": one.digest,
        "start_time": one.start_time,
        "end_time": one.end_time,
        "create_time": one.create_time,
        "first_part": one.first_part,
        "last_part": one.last_part,
        "first_arrival": one.first_arrival,
        "last_arrival": one.last_arrival,
    }


def scopes_to_rows(one: ResultObject) -> list[dict[str, Any]]:
    return [
        {
            "object_key": one.key,
            "agent_id": scope.agent_id,
            "model_id": scope.model_id,
            "version": scope.version,
            "first_arrival": one.first_arrival,
            "last_arrival": one.last_arrival,
        }
        for scope in one.scopes
    ]


def object_from_rows(row: Row, scopes: Sequence[Row]) -> ResultObject:
    return ResultObject(
        key=row["key"],
        level=row["level"],
        rows=row["rows"],
        size_bytes=row["size_bytes"],
        digest=Digest(row["digest"]),
        start_time=row["start_time"],
        end_time=row["end_time"],
        create_time=row["create_time"],
        first_part=row["first_part"],
        last_part=row["last_part"],
        first_arrival=row["first_arrival"],
        last_arrival=row["last_arrival"],
        scopes=tuple(
            ResultScope(
                agent_id=AgentId(scope["agent_id"]), model_id=ModelId(scope["model_id"]), version=scope["version"]
            )
            for scope in scopes
        ),
    )
