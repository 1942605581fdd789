"""Bringing pictures as samples: many files, resumable, each file's bytes once a model."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from lineside.v1 import sample_import_service_pb2, sample_import_service_pb2_grpc

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import InvalidInputError, UnreachableError
from controlplane.client.files import unreadable
from controlplane.client.names import model_name
from controlplane.client.retry import Backoff, Repeat

Answer = TypeVar("Answer")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where pictures were taken."""

    site: str = ""
    line: str = ""
    station: str = ""


class Side(StrEnum):
    """Where samples stand in every dataset of their model, for good."""

    TRAINING = "training"
    HOLDOUT = "holdout"


_SIDES = MappingProxyType(
    {
        None: sample_import_service_pb2.ImportSamplesRequest.SIDE_UNSPECIFIED,
        Side.TRAINING: sample_import_service_pb2.ImportSamplesRequest.SIDE_TRAINING,
        Side.HOLDOUT: sample_import_service_pb2.ImportSamplesRequest.SIDE_HOLDOUT,
    }
)


@dataclass(slots=True, kw_only=True)
class ImportedFolder:
    """What became of each file."""

    samples: dict[Path, str] = field(default_factory=dict)
    """Resource name of the sample by file."""
    added: int = 0
    duplicates: int = 0
    errors: dict[Path, str] = field(default_factory=dict)
    """Files that could not be stored, and why."""


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    content: bytes
    digest: str


def find_pictures(folder: Path) -> Sequence[Path]:
    """Return the pictures in a folder and below, or the file itself, sorted. Raises InvalidInputError without any."""
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not there", field="folder", remedy="give a folder of pictures")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise InvalidInputError(
            f"there is no picture in {folder}", field="folder", remedy=f"give files of {', '.join(sorted(SUFFIXES))}"
        )
    return found


class SampleImports:
    """Calls of SampleImportService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        files: Sequence[Path],
        *,
        place: Place,
        parts: Mapping[Path, str],
        side: Side | None = None,
        done: Callable[[int], None] = lambda _: None,
    ) -> ImportedFolder:
        """Store the files as samples of the model. What is stored already is not sent again; what cannot be read or
        stands on another side is told and the rest is stored. `done` is told how many files are. Raises ClientError."""
        outcome = ImportedFolder()
        for batch in self._batches(files, outcome):
            self._store(model, batch, outcome, place=place, parts=parts, side=side)
            done(len(outcome.samples) + len(outcome.errors))
        return outcome

    def _store(
        self,
        model: str,
        batch: Sequence[_File],
        outcome: ImportedFolder,
        *,
        place: Place,
        parts: Mapping[Path, str],
        side: Side | None,
    ) -> None:
        asked = sample_import_service_pb2.FindImportedSamplesRequest(
            model=model_name(model), source_digests=[file.digest for file in batch], side=_SIDES[side]
        )
        known = self._call(lambda stub: self._connection.call_bytes(stub.FindImportedSamples, asked)).samples
        missing = []
        for file, sample in zip(batch, known, strict=True):
            if sample:
                outcome.samples[file.path] = sample
                outcome.duplicates += 1
            else:
                missing.append(file)
        if not missing:
            return
        request = sample_import_service_pb2.ImportSamplesRequest(
            model=model_name(model),
            pictures=[
                sample_import_service_pb2.ImportedPicture(content=file.content, part_id=parts.get(file.path, ""))
                for file in missing
            ],
            site=place.site,
            line=place.line,
            station=place.station,
            side=_SIDES[side],
        )
        stored = self._call(lambda stub: self._connection.call_bytes(stub.ImportSamples, request))
        for file, one in zip(missing, stored.samples, strict=True):
            if one.error:
                outcome.errors[file.path] = one.error
                continue
            outcome.samples[file.path] = one.sample
            outcome.duplicates += one.duplicate
            outcome.added += not one.duplicate

    def _call(self, ask: Callable[[sample_import_service_pb2_grpc.SampleImportServiceStub], Answer]) -> Answer:
        """Ask, again while nobody answers: what was stored is not stored twice."""
        backoff = Backoff(self._connection.pacing, budget_seconds=limits.TRANSFER_RETRY_SECONDS)
        while True:
            try:
                return ask(sample_import_service_pb2_grpc.SampleImportServiceStub(self._connection.bytes_channel()))
            except UnreachableError as failure:
                self._connection.forget_bytes()
                if not Repeat.SAFE.allows(failure) or not backoff.wait():
                    raise

    def _batches(self, files: Sequence[Path], outcome: ImportedFolder) -> Iterator[Sequence[_File]]:
        batch: list[_File] = []
        held_bytes = 0
        for path in files:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise unreadable(path, error) from error
            if len(content) > limits.SAMPLE_BYTES_MAX or not content:
                outcome.errors[path] = f"it has {len(content)} bytes, not 1 to {limits.SAMPLE_BYTES_MAX}"
                continue
            if batch and (
                len(batch) == limits.IMPORT_BATCH_PICTURES or held_bytes + len(content) > limits.IMPORT_BATCH_BYTES
            ):
                yield batch
                batch, held_bytes = [], 0
            batch.append(_File(path, content, f"sha256:{hashlib.sha256(content).hexdigest()}"))
            held_bytes += len(content)
        if batch:
            yield batch
