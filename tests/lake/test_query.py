"""Questions in SQL: the right answers, and nothing but the files of results within reach."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from controlplane import limits
from controlplane.domain.errors import FieldInvalidError, LimitExceededError, StorageError
from controlplane.domain.evidence import LabelScore
from controlplane.domain.lake import Place, folder_of
from controlplane.lake import query_child
from controlplane.lake.codec import ParquetCodec
from controlplane.lake.query import DuckDbQuestions
from tests.support.factories import NOW, after_seconds, make_result

CODEC = ParquetCodec()


@pytest.fixture
def files(tmp_path: Path) -> Sequence[Path]:
    """Two files of batches and a merged one, in their folders."""
    contents = [
        (Place(site="s1", line="3"), CODEC.encode([make_result(index=index) for index in range(4)])[0].content),
        (
            Place(site="s1", line="3'4"),
            CODEC.encode([make_result(labels=(LabelScore(label="good", score=0.5),), infer_time=after_seconds(1))])[
                0
            ].content,
        ),
    ]
    contents.append((Place(), CODEC.merge([(contents[0][1], 100)]).content))
    paths = []
    for number, (place, content) in enumerate(contents):
        path = tmp_path / folder_of(place, NOW.date()) / f"{number}.parquet"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        paths.append(path)
    return paths


@pytest.fixture
def questions() -> DuckDbQuestions:
    return DuckDbQuestions()


async def test_results_are_asked_with_their_place_and_day(questions: DuckDbQuestions, files: Sequence[Path]) -> None:
    sql = """SELECT site, line, station, day, count(*) AS n, avg((label = 'defect')::int) AS rate, min(infer_time)
             FROM results GROUP BY ALL ORDER BY n, line"""
    answer = await questions.ask(sql, files, row_limit=10)
    assert [name for name, _ in answer.columns][:6] == ["site", "line", "station", "day", "n", "rate"]
    assert answer.rows == [
        ["s1", "3'4", None, "2026-03-01", 1, 0.0, "2026-03-01T12:00:01+00:00"],
        ["s1", "3", None, "2026-03-01", 4, 1.0, "2026-03-01T12:00:00+00:00"],
        [None, None, None, "2026-03-01", 4, 1.0, "2026-03-01T12:00:00+00:00"],
    ]
    assert answer.truncated is False
    reversed_files = await questions.ask(sql, files[::-1], row_limit=2)
    assert (reversed_files.rows, reversed_files.truncated) == (answer.rows[:2], True)


async def test_without_files_there_is_an_empty_table(questions: DuckDbQuestions) -> None:
    answer = await questions.ask("SELECT part_id, labels, line, day, infer_time FROM results", [], row_limit=10)
    assert [kind for _, kind in answer.columns] == [
        "VARCHAR",
        "VARCHAR[]",
        "VARCHAR",
        "DATE",
        "TIMESTAMP WITH TIME ZONE",
    ]
    assert answer.rows == []


async def test_values_that_json_has_no_word_for_are_texts(questions: DuckDbQuestions) -> None:
    sql = "SELECT 1::HUGEINT << 60, 'nan'::DOUBLE, 1.5::DECIMAL(9, 2), [1, 2], {'a': 'b'}, 'x'::BLOB, 7 AS n, 8 AS n"
    answer = await questions.ask(sql, [], row_limit=1)
    assert answer.rows == [[str(1 << 60), "nan", "1.50", [1, 2], {"a": "b"}, "b'x'", 7, 8]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT missing FROM results",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO '{outside}'",
        "COPY results TO '{file}'",
        "CREATE TABLE t AS SELECT 1",
        "ATTACH '{outside}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA version",
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '{outside}'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('https://localhost:1/x.parquet')",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT getenv('HOME')",
        "SELECT * FROM asked",
        "CALL pragma_version()",
        "EXPORT DATABASE '{outside}'",
        "",
    ],
)
def test_whatever_is_no_question_over_results_is_refused_and_changes_nothing(
    files: Sequence[Path], tmp_path: Path, sql: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    asked = {
        "files": [str(file) for file in files],
        "sql": sql.replace("{outside}", str(outside)).replace("{file}", str(files[0])),
        "parameters": [],
        "row_limit": 9,
        "memory_bytes": limits.LAKE_QUERY_MEMORY_BYTES,
        "output_bytes_max": limits.LAKE_ANSWER_BYTES_MAX,
    }
    try:
        answer = query_child.answered(asked)
    except duckdb.Error as error:
        answer = {"refused": str(error)}
    assert "secret" not in answer["refused"]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("sql", ["SELEC 1", "COPY (SELECT 1) TO '/tmp/x'", "SELECT * FROM read_text('/etc/passwd')"])
async def test_a_refusal_names_field_and_remedy(questions: DuckDbQuestions, sql: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        await questions.ask(sql, [], row_limit=9)
    assert refusal.value.field == "sql"
    assert refusal.value.remedy


async def test_a_question_that_takes_too_long_is_ended(files: Sequence[Path]) -> None:
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"
    with pytest.raises(LimitExceededError, match="longer than"):
        await DuckDbQuestions(seconds_max=2.0).ask(endless, files, row_limit=1)


async def test_a_question_that_takes_too_much_memory_is_refused(files: Sequence[Path]) -> None:
    large = "SELECT list(range) FROM range(100000000)"
    with pytest.raises(LimitExceededError, match="memory"):
        await DuckDbQuestions(memory_bytes=50_000_000).ask(large, files, row_limit=1)


async def test_an_answer_that_no_message_takes_is_cut(
    questions: DuckDbQuestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LAKE_ANSWER_BYTES_MAX", 1_000)
    answer = await questions.ask("SELECT repeat('x', 100) FROM range(100)", [], row_limit=100)
    assert (len(answer.rows), answer.truncated) == (9, True)


async def test_a_child_that_ends_without_an_answer_is_told() -> None:
    with pytest.raises(StorageError, match="status 3"):
        await DuckDbQuestions(command=("sh", "-c", "exit 3")).ask("SELECT 1", [], row_limit=1)


async def test_a_file_that_is_no_results_is_told(questions: DuckDbQuestions, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(FieldInvalidError):
        await questions.ask("SELECT 1 FROM results", [broken], row_limit=1)
