"""What the results lake needs from outside, as Protocols. The rules of `ports.py` hold here too."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from controlplane.domain.evidence import Result
from controlplane.domain.ids import AgentId
from controlplane.domain.lake import ResultFile, ResultFilter, ResultObject, ResultSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPut:
    """Permission to put one object, for a short time."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """An object as a listing shows it."""

    key: str
    size_bytes: int
    modify_time: datetime


class ObjectStore(Protocol):
    """Objects by key, beside the content-addressed BlobStore."""

    async def put(self, key: str, content: bytes) -> None:
        """Store the object whole; durable on return."""
        ...

    async def get(self, key: str) -> bytes:
        """Raises ResourceNotFoundError ("objects/{key}") when absent."""
        ...

    async def stat(self, key: str) -> ListedObject:
        """Raises ResourceNotFoundError when absent."""
        ...

    async def remove(self, keys: Sequence[str]) -> None:
        """Those that are not there are none the worse for it."""
        ...

    def list(self, prefix: str) -> AsyncIterator[Sequence[ListedObject]]:
        """Pages of the objects whose keys begin with the prefix, a whole folder."""
        ...

    def path(self, key: str) -> Path | None:
        """Where the object lies as a local file; None where the store is not a folder."""
        ...

    @property
    def can_sign(self) -> bool:
        """Whether `sign_put` gives permissions."""
        ...

    async def sign_put(self, key: str, *, seconds: float) -> SignedPut: ...


ResultSource = Path | bytes
"""A file's path, or its content."""


class ResultCodec(Protocol):
    """Results as files in columns. Blocking: called from an executor."""

    def encode(self, results: Sequence[Result]) -> Sequence[ResultFile]:
        """One file for each UTC day, in order. The results are within bounds and of one batch, in order."""
        ...

    def check(self, content: bytes, *, agent_id: AgentId, batch: int) -> ResultFile:
        """Return the file that an agent sent, within bounds and as this agent's batch. Raises FieldInvalidError (field
        "result_files") for content that is not that."""
        ...

    def read(
        self,
        source: ResultSource,
        wanted: ResultFilter,
        *,
        first_arrival: int,
        after: int | None,
        limit: int,
        newest_first: bool,
    ) -> Sequence[tuple[int, Result]]:
        """As `EvidenceRepository.list_results`, of one file."""
        ...

    def merge(self, sources: Sequence[tuple[ResultSource, int]]) -> ResultFile:
        """Return one file of the same day with all results of these (source, first arrival), by part, each with its
        arrival number."""
        ...

    def encode_arrived(self, numbered: Sequence[tuple[int, Result]]) -> Sequence[ResultFile]:
        """As `encode`, of results of any batches that have arrival numbers already."""
        ...


class ResultIndexRepository(Protocol):
    """Which files of the lake hold results. `EvidenceRepository.add` adds those of a batch."""

    async def list(
        self,
        wanted: ResultFilter,
        *,
        after: int | None,
        beyond: int | None,
        limit: int,
        newest_first: bool = False,
    ) -> Sequence[ResultObject]:
        """Files that may hold wanted results beyond the arrival `after`, by their first arrival; newest first, by their
        last. `beyond` is that number of the last file seen."""
        ...

    async def list_span(self, span: ResultSpan, *, limit: int) -> Sequence[ResultObject]:
        """Files of the span, the newest first."""
        ...

    async def list_unmerged(self, *, level: int, created_before: datetime, limit: int) -> Sequence[ResultObject]:
        """Files of that level, by folder, then by creation."""
        ...

    async def list_expired(self, *, created_before: datetime, limit: int) -> Sequence[ResultObject]:
        """By creation."""
        ...

    async def known(self, keys: Collection[str]) -> frozenset[str]:
        """Of these, the keys that the index names."""
        ...

    async def replace(self, before: Sequence[ResultObject], after: Sequence[ResultObject], *, now: datetime) -> None:
        """Let `after`, which keep their arrivals, stand for `before`, whose objects become waste. Raises
        StaleWriteError when one of `before` is no longer there."""
        ...

    async def list_waste(self, *, before: datetime, limit: int) -> Sequence[str]:
        """Keys of objects that nobody names any more since before that time."""
        ...

    async def forget_waste(self, keys: Collection[str]) -> None:
        """They are removed."""
        ...

    async def move_rows(self, results: Sequence[tuple[int, Result]], objects: Sequence[ResultObject]) -> None:
        """Let `objects`, which have their arrivals, stand for these rows of the table before the lake. Raises
        StaleWriteError when one of the rows is no longer there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows of values that JSON has words for."""

    columns: Sequence[tuple[str, str]]
    """Name and type, as DuckDB names it."""
    rows: Sequence[Sequence[Any]]
    truncated: bool = False
    """More rows were found than were asked for, or than a message takes."""


class QuestionEngine(Protocol):
    """Answers questions in SQL where they can do no harm."""

    async def ask(
        self, sql: str, files: Sequence[Path], *, row_limit: int, parameters: Sequence[object] = ()
    ) -> Answer:
        """Ask over the table `results`, which these files are, in their folders. Raises FieldInvalidError (field "sql")
        for a question that is wrong or no SELECT, LimitExceededError for one that takes too long or too much memory."""
        ...
