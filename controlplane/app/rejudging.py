"""Asking a version about kept samples of parts: what it says where it has given no result of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from controlplane.app.asking import ask
from controlplane.app.ports import BlobStore, Store
from controlplane.app.ports_judging import Evaluator
from controlplane.domain.evidence import LabelScore, Result
from controlplane.domain.ids import ModelId
from controlplane.domain.sample import Sample


class SampleJudges:
    """Runs a version on kept inputs in the child that judges candidates."""

    def __init__(self, *, store: Store, blobs: BlobStore, evaluator: Evaluator, workspace: Path) -> None:
        self._store = store
        self._blobs = blobs
        self._evaluator = evaluator
        self._workspace = workspace

    async def judge(
        self, model_id: ModelId, version: int, parts: Sequence[str], *, good_labels: Sequence[str]
    ) -> Mapping[str, Result]:
        """Of those parts of which samples were kept, what the version says of the sample that it likes least: by part,
        without the parts whose samples it cannot be asked about. Raises ResourceNotFoundError for a version that does
        not exist, FieldInvalidError where it cannot be asked at all."""
        async with self._store.read() as work:
            artifact = (await work.models.get_version(model_id, version)).artifact
            named = [row for row in await work.samples.find_targets(model_id, parts) if row[2] in set(parts)]
            samples = await work.samples.list_of([sample_id for sample_id, _, _ in named])
        if not samples:
            return {}
        told = await ask(
            artifact,
            samples,
            labels=good_labels,
            blobs=self._blobs,
            evaluator=self._evaluator,
            workspace=self._workspace,
        )
        worst: dict[str, Result] = {}
        for sample, scores in zip(samples, told, strict=True):
            if scores:
                said = _result(sample, scores, version=version)
                before = worst.get(sample.result.part_id)
                if before is None or _is_good(before, good_labels) > _is_good(said, good_labels):
                    worst[sample.result.part_id] = said
        return worst


def _is_good(result: Result, good_labels: Sequence[str]) -> bool:
    return result.labels[0].label in good_labels


def _result(sample: Sample, scores: Mapping[str, float], *, version: int) -> Result:
    """What the version says now of an input of then: of no batch, on no device of the line."""
    best_first = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
    return replace(
        sample.result,
        batch=-1,
        index=-1,
        version=version,
        device="",
        labels=tuple(LabelScore(label=label, score=score) for label, score in best_first),
        latency_us=0,
        error="",
    )
