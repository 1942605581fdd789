"""The results lake: files of results in the object store, and what the index knows of each.

Rules kept here:
- A file holds results of one place and one UTC day, in a folder that says so in the words that Spark, Trino, DuckDB
  and Hive read: `results/site=s1/line=3/station=st-7/day=2026-03-01/`.
- A key is used once: each attempt to store a file has a name of its own, so that what a failed attempt left behind
  never comes to life again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, Digest, ModelId

FOLDER = "results"
NOWHERE = "__HIVE_DEFAULT_PARTITION__"
"""How Hive, and all who read its folders, write a value that is not there."""
FIRST_ARRIVAL = 1 << 40
"""Arrivals below were numbered by the table that held results before there was a lake."""

ARRIVALS_A_FILE = 1 << 15
"""Numbers that are set apart for each file of a batch: more than a batch has results."""

_KEY = re.compile(
    FOLDER + r"/site=(?P<site>[^/=]+)/line=(?P<line>[^/=]+)/station=(?P<station>[^/=]+)/day=(?P<day>\d{4}-\d{2}-\d{2})/"
    r"(?P<name>[A-Za-z0-9._-]+)\.parquet"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an agent stands, by its labels; empty where it has none."""

    site: str = ""
    line: str = ""
    station: str = ""

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> "Place":
        return cls(site=labels.get("site", ""), line=labels.get("line", ""), station=labels.get("station", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFilter:
    """Which results; None means any."""

    model_id: ModelId | None = None
    version: int | None = None
    agent_id: AgentId | None = None
    part_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultScope:
    """Of whom a file holds results."""

    agent_id: AgentId
    model_id: ModelId
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFile:
    """A file before it is stored."""

    content: bytes
    digest: Digest
    day: date
    rows: int
    start_time: datetime
    """Of the first result, by the agent's clock."""
    end_time: datetime
    """Of the last."""
    scopes: tuple[ResultScope, ...]
    first_part: str = ""
    """The least of the parts that are named; empty where none is."""
    last_part: str = ""
    first_arrival: int = 0
    """Where its rows have arrival numbers: the least."""
    last_arrival: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """What the index knows of a stored file."""

    key: str
    rows: int
    size_bytes: int
    digest: Digest
    start_time: datetime
    end_time: datetime
    create_time: datetime
    """When the newest of its results came, by the controller's clock."""
    scopes: tuple[ResultScope, ...]
    first_part: str = ""
    last_part: str = ""
    level: int = 0
    """How often it was merged: 0 a batch, 1 an hour, 2 a day."""
    first_arrival: int = 0
    """Numbered by the index; those of a batch's file go on by its rows."""
    last_arrival: int = 0

    @property
    def folder(self) -> str:
        return self.key.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSpan:
    """Which files: those that may hold results of this time and model. None means any."""

    start_time: datetime | None = None
    end_time: datetime | None = None
    model_id: ModelId | None = None
    versions: frozenset[int] = field(default_factory=frozenset)
    """Any of these; empty means every one."""


def stored(file: ResultFile, *, key: str, create_time: datetime, level: int = 0) -> ResultObject:
    """Return what the index is to know of the file under that key."""
    return ResultObject(
        key=key,
        rows=file.rows,
        size_bytes=len(file.content),
        digest=file.digest,
        start_time=file.start_time,
        end_time=file.end_time,
        create_time=create_time,
        scopes=file.scopes,
        first_part=file.first_part,
        last_part=file.last_part,
        level=level,
        first_arrival=file.first_arrival,
        last_arrival=file.last_arrival,
    )


def folder_of(place: Place, day: date) -> str:
    """Return the folder of results of that place and day."""
    site, line, station = (value or NOWHERE for value in (place.site, place.line, place.station))
    return f"{FOLDER}/site={site}/line={line}/station={station}/day={day.isoformat()}"


def batch_key(place: Place, day: date, *, agent_id: AgentId, batch: int, nonce: str) -> str:
    """Return the key of one attempt to store a batch's results of that day."""
    return f"{folder_of(place, day)}/{agent_id}-{batch}-{nonce}.parquet"


def merged_key(folder: str, *, hour: datetime | None, nonce: str) -> str:
    """Return the key of merged results: of those that came in that hour, or of the whole day."""
    return f"{folder}/{f'{hour:%Y%m%dT%H}' if hour is not None else 'day'}-{nonce}.parquet"


def day_of_batch_key(key: str, *, agent_id: AgentId, batch: int) -> date:
    """Return the day of a key that is one of this agent's batch, else raise FieldInvalidError."""
    found = _KEY.fullmatch(key)
    prefix = f"{agent_id}-{batch}-"
    try:
        if found is not None and found["name"].startswith(prefix):
            return date.fromisoformat(found["day"])
    except ValueError:
        pass
    raise FieldInvalidError(
        f"{key[:200]!r} is no key of batch {batch}",
        field="result_files.upload_key",
        remedy="ask CreateResultUploads again and use the key that it gives",
    )


def place_of(key: str) -> Place:
    """Return the place whose folder the key lies in."""
    found = _KEY.fullmatch(key)
    assert found is not None, key
    site, line, station = ("" if found[name] == NOWHERE else found[name] for name in ("site", "line", "station"))
    return Place(site=site, line=line, station=station)


def day_of(time: datetime) -> date:
    """Return the UTC day of an aware time in UTC."""
    assert time.utcoffset() == timedelta(0)
    return time.date()
