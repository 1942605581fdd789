"""Judgements and promotions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from controlplane.domain.ids import DatasetId, DeploymentId, Digest, ModelId, RolloutId, TrainingRunId
from controlplane.domain.interval import Interval
from controlplane.domain.judgement import ClassMetric, Judgement, Metric, PairedComparison, Verdict
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.store.mapping.strategy import strategy_from_json, strategy_to_json
from controlplane.store.mapping.values import Row

_METRICS: Mapping[str, Metric | ClassMetric] = MappingProxyType(
    {metric.value: metric for metric in (*Metric, *ClassMetric)}
)


def promotion_to_row(promotion: Promotion) -> dict[str, Any]:
    return {
        "id": promotion.run_id,
        "uid": promotion.uid,
        "model_id": promotion.model_id,
        "dataset_id": promotion.dataset_id,
        "create_time": promotion.create_time,
        "update_time": promotion.update_time,
        "state": promotion.state.value,
        "judgement": judgement_to_json(promotion.judgement),
        "decider": promotion.decider,
        "decide_time": promotion.decide_time,
        "message": promotion.message,
        "version": promotion.version,
        "deployment_id": promotion.deployment_id,
        "strategy": None if promotion.strategy is None else strategy_to_json(promotion.strategy),
        "rollout_id": promotion.rollout_id,
        "revision": promotion.revision,
    }


def promotion_from_row(row: Row) -> Promotion:
    return Promotion(
        run_id=TrainingRunId(row["id"]),
        uid=row["uid"],
        model_id=ModelId(row["model_id"]),
        dataset_id=DatasetId(row["dataset_id"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        state=PromotionState(row["state"]),
        judgement=judgement_from_json(row["judgement"]),
        decider=row["decider"],
        decide_time=row["decide_time"],
        message=row["message"],
        version=row["version"],
        deployment_id=None if row["deployment_id"] is None else DeploymentId(row["deployment_id"]),
        strategy=None if row["strategy"] is None else strategy_from_json(row["strategy"]),
        rollout_id=None if row["rollout_id"] is None else RolloutId(row["rollout_id"]),
        revision=row["revision"],
    )


def judgement_to_json(judgement: Judgement) -> dict[str, Any]:
    return {
        "verdict": judgement.verdict.value,
        "reasons": list(judgement.reasons),
        "champion_version": judgement.champion_version,
        "candidate_digest": judgement.candidate_digest,
        "confidence": judgement.confidence,
        "budget_confidence": judgement.budget_confidence,
        "items": judgement.items,
        "parts": judgement.parts,
        "skipped_items": judgement.skipped_items,
        "overall": _comparison_to_json(judgement.overall),
        "classes": [_comparison_to_json(one) for one in judgement.classes],
        "lines": [_comparison_to_json(one) for one in judgement.lines],
    }


def judgement_from_json(value: Row) -> Judgement:
    return Judgement(
        verdict=Verdict(value["verdict"]),
        reasons=tuple(value["reasons"]),
        champion_version=value["champion_version"],
        candidate_digest=Digest(value["candidate_digest"]),
        confidence=float(value["confidence"]),
        budget_confidence=float(value["budget_confidence"]),
        items=value["items"],
        parts=value["parts"],
        skipped_items=value["skipped_items"],
        overall=_comparison_from_json(value["overall"]),
        classes=tuple(_comparison_from_json(one) for one in value["classes"]),
        lines=tuple(_comparison_from_json(one) for one in value["lines"]),
    )


def _comparison_to_json(one: PairedComparison) -> dict[str, Any]:
    return {
        "subject": one.subject,
        "metric": one.metric.value,
        "items": one.items,
        "parts": one.parts,
        "measured": one.measured,
        "candidate": one.candidate,
        "champion": one.champion,
        "difference": [one.difference.low, one.difference.high],
    }


def _comparison_from_json(value: Row) -> PairedComparison:
    low, high = value["difference"]
    return PairedComparison(
        subject=value["subject"],
        metric=_METRICS[value["metric"]],
        items=value["items"],
        parts=value["parts"],
        measured=value["measured"],
        candidate=float(value["candidate"]),
        champion=float(value["champion"]),
        difference=Interval(float(low), float(high)),
    )
