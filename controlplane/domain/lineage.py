"""Lineage: what a version was made of, and where it went."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from controlplane.domain.dataset import DatasetItem
from controlplane.domain.ids import AgentId, DatasetId, DeploymentId, ModelId, RolloutId, TrainingRunId
from controlplane.domain.rollout import RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """How many items of a dataset came from where. Each item counts once in each but `annotators`: there once for each
    who labelled it."""

    splits: Mapping[str, int]
    agents: Mapping[AgentId, int]
    """Imported samples under ""."""
    lines: Mapping[str, int]
    """By `site/line`."""
    labels: Mapping[str, int]
    annotators: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The run that made a version."""

    run_id: TrainingRunId
    trainer: str
    dataset_id: DatasetId
    base_version: int
    origins: Origins
    judgement: str
    """In a sentence."""
    decider: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A version, and what it was made of; `training` is None where it was published by hand."""

    model_id: ModelId
    version: int
    create_time: datetime
    training: Training | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutUse:
    rollout_id: RolloutId
    deployment_id: DeploymentId
    state: RolloutState
    create_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentUse:
    """An agent that serves the version."""

    agent_id: AgentId
    place: str
    """Site, line and station with slashes between, as far as it has them."""
    receive_time: datetime
    """When it was last heard of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The version itself is the first ancestor; its base the next."""

    ancestors: tuple[Ancestor, ...]
    rollouts: tuple[RolloutUse, ...] = field(default=())
    agents: tuple[AgentUse, ...] = field(default=())
    truncated: bool = False
    """There are more ancestors than are told."""


def count_origins(items: Iterable[DatasetItem]) -> Origins:
    """Count the items of a dataset."""
    splits: Counter[str] = Counter()
    agents: Counter[AgentId] = Counter()
    lines: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    annotators: Counter[str] = Counter()
    for item in items:
        splits[item.split.value.lower()] += 1
        agents[item.agent_id] += 1
        lines["/".join(filter(None, (item.site, item.line)))] += 1
        labels[item.label] += 1
        annotators.update(item.annotators)
    return Origins(
        splits=MappingProxyType(dict(splits)),
        agents=MappingProxyType(dict(agents)),
        lines=MappingProxyType(dict(lines)),
        labels=MappingProxyType(dict(labels)),
        annotators=MappingProxyType(dict(annotators)),
    )
