"""Training policies: when a model is trained anew, what a candidate must show, and how it goes out.

What holds of triggers:
- None fires while a run of the model has not ended, or a proposal of it waits for a person.
- None fires without new labels: what the last run had is never trained on twice, whatever became of that run.
- Two runs begin at least the minimum interval apart.
- A time of `cron` that came before the policy was last set, or before the last run began, fires nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from controlplane.domain.audit import Json, rule
from controlplane.domain.dataset import DatasetRule
from controlplane.domain.gate import GatePolicy
from controlplane.domain.ids import DeploymentId, ModelId
from controlplane.domain.judgement import JudgementPolicy
from controlplane.domain.rollout import RolloutStrategy, ShadowPolicy, WaveSize

POLICY = rule("training-policy")
"""The actor that stands for what a policy started or approved."""


class Approval(StrEnum):
    MANUAL = "MANUAL"
    AUTO = "AUTO"


class Trigger(StrEnum):
    CRON = "CRON"
    LABELS = "LABELS"
    DRIFT = "DRIFT"


DEFAULT_STRATEGY = RolloutStrategy(
    waves=(WaveSize(count=1), WaveSize(percent=100)),
    gate=GatePolicy(),
    # A candidate is to answer otherwise than the champion; that it answers at all, and in time, is what is looked at.
    shadow=ShadowPolicy(min_comparisons=20, min_agreement_per_mille=0),
)
"""How a candidate goes out where the policy does not say it: shadow, canary, all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPolicy:
    """One a model."""

    model_id: ModelId
    trainer: str
    update_time: datetime
    actor: str
    """`operators/{operator}` who set it last."""
    suspended: bool = False
    parameters: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    """What the trainer is told."""
    dataset_rule: DatasetRule = field(default_factory=DatasetRule)
    """How a triggered run's dataset is split and weighted."""
    cron: str = ""
    time_zone: str = "UTC"
    min_new_labels: int = 0
    """0 means that the number of labels triggers nothing."""
    on_drift: bool = False
    drift_min_new_labels: int = 1
    minimum_interval_seconds: float = 0.0
    judgement: JudgementPolicy = field(default_factory=JudgementPolicy)
    approval: Approval = Approval.MANUAL
    deployment_id: DeploymentId | None = None
    """Where approved candidates go; None means that they are only published."""
    strategy: RolloutStrategy = DEFAULT_STRATEGY
    revision: int = 0

    @property
    def name(self) -> str:
        return f"models/{self.model_id}/trainingPolicy"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerFacts:
    """What is known of a model when its triggers are looked at."""

    labels: int
    """Labelled samples."""
    new_labels: int
    """Of these, those labelled since the dataset of the last run was frozen; all of them before the first run."""
    unended_run: str = ""
    """`trainingRuns/{training_run}`; empty when there is none."""
    open_proposal: str = ""
    """`trainingRuns/{training_run}` whose candidate waits for a person, or is on its way to a version."""
    last_run_time: datetime | None = None
    """When the last run was asked for."""
    cron_time: datetime | None = None
    """The first time that `cron` names after the policy was set and the last run began; None without one."""
    drifted: tuple[str, ...] = ()
    """`agents/{agent}` where inputs have drifted from what the serving version saw."""


@dataclass(frozen=True, slots=True)
class TriggerFinding:
    """`trigger` fires, or none does; `message` says why."""

    trigger: Trigger | None
    message: str


def find_trigger(policy: TrainingPolicy, facts: TriggerFacts, now: datetime) -> TriggerFinding:
    """Say which trigger fires now. Drift before labels before cron, where several would."""
    held = _held_back(policy, facts, now)
    if held:
        return TriggerFinding(None, held)
    labels = f"{facts.new_labels} of {facts.labels} labelled samples are new"
    if policy.on_drift and facts.drifted and facts.new_labels >= policy.drift_min_new_labels:
        return TriggerFinding(Trigger.DRIFT, f"inputs have drifted at {_names(facts.drifted)}, and {labels}")
    if 0 < policy.min_new_labels <= facts.new_labels:
        return TriggerFinding(Trigger.LABELS, labels)
    if facts.cron_time is not None and facts.cron_time <= now:
        return TriggerFinding(Trigger.CRON, f"it was due at {facts.cron_time:%Y-%m-%d %H:%M} UTC, and {labels}")
    return TriggerFinding(None, f"nothing is due: {labels}{_waits(policy, facts)}")


def _held_back(policy: TrainingPolicy, facts: TriggerFacts, now: datetime) -> str:
    """Why no trigger may fire at all; empty when one may."""
    if policy.suspended:
        return "the policy is suspended"
    if facts.unended_run:
        return f"{facts.unended_run} has not ended"
    if facts.open_proposal:
        return f"the candidate of {facts.open_proposal} waits to be approved or to be published"
    if facts.new_labels <= 0:
        return f"no sample was labelled since the last run; {facts.labels} are labelled"
    if facts.last_run_time is not None:
        free = facts.last_run_time + timedelta(seconds=policy.minimum_interval_seconds)
        if now < free:
            return f"the last run began at {facts.last_run_time:%Y-%m-%d %H:%M} UTC; the next may at {free:%H:%M} UTC"
    return ""


def _waits(policy: TrainingPolicy, facts: TriggerFacts) -> str:
    waits = []
    if policy.min_new_labels:
        waits.append(f"{policy.min_new_labels} are needed")
    if policy.on_drift and facts.drifted:
        waits.append(f"{policy.drift_min_new_labels} are needed for the drift at {_names(facts.drifted)}")
    elif policy.on_drift:
        waits.append("no drift is flagged")
    if facts.cron_time is not None:
        waits.append(f"the next time is {facts.cron_time:%Y-%m-%d %H:%M} UTC")
    return "".join(f"; {words}" for words in waits)


_NAMES_MAX = 3


def _names(agents: tuple[str, ...]) -> str:
    more = len(agents) - _NAMES_MAX
    return ", ".join(sorted(agents)[:_NAMES_MAX]) + (f" and {more} more" if more > 0 else "")
