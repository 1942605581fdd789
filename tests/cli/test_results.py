"""`lineside results query|trace|rejudge` against a controller of the test."""

import json

from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import evidence_pb2, result_service_pb2, slot_pb2

from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController


def make_result(part: str, version: int, label: str, score: float) -> evidence_pb2.Result:
    return evidence_pb2.Result(
        agent="agents/st-1",
        slot="solar",
        model_version=f"models/solar/versions/{version}",
        device="CPU",
        infer_time=Timestamp(seconds=1_772_366_400),
        part_id=part,
        outcome=evidence_pb2.Result.OUTCOME_OK,
        labels=[evidence_pb2.LabelScore(label=label, score=score)],
    )


def test_an_answer_is_a_table_for_people_and_rows_for_programs(lineside: Lineside, fake: FakeController) -> None:
    fake.answer = result_service_pb2.QueryResultsResponse(
        columns=[
            result_service_pb2.QueryColumn(name="line", type="VARCHAR"),
            result_service_pb2.QueryColumn(name="rate", type="DOUBLE"),
        ],
        truncated=True,
        file_count=3,
        file_bytes=2_000_000,
    )
    fake.answer.rows.add().extend(["3", 0.25])
    fake.answer.rows.add().extend([None, 41.0])
    shown = lineside("results", "query", "SELECT 1", "--model", "solar", "--since", "1h", "--limit", "2")
    assert [line.split() for line in shown.out.splitlines()] == [["line", "rate"], ["3", "0.25"], ["-", "41"]]
    assert "2 rows from 3 files of 2.0 MB; there are more rows" in " ".join(shown.err.split())
    request = fake.requests("QueryResults")[0]
    assert (request.sql, request.model, request.row_limit) == ("SELECT 1", "models/solar", 2)
    assert request.HasField("start_time")
    told = json.loads(lineside("results", "query", "SELECT 1", "--output", "json").out)
    assert told == {
        "columns": [{"name": "line", "type": "VARCHAR"}, {"name": "rate", "type": "DOUBLE"}],
        "rows": [["3", 0.25], [None, 41.0]],
        "truncated": True,
    }


def test_a_trace_shows_where_a_part_was_judged_and_its_sample(lineside: Lineside, fake: FakeController) -> None:
    fake.traced = [
        result_service_pb2.TracedResult(
            result=make_result("cell-7", 2, "defect", 0.75), line="3", station="st-1", sample="samples/st-1-000042"
        )
    ]
    shown = lineside("results", "trace", "--part", "cell-7").out
    for told in ("-/3/st-1", "solar:2", "CPU", "defect 0.750", "st-1-000042"):
        assert told in shown
    assert "no result of cell-8" in lineside("results", "trace", "--part", "cell-8").err


def test_parts_that_another_version_judges_otherwise_are_listed_and_counted(
    lineside: Lineside, fake: FakeController
) -> None:
    fake.rejudged = [
        result_service_pb2.RejudgedPart(
            part_id="cell-7",
            passed=make_result("cell-7", 1, "good", 0.9),
            judged=make_result("cell-7", 2, "defect", 0.6),
            source=result_service_pb2.RejudgedPart.SOURCE_RESULT,
        )
    ]
    shown = lineside(
        "results", "rejudge", "--version", "solar:1", "--with", "solar:2", "--good", "good", "--good", "ok"
    )
    for told in ("cell-7", "good 0.900", "defect 0.600", "RESULT"):
        assert told in shown.out
    assert "solar:1 passed 9 parts, of which solar:2 has judged 4" in " ".join(shown.err.split())
    request = fake.requests("RejudgeParts")[0]
    assert (request.passed_version, request.judging_version) == ("models/solar/versions/1", "models/solar/versions/2")
    assert list(request.good_labels) == ["good", "ok"]
    assert lineside("results", "rejudge", "--version", "solar", "--with", "solar:2").status == 2


def test_a_deployment_says_which_results_are_kept(lineside: Lineside, fake: FakeController) -> None:
    def policy(*options: str) -> slot_pb2.ResultPolicy:
        name = f"d{len(fake.requests('CreateDeployment'))}"
        assert lineside("deployments", "create", name, "--model", "solar", "--selector", "line=3", *options).status == 0
        asked: slot_pb2.ResultPolicy = fake.requests("CreateDeployment")[-1].deployment.result_policy
        return asked

    assert policy() == slot_pb2.ResultPolicy()
    good = policy("--results-good", "good", "--results-good", "ok", "--results-good-score", "0.9")
    assert (good.keep, list(good.good_labels), good.good_score_min) == (2, ["good", "ok"], 0.9)
    thinned = policy("--results-one-in", "10")
    assert (thinned.keep, thinned.one_in) == (3, 10)
    shown = lineside("deployments", "show", "d2").out
    assert "one in 10, and every failure" in shown
    assert "all but good, ok from a score of 0.9" in lineside("deployments", "show", "d1").out
    base = ("deployments", "create", "x", "--model", "solar", "--selector", "line=3")
    assert lineside(*base, "--results-good", "good", "--results-one-in", "2").status == 2
    assert lineside(*base, "--results-good-score", "0.5").status == 2
