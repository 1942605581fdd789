"""Judgements, promotions and training policies with sensible values, each field open to an override."""

from typing import Any

from controlplane.domain.ids import DatasetId, DeploymentId, ModelId, TrainingRunId
from controlplane.domain.interval import Interval
from controlplane.domain.judgement import ClassMetric, Judgement, Metric, PairedComparison, Verdict
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.domain.rollout import RolloutStrategy, WaveSize
from controlplane.domain.training_policy import TrainingPolicy
from tests.support.factories import NOW, digest_of

ALL_AT_ONCE = RolloutStrategy(waves=(WaveSize(percent=100),))


def make_comparison(**overrides: Any) -> PairedComparison:
    fields: dict[str, Any] = {
        "subject": "",
        "metric": Metric.AUC,
        "items": 80,
        "parts": 40,
        "measured": True,
        "candidate": 0.9,
        "champion": 0.8,
        "difference": Interval(0.02, 0.18),
    }
    return PairedComparison(**(fields | overrides))


def make_judgement(**overrides: Any) -> Judgement:
    fields: dict[str, Any] = {
        "verdict": Verdict.PROPOSED,
        "reasons": ("auc 0.800 to 0.900, a gain of +0.100 (+0.020 to +0.180)",),
        "champion_version": 1,
        "candidate_digest": digest_of("candidate"),
        "confidence": 0.95,
        "budget_confidence": 0.5,
        "items": 80,
        "parts": 80,
        "skipped_items": 1,
        "overall": make_comparison(),
        "classes": (
            make_comparison(subject="defect", metric=ClassMetric.F1),
            make_comparison(subject="good", metric=ClassMetric.RECALL),
        ),
        "lines": (
            make_comparison(subject="suzhou/3"),
            PairedComparison(subject="suzhou/4", metric=Metric.AUC, items=1, parts=1),
        ),
    }
    return Judgement(**(fields | overrides))


def make_promotion(run_id: str = "r1", **overrides: Any) -> Promotion:
    fields: dict[str, Any] = {
        "run_id": TrainingRunId(run_id),
        "uid": f"00000000-0000-7000-8000-0000000000{run_id}",
        "model_id": ModelId("solar"),
        "dataset_id": DatasetId("d1"),
        "create_time": NOW,
        "update_time": NOW,
        "state": PromotionState.PROPOSED,
        "judgement": make_judgement(),
        "deployment_id": DeploymentId("line-3"),
        "strategy": ALL_AT_ONCE,
    }
    return Promotion(**(fields | overrides))


def make_policy(**overrides: Any) -> TrainingPolicy:
    fields: dict[str, Any] = {
        "model_id": ModelId("solar"),
        "trainer": "head",
        "update_time": NOW,
        "actor": "operators/anna",
    }
    return TrainingPolicy(**(fields | overrides))
