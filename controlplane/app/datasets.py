"""Datasets: frozen from what is labelled, given to trainers without the holdout, and to judges.

Who can read what: `materialise` and `items` read the manifest of TRAIN and VALIDATION alone and never open the other;
`holdout` is for the judgement; an operator who wants the holdout says so, and the audit log keeps it.
"""

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.evidence import storable
from controlplane.app.labels import consensus_of
from controlplane.app.paging import (
    Page,
    clamp_page_size,
    decode_page_token,
    decode_token_time,
    encode_page_token,
    page_of,
)
from controlplane.app.picture_reading import PictureReading
from controlplane.app.ports import BlobStore, Clock, IdSource, Store, UnitOfWork
from controlplane.app.ports_datasets import Picture, PictureReader
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import Happening
from controlplane.domain.dataset import (
    Dataset,
    DatasetItem,
    DatasetRule,
    LeftOut,
    Manifests,
    count_items,
    digest_of,
    item_to_json,
    read_manifest,
    weight_of,
    write_manifests,
)
from controlplane.domain.errors import FieldInvalidError, ForbiddenError, PreconditionError, Reason, StaleWriteError
from controlplane.domain.ids import DatasetId, Digest, ModelId, SampleId, check_resource_id
from controlplane.domain.label import Consensus, ConsensusState
from controlplane.domain.lake import Place
from controlplane.domain.sample import Sample
from controlplane.domain.split import TRAINING_SPLITS, Candidate, Side, Split, SplitMember, assign


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What is labelled, as one snapshot shows it."""

    agreed: Mapping[SampleId, Consensus]
    conflicts: int
    samples: Sequence[Sample]
    members: Sequence[SplitMember]
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frozen:
    """What a dataset will hold."""

    items: Sequence[DatasetItem]
    members: Sequence[SplitMember]
    left_out: Mapping[LeftOut, int]
    manifests: Manifests


class Datasets:
    """Freezes and reads datasets."""

    def __init__(self, *, store: Store, blobs: BlobStore, reader: PictureReader, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._blobs = blobs
        self._pictures = PictureReading(store=store, blobs=blobs, reader=reader)
        self._clock = clock
        self._ids = ids

    async def freeze(
        self, model_id: ModelId, *, rule: DatasetRule, actor: str, dataset_id: str = "", description: str = ""
    ) -> Dataset:
        """Freeze what is labelled now; the same samples, labels and rule are the dataset that they were.

        Raises ResourceNotFoundError for an unknown model, PreconditionError (DATASET_EMPTY) where nothing is labelled,
        ResourceExistsError for a taken id.
        """
        if dataset_id:
            check_resource_id(dataset_id, field="dataset_id")
        if len(rule.weights) > limits.WEIGHT_RULES_MAX:
            raise FieldInvalidError(
                "too many weights", field="rule.weights", remedy=f"{limits.WEIGHT_RULES_MAX} at most"
            )
        words = storable(description)[: limits.DESCRIPTION_CHARS_MAX]

        async def attempt() -> Dataset:
            seen = await self._see(model_id, rule)
            pictures = await self._pictures.of(seen.samples)
            # Minutes of arithmetic for the largest sets: the event loop goes on meanwhile.
            frozen = await asyncio.to_thread(_freeze, model_id, rule, seen, pictures)
            if not frozen.items:
                raise _empty(model_id, frozen.left_out)
            training, holdout = digest_of(frozen.manifests.training), digest_of(frozen.manifests.holdout)
            # The manifests first: a row never names what is not there.
            await self._blobs.put_bytes(training, frozen.manifests.training)
            await self._blobs.put_bytes(holdout, frozen.manifests.holdout)
            dataset = Dataset(
                id=DatasetId(dataset_id or f"{model_id[:50].rstrip('-')}-{seen.number + 1}"),
                model_id=model_id,
                number=seen.number + 1,
                create_time=self._clock.now(),
                creator=actor,
                description=words,
                digest=frozen.manifests.digest,
                training_manifest=training,
                holdout_manifest=holdout,
                rule=rule,
                counts=count_items(frozen.items),
                left_out=frozen.left_out,
            )
            return await self._keep(dataset, frozen.members)

        return await retry_stale(attempt)

    async def get(self, dataset_id: DatasetId) -> Dataset:
        async with self._store.read() as work:
            return await work.datasets.get(dataset_id)

    async def list(self, *, model_id: ModelId | None = None, page_size: int = 0, page_token: str = "") -> Page[Dataset]:
        """Newest first."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str, str)
        before = (decode_token_time(str(key[0])), DatasetId(str(key[1]))) if key else None
        async with self._store.read() as work:
            found = await work.datasets.list(model_id=model_id, before=before, limit=size + 1)
        return page_of(found, size, lambda dataset: encode_page_token(dataset.create_time.isoformat(), dataset.id))

    async def check(self, dataset_id: DatasetId, model_id: ModelId) -> None:
        """Raise ResourceNotFoundError unless the dataset exists, FieldInvalidError unless it is the model's."""
        dataset = await self.get(dataset_id)
        if dataset.model_id != model_id:
            raise FieldInvalidError(
                f"datasets/{dataset_id} is of models/{dataset.model_id}",
                field="training_run.dataset",
                remedy=f"name a dataset that `lineside datasets list --model {model_id}` shows",
            )

    async def items(self, dataset_id: DatasetId) -> Sequence[DatasetItem]:
        """What a trainer is given: TRAIN and VALIDATION, by sample."""
        dataset = await self.get(dataset_id)
        items = read_manifest(await self._read(dataset.training_manifest))
        assert all(item.split in TRAINING_SPLITS for item in items), f"datasets/{dataset_id} names held-out items"
        return items

    async def holdout(self, dataset_id: DatasetId) -> Sequence[DatasetItem]:
        """What judges a candidate, by sample. For the judgement alone."""
        return read_manifest(await self._read((await self.get(dataset_id)).holdout_manifest))

    async def release_holdout(self, dataset_id: DatasetId, *, actor: str, purpose: str) -> Sequence[DatasetItem]:
        """Return the holdout to an operator who asked for it by name; the audit log keeps who and for what."""
        items = await self.holdout(dataset_id)
        happening = Happening(
            actor=actor,
            action="dataset.release_holdout",
            resource=f"datasets/{dataset_id}",
            message=f"{len(items)} held-out items were handed out for {purpose}",
        )
        async with self._store.write() as work:
            await write_down(work, [happening], clock=self._clock, ids=self._ids)
        return items

    async def list_items(
        self, dataset_id: DatasetId, *, released_to: str | None = None, page_size: int = 0, page_token: str = ""
    ) -> Page[DatasetItem]:
        """By sample. With `released_to` the holdout instead of what a trainer is given, as `release_holdout` does."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        if released_to is None:
            items = await self.items(dataset_id)
        else:
            items = await self.release_holdout(dataset_id, actor=released_to, purpose="an export")
        after = str(key[0]) if key else ""
        found = [item for item in items if item.sample_id > after][: size + 1]
        return page_of(found, size, lambda item: encode_page_token(item.sample_id))

    async def materialise(
        self, dataset_id: DatasetId, folder: Path, splits: Collection[Split] = TRAINING_SPLITS
    ) -> None:
        """Write `folder`/dataset.json and `folder`/images/ with the items of these splits, verified. Nothing that is
        written tells of the holdout. Raises ForbiddenError (HOLDOUT_GUARDED) when it is asked for."""
        if not TRAINING_SPLITS.issuperset(splits):
            raise _guarded(dataset_id)
        dataset = await self.get(dataset_id)
        items = [item for item in await self.items(dataset_id) if item.split in splits]
        await self._check_sides(dataset, items)
        images = folder / "images"
        await asyncio.to_thread(images.mkdir, parents=True, exist_ok=True)
        turns = asyncio.Semaphore(limits.CONTENTS_AT_ONCE_MAX)
        try:
            async with asyncio.TaskGroup() as group:
                for item in items:
                    group.create_task(self._fetch(item, images / item.file_name, turns))
        except ExceptionGroup as failures:
            # One refusal says what to do; those that it cut off say nothing more.
            raise failures.exceptions[0] from failures
        document = json.dumps(_document(dataset, items), indent=1, ensure_ascii=False)
        await asyncio.to_thread((folder / "dataset.json").write_text, document)

    async def content(self, digest: Digest) -> bytes:
        """Return a content, whole."""
        return await self._read(digest)

    async def _fetch(self, item: DatasetItem, path: Path, turns: asyncio.Semaphore) -> None:
        async with turns:
            content = await self._read(item.digest)
            await asyncio.to_thread(path.write_bytes, content)

    async def _read(self, digest: Digest) -> bytes:
        content = b"".join([chunk async for chunk in self._blobs.read(digest)])
        came = "sha256:" + await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        if came != digest:
            raise PreconditionError(
                f"blobs/{digest} has the digest {came}",
                remedy="restore the object store from its backup",
                reason=Reason.DIGEST_MISMATCH,
            )
        return content

    async def _check_sides(self, dataset: Dataset, items: Iterable[DatasetItem]) -> None:
        """The second guard: what the rows say of sides, beside what the manifest says."""
        async with self._store.read() as work:
            members = await work.datasets.list_members(dataset.model_id)
        held = [member.candidate for member in members if member.side is Side.HOLDOUT]
        held_ids, held_digests = {one.sample_id for one in held}, {one.digest for one in held}
        if any(item.sample_id in held_ids or item.digest in held_digests for item in items):
            raise _guarded(dataset.id)

    async def _see(self, model_id: ModelId, rule: DatasetRule) -> _Seen:
        async with self._store.read() as work:
            await work.models.get(model_id)
            together = consensus_of(await work.labels.list_of(model_id), agreement_percent=rule.agreement_percent)
            agreed = {key: one for key, one in together.items() if one.state is ConsensusState.AGREED}
            samples = [sample for sample in await work.samples.list_of(agreed.keys()) if sample.model_id == model_id]
            if len(samples) > limits.DATASET_ITEMS_MAX:
                raise PreconditionError(
                    f"{len(samples)} samples are more than a dataset holds",
                    field="model",
                    remedy=f"label at most {limits.DATASET_ITEMS_MAX}",
                    reason=Reason.LIMIT_EXCEEDED,
                )
            return _Seen(
                agreed=agreed,
                conflicts=len(together) - len(agreed),
                samples=await _placed(work, samples),
                members=await work.datasets.list_members(model_id),
                number=await work.datasets.last_number(model_id),
            )

    async def _keep(self, dataset: Dataset, members: Sequence[SplitMember]) -> Dataset:
        """Store it unless it was frozen before. Raises StaleWriteError where sides were given meanwhile."""
        async with self._store.write() as work:
            before = await work.datasets.find_by_digest(dataset.model_id, dataset.digest)
            if before is not None:
                return before
            if await work.datasets.last_number(dataset.model_id) != dataset.number - 1:
                raise StaleWriteError("another dataset was frozen meanwhile", remedy="freeze again")
            await work.datasets.add(dataset)
            await work.datasets.add_members(dataset.model_id, members)
            sides = await work.datasets.find_sides(dataset.model_id, [member.candidate.sample_id for member in members])
            if any(sides[member.candidate.sample_id] is not member.side for member in members):
                raise StaleWriteError("an import gave sides meanwhile", remedy="freeze again")
            await write_down(work, [_happened(dataset)], clock=self._clock, ids=self._ids)
            return dataset


async def _placed(work: UnitOfWork, samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples, those without a place at the one where their agent is now: they came before places were kept."""
    strays = {sample.agent_id for sample in samples if sample.agent_id and sample.place == Place()}
    places = {record.agent.id: Place.of(record.agent.labels) for record in await work.agents.list_of(strays)}
    return [
        replace(sample, place=places[sample.agent_id])
        if sample.place == Place() and sample.agent_id in places
        else sample
        for sample in samples
    ]


def _freeze(model_id: ModelId, rule: DatasetRule, seen: _Seen, pictures: Mapping[Digest, Picture]) -> _Frozen:
    left_out: Counter[LeftOut] = Counter({LeftOut.CONFLICT: seen.conflicts})
    readable = [sample for sample in seen.samples if pictures[sample.digest].readable]
    left_out[LeftOut.UNREADABLE] = len(seen.samples) - len(readable)
    samples = _one_a_content(readable, seen.agreed, left_out)
    candidates = {
        sample.id: Candidate(
            sample_id=sample.id,
            digest=sample.digest,
            part_id=sample.result.part_id,
            difference_hash=pictures[sample.digest].difference_hash,
        )
        for sample in samples
    }
    assigned = assign(candidates.values(), seen.members, rule.split_rule(model_id))
    items: list[DatasetItem] = []
    members: list[SplitMember] = []
    for sample in samples:
        falls = assigned[sample.id]
        if falls.split is None:
            left_out[LeftOut.BOTH_SIDES] += 1
            continue
        item = _item(sample, seen.agreed[sample.id], falls.split, falls.group)
        items.append(replace(item, weight=weight_of(item, rule.weights)))
        side = Side.HOLDOUT if falls.split is Split.HOLDOUT else Side.TRAINING
        members.append(SplitMember(candidate=candidates[sample.id], side=side))
    return _Frozen(
        items=items,
        members=members,
        left_out=MappingProxyType({reason: count for reason, count in sorted(left_out.items()) if count}),
        manifests=write_manifests(model_id, rule, items),
    )


def _one_a_content(
    samples: Sequence[Sample], agreed: Mapping[SampleId, Consensus], left_out: Counter[LeftOut]
) -> Sequence[Sample]:
    """One sample of each content, the first that came; none where the same content is labelled in two ways."""
    by_content: dict[Digest, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_content[sample.digest].append(sample)
    kept = []
    for same in by_content.values():
        if len({(agreed[sample.id].label, agreed[sample.id].regions) for sample in same}) > 1:
            left_out[LeftOut.CONTRADICTION] += len(same)
            continue
        left_out[LeftOut.DUPLICATE] += len(same) - 1
        kept.append(min(same, key=lambda sample: (sample.create_time, sample.id)))
    return sorted(kept, key=lambda sample: sample.id)


def _item(sample: Sample, consensus: Consensus, split: Split, group: str) -> DatasetItem:
    return DatasetItem(
        sample_id=sample.id,
        digest=sample.digest,
        content_type=sample.content_type,
        split=split,
        label=consensus.label,
        regions=consensus.regions,
        annotators=tuple(sorted({label.annotator for label in consensus.supporters})),
        label_ids=tuple(sorted(label.id for label in consensus.supporters)),
        part_id=sample.result.part_id,
        agent_id=sample.agent_id,
        site=sample.place.site,
        line=sample.place.line,
        station=sample.place.station,
        capture_time=sample.capture_time,
        group=group,
    )


def _document(dataset: Dataset, items: Sequence[DatasetItem]) -> dict[str, object]:
    """What a trainer reads; docs/training.md explains it. Its digest is the training manifest's own."""
    return {
        "dataset": f"datasets/{dataset.id}",
        "model": f"models/{dataset.model_id}",
        "digest": dataset.training_manifest,
        "labels": sorted({item.label for item in items}),
        "items": [{**item_to_json(item), "file": f"images/{item.file_name}"} for item in items],
    }


def _happened(dataset: Dataset) -> Happening:
    return Happening(
        actor=dataset.creator,
        action="dataset.freeze",
        resource=f"datasets/{dataset.id}",
        message=", ".join(f"{dataset.count(split)} {split.value.lower()}" for split in Split),
        evidence={
            "digest": dataset.digest,
            "left_out": {reason.value: count for reason, count in dataset.left_out.items()},
        },
        related=(f"models/{dataset.model_id}",),
    )


def _empty(model_id: ModelId, left_out: Mapping[LeftOut, int]) -> PreconditionError:
    why = ", ".join(f"{count} {reason.value}" for reason, count in left_out.items())
    return PreconditionError(
        f"models/{model_id} has no sample with a label that holds" + (f": {why}" if why else ""),
        field="model",
        remedy="import labels, and adjudicate what `lineside labels conflicts` shows",
        reason=Reason.DATASET_EMPTY,
    )


def _guarded(dataset_id: DatasetId) -> ForbiddenError:
    return ForbiddenError(
        f"datasets/{dataset_id}: no trainer is given what is held out",
        field="splits",
        remedy="ask for TRAIN and VALIDATION",
        reason=Reason.HOLDOUT_GUARDED,
    )
