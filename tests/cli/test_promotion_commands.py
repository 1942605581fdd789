"""Judgements, approvals, training policies and lineage: what is asked for and what is shown."""

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict
from lineside.v1 import lineage_service_pb2, promotion_pb2, training_policy_pb2

from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController

Promotion = promotion_pb2.Promotion
Judgement = promotion_pb2.Judgement
Lineage = lineage_service_pb2.Lineage
Policy = training_policy_pb2.TrainingPolicy


def comparison(subject: str, metric: str, *, low: float = 0.02, high: float = 0.18) -> promotion_pb2.PairedComparison:
    return promotion_pb2.PairedComparison(
        subject=subject,
        metric=metric,
        items=80,
        parts=40,
        measured=True,
        champion=0.8,
        candidate=0.9,
        difference=0.1,
        difference_low=low,
        difference_high=high,
    )


@pytest.fixture(autouse=True)
def promotion(fake: FakeController) -> Promotion:
    promotion = Promotion(
        name="trainingRuns/r1/promotion",
        model="models/solar",
        dataset="datasets/solar-2",
        state=Promotion.STATE_PROPOSED,
        deployment="deployments/line-3",
        judgement=Judgement(
            verdict=Judgement.VERDICT_PROPOSED,
            reasons=["auc 0.800 to 0.900, a gain of +0.100"],
            champion_version="models/solar/versions/3",
            items=80,
            parts=78,
            skipped_items=2,
            overall=comparison("", "auc"),
            classes=[comparison("defect", "f1", low=0.1, high=0.1)],
            lines=[promotion_pb2.PairedComparison(subject="suzhou/3", metric="auc", items=1)],
        ),
    )
    for name in ("r1", "r2", "r3"):
        one = Promotion()
        one.CopyFrom(promotion)
        one.name = f"trainingRuns/{name}/promotion"
        fake.promotions[one.name] = one
    return promotion


def test_a_judgement_shows_every_measure_with_its_interval(lineside: Lineside) -> None:
    outcome = lineside("training", "judgement", "r1")
    assert outcome.status == 0, outcome.err
    for words in (
        "PROPOSED",
        "auc 0.800 to 0.900, a gain of +0.100",
        "80 items of 78 parts in solar-2, 2 left out",
        "solar:3",
        "+0.100 (+0.020 to +0.180)",
    ):
        assert words in outcome.out
    rows = [line.split() for line in outcome.out.splitlines()]
    assert ["defect", "f1", "80", "40", "0.800", "0.900", "+0.100"] in rows
    assert ["suzhou/3", "auc", "1", "0", "-", "-", "-"] in rows
    document = json.loads(lineside("training", "judgement", "r1", "--output", "json").out)
    assert document["judgement"]["verdict"] == "PROPOSED"


def test_judgements_are_listed_over_all_pages(lineside: Lineside) -> None:
    assert len(json.loads(lineside("training", "judgements", "--output", "json").out)) == 3
    assert len(json.loads(lineside("training", "judgements", "--limit", "1", "--output", "json").out)) == 1
    assert lineside("training", "judgements", "--model", "weld").err.strip() == "no run was judged"


def test_a_person_decides_with_a_reason(fake: FakeController, lineside: Lineside) -> None:
    approved = lineside("training", "approve", "r1", "--reason", "looked at ten")
    assert approved.status == 0, approved.err
    assert "APPROVED" in approved.out
    (request,) = fake.requests("ApprovePromotion")
    assert (request.name, request.reason) == ("trainingRuns/r1/promotion", "looked at ten")
    assert lineside("training", "reject", "r2").status == 2, "a reason is needed"
    assert "DECLINED" in lineside("training", "reject", "r2", "--reason", "wrong labels").out
    missing = lineside("training", "approve", "r9")
    assert (missing.status, "trainingRuns/r9/promotion does not exist" in missing.err) == (1, True)


def test_a_policy_is_set_option_by_option(fake: FakeController, lineside: Lineside, tmp_path: Path) -> None:
    strategy = tmp_path / "careful.toml"
    strategy.write_text('waves = "1,100%"\nbake = "5m"\n')
    outcome = lineside(
        "training", "policy", "set", "solar", "--trainer", "head", "--parameter", "newest_weight=4",
        "--parameter", "since=today", "--cron", "0 2 * * SAT", "--time-zone", "Asia/Shanghai",
        "--min-new-labels", "100", "--on-drift", "--drift-min-new-labels", "20", "--minimum-interval", "1h",
        "--metric", "accuracy", "--class-metric", "recall", "--minimum-gain", "0.01", "--confidence", "0.9",
        "--class-budget", "0", "--class-budget-of", "defect=0.02", "--line-budget", "0.1",
        "--budget-confidence", "0.8", "--min-parts", "20", "--min-class-parts", "5", "--holdout", "30", "--near", "0",
        "--weight", "line=3:4", "--approval", "auto", "--deployment", "line-3", "--strategy", str(strategy),
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    (request,) = fake.requests("UpdateTrainingPolicy")
    policy = request.training_policy
    assert (policy.name, policy.trainer, policy.cron) == ("models/solar/trainingPolicy", "head", "0 2 * * SAT")
    assert MessageToDict(policy.parameters) == {"newest_weight": 4.0, "since": "today"}
    assert (policy.on_drift, policy.drift_min_new_labels, policy.min_new_labels) == (True, 20, 100)
    assert policy.minimum_interval.seconds == 3600
    judgement = policy.judgement
    assert (judgement.metric, judgement.class_metric) == (Policy.METRIC_ACCURACY, Policy.CLASS_METRIC_RECALL)
    assert judgement.HasField("class_budget")
    assert (judgement.class_budget, dict(judgement.class_budgets)) == (0.0, {"defect": 0.02})
    assert (judgement.line_budget, judgement.min_parts, judgement.min_class_parts) == (0.1, 20, 5)
    rule = policy.dataset_rule
    assert (rule.holdout_percent, rule.near_duplicate_distance) == (30, 0)
    assert not rule.HasField("validation_percent")
    assert [(one.key, one.value, one.weight) for one in rule.weights] == [("line", "3", 4.0)]
    assert (policy.approval, policy.deployment) == (Policy.APPROVAL_AUTO, "deployments/line-3")
    assert list(policy.strategy.waves) == ["1", "100%"]


def test_what_is_not_said_stays_as_it_is(fake: FakeController, lineside: Lineside) -> None:
    lineside("training", "policy", "set", "solar", "--trainer", "head", "--on-drift", "--cron", "0 2 * * *")
    lineside("training", "policy", "set", "solar", "--cron", "", "--suspend", "--deployment", "line-3")
    lineside("training", "policy", "set", "solar", "--no-on-drift", "--resume", "--deployment", "")
    first, second, third = (request.training_policy for request in fake.requests("UpdateTrainingPolicy"))
    assert (first.trainer, first.on_drift, first.etag) == ("head", True, "")
    assert (second.trainer, second.on_drift, second.cron, second.suspended) == ("head", True, "", True)
    assert second.etag == "0", "only over what was read"
    assert (third.on_drift, third.suspended, third.deployment) == (False, False, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weight", "line:4"), "write KEY=VALUE:WEIGHT"),
        (("--weight", "line=3:heavy"), "'heavy' is no number"),
        (("--class-budget-of", "defect"), "write LABEL=BUDGET"),
        (("--parameter", "=4"), "write NAME=VALUE"),
        (("--confidence", "1.5"), "confidence"),
        (("--strategy", "/none.toml"), "cannot read"),
    ],
)
def test_what_cannot_be_read_is_refused(lineside: Lineside, words: tuple[str, ...], said: str) -> None:
    outcome = lineside("training", "policy", "set", "solar", *words)
    assert outcome.status == 2
    assert said in outcome.err


def test_a_policy_is_shown_with_what_its_triggers_say(lineside: Lineside) -> None:
    lineside("training", "policy", "set", "solar", "--trainer", "head", "--min-new-labels", "5", "--parameter", "x=1")
    outcome = lineside("training", "policy", "show", "solar")
    assert outcome.status == 0, outcome.err
    assert "5 new labels" in outcome.out
    assert "drift is due: inputs have drifted at agents/st-1" in " ".join(outcome.out.split())
    document = json.loads(lineside("training", "policy", "show", "solar", "--output", "json").out)
    assert (document["parameters"], document["triggers"]["trigger"]) == ({"x": 1.0}, "drift")
    assert "solar" in lineside("training", "policy", "list").out
    assert lineside("training", "policy", "show", "weld").status == 1


def test_a_lineage_is_shown_back_and_forward(fake: FakeController, lineside: Lineside) -> None:
    fake.lineages["models/solar/versions/2"] = Lineage(
        ancestors=[
            Lineage.Ancestor(
                model_version="models/solar/versions/2",
                training_run="trainingRuns/r1",
                trainer="head",
                dataset="datasets/d1",
                base_version="models/solar/versions/1",
                items={"train": 70, "holdout": 20},
                items_by_agent={"agents/st-1": 60, "": 30},
                labels_by_annotator={"anna": 90},
                judgement="better",
                decider="operators/bo",
            ),
            Lineage.Ancestor(model_version="models/solar/versions/1"),
        ],
        rollouts=[Lineage.RolloutUse(rollout="rollouts/x1", deployment="deployments/line-3", state="SUCCEEDED")],
        agents=[Lineage.AgentUse(agent="agents/st-1", place="suzhou/3", connected=True)],
        truncated=True,
    )
    outcome = lineside("models", "lineage", "solar:2")
    assert outcome.status == 0, outcome.err
    for words in (
        "run r1 (head) from solar:1",
        "d1: train 70, holdout 20",
        "st-1 60, imported 30",
        "anna 90",
        "elsewhere, published by hand",
        "x1",
        "suzhou/3",
    ):
        assert words in outcome.out
    assert "there are more versions before these" in outcome.err
    document = json.loads(lineside("models", "lineage", "solar:2", "--output", "json").out)
    assert document["ancestors"][0]["items"] == {"holdout": 20, "train": 70}
    assert lineside("models", "lineage", "solar").status == 2
