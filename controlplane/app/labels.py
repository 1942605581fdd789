"""Labels: imports that are stored whole or not at all, and what annotators say together."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane import limits
from controlplane.app.audit import write_down
from controlplane.app.evidence import storable
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.ports import Clock, IdSource, Store, UnitOfWork
from controlplane.app.ports_datasets import LabelFilter
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import Happening
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import LabelId, ModelId, SampleId
from controlplane.domain.label import Consensus, ConsensusState, Label, LabeledRegion, agree, opinions_of

RegionNumbers = tuple[str, float, float, float, float]
"""Class, left, top, width and height as they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelEntry:
    """One label to add, as it came."""

    target: str
    """A sample's id, a content's digest, or a part's id."""
    label: str
    regions: tuple[RegionNumbers, ...] = ()
    annotator: str = ""
    """Empty means whoever calls."""
    adjudicates: bool = False
    line: int = 0
    """Of its file; its place among the entries, from 1, is told where it is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelError:
    """Why an entry cannot be taken."""

    line: int
    field: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelImport:
    """What became of an import; nothing was stored where there are errors."""

    errors: tuple[LabelError, ...] = ()
    added: int = 0
    unchanged: int = 0
    samples: int = 0
    conflicts: tuple[SampleId, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Said:
    """One entry on one sample."""

    entry: LabelEntry
    line: int
    label: Label


class Labels:
    """Adds and shows labels."""

    def __init__(self, *, store: Store, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def add(
        self, model_id: ModelId, entries: Sequence[LabelEntry], *, actor: str, source: str = "", dry_run: bool = False
    ) -> LabelImport:
        """Add the labels in one transaction, or none of them where any is wrong. What an annotator said before as his
        newest label is not stored again.

        Raises ResourceNotFoundError for an unknown model, FieldInvalidError for too many entries.
        """
        if len(entries) > limits.LABEL_ENTRIES_MAX:
            raise FieldInvalidError(
                f"{len(entries)} entries are more than {limits.LABEL_ENTRIES_MAX}",
                field="entries",
                remedy="import them in several files",
            )

        async def attempt() -> LabelImport:
            async with self._store.read() as work:
                await work.models.get(model_id)
                said, errors = await self._read(work, model_id, entries, actor=actor, source=source)
            if errors or dry_run or not said:
                async with self._store.read() as work:
                    return await _outcome(work, model_id, said, await _news(work, model_id, said), errors)
            async with self._store.write() as work:
                news = await _news(work, model_id, said)
                outcome = await _outcome(work, model_id, said, news, ())
                if news:
                    await work.labels.add(news)
                    happening = _imported(model_id, outcome, actor=actor, source=source)
                    await write_down(work, [happening], clock=self._clock, ids=self._ids)
            return outcome

        return await retry_stale(attempt)

    async def list(self, wanted: LabelFilter, *, page_size: int = 0, page_token: str = "") -> Page[Label]:
        """Newest first."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        async with self._store.read() as work:
            found = await work.labels.list(wanted, before=LabelId(str(key[0])) if key else None, limit=size + 1)
        return page_of(found, size, lambda label: encode_page_token(label.id))

    async def list_consensus(
        self, model_id: ModelId, *, state: ConsensusState | None = None, page_size: int = 0, page_token: str = ""
    ) -> Page[Consensus]:
        """By sample."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str)
        after = SampleId(str(key[0])) if key else None
        found: list[Consensus] = []
        async with self._store.read() as work:
            await work.models.get(model_id)
            # A page of conflicts may be spread over many samples that agree.
            while len(found) <= size:
                labelled = await work.labels.list_labelled(model_id, after=after, limit=limits.PAGE_SIZE_MAX)
                if not labelled:
                    break
                after = labelled[-1]
                together = consensus_of(await work.labels.list_of(model_id, labelled))
                found += [together[sample_id] for sample_id in labelled if state in (None, together[sample_id].state)]
        return page_of(found[: size + 1], size, lambda consensus: encode_page_token(consensus.sample_id))

    async def _read(
        self, work: UnitOfWork, model_id: ModelId, entries: Sequence[LabelEntry], *, actor: str, source: str
    ) -> tuple[Sequence[_Said], tuple[LabelError, ...]]:
        """What the entries say of which samples, and what is wrong with them, by line."""
        targets = {entry.target for entry in entries if entry.target and storable(entry.target) == entry.target}
        known = _Targets(await work.samples.find_targets(model_id, targets))
        said: list[_Said] = []
        errors: list[LabelError] = []
        now = self._clock.now()
        for place, entry in enumerate(entries, start=1):
            line = entry.line or place
            try:
                regions = _check(entry)
                sample_ids = known.find(entry.target, model_id=model_id)
            except FieldInvalidError as error:
                errors.append(LabelError(line=line, field=error.field, message=error.message, remedy=error.remedy))
                continue
            for sample_id in sample_ids:
                label = Label(
                    id=LabelId(self._ids.uid()),
                    model_id=model_id,
                    sample_id=sample_id,
                    annotator=entry.annotator or actor.removeprefix("operators/"),
                    create_time=now,
                    label=entry.label,
                    regions=regions,
                    source=storable(source)[: limits.LABEL_CHARS_MAX],
                    adjudicates=entry.adjudicates,
                )
                said.append(_Said(entry, line, label))
        kept, contradictions = _without_repeats(said)
        ordered = sorted((*errors, *contradictions), key=lambda error: error.line)
        return kept, tuple(ordered[: limits.LABEL_ERRORS_MAX])


class _Targets:
    """Which samples a target means: its id before a content before a part."""

    def __init__(self, known: Iterable[tuple[SampleId, str, str]]) -> None:
        self._ids: set[str] = set()
        self._digests: dict[str, list[SampleId]] = defaultdict(list)
        self._parts: dict[str, list[SampleId]] = defaultdict(list)
        for sample_id, digest, part_id in known:
            self._ids.add(sample_id)
            self._digests[digest].append(sample_id)
            if part_id:
                self._parts[part_id].append(sample_id)

    def find(self, target: str, *, model_id: ModelId) -> Sequence[SampleId]:
        if target in self._ids:
            return [SampleId(target)]
        found = self._digests.get(target) or self._parts.get(target)
        if not found:
            raise FieldInvalidError(
                f"models/{model_id} has no sample {target[:200]!r}, nor one of such a part or content",
                field="target",
                remedy="name a sample that `lineside samples list` shows, its part or its digest",
            )
        return found


def consensus_of(labels: Iterable[Label], *, agreement_percent: int | None = None) -> dict[SampleId, Consensus]:
    """Return what holds of each sample by its labels."""
    by_sample: dict[SampleId, list[Label]] = defaultdict(list)
    for label in labels:
        by_sample[label.sample_id].append(label)
    if agreement_percent is None:
        return {sample_id: agree(given) for sample_id, given in by_sample.items()}
    return {sample_id: agree(given, agreement_percent=agreement_percent) for sample_id, given in by_sample.items()}


def _check(entry: LabelEntry) -> tuple[LabeledRegion, ...]:
    """Return the regions of an entry; raise FieldInvalidError for what cannot be kept."""
    for name, text, needed in (("label", entry.label, True), ("annotator", entry.annotator, False)):
        if not text.strip() and needed:
            raise FieldInvalidError("there is none", field=name, remedy="name the class of the sample")
        if len(text) > limits.LABEL_CHARS_MAX or text != storable(text) or text != text.strip():
            raise FieldInvalidError(
                f"{text[:80]!r} cannot be kept",
                field=name,
                remedy=f"use at most {limits.LABEL_CHARS_MAX} printable characters without spaces around them",
            )
    if len(entry.regions) > limits.REGIONS_MAX:
        raise FieldInvalidError(
            f"{len(entry.regions)} regions are more than {limits.REGIONS_MAX}",
            field="regions",
            remedy="draw fewer",
        )
    return tuple(
        LabeledRegion(label=label or entry.label, x=x, y=y, width=width, height=height)
        for label, x, y, width, height in entry.regions
    )


def _without_repeats(said: Sequence[_Said]) -> tuple[Sequence[_Said], Sequence[LabelError]]:
    """What is said once, and where an annotator contradicts himself."""
    first: dict[tuple[SampleId, str], _Said] = {}
    errors: list[LabelError] = []
    for one in said:
        before = first.setdefault((one.label.sample_id, one.label.annotator), one)
        if not one.label.says_the_same(before.label):
            errors.append(
                LabelError(
                    line=one.line,
                    field="label",
                    message=f"{one.label.annotator} says {one.label.label!r} of {one.entry.target!r} here and"
                    f" {before.label.label!r} in line or item {before.line}",
                    remedy="keep one of the two lines",
                )
            )
    return list(first.values()), errors


async def _news(work: UnitOfWork, model_id: ModelId, said: Sequence[_Said]) -> Sequence[Label]:
    """The labels that say something new."""
    by_sample: dict[SampleId, list[Label]] = defaultdict(list)
    for label in await work.labels.list_of(model_id, {one.label.sample_id for one in said}):
        by_sample[label.sample_id].append(label)
    newest = {
        (sample_id, opinion.annotator): opinion
        for sample_id, given in by_sample.items()
        for opinion in opinions_of(given)
    }
    news = []
    for one in said:
        before = newest.get((one.label.sample_id, one.label.annotator))
        if before is None or not one.label.says_the_same(before):
            news.append(one.label)
    return news


async def _outcome(
    work: UnitOfWork,
    model_id: ModelId,
    said: Sequence[_Said],
    news: Sequence[Label],
    errors: tuple[LabelError, ...],
) -> LabelImport:
    classes = dict(sorted(Counter(one.entry.label for one in said).items()))
    if errors:
        return LabelImport(errors=errors, classes=classes)
    touched = {one.label.sample_id for one in said}
    together = consensus_of([*await work.labels.list_of(model_id, touched), *news])
    conflicts = sorted(key for key, consensus in together.items() if consensus.state is ConsensusState.CONFLICT)
    return LabelImport(
        added=len(news),
        unchanged=len(said) - len(news),
        samples=len(touched),
        conflicts=tuple(conflicts[: limits.LABEL_ERRORS_MAX]),
        classes=classes,
    )


def _imported(model_id: ModelId, outcome: LabelImport, *, actor: str, source: str) -> Happening:
    return Happening(
        actor=actor,
        action="label.import",
        resource=f"models/{model_id}",
        message=f"{outcome.added} labels of {outcome.samples} samples from {storable(source)[:80] or 'a call'}",
        evidence={"added": outcome.added, "unchanged": outcome.unchanged, "classes": dict(outcome.classes)},
    )
