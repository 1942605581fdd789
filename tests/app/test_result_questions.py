"""Questions over the lake: which files they are about, and parts that another version would not have passed."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane import limits
from controlplane.app.evidence import Evidence
from controlplane.app.ports_judging import SampleContent
from controlplane.app.ports_lake import Answer
from controlplane.app.rejudging import SampleJudges
from controlplane.app.result_questions import JudgementSource, RejudgeQuestion, ResultQuestions
from controlplane.artifacts.object_store import CloudObjectStore, LocalObjectStore
from controlplane.domain.errors import FieldInvalidError, LimitExceededError
from controlplane.domain.evidence import LabelScore, Result, ResultOutcome
from controlplane.domain.lake import ResultSpan
from controlplane.lake.query import DuckDbQuestions
from tests.support.factories import (
    NOW,
    SOLAR,
    WELD,
    after_seconds,
    digest_of,
    make_artifact,
    make_batch,
    make_model,
    make_result,
    make_sample,
    make_version,
)
from tests.support.lake import make_evidence, memory_objects
from tests.support.memory_blobs import MemoryBlobStore
from tests.support.memory_store import MemoryStore

Evidences = tuple[MemoryStore, Evidence, ResultQuestions]


class CountingEngine:
    """Answers nothing, and remembers the files that it was given."""

    def __init__(self) -> None:
        self.files: list[Sequence[Path]] = []

    async def ask(
        self, sql: str, files: Sequence[Path], *, row_limit: int, parameters: Sequence[object] = ()
    ) -> Answer:
        assert all(file.is_file() for file in files)
        self.files.append(files)
        return Answer(columns=[], rows=[])


class OneLabelEvaluator:
    """Says the same of every input, and nothing of what it cannot read."""

    def __init__(self, label: str = "defect") -> None:
        self._label = label

    async def evaluate(
        self, folder: Path, contents: AsyncIterator[SampleContent], *, labels: Collection[str]
    ) -> Sequence[Mapping[str, float] | None]:
        assert (folder / "file-0").is_file()
        return [
            {**dict.fromkeys(labels, 0.1), self._label: 0.9} if content.content_type else None
            async for content in contents
        ]


def open_questions(
    objects: CloudObjectStore, workspace: Path, engine: object = None, *, says: str = "defect"
) -> Evidences:
    store = MemoryStore()
    judges = SampleJudges(store=store, blobs=MemoryBlobStore(), evaluator=OneLabelEvaluator(says), workspace=workspace)
    questions = ResultQuestions(
        judges=judges,
        store=store,
        objects=objects,
        engine=engine or DuckDbQuestions(),  # type: ignore[arg-type]
        workspace=workspace,
    )
    return store, make_evidence(store, objects), questions


async def report(evidence: Evidence, batch: int, *results: Result) -> None:
    assert await evidence.report(make_batch(batch=batch, windows=(), results=results)) is False


def judged(part: str, version: int, label: str, *, batch: int, index: int = 0, seconds: float = 0.0) -> Result:
    return make_result(
        batch=batch,
        index=index,
        part_id=part,
        version=version,
        infer_time=after_seconds(seconds),
        labels=(LabelScore(label=label, score=0.75),),
    )


@pytest.mark.parametrize("local", [True, False])
async def test_a_question_is_answered_from_a_folder_or_from_what_was_fetched(tmp_path: Path, *, local: bool) -> None:
    objects = LocalObjectStore(tmp_path / "store") if local else memory_objects()
    workspace = tmp_path / "work"
    workspace.mkdir()
    _, evidence, questions = open_questions(objects, workspace)
    await report(evidence, 1, judged("a", 1, "good", batch=1), judged("b", 1, "defect", batch=1, index=1))
    told = await questions.query("SELECT part_id, label FROM results ORDER BY 1", span=ResultSpan())
    assert told.answer.rows == [["a", "good"], ["b", "defect"]]
    assert told.file_count == 1
    assert told.file_bytes > 0
    assert list(workspace.iterdir()) == []


async def test_only_files_of_the_span_are_read(tmp_path: Path) -> None:
    engine = CountingEngine()
    _, evidence, questions = open_questions(LocalObjectStore(tmp_path), tmp_path, engine)
    await report(evidence, 1, judged("a", 1, "good", batch=1))
    await report(evidence, 2, make_result(batch=2, slot="weld", infer_time=after_seconds(7200)))
    for span, count in (
        (ResultSpan(), 2),
        (ResultSpan(model_id=WELD), 1),
        (ResultSpan(start_time=NOW + timedelta(hours=1)), 1),
        (ResultSpan(end_time=NOW), 0),
    ):
        told = await questions.query("SELECT 1", span=span)
        assert (told.file_count, len(engine.files[-1])) == (count, count)


async def test_questions_beyond_bounds_are_refused_with_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, evidence, questions = open_questions(memory_objects(), tmp_path, CountingEngine())
    for batch in (1, 2):
        await report(evidence, batch, judged("a", 1, "good", batch=batch))
    for sql in ("", "  ", "x" * (limits.LAKE_SQL_CHARS_MAX + 1)):
        with pytest.raises(FieldInvalidError):
            await questions.query(sql, span=ResultSpan())
    with pytest.raises(FieldInvalidError):
        await questions.query("SELECT 1", span=ResultSpan(), row_limit=-1)
    monkeypatch.setattr(limits, "LAKE_FETCH_BYTES_MAX", 10)
    with pytest.raises(LimitExceededError, match="may be fetched"):
        await questions.query("SELECT 1", span=ResultSpan())
    monkeypatch.setattr(limits, "LAKE_QUERY_FILES_MAX", 1)
    with pytest.raises(LimitExceededError, match="more than 1 files") as refusal:
        await questions.query("SELECT 1", span=ResultSpan())
    assert refusal.value.remedy


async def test_parts_that_a_version_passed_and_another_does_not_are_told(tmp_path: Path) -> None:
    _, evidence, questions = open_questions(LocalObjectStore(tmp_path), tmp_path)
    await report(
        evidence,
        1,
        judged("agreed", 1, "good", batch=1, index=0),
        judged("wrongly-passed", 1, "good", batch=1, index=1),
        judged("failed-before", 1, "defect", batch=1, index=2),
        judged("never-judged", 1, "good", batch=1, index=3),
        judged("reworked", 1, "defect", batch=1, index=4),
        judged("reworked", 1, "good", batch=1, index=5, seconds=10),
        judged("two-views", 1, "good", batch=1, index=6),
        judged("two-views", 1, "defect", batch=1, index=7),
        make_result(batch=1, index=8, part_id="erred", outcome=ResultOutcome.ERROR, labels=()),
        judged("", 1, "good", batch=1, index=9),
    )
    await report(
        evidence,
        2,
        judged("agreed", 2, "good", batch=2, index=0, seconds=60),
        judged("wrongly-passed", 2, "defect", batch=2, index=1, seconds=60),
        judged("failed-before", 2, "defect", batch=2, index=2, seconds=60),
        judged("reworked", 2, "defect", batch=2, index=4, seconds=60),
        judged("reworked", 2, "good", batch=2, index=5, seconds=61),
        judged("two-views", 2, "defect", batch=2, index=6, seconds=60),
        judged("erred", 2, "defect", batch=2, index=8, seconds=60),
        judged("", 2, "defect", batch=2, index=9, seconds=60),
    )
    question = RejudgeQuestion(model_id=SOLAR, passed_version=1, judging_version=2, good_labels=("good", "ok"))
    told = await questions.rejudge(question)
    assert [part.part_id for part in told.parts] == ["reworked", "wrongly-passed"]
    assert (told.passed_parts, told.judged_parts) == (4, 3)
    assert told.parts[1].passed == judged("wrongly-passed", 1, "good", batch=1, index=1)
    assert told.parts[1].judged == judged("wrongly-passed", 2, "defect", batch=2, index=1, seconds=60)

    first = await questions.rejudge(question, page_size=1)
    rest = await questions.rejudge(question, page_size=1, page_token=first.next_token)
    assert [part.part_id for part in (*first.parts, *rest.parts)] == ["reworked", "wrongly-passed"]

    later = RejudgeQuestion(
        model_id=SOLAR, passed_version=1, judging_version=2, good_labels=("good",), start_time=after_seconds(5)
    )
    assert [part.part_id for part in (await questions.rejudge(later)).parts] == ["reworked"]
    nothing = await questions.rejudge(
        RejudgeQuestion(model_id=WELD, passed_version=1, judging_version=2, good_labels=("good",))
    )
    assert (nothing.parts, nothing.passed_parts) == ([], 0)


@pytest.mark.parametrize(("says", "expected"), [("defect", ["kept"]), ("good", [])])
async def test_parts_that_the_other_version_never_judged_are_told_from_kept_samples(
    tmp_path: Path, says: str, expected: list[str]
) -> None:
    objects = LocalObjectStore(tmp_path)
    store, evidence, questions = open_questions(objects, tmp_path, says=says)
    contents = {"file": b"model", "kept": b"an input", "lost": b"another"}
    blobs = questions._judges._blobs
    for name in ("file", "kept"):
        await blobs.put_bytes(digest_of(contents[name]), contents[name])
    async with store.write() as work:
        await work.models.add(make_model())
        await work.models.add_version(make_version(number=2, artifact=make_artifact("model")))
        for name in ("kept", "lost"):
            judged_then = judged(name, 1, "good", batch=-1, index=-1)
            sample = make_sample(id=name, digest=digest_of(contents[name]), result=judged_then)
            await work.samples.add(sample)
    names = ("kept", "lost", "no-sample")
    await report(evidence, 1, *(judged(name, 1, "good", batch=1, index=index) for index, name in enumerate(names)))
    question = RejudgeQuestion(model_id=SOLAR, passed_version=1, judging_version=2, good_labels=("good",))
    first = await questions.rejudge(question)
    assert (first.parts, first.passed_parts, first.judged_parts) == ([], 3, 0)
    told = await questions.rejudge(question, page_token=first.next_token)
    assert [(part.part_id, part.source) for part in told.parts] == [(name, JudgementSource.SAMPLE) for name in expected]
    assert told.next_token == ""
    for part in told.parts:
        assert (part.passed.version, part.judged.version, part.judged.labels[0].label) == (1, 2, "defect")


@pytest.mark.parametrize(
    ("judging_version", "good_labels", "field"), [(1, ("good",), "judging_version"), (2, (), "good_labels")]
)
async def test_a_rejudgement_that_makes_no_sense_is_refused(
    tmp_path: Path, judging_version: int, good_labels: Sequence[str], field: str
) -> None:
    _, _, questions = open_questions(memory_objects(), tmp_path, CountingEngine())
    with pytest.raises(FieldInvalidError) as refusal:
        await questions.rejudge(
            RejudgeQuestion(model_id=SOLAR, passed_version=1, judging_version=judging_version, good_labels=good_labels)
        )
    assert refusal.value.field == field
    assert refusal.value.remedy
