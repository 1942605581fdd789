"""Samples that an operator brings: each file's bytes once a model, whatever breaks in between."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane import limits
from controlplane.app.evidence import storable
from controlplane.app.ports import BlobStore, Clock, Store, UnitOfWork
from controlplane.app.ports_datasets import Picture, PictureReader
from controlplane.app.retries import retry_stale
from controlplane.domain.dataset import NO_AGENT, digest_of
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.evidence import Result, ResultOutcome
from controlplane.domain.ids import Digest, ModelId, SampleId, check_digest
from controlplane.domain.lake import Place
from controlplane.domain.sample import Sample, SampleReason
from controlplane.domain.split import Candidate, Side, SplitMember


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPicture:
    """A file to store."""

    content: bytes
    part_id: str = ""
    capture_time: datetime | None = None
    """None means now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSample:
    """What became of a file."""

    sample_id: SampleId | None = None
    """None where it could not be stored."""
    duplicate: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    sample: Sample
    png: bytes
    picture: Picture


class SampleImports:
    """Stores what operators bring."""

    def __init__(self, *, store: Store, blobs: BlobStore, reader: PictureReader, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._reader = reader
        self._clock = clock

    async def find(
        self, model_id: ModelId, source_digests: Sequence[str], *, side: Side | None = None
    ) -> Sequence[SampleId | None]:
        """Return the sample of each file, by the digest of its bytes, None where it is not stored or does not stand on
        the side that is asked for."""
        if len(source_digests) > limits.IMPORT_PICTURES_MAX:
            raise _too_many(len(source_digests), field="source_digests")
        ids = [import_id(model_id, check_digest(digest, field="source_digests")) for digest in source_digests]
        async with self._store.read() as work:
            await work.models.get(model_id)
            stored = {sample.id for sample in await work.samples.list_of(ids)}
            if side is not None:
                sides = await work.datasets.find_sides(model_id, stored)
                stored = {sample_id for sample_id in stored if sides.get(sample_id) is side}
        return [sample_id if sample_id in stored else None for sample_id in ids]

    async def store(
        self, model_id: ModelId, pictures: Sequence[ImportedPicture], *, place: Place, side: Side | None = None
    ) -> Sequence[ImportedSample]:
        """Store the pictures that can be read, in one transaction, and say what became of each, in order. `side` is
        where they stand in every dataset, for good; one that stands elsewhere already stays there and is told."""
        if len(pictures) > limits.IMPORT_PICTURES_MAX:
            raise _too_many(len(pictures), field="pictures")
        where = Place(site=_text(place.site), line=_text(place.line), station=_text(place.station))
        known = await self.find(model_id, [digest_of(picture.content) for picture in pictures])
        turns = asyncio.Semaphore(limits.CONTENTS_AT_ONCE_MAX)
        outcomes = await asyncio.gather(
            *(
                self._bring(model_id, picture, where, stored, turns)
                for picture, stored in zip(pictures, known, strict=True)
            )
        )

        async def attempt() -> Sequence[ImportedSample]:
            async with self._store.write() as work:
                await work.pictures.add([one.picture for one in outcomes if isinstance(one, _Decoded)])
                stored = [
                    ImportedSample(sample_id=one.sample.id, duplicate=not await work.samples.add(one.sample))
                    if isinstance(one, _Decoded)
                    else one
                    for one in outcomes
                ]
                if side is None:
                    return stored
                elsewhere = await _give_side(work, model_id, [one.sample_id for one in stored if one.sample_id], side)
                return [
                    replace(one, error=str(_held_elsewhere(elsewhere[one.sample_id])))
                    if one.sample_id is not None and one.sample_id in elsewhere
                    else one
                    for one in stored
                ]

        return await retry_stale(attempt)

    async def _bring(
        self,
        model_id: ModelId,
        picture: ImportedPicture,
        place: Place,
        stored: SampleId | None,
        turns: asyncio.Semaphore,
    ) -> _Decoded | ImportedSample:
        """The picture with its content in the object store: a row never names a content that is not there."""
        if stored is not None:
            return ImportedSample(sample_id=stored, duplicate=True)
        async with turns:
            try:
                decoded = await asyncio.to_thread(self._decode, model_id, picture, place)
            except FieldInvalidError as error:
                return ImportedSample(error=str(error))
            await self._blobs.put_bytes(decoded.sample.digest, decoded.png)
            return decoded

    def _decode(self, model_id: ModelId, picture: ImportedPicture, place: Place) -> _Decoded:
        png = self._reader.to_png(picture.content)
        digest, now = digest_of(png), self._clock.now()
        time = picture.capture_time or now
        result = Result(
            agent_id=NO_AGENT,
            batch=-1,
            index=-1,
            slot=model_id,
            version=0,
            device="",
            infer_time=time,
            part_id=_text(picture.part_id),
            request_id="",
            outcome=ResultOutcome.OK,
            labels=(),
            latency_us=0,
        )
        sample = Sample(
            id=import_id(model_id, digest_of(picture.content)),
            agent_id=NO_AGENT,
            model_id=model_id,
            capture_time=time,
            create_time=now,
            reason=SampleReason.IMPORTED,
            result=result,
            content_type="image/png",
            digest=digest,
            size_bytes=len(png),
            input_name="",
            place=place,
        )
        return _Decoded(sample=sample, png=png, picture=self._reader.read(digest, png, content_type="image/png"))


def import_id(model_id: ModelId, source_digest: Digest) -> SampleId:
    """The id of a file's sample: the same bytes for the same model are the same sample."""
    return SampleId("import-" + hashlib.sha256(f"{model_id}\n{source_digest}".encode()).hexdigest()[:40])


async def _give_side(
    work: UnitOfWork, model_id: ModelId, sample_ids: Sequence[SampleId], side: Side
) -> Mapping[SampleId, Side]:
    """Put samples that stand nowhere yet on the side; return those that stand on another."""
    samples = await work.samples.list_of(sample_ids)
    pictures = await work.pictures.find({sample.digest for sample in samples})
    members = [
        SplitMember(
            candidate=Candidate(
                sample_id=sample.id,
                digest=sample.digest,
                part_id=sample.result.part_id,
                difference_hash=pictures[sample.digest].difference_hash,
            ),
            side=side,
        )
        for sample in samples
    ]
    await work.datasets.add_members(model_id, members)
    sides = await work.datasets.find_sides(model_id, sample_ids)
    return {sample_id: stands for sample_id, stands in sides.items() if stands is not side}


def _held_elsewhere(side: Side) -> FieldInvalidError:
    return FieldInvalidError(
        f"it stands on the side {side.value} of the model's datasets, for good",
        field="side",
        remedy="leave it out, or begin a new model",
    )


def _text(text: str) -> str:
    return storable(text)[: limits.RESULT_TEXT_CHARS_MAX]


def _too_many(count: int, *, field: str) -> FieldInvalidError:
    return FieldInvalidError(
        f"{count} are more than {limits.IMPORT_PICTURES_MAX}", field=field, remedy="send them in several calls"
    )
