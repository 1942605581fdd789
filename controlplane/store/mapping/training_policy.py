"""Training policies. A key that is absent means the domain's default: rows of earlier releases have fewer."""

from types import MappingProxyType
from typing import Any

from controlplane.domain.dataset import rule_from_json, rule_to_json
from controlplane.domain.ids import DeploymentId, ModelId
from controlplane.domain.judgement import ClassMetric, JudgementPolicy, Metric
from controlplane.domain.training_policy import Approval, TrainingPolicy
from controlplane.store.mapping.strategy import strategy_from_json, strategy_to_json
from controlplane.store.mapping.values import Row

_SAME = (
    "trainer",
    "suspended",
    "cron",
    "time_zone",
    "min_new_labels",
    "on_drift",
    "drift_min_new_labels",
    "minimum_interval_seconds",
)
"""Fields that are the same in JSON."""
_SAME_OF_JUDGEMENT = (
    "minimum_gain",
    "confidence",
    "class_budget",
    "line_budget",
    "budget_confidence",
    "min_parts",
    "min_class_parts",
)


def policy_to_row(policy: TrainingPolicy) -> dict[str, Any]:
    return {
        "id": policy.model_id,
        "update_time": policy.update_time,
        "actor": policy.actor,
        "policy": {
            **{name: getattr(policy, name) for name in _SAME},
            "parameters": dict(policy.parameters),
            "dataset_rule": rule_to_json(policy.dataset_rule),
            "judgement": _judgement_to_json(policy.judgement),
            "approval": policy.approval.value,
            "deployment_id": policy.deployment_id,
            "strategy": strategy_to_json(policy.strategy),
        },
        "revision": policy.revision,
    }


def policy_from_row(row: Row) -> TrainingPolicy:
    value: dict[str, Any] = row["policy"]
    deployment_id = value.get("deployment_id")
    return TrainingPolicy(
        model_id=ModelId(row["id"]),
        update_time=row["update_time"],
        actor=row["actor"],
        parameters=MappingProxyType(dict(value.get("parameters", {}))),
        dataset_rule=rule_from_json(value["dataset_rule"]),
        judgement=_judgement_from_json(value["judgement"]),
        approval=Approval(value["approval"]),
        deployment_id=None if deployment_id is None else DeploymentId(deployment_id),
        strategy=strategy_from_json(value["strategy"]),
        revision=row["revision"],
        **{name: value[name] for name in _SAME if name in value},
    )


def _judgement_to_json(policy: JudgementPolicy) -> dict[str, Any]:
    return {
        **{name: getattr(policy, name) for name in _SAME_OF_JUDGEMENT},
        "metric": policy.metric.value,
        "class_metric": policy.class_metric.value,
        "class_budgets": dict(policy.class_budgets),
    }


def _judgement_from_json(value: Row) -> JudgementPolicy:
    return JudgementPolicy(
        metric=Metric(value["metric"]),
        class_metric=ClassMetric(value.get("class_metric", ClassMetric.F1)),
        class_budgets=MappingProxyType(dict(value.get("class_budgets", {}))),
        **{name: value[name] for name in _SAME_OF_JUDGEMENT if name in value},
    )
