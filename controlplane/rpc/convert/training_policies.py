"""Training policies on the wire. What is absent is the domain's default; bounds are the use case's to check."""

from datetime import UTC, datetime
from types import MappingProxyType

from lineside.v1 import training_policy_pb2, training_policy_service_pb2

from controlplane.app.training_policies import POLICY_FIELD, TriggerView
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import ModelId
from controlplane.domain.judgement import ClassMetric, JudgementPolicy, Metric
from controlplane.domain.training_policy import DEFAULT_STRATEGY, Approval, TrainingPolicy
from controlplane.rpc.convert.datasets import rule_from_proto, rule_to_proto
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import parse_deployment_name, parse_model_name
from controlplane.rpc.convert.strategies import strategy_from_proto, strategy_to_proto
from controlplane.rpc.convert.times import optional_time_to_proto, seconds_from_proto, seconds_to_proto, time_to_proto
from controlplane.rpc.convert.training import parameters_from_proto, parameters_to_proto

_Wire = training_policy_pb2.TrainingPolicy
_METRICS = MappingProxyType({Metric.AUC: _Wire.METRIC_AUC, Metric.ACCURACY: _Wire.METRIC_ACCURACY})
_CLASS_METRICS = MappingProxyType(
    {ClassMetric.F1: _Wire.CLASS_METRIC_F1, ClassMetric.RECALL: _Wire.CLASS_METRIC_RECALL}
)
_APPROVALS = MappingProxyType({Approval.MANUAL: _Wire.APPROVAL_MANUAL, Approval.AUTO: _Wire.APPROVAL_AUTO})
_SUFFIX = "/trainingPolicy"
_DEFAULT = JudgementPolicy()
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


def parse_policy_name(name: str, *, field: str) -> ModelId:
    """Return the model of `models/{model}/trainingPolicy`. Raises FieldInvalidError."""
    if not name.endswith(_SUFFIX):
        raise FieldInvalidError(
            f"{name[:200]!r} is not a name", field=field, remedy="write models/{model}/trainingPolicy"
        )
    return parse_model_name(name.removesuffix(_SUFFIX), field=field)


def policy_from_proto(message: training_policy_pb2.TrainingPolicy, *, actor: str) -> TrainingPolicy:
    """Return what `actor` asks for; its time is set when it is stored. Raises FieldInvalidError for names, parameters
    or durations that are none."""
    named = message.deployment
    return TrainingPolicy(
        model_id=parse_policy_name(message.name, field=f"{POLICY_FIELD}.name"),
        trainer=message.trainer,
        update_time=_NEVER,
        actor=actor,
        suspended=message.suspended,
        parameters=parameters_from_proto(message.parameters),
        dataset_rule=rule_from_proto(message.dataset_rule),
        cron=message.cron,
        time_zone=message.time_zone or "UTC",
        min_new_labels=message.min_new_labels,
        on_drift=message.on_drift,
        drift_min_new_labels=message.drift_min_new_labels or 1,
        minimum_interval_seconds=seconds_from_proto(message.minimum_interval, field=f"{POLICY_FIELD}.minimum_interval"),
        judgement=_judgement_from_proto(message.judgement),
        approval=Approval.AUTO if message.approval == _Wire.APPROVAL_AUTO else Approval.MANUAL,
        deployment_id=parse_deployment_name(named, field=f"{POLICY_FIELD}.deployment") if named else None,
        strategy=strategy_from_proto(message.strategy) if message.HasField("strategy") else DEFAULT_STRATEGY,
    )


def policy_to_proto(policy: TrainingPolicy) -> training_policy_pb2.TrainingPolicy:
    """Return the policy with every default filled in."""
    return training_policy_pb2.TrainingPolicy(
        name=policy.name,
        update_time=time_to_proto(policy.update_time),
        etag=etag_of(policy.revision),
        actor=policy.actor,
        suspended=policy.suspended,
        trainer=policy.trainer,
        parameters=parameters_to_proto(policy.parameters),
        dataset_rule=rule_to_proto(policy.dataset_rule),
        cron=policy.cron,
        time_zone=policy.time_zone,
        min_new_labels=policy.min_new_labels,
        on_drift=policy.on_drift,
        drift_min_new_labels=policy.drift_min_new_labels,
        minimum_interval=seconds_to_proto(policy.minimum_interval_seconds),
        judgement=_judgement_to_proto(policy.judgement),
        approval=_APPROVALS[policy.approval],
        deployment=f"deployments/{policy.deployment_id}" if policy.deployment_id is not None else "",
        strategy=strategy_to_proto(policy.strategy),
    )


def explanation_to_proto(view: TriggerView) -> training_policy_service_pb2.ExplainTrainingPolicyResponse:
    trigger = view.finding.trigger
    return training_policy_service_pb2.ExplainTrainingPolicyResponse(
        trigger=trigger.value.lower() if trigger is not None else "",
        message=view.finding.message,
        labels=view.facts.labels,
        new_labels=view.facts.new_labels,
        next_cron_time=optional_time_to_proto(view.facts.cron_time),
    )


def _judgement_from_proto(message: training_policy_pb2.TrainingPolicy.JudgementPolicy) -> JudgementPolicy:
    return JudgementPolicy(
        metric=Metric.ACCURACY if message.metric == _Wire.METRIC_ACCURACY else Metric.AUC,
        minimum_gain=message.minimum_gain,
        confidence=message.confidence or _DEFAULT.confidence,
        class_metric=ClassMetric.RECALL if message.class_metric == _Wire.CLASS_METRIC_RECALL else ClassMetric.F1,
        class_budget=message.class_budget if message.HasField("class_budget") else _DEFAULT.class_budget,
        class_budgets=MappingProxyType(dict(message.class_budgets)),
        line_budget=message.line_budget if message.HasField("line_budget") else None,
        budget_confidence=message.budget_confidence or _DEFAULT.budget_confidence,
        min_parts=message.min_parts or _DEFAULT.min_parts,
        min_class_parts=message.min_class_parts or _DEFAULT.min_class_parts,
    )


def _judgement_to_proto(policy: JudgementPolicy) -> training_policy_pb2.TrainingPolicy.JudgementPolicy:
    return training_policy_pb2.TrainingPolicy.JudgementPolicy(
        metric=_METRICS[policy.metric],
        minimum_gain=policy.minimum_gain,
        confidence=policy.confidence,
        class_metric=_CLASS_METRICS[policy.class_metric],
        class_budget=policy.class_budget,
        class_budgets=policy.class_budgets,
        line_budget=policy.line_budget,
        budget_confidence=policy.budget_confidence,
        min_parts=policy.min_parts,
        min_class_parts=policy.min_class_parts,
    )
