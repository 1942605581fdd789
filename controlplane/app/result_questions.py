"""Questions over the results lake: SQL, and which parts another version would not have passed.

The index names the files that a question is about; a child process reads them, and nothing else.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from controlplane import limits
from controlplane.app.paging import clamp_page_size, decode_page_token, encode_page_token
from controlplane.app.ports import Store
from controlplane.app.ports_lake import Answer, ObjectStore, QuestionEngine
from controlplane.app.rejudging import SampleJudges
from controlplane.domain.errors import FieldInvalidError, LimitExceededError
from controlplane.domain.evidence import LabelScore, Result, ResultOutcome
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.lake import ResultObject, ResultSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """An answer, and what was read for it."""

    answer: Answer
    file_count: int
    file_bytes: int


class JudgementSource(StrEnum):
    """Where a second judgement is from."""

    RESULT = "RESULT"
    SAMPLE = "SAMPLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgedPart:
    """A part that one version passed and the other does not."""

    part_id: str
    passed: Result
    judged: Result
    source: JudgementSource = JudgementSource.RESULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudgement:
    """A page of parts, and counts over all pages."""

    parts: Sequence[RejudgedPart]
    next_token: str
    passed_parts: int
    judged_parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RejudgeQuestion:
    """Which parts `passed_version` passed, that is, gave a label of `good_labels` to when it last judged them."""

    model_id: ModelId
    passed_version: int
    judging_version: int
    good_labels: Sequence[str]
    start_time: datetime | None = None
    end_time: datetime | None = None


class ResultQuestions:
    """Answers questions."""

    def __init__(
        self,
        *,
        store: Store,
        objects: ObjectStore,
        engine: QuestionEngine,
        judges: SampleJudges,
        workspace: Path,
    ) -> None:
        self._store = store
        self._objects = objects
        self._engine = engine
        self._judges = judges
        self._workspace = workspace

    async def query(self, sql: str, *, span: ResultSpan, row_limit: int = 0) -> QueryAnswer:
        """Ask over the files of the span. Raises FieldInvalidError (field "sql") for a question that is wrong,
        LimitExceededError where it takes too much."""
        if not sql.strip() or len(sql) > limits.LAKE_SQL_CHARS_MAX:
            raise FieldInvalidError(
                f"{len(sql)} characters", field="sql", remedy=f"write 1 to {limits.LAKE_SQL_CHARS_MAX} characters"
            )
        if row_limit < 0:
            raise FieldInvalidError(f"{row_limit} is negative", field="row_limit", remedy="leave it 0 for the default")
        rows = min(row_limit or limits.LAKE_ROWS_DEFAULT, limits.LAKE_ROWS_MAX)
        async with self._files(span) as (objects, files):
            answer = await self._engine.ask(sql, files, row_limit=rows)
        return QueryAnswer(answer=answer, file_count=len(objects), file_bytes=sum(one.size_bytes for one in objects))

    async def rejudge(self, question: RejudgeQuestion, *, page_size: int = 0, page_token: str = "") -> Rejudgement:
        """The parts that the other version judges otherwise: first from the results that both gave, by part; then, of
        parts that it has not judged, from kept samples on which it is run now, by part."""
        _check(question)
        size = clamp_page_size(page_size)
        key = decode_page_token(page_token, str, str)
        source, after = (JudgementSource(str(key[0])), str(key[1])) if key else (JudgementSource.RESULT, "")
        # A part may be judged again at any time after it was passed: only files of the two versions bound this.
        span = ResultSpan(
            model_id=question.model_id, versions=frozenset({question.passed_version, question.judging_version})
        )
        of_results = source is JudgementSource.RESULT
        limit = size + 1 if of_results else limits.LAKE_PARTS_REJUDGED_MAX
        asked = [*_parameters(question), after, limit]
        async with self._files(span) as (_, files):
            counts = await self._engine.ask(_COUNTS, files, row_limit=1, parameters=asked[:-2])
            found = await self._engine.ask(
                _PARTS if of_results else _UNJUDGED, files, row_limit=limit, parameters=asked
            )
        passed, judged = (_whole(value) for value in counts.rows[0])
        if of_results:
            parts = [_rejudged(row) for row in found.rows][:size]
            more = len(found.rows) > size or found.truncated
            next_token = encode_page_token(source, parts[-1].part_id) if more else ""
            if not more and passed > judged:
                next_token = encode_page_token(JudgementSource.SAMPLE, "")
        else:
            parts = [*await self._from_samples(question, found.rows)]
            more = len(found.rows) == limit or found.truncated
            next_token = encode_page_token(source, str(found.rows[-1][0])) if more else ""
        return Rejudgement(parts=parts, next_token=next_token, passed_parts=passed, judged_parts=judged)

    async def _from_samples(
        self, question: RejudgeQuestion, rows: Sequence[Sequence[object]]
    ) -> Sequence[RejudgedPart]:
        passed = {str(part_id): _result(one) for part_id, one in rows}
        said = await self._judges.judge(
            question.model_id, question.judging_version, list(passed), good_labels=question.good_labels
        )
        return [
            RejudgedPart(part_id=part_id, passed=passed[part_id], judged=judged, source=JudgementSource.SAMPLE)
            for part_id, judged in sorted(said.items())
            if judged.labels[0].label not in question.good_labels
        ]

    @asynccontextmanager
    async def _files(self, span: ResultSpan) -> AsyncIterator[tuple[Sequence[ResultObject], Sequence[Path]]]:
        """The objects of the span with files that lie in their folders; what was fetched goes afterwards."""
        async with self._store.read() as work:
            objects = await work.result_index.list_span(span, limit=limits.LAKE_QUERY_FILES_MAX + 1)
        if len(objects) > limits.LAKE_QUERY_FILES_MAX:
            raise LimitExceededError(
                f"more than {limits.LAKE_QUERY_FILES_MAX} files hold results of that time",
                field="start_time",
                remedy="ask for a shorter time or one model, or read the lake with an engine of its own",
            )
        paths = [self._objects.path(one.key) for one in objects]
        local = [path for path in paths if path is not None]
        if len(local) == len(objects):
            yield objects, local
            return
        with tempfile.TemporaryDirectory(prefix="lake-", dir=self._workspace) as folder:
            yield objects, await self._fetch(objects, Path(folder))

    async def _fetch(self, objects: Sequence[ResultObject], folder: Path) -> Sequence[Path]:
        size_bytes = sum(one.size_bytes for one in objects)
        if size_bytes > limits.LAKE_FETCH_BYTES_MAX:
            raise LimitExceededError(
                f"{size_bytes} bytes of results are of that time, and {limits.LAKE_FETCH_BYTES_MAX} may be fetched",
                field="start_time",
                remedy="ask for a shorter time or one model, or read the lake with an engine of its own",
            )
        turns = asyncio.Semaphore(limits.LAKE_FETCHES_AT_ONCE)

        async def fetch(one: ResultObject) -> Path:
            async with turns:
                content = await self._objects.get(one.key)
                return await asyncio.to_thread(_written, folder / one.key, content)

        return await asyncio.gather(*map(fetch, objects))


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _check(question: RejudgeQuestion) -> None:
    if question.passed_version == question.judging_version:
        raise FieldInvalidError(
            "a version does not judge itself again", field="judging_version", remedy="name another version"
        )
    if not 0 < len(question.good_labels) <= limits.LABELS_GOOD_MAX:
        raise FieldInvalidError(
            f"{len(question.good_labels)} labels",
            field="good_labels",
            remedy=f"name 1 to {limits.LABELS_GOOD_MAX} labels that pass a part",
        )


_JUDGED = """
WITH rated AS (
    SELECT *, coalesce(list_contains($4::VARCHAR[], label), false) AS good FROM results
    WHERE model = $1 AND outcome = 'OK' AND part_id <> ''
), last_passed AS (
    SELECT part_id, max(infer_time) AS last_time FROM rated
    WHERE version = $2 AND infer_time >= $5::TIMESTAMPTZ AND infer_time < $6::TIMESTAMPTZ GROUP BY part_id
), passed AS (
    SELECT part_id, arg_min(one, one.score) AS one FROM rated AS one JOIN last_passed USING (part_id)
    WHERE version = $2 AND infer_time = last_time GROUP BY part_id HAVING bool_and(good)
), judged AS (
    SELECT part_id, bool_and(good) AS still_good, arg_max(one, one.infer_time) FILTER (NOT good) AS one
    FROM rated AS one WHERE version = $3 GROUP BY part_id
)
"""
"""Of a part that was judged several times at once (a batch of views) every view must be good to pass it; one judgement
of the other version that is not good is enough to ask for the part."""
_COUNTS = f"""{_JUDGED}
SELECT count(*), count(judged.part_id) FROM passed LEFT JOIN judged USING (part_id)"""  # noqa: S608 - no text of a user
_PARTS = f"""{_JUDGED}
SELECT part_id, passed.one, judged.one FROM passed JOIN judged USING (part_id)
WHERE NOT still_good AND part_id > $7 ORDER BY part_id LIMIT $8"""  # noqa: S608 - as above


_UNJUDGED = f"""{_JUDGED}
SELECT part_id, passed.one FROM passed LEFT JOIN judged USING (part_id)
WHERE judged.still_good IS NULL AND part_id > $7 ORDER BY part_id LIMIT $8"""  # noqa: S608 - as above


def _parameters(question: RejudgeQuestion) -> Sequence[object]:
    return [
        question.model_id,
        question.passed_version,
        question.judging_version,
        list(question.good_labels),
        question.start_time.isoformat() if question.start_time is not None else "-infinity",
        question.end_time.isoformat() if question.end_time is not None else "infinity",
    ]


def _rejudged(row: Sequence[object]) -> RejudgedPart:
    part_id, passed, judged = row
    return RejudgedPart(part_id=str(part_id), passed=_result(passed), judged=_result(judged))


def _result(value: object) -> Result:
    """A whole row, as the engine tells it."""
    assert isinstance(value, dict)
    return Result(
        agent_id=AgentId(value["agent"]),
        batch=_whole(value["batch"]),
        index=_whole(value["index"]),
        slot=ModelId(value["model"]),
        version=_whole(value["version"]),
        device=value["device"],
        infer_time=datetime.fromisoformat(value["infer_time"]),
        part_id=value["part_id"],
        request_id=value["request_id"],
        outcome=ResultOutcome(value["outcome"]),
        labels=tuple(
            LabelScore(label=label, score=float(score))
            for label, score in zip(value["labels"], value["scores"], strict=True)
        ),
        latency_us=_whole(value["latency_us"]),
        error=value["error"],
        batch_index=_whole(value["batch_index"]),
        lot=value["lot"],
        application=value["application"],
    )


def _whole(value: object) -> int:
    """A number, which is a text where it is large."""
    assert isinstance(value, int | str)
    return int(value)
