"""Results in Parquet: nothing is lost, and nothing of an agent's is believed unseen."""

import io
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import limits
from controlplane.domain.errors import DomainError, ForbiddenError
from controlplane.domain.evidence import LabelScore, Result, ResultOutcome
from controlplane.domain.ids import AgentId
from controlplane.domain.lake import ARRIVALS_A_FILE, ResultFilter, ResultScope
from controlplane.lake.codec import ParquetCodec
from controlplane.lake.schema import COLUMNS
from tests.support.factories import NOW, SOLAR, ST_1, ST_2, WELD, after_seconds, make_result

ANY = ResultFilter()
CODEC = ParquetCodec()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
results = st.builds(
    make_result,
    part_id=texts,
    request_id=texts,
    lot=texts,
    application=texts,
    error=texts,
    device=texts,
    version=st.integers(1, 1 << 40),
    outcome=st.sampled_from(ResultOutcome),
    labels=st.lists(
        st.builds(LabelScore, label=texts, score=st.floats(allow_nan=False, allow_infinity=False)), max_size=5
    ).map(tuple),
    latency_us=st.integers(0, 1 << 62),
    batch_index=st.integers(0, 1 << 20),
    infer_time=st.integers(-(10**15), 10**15).map(lambda micros: NOW + timedelta(microseconds=micros)),
)


def read(content: bytes, wanted: ResultFilter = ANY, **page: Any) -> list[Result]:
    asked: dict[str, Any] = {"first_arrival": 100, "after": None, "limit": 10_000, "newest_first": False, **page}
    return [result for _, result in CODEC.read(content, wanted, **asked)]


def rows_of(content: bytes) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(pa.BufferReader(content)).to_pydict()
    return columns


def written(columns: dict[str, list[Any]], schema: pa.Schema = COLUMNS) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), file)
    return file.getvalue()


def changed(**columns: list[Any]) -> bytes:
    """A file of two results with other values in some columns."""
    (file,) = CODEC.encode([make_result(), make_result(index=1)])
    return written(rows_of(file.content) | columns)


@given(st.lists(results, min_size=1, max_size=12))
def test_results_are_kept_whole_in_a_file_for_each_day(given_results: list[Result]) -> None:
    batch = [replace(result, index=index) for index, result in enumerate(given_results)]
    files = CODEC.encode(batch)
    assert [file.day for file in files] == sorted({result.infer_time.date() for result in batch})
    assert sum(file.rows for file in files) == len(batch)
    kept = [result for file in files for result in read(file.content)]
    assert sorted(kept, key=lambda result: result.index) == batch
    for file in files:
        of_day = [result for result in batch if result.infer_time.date() == file.day]
        assert (file.start_time, file.end_time) == (
            min(result.infer_time for result in of_day),
            max(result.infer_time for result in of_day),
        )
        parts = [result.part_id for result in of_day if result.part_id]
        assert (file.first_part, file.last_part) == (min(parts, default=""), max(parts, default=""))


@given(st.lists(results, min_size=1, max_size=6))
def test_what_the_controller_writes_passes_its_own_check_as_it_is(given_results: list[Result]) -> None:
    batch = [
        replace(result, index=index, infer_time=NOW, part_id=result.part_id.replace("\0", ""))
        for index, result in enumerate(given_results)
    ]
    clean = [
        replace(
            result,
            **{
                name: getattr(result, name).replace("\0", "-")
                for name in ("request_id", "lot", "application", "error", "device")
            },
            labels=tuple(replace(label, label=label.label.replace("\0", "-")) for label in result.labels),
        )
        for result in batch
    ]
    (file,) = CODEC.encode(clean)
    assert CODEC.check(file.content, agent_id=ST_1, batch=1) == file


def test_of_whom_a_file_holds_results_is_told() -> None:
    (file,) = CODEC.encode([make_result(), make_result(index=1, version=2), make_result(index=2, slot="weld")])
    assert file.scopes == (
        ResultScope(agent_id=ST_1, model_id=SOLAR, version=1),
        ResultScope(agent_id=ST_1, model_id=SOLAR, version=2),
        ResultScope(agent_id=ST_1, model_id=WELD, version=1),
    )


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        (ResultFilter(model_id=SOLAR), [0, 1, 3]),
        (ResultFilter(model_id=SOLAR, version=2), [1]),
        (ResultFilter(version=1), [0, 2, 3]),
        (ResultFilter(part_id="cell-9"), [2, 3]),
        (ResultFilter(model_id=WELD, part_id="cell-9"), [2]),
        (ResultFilter(agent_id=ST_1), [0, 1, 2, 3]),
        (ResultFilter(agent_id=ST_2), []),
        (ResultFilter(part_id=""), []),
    ],
)
@pytest.mark.parametrize("merged", [False, True])
def test_results_are_filtered_and_paged_both_ways(wanted: ResultFilter, indices: list[int], *, merged: bool) -> None:
    batch = [
        make_result(index=0),
        make_result(index=1, version=2),
        make_result(index=2, slot="weld", part_id="cell-9"),
        make_result(index=3, part_id="cell-9"),
    ]
    (file,) = CODEC.encode(batch)
    content = CODEC.merge([(file.content, 100)]).content if merged else file.content
    assert [result.index for result in read(content, wanted)] == indices
    assert [result.index for result in read(content, wanted, newest_first=True)] == indices[::-1]
    assert [result.index for result in read(content, wanted, after=101, limit=1)] == [i for i in indices if i > 1][:1]
    assert [result.index for result in read(content, wanted, after=102, newest_first=True)] == [
        index for index in indices[::-1] if index < 2
    ]


def test_merged_results_keep_their_arrivals_and_lie_by_part() -> None:
    (first,) = CODEC.encode([make_result(index=0, part_id="b"), make_result(index=1, part_id="d")])
    (second,) = CODEC.encode([make_result(batch=2, index=0, part_id="a"), make_result(batch=2, index=1, part_id="c")])
    merged = CODEC.merge([(first.content, 10), (second.content, 50)])
    assert (merged.rows, merged.first_part, merged.last_part) == (4, "a", "d")
    assert rows_of(merged.content)["part_id"] == ["a", "b", "c", "d"]
    asked = CODEC.read(merged.content, ANY, first_arrival=0, after=None, limit=9, newest_first=False)
    assert [(arrival, result.part_id) for arrival, result in asked] == [(10, "b"), (11, "d"), (50, "a"), (51, "c")]
    again = CODEC.merge([(merged.content, 0)])
    assert rows_of(again.content) == rows_of(merged.content)


def test_results_that_have_arrivals_keep_them() -> None:
    numbered = [(7, make_result(part_id="b")), (9, make_result(part_id="a", infer_time=NOW + timedelta(days=1)))]
    files = CODEC.encode_arrived(numbered)
    assert [read(file.content, first_arrival=0) for file in files] == [[numbered[0][1]], [numbered[1][1]]]
    assert [rows_of(file.content)["arrival"] for file in files] == [[7], [9]]


def test_what_is_odd_is_brought_within_bounds() -> None:
    odd = make_result(
        index=1,
        part_id="p" * 5000,
        lot="a\0b",
        labels=(LabelScore(label="nan", score=float("nan")), *(LabelScore(label="good", score=0.1),) * 6),
    )
    (file,) = CODEC.encode([make_result(), odd])
    checked = CODEC.check(file.content, agent_id=ST_1, batch=1)
    assert checked.digest != file.digest
    first, second = read(checked.content)
    assert first == make_result()
    assert (len(second.part_id), second.lot) == (limits.RESULT_TEXT_CHARS_MAX, "a\ufffdb")
    assert [label.score for label in second.labels] == [0.1] * (limits.RESULT_LABELS_MAX - 1)
    assert rows_of(checked.content)["score"] == [0.75, 0.1]


def test_a_label_that_is_not_the_first_of_the_labels_is_put_right() -> None:
    checked = CODEC.check(changed(label=["defect", "good"], score=[0.75, 0.1]), agent_id=ST_1, batch=1)
    assert rows_of(checked.content)["label"] == ["defect", "defect"]
    assert rows_of(checked.content)["score"] == [0.75, 0.75]


TODAY, TOMORROW = NOW, after_seconds(86_400)
COLUMNS_ALONE = written({name: [] for name in COLUMNS.names})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no readable file"),
        (b"PAR1" + b"\0" * 64 + b"PAR1", "no readable file"),
        (changed(batch=[1, 2]), "another batch"),
        (changed(index=[1, 1]), "does not rise"),
        (changed(index=[-1, 0]), "does not rise"),
        (changed(version=[1, 0]), "below 1"),
        (changed(model=["solar", "So lar"]), "is not an id"),
        (changed(outcome=["OK", "FINE"]), "neither OK nor ERROR"),
        (changed(infer_time=[TODAY, TOMORROW]), "2 days"),
        (changed(labels=[["a"], ["b", "c"]]), "differ in number"),
        (COLUMNS_ALONE, "0 rows"),
        (written({"part_id": ["a"]}, pa.schema([("part_id", pa.string())])), "are missing"),
    ],
)
def test_what_is_no_batch_of_results_is_refused_with_its_remedy(content: bytes, said: str) -> None:
    with pytest.raises(DomainError, match=said) as refusal:
        CODEC.check(content, agent_id=ST_1, batch=1)
    assert refusal.value.field.startswith("result_files.content")
    assert refusal.value.remedy


def test_columns_of_other_types_and_nulls_are_refused() -> None:
    columns = rows_of(changed())
    nullable = pa.schema([pa.field(each.name, each.type) for each in COLUMNS])
    for name, kind in (("labels", pa.string()), ("scores", pa.float64())):
        nullable = nullable.set(COLUMNS.get_field_index(name), pa.field(name, pa.list_(kind)))
    for name, values in (("part_id", ["a", None]), ("labels", [["a"], None]), ("scores", [[0.5], [None]])):
        with pytest.raises(DomainError) as refusal:
            CODEC.check(written(columns | {name: values}, nullable), agent_id=ST_1, batch=1)
        assert refusal.value.remedy
    wrong = nullable.set(COLUMNS.get_field_index("version"), pa.field("version", pa.string()))
    with pytest.raises(DomainError, match="no readable file"):
        CODEC.check(written(columns | {"version": ["1", "x"]}, wrong), agent_id=ST_1, batch=1)


def test_texts_that_are_no_text_are_refused() -> None:
    columns = rows_of(changed())
    raw = COLUMNS.set(COLUMNS.get_field_index("error"), pa.field("error", pa.binary(), nullable=False))
    content = written(columns | {"error": [b"\xff\xfe", b""]}, raw)
    with pytest.raises(DomainError, match="no readable file"):
        CODEC.check(content, agent_id=ST_1, batch=1)


def test_results_of_another_agent_are_refused() -> None:
    with pytest.raises(ForbiddenError, match="another agent"):
        CODEC.check(changed(agent=["st-1", "st-2"]), agent_id=ST_1, batch=1)
    with pytest.raises(ForbiddenError):
        CODEC.check(changed(), agent_id=AgentId("st-9"), batch=1)


def test_a_batch_has_fewer_results_than_numbers_are_set_apart_for_its_file() -> None:
    assert limits.EVIDENCE_RESULTS_MAX <= ARRIVALS_A_FILE


def test_more_rows_than_a_batch_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EVIDENCE_RESULTS_MAX", 1)
    with pytest.raises(DomainError, match="2 rows"):
        CODEC.check(changed(), agent_id=ST_1, batch=1)


def test_a_small_file_that_unpacks_to_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAKE_UNPACKED_BYTES_MAX", 100)
    with pytest.raises(DomainError, match="bytes"):
        CODEC.check(changed(), agent_id=ST_1, batch=1)
