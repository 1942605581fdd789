"""The results lake for tests: the real codec over an object store in memory."""

from datetime import date
from typing import Any

from obstore.store import MemoryStore

from controlplane.app.evidence import Evidence
from controlplane.app.ports import Clock, Store
from controlplane.app.ports_lake import ObjectStore
from controlplane.app.results import Results
from controlplane.artifacts.object_store import CloudObjectStore
from controlplane.domain.lake import Place, ResultObject, ResultScope, folder_of
from controlplane.lake.codec import ParquetCodec
from controlplane.system import SystemIds
from tests.support.factories import NOW, SOLAR, ST_1, digest_of
from tests.support.virtual_time import VirtualClock


def memory_objects() -> CloudObjectStore:
    return CloudObjectStore(MemoryStore(), url="memory:///")


def make_evidence(store: Store, objects: ObjectStore, *, clock: Clock | None = None, **overrides: Any) -> Evidence:
    given: dict[str, Any] = {"ids": SystemIds(), "codec": ParquetCodec(), **overrides}
    return Evidence(store=store, clock=clock or VirtualClock(), objects=objects, **given)


def make_object(name: str = "a", **overrides: Any) -> ResultObject:
    """A row of the index, of no object that is there."""
    day: date = overrides.pop("day", NOW.date())
    fields: dict[str, Any] = {
        "key": f"{folder_of(Place(site='s1', line='3'), day)}/{name}.parquet",
        "rows": 1,
        "size_bytes": 1_000,
        "digest": digest_of(name),
        "start_time": NOW,
        "end_time": NOW,
        "create_time": NOW,
        "scopes": (ResultScope(agent_id=ST_1, model_id=SOLAR, version=1),),
        "first_part": "cell-1",
        "last_part": "cell-9",
    }
    return ResultObject(**(fields | overrides))


def make_results(store: Store, objects: ObjectStore) -> Results:
    return Results(store=store, objects=objects, codec=ParquetCodec())
