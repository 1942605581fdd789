"""`lineside training policy`: set, show, list."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from google.protobuf.struct_pb2 import Struct
from lineside.v1 import dataset_pb2, training_policy_pb2, training_policy_service_pb2

from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import CountOption, DurationOption, duration_text, time_text
from controlplane.cli.rollout_strategy import StrategyOptions, strategy_of
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import deployment_name, short
from controlplane.client.training_policies import policy_name

app = resource_app("policy", "When a model is trained anew, what a candidate must show, how it goes out.")
Policy = training_policy_pb2.TrainingPolicy
PartOption = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]


class Metric(Enum):
    """What candidate and champion are compared by."""

    AUC = Policy.METRIC_AUC
    ACCURACY = Policy.METRIC_ACCURACY


class ClassMetric(Enum):
    """What each class is compared by."""

    F1 = Policy.CLASS_METRIC_F1
    RECALL = Policy.CLASS_METRIC_RECALL


class Approval(Enum):
    """Who lets a proposal go out."""

    MANUAL = Policy.APPROVAL_MANUAL
    AUTO = Policy.APPROVAL_AUTO


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOptions:
    """What is not said stays as it is."""

    trainer: str | None = None
    """Name of a trainer that the controller has."""
    parameter: tuple[str, ...] = ()
    """NAME=VALUE for the trainer, the value as JSON or as a word; may be repeated. Replaces what was set."""
    cron: str | None = None
    """When to train, five fields: '0 2 * * SAT'; '' means not by time."""
    time_zone: str | None = None
    """Zone of the times of cron: Asia/Shanghai; else UTC."""
    min_new_labels: CountOption | None = None
    """Train when so many samples were labelled since the last run; 0 means not by number."""
    on_drift: Annotated[bool | None, Parameter(negative="--no-on-drift")] = None
    """Train when inputs have drifted and there are new labels."""
    drift_min_new_labels: CountOption | None = None
    """Least new labels for that; else one."""
    minimum_interval: DurationOption | None = None
    """Least time between two runs: 1h, 2d."""
    suspend: Annotated[bool | None, Parameter(negative="--resume")] = None
    """No trigger fires while it is suspended."""
    metric: Metric | None = None
    """What is compared: auc or accuracy; else auc."""
    minimum_gain: PartOption | None = None
    """Least gain in the metric: 0.01; else any that is real."""
    confidence: PartOption | None = None
    """How sure the gain must be: 0.95."""
    class_metric: ClassMetric | None = None
    """What a class is compared by: f1 or recall; else f1."""
    class_budget: PartOption | None = None
    """What a class may lose in that: 0.05."""
    class_budget_of: tuple[str, ...] = ()
    """The same of one class, LABEL=BUDGET; may be repeated. Replaces what was set."""
    line_budget: PartOption | None = None
    """What a line may lose in the metric; else lines are told and not judged."""
    budget_confidence: PartOption | None = None
    """How sure it must be that a budget is kept; else 0.5, the estimate decides."""
    min_parts: CountOption | None = None
    """Least parts in the holdout; else 30."""
    min_class_parts: CountOption | None = None
    """Least parts of each class in the holdout; else 10."""
    holdout: CountOption | None = None
    """Percent of the parts that the datasets of triggered runs hold out; else 20."""
    validation: CountOption | None = None
    """Percent of the parts that they validate with; else 10."""
    near: CountOption | None = None
    """Pictures that differ in at most so many of 256 bits of their difference hashes stay together; else 6."""
    agreement: CountOption | None = None
    """Percent of a sample's annotators that must agree; else 66."""
    weight: tuple[str, ...] = ()
    """KEY=VALUE:WEIGHT, how much items count in training: line=3:4; may be repeated. Replaces what was set."""
    approval: Approval | None = None
    """Who lets a proposal go out: manual or auto; else a person."""
    deployment: str | None = None
    """Deployment that approved candidates go to; '' means that they are only published."""
    strategy: Path | None = None
    """TOML file that says how they go there, as for rollouts start; else shadow, one agent, all."""


_UNSAID = PolicyOptions()
_PLAIN = ("trainer", "cron", "time_zone", "min_new_labels", "on_drift", "drift_min_new_labels")
_OF_JUDGEMENT = (
    "minimum_gain",
    "confidence",
    "class_budget",
    "line_budget",
    "budget_confidence",
    "min_parts",
    "min_class_parts",
)
_OF_DATASET = {
    "holdout_percent": "holdout",
    "validation_percent": "validation",
    "near_duplicate_distance": "near",
    "agreement_percent": "agreement",
}
"""Options of the datasets of triggered runs, named as `lineside datasets freeze` names them."""


@app.command(
    name="set",
    help_epilogue="Example: lineside training policy set solar --trainer head --min-new-labels 100 --on-drift",
)
def set_(model: str, /, *, options: PolicyOptions = _UNSAID, session: SessionArgument) -> None:
    """Set when a model is trained anew, what a candidate must show, and how it goes out. What is not said stays.

    Parameters
    ----------
    model
        The model.
    """
    policy = session.client.training_policies.find(model) or Policy(name=policy_name(model))
    _apply(policy, options)
    _show(session.printer, session.client.training_policies.set(policy), None)


@app.command(help_epilogue="Example: lineside training policy show solar")
def show(model: str, /, *, session: SessionArgument) -> None:
    """Show a model's policy, and what its triggers say now.

    Parameters
    ----------
    model
        The model.
    """
    policies = session.client.training_policies
    _show(session.printer, policies.get(model), policies.explain(model))


@app.command(name="list", help_epilogue="Example: lineside training policy list")
def list_(*, limit: int | None = None, session: SessionArgument) -> None:
    """List policies by model.

    Parameters
    ----------
    limit
        At most this many.
    """
    found = session.client.training_policies.list(limit=limit)
    session.printer.messages(found, _COLUMNS, none="no model has a training policy")


def _apply(policy: Policy, options: PolicyOptions) -> None:
    """Put what was said into the policy. Raises InvalidInputError."""
    _apply_plain(policy, options)
    if options.suspend is not None:
        policy.suspended = options.suspend
    if options.minimum_interval is not None:
        policy.minimum_interval.FromTimedelta(options.minimum_interval)
    if options.metric is not None:
        policy.judgement.metric = options.metric.value
    if options.class_metric is not None:
        policy.judgement.class_metric = options.class_metric.value
    if options.approval is not None:
        policy.approval = options.approval.value
    if options.deployment is not None:
        policy.deployment = deployment_name(options.deployment) if options.deployment else ""
    if options.strategy is not None:
        policy.strategy.CopyFrom(strategy_of(StrategyOptions(strategy=options.strategy)))
    _apply_lists(policy, options)


def _apply_plain(policy: Policy, options: PolicyOptions) -> None:
    """What is said as it is kept."""
    for message, names in (
        (policy, {name: name for name in _PLAIN}),
        (policy.judgement, {name: name for name in _OF_JUDGEMENT}),
        (policy.dataset_rule, _OF_DATASET),
    ):
        for name, option in names.items():
            if getattr(options, option) is not None:
                setattr(message, name, getattr(options, option))


def _apply_lists(policy: Policy, options: PolicyOptions) -> None:
    if options.parameter:
        policy.parameters.CopyFrom(_parameters(options.parameter))
    if options.class_budget_of:
        policy.judgement.class_budgets.clear()
        for label, budget in _split(options.class_budget_of, field="class_budget_of", form="LABEL=BUDGET"):
            policy.judgement.class_budgets[label] = _number(budget, field="class_budget_of")
    if options.weight:
        del policy.dataset_rule.weights[:]
        for key, rest in _split(options.weight, field="weight", form="KEY=VALUE:WEIGHT"):
            value, _, weight = rest.rpartition(":")
            rule = dataset_pb2.WeightRule(key=key, value=value, weight=_number(weight, field="weight"))
            policy.dataset_rule.weights.append(rule)


def _split(written: Iterable[str], *, field: str, form: str) -> Iterable[tuple[str, str]]:
    for one in written:
        key, equals, value = one.partition("=")
        if not (key and equals and value):
            raise InvalidInputError(f"{one!r} cannot be read", field=field, remedy=f"write {form}")
        yield key, value


def _number(written: str, *, field: str) -> float:
    try:
        return float(written)
    except ValueError as error:
        raise InvalidInputError(f"{written!r} is no number", field=field, remedy="write it as 0.05 or 4") from error


def _parameters(written: Iterable[str]) -> Struct:
    """A value that is no JSON is a word."""
    parameters: dict[str, Any] = {}
    for name, value in _split(written, field="parameter", form="NAME=VALUE"):
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    struct = Struct()
    struct.update(parameters)
    return struct


def _show(
    printer: Printer, policy: Policy, said: training_policy_service_pb2.ExplainTrainingPolicyResponse | None
) -> None:
    if printer.json:
        now = {} if said is None else {"triggers": document_of(said)}
        printer.document(document_of(policy) | now)
        return
    printer.pairs([*_facts(policy), ("set", f"{policy.actor}, {time_text(policy.update_time, now=printer.now)}")])
    if said is not None:
        due = f"{said.trigger} is due" if said.trigger else "nothing is due"
        printer.pairs([("triggers", f"{due}: {said.message}")])


def _facts(policy: Policy) -> Iterable[tuple[str, str]]:
    judgement = policy.judgement
    yield "model", policy.name.split("/")[1]
    yield "trainer", policy.trainer
    if policy.parameters:
        yield "parameters", json.dumps(document_parameters(policy.parameters))
    yield "triggers on", _triggers(policy)
    yield "least interval", duration_text(policy.minimum_interval.ToTimedelta() or timedelta())
    yield "compares", word(judgement, "metric").lower()
    yield "least gain", f"{judgement.minimum_gain:g}, {judgement.confidence:.0%} sure that there is one"
    named = (f"{label} {budget:g}" for label, budget in sorted(judgement.class_budgets.items()))
    budgets = ", ".join([f"{judgement.class_budget:g}", *named])
    kind = word(judgement, "class_metric").lower()
    yield "a class may lose", f"{budgets} of its {kind}, {judgement.budget_confidence:.0%} sure"
    yield "a line may lose", f"{judgement.line_budget:g}" if judgement.HasField("line_budget") else "told, not judged"
    yield "least parts", f"{judgement.min_parts}, {judgement.min_class_parts} of each class"
    yield "approval", word(policy, "approval").lower()
    waves = ", ".join(policy.strategy.waves)
    yield "goes to", f"{short(policy.deployment)}, in waves {waves}" if policy.deployment else "no deployment"


def document_parameters(parameters: Struct) -> dict[str, Any]:
    """Return what a trainer is told, ready for JSON."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(parameters)


def _triggers(policy: Policy) -> str:
    words = [
        f"{policy.cron} ({policy.time_zone})" if policy.cron else "",
        f"{policy.min_new_labels} new labels" if policy.min_new_labels else "",
        f"drift with {policy.drift_min_new_labels} new labels" if policy.on_drift else "",
    ]
    said = ", ".join(filter(None, words)) or "nothing"
    return f"{said} (suspended)" if policy.suspended else said


_COLUMNS: Sequence[Column[Policy]] = (
    Column(header="MODEL", cell=lambda policy: policy.name.split("/")[1], whole=True),
    Column(header="TRAINER", cell=lambda policy: policy.trainer),
    Column(header="TRIGGERS ON", cell=_triggers),
    Column(header="APPROVAL", cell=lambda policy: word(policy, "approval").lower()),
    Column(header="DEPLOYMENT", cell=lambda policy: short(policy.deployment) or "-"),
)
