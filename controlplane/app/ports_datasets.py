"""What labels and datasets need from outside, as Protocols; `ports.py` says what holds for every repository."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from controlplane.domain.dataset import Dataset, DatasetItem
from controlplane.domain.ids import DatasetId, Digest, LabelId, ModelId, SampleId
from controlplane.domain.label import Label
from controlplane.domain.split import Side, SplitMember


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFilter:
    """Which labels; None means any."""

    model_id: ModelId | None = None
    sample_id: SampleId | None = None
    annotator: str | None = None


class LabelRepository(Protocol):
    """Labels; they only grow."""

    async def add(self, labels: Sequence[Label]) -> None: ...
    async def list(self, wanted: LabelFilter, *, before: LabelId | None, limit: int) -> Sequence[Label]:
        """Newest first, by id."""
        ...

    async def list_of(self, model_id: ModelId, sample_ids: Collection[SampleId] | None = None) -> Sequence[Label]:
        """Every label of these samples of the model, or of all, by sample, then id."""
        ...

    async def list_labelled(self, model_id: ModelId, *, after: SampleId | None, limit: int) -> Sequence[SampleId]:
        """Samples that have labels, by id."""
        ...

    async def count_samples(self, model_id: ModelId, *, since: datetime | None = None) -> int:
        """Samples that were given a label at or after the time, or ever."""
        ...


class DatasetRepository(Protocol):
    """Datasets without their manifests, and which samples stand on which side."""

    async def add(self, dataset: Dataset) -> None:
        """Raises ResourceExistsError when the id is taken, StaleWriteError when the model has this number already."""
        ...

    async def get(self, dataset_id: DatasetId) -> Dataset: ...
    async def find_by_digest(self, model_id: ModelId, digest: Digest) -> Dataset | None: ...
    async def last_number(self, model_id: ModelId) -> int:
        """0 while it has none."""
        ...

    async def list(
        self, *, model_id: ModelId | None, before: tuple[datetime, DatasetId] | None, limit: int
    ) -> Sequence[Dataset]:
        """Newest first, by (create_time, id)."""
        ...

    async def list_members(self, model_id: ModelId) -> Sequence[SplitMember]:
        """By sample."""
        ...

    async def find_sides(self, model_id: ModelId, sample_ids: Collection[SampleId]) -> Mapping[SampleId, Side]:
        """The sides of those that have one."""
        ...

    async def add_members(self, model_id: ModelId, members: Sequence[SplitMember]) -> None:
        """Keep those that are not there yet; a member that is there never changes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What was read of a content."""

    digest: Digest
    readable: bool
    """It is a picture or an array as its content type says."""
    width: int = 0
    height: int = 0
    difference_hash: int | None = None
    """Of HASH_BITS; None where it is no picture."""


class PictureRepository(Protocol):
    """What was read of contents, by digest."""

    async def add(self, pictures: Sequence[Picture]) -> None:
        """Keep those that are not there yet."""
        ...

    async def find(self, digests: Collection[Digest]) -> Mapping[Digest, Picture]: ...


class PictureReader(Protocol):
    """Decodes contents. Its calls block: callers run them in threads."""

    def read(self, digest: Digest, content: bytes, *, content_type: str) -> Picture:
        """Never raises for what the content holds: what cannot be decoded is not readable."""
        ...

    def to_png(self, content: bytes) -> bytes:
        """Return a picture file as a PNG of 8 bits a channel, grey or RGB; a file that is one comes back as it is.
        Raises FieldInvalidError (field "content") for what is no such picture."""
        ...


class SheetPainter(Protocol):
    """Draws contact sheets. Its calls block."""

    def paint(self, rows: Sequence[tuple[str, Sequence[bytes]]], *, title: str) -> bytes:
        """Return a PNG with a heading and the pictures of each row; what cannot be decoded is drawn as a cross."""
        ...


class HoldoutReader(Protocol):
    """What judges: the holdout of a dataset. Only the judgement is given it."""

    async def holdout(self, dataset_id: DatasetId) -> Sequence[DatasetItem]:
        """By sample."""
        ...


class DatasetFolder(Protocol):
    """What a trainer is given."""

    async def materialise(self, dataset_id: DatasetId, folder: Path) -> None: ...
