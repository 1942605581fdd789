"""What drift needs from outside, as Protocols. The rules of `ports.py` hold here too."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from controlplane.domain.drift import Drift, DriftState
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId, ModelId

DriftKey = tuple[AgentId, ModelId, int]
"""Agent, model and version: the key of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFilter:
    """Which drifts; None means any."""

    model_id: ModelId | None = None
    agent_id: AgentId | None = None
    state: DriftState | None = None
    serving: bool | None = None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that nobody has looked at for drift yet."""

    arrival: int
    windows: tuple[MetricWindow, ...]


class DriftRepository(Protocol):
    """Drifts, and the batches that wait to be looked at."""

    async def note(self, agent_id: AgentId, batch: int) -> None:
        """Remember that the batch is to be looked at; in the transaction that stores it."""
        ...

    async def list_new(self, *, agents: int, limit: int) -> Sequence[NewBatch]:
        """Of the `agents` that have waited longest, the batches that were noted and not done with: the oldest `limit`
        of them, oldest first, each with its windows in order."""
        ...

    async def done(self, arrivals: Collection[int]) -> None:
        """Forget these."""
        ...

    async def forget_new(self, *, keep: int) -> int:
        """Forget all but about the newest `keep` of those noted; return how many."""
        ...

    async def list_slots(self, slots: Collection[tuple[AgentId, ModelId]]) -> Sequence[Drift]:
        """Drifts of every version of these slots, in one query a batch."""
        ...

    async def list_serving(self, agent_ids: Iterable[AgentId]) -> Sequence[Drift]:
        """Of these agents, the drifts of the versions that serve and are DRIFTED, by agent, then model."""
        ...

    async def list_flagged(self, model_id: ModelId | None = None) -> Sequence[Drift]:
        """Of versions that serve, those that are DRIFTED, by agent, then model; of all models with None."""
        ...

    async def list(self, wanted: DriftFilter, *, after: DriftKey | None, limit: int) -> Sequence[Drift]:
        """By agent, then model, then version."""
        ...

    async def find(self, agent_id: AgentId, model_id: ModelId, version: int | None) -> Drift | None:
        """Of the version, or of the one that serves."""
        ...

    async def save(self, drifts: Sequence[Drift]) -> None:
        """Store each with revision + 1, in one statement; raise StaleWriteError, with nothing stored that the
        transaction could keep, where a stored revision is not the drift's."""
        ...

    async def remove(self, keys: Collection[DriftKey]) -> None: ...

    async def list_windows(
        self,
        agent_id: AgentId,
        model_id: ModelId,
        *,
        start_time: datetime,
        end_time: datetime,
        limit: int,
    ) -> Sequence[MetricWindow]:
        """Of one slot, those that overlap the time, the newest `limit` of them, oldest first."""
        ...


class DriftNotifier(Protocol):
    """Hurries whoever waits for a change; a lost notice costs only time."""

    def drift_changed(self, model_ids: Iterable[ModelId]) -> None: ...
