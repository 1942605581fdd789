"""What the store in memory keeps, and the rules of `ports.py` on identity and revision."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from controlplane.app.ports_datasets import Picture
from controlplane.domain.assignment import DesiredState
from controlplane.domain.audit import AuditEvent
from controlplane.domain.catalog import Model, ModelVersion
from controlplane.domain.dataset import Dataset
from controlplane.domain.deployment import Deployment
from controlplane.domain.drift import Drift
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.evidence import EvidenceBatch, Result
from controlplane.domain.identity import AgentCertificate, JoinToken, OperatorToken
from controlplane.domain.ids import (
    AgentId,
    DatasetId,
    DeploymentId,
    Digest,
    JoinTokenId,
    LabelId,
    ModelId,
    RolloutId,
    SampleId,
    TrainingRunId,
)
from controlplane.domain.inventory import Agent, Observation
from controlplane.domain.label import Label
from controlplane.domain.lake import ResultObject
from controlplane.domain.lease import Lease
from controlplane.domain.pin import Pin
from controlplane.domain.promotion import Promotion
from controlplane.domain.rollout import Rollout
from controlplane.domain.sample import Sample
from controlplane.domain.split import SplitMember
from controlplane.domain.training_policy import TrainingPolicy
from controlplane.domain.training_run import TrainingRun

T = TypeVar("T")


class _Revised(Protocol):
    """An entity with a revision."""

    @property
    def revision(self) -> int: ...


R = TypeVar("R", bound=_Revised)


@dataclass
class Tables:
    """Everything that is stored."""

    models: dict[ModelId, Model] = field(default_factory=dict)
    versions: dict[tuple[ModelId, int], ModelVersion] = field(default_factory=dict)
    agents: dict[AgentId, Agent] = field(default_factory=dict)
    observations: dict[AgentId, Observation] = field(default_factory=dict)
    certificates: dict[str, AgentCertificate] = field(default_factory=dict)
    join_tokens: dict[JoinTokenId, JoinToken] = field(default_factory=dict)
    operator_tokens: dict[str, OperatorToken] = field(default_factory=dict)
    deployments: dict[DeploymentId, Deployment] = field(default_factory=dict)
    rollouts: dict[RolloutId, Rollout] = field(default_factory=dict)
    desired: dict[AgentId, DesiredState] = field(default_factory=dict)
    batches: dict[tuple[AgentId, int], EvidenceBatch] = field(default_factory=dict)
    samples: dict[SampleId, Sample] = field(default_factory=dict)
    labels: dict[LabelId, Label] = field(default_factory=dict)
    datasets: dict[DatasetId, Dataset] = field(default_factory=dict)
    split_members: dict[tuple[ModelId, SampleId], SplitMember] = field(default_factory=dict)
    pictures: dict[Digest, Picture] = field(default_factory=dict)
    requests: dict[str, tuple[str, str]] = field(default_factory=dict)
    pins: dict[tuple[AgentId, ModelId], Pin] = field(default_factory=dict)
    events: dict[str, AuditEvent] = field(default_factory=dict)
    drifts: dict[tuple[AgentId, ModelId, int], Drift] = field(default_factory=dict)
    drift_inbox: dict[int, tuple[AgentId, int]] = field(default_factory=dict)
    drift_arrivals: dict[str, int] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    result_objects: dict[str, ResultObject] = field(default_factory=dict)
    result_waste: dict[str, datetime] = field(default_factory=dict)
    result_rows: dict[int, Result] = field(default_factory=dict)
    """Of the table before the lake, by arrival."""
    arrivals: dict[str, int] = field(default_factory=dict)
    training_runs: dict[TrainingRunId, TrainingRun] = field(default_factory=dict)
    promotions: dict[TrainingRunId, Promotion] = field(default_factory=dict)
    training_policies: dict[ModelId, TrainingPolicy] = field(default_factory=dict)

    def copy(self) -> "Tables":
        return Tables(**{name: dict(getattr(self, name)) for name in self.__dataclass_fields__})


def found(value: T | None, resource: str) -> T:
    if value is None:
        raise ResourceNotFoundError(f"{resource} does not exist", field="name", remedy="name one that exists")
    return value


def add_row(
    rows: dict[Any, T], key: object, value: T, *, resource: str, unique: tuple[str, ...] = (), field: str = ""
) -> None:
    """Insert unless the key, or a value under one of the `unique` attributes, is taken."""
    clash = any(getattr(row, name) == getattr(value, name) for name in unique for row in rows.values())
    if key in rows or clash:
        raise ResourceExistsError(f"{resource} exists already", field=field, remedy="choose another name")
    rows[key] = value


def save_row(rows: dict[Any, R], key: object, value: R, *, resource: str) -> R:
    stored = rows.get(key)
    if stored is None or stored.revision != value.revision:
        raise stale(resource)
    saved: R = replace(value, revision=value.revision + 1)  # type: ignore[type-var]
    rows[key] = saved
    return saved


def stale(resource: str) -> StaleWriteError:
    return StaleWriteError(
        f"{resource} was changed by somebody else", field="etag", remedy="read it again, then repeat"
    )
