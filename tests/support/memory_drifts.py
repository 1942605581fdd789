"""The DriftRepository in memory."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from controlplane.app.ports_drift import DriftFilter, DriftKey, NewBatch
from controlplane.domain.drift import Drift, DriftState
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId, ModelId
from tests.support.memory_tables import Tables, stale


class MemoryDrifts:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def note(self, agent_id: AgentId, batch: int) -> None:
        numbers = self._tables.drift_inbox
        last = self._tables.drift_arrivals.get("last", 0) + 1
        self._tables.drift_arrivals["last"] = last
        numbers[last] = (agent_id, batch)

    async def list_new(self, *, agents: int, limit: int) -> Sequence[NewBatch]:
        waiting = sorted(self._tables.drift_inbox.items())
        longest = list(dict.fromkeys(agent_id for _, (agent_id, _) in waiting))[:agents]
        found = []
        for arrival, place in [one for one in waiting if one[1][0] in longest][:limit]:
            batch = self._tables.batches.get(place)
            found.append(NewBatch(arrival, batch.windows if batch is not None else ()))
        return found

    async def done(self, arrivals: Collection[int]) -> None:
        for arrival in arrivals:
            self._tables.drift_inbox.pop(arrival, None)

    async def forget_new(self, *, keep: int) -> int:
        last = self._tables.drift_arrivals.get("last", 0)
        old = [arrival for arrival in self._tables.drift_inbox if arrival <= last - keep]
        await self.done(old)
        return len(old)

    async def list_slots(self, slots: Collection[tuple[AgentId, ModelId]]) -> Sequence[Drift]:
        return [one for one in self._all() if (one.agent_id, one.model_id) in slots]

    async def list_serving(self, agent_ids: Iterable[AgentId]) -> Sequence[Drift]:
        wanted = set(agent_ids)
        return [one for one in await self.list_flagged() if one.agent_id in wanted]

    async def list_flagged(self, model_id: ModelId | None = None) -> Sequence[Drift]:
        wanted = DriftFilter(model_id=model_id, state=DriftState.DRIFTED, serving=True)
        return await self.list(wanted, after=None, limit=len(self._tables.drifts) + 1)

    async def list(self, wanted: DriftFilter, *, after: DriftKey | None, limit: int) -> Sequence[Drift]:
        return [
            one
            for one in self._all()
            if wanted.model_id in (None, one.model_id)
            and wanted.agent_id in (None, one.agent_id)
            and wanted.state in (None, one.state)
            and wanted.serving in (None, one.serving)
            and (after is None or (one.agent_id, one.model_id, one.version) > after)
        ][:limit]

    async def find(self, agent_id: AgentId, model_id: ModelId, version: int | None) -> Drift | None:
        slot = await self.list_slots([(agent_id, model_id)])
        return next((one for one in slot if (one.serving if version is None else one.version == version)), None)

    async def save(self, drifts: Sequence[Drift]) -> None:
        for one in drifts:
            key = (one.agent_id, one.model_id, one.version)
            stored = self._tables.drifts.get(key)
            if stored is not None and stored.revision != one.revision:
                raise stale("the drift of a slot")
            self._tables.drifts[key] = replace(one, revision=one.revision + 1)

    async def remove(self, keys: Collection[DriftKey]) -> None:
        for key in keys:
            self._tables.drifts.pop(key, None)

    async def list_windows(
        self,
        agent_id: AgentId,
        model_id: ModelId,
        *,
        start_time: datetime,
        end_time: datetime,
        limit: int,
    ) -> Sequence[MetricWindow]:
        windows = [
            window
            for batch in self._tables.batches.values()
            for window in batch.windows
            if (window.agent_id, window.slot) == (agent_id, model_id)
            and window.end_time > start_time
            and window.start_time < end_time
        ]
        return sorted(windows, key=lambda window: (window.start_time, window.batch))[-limit:]

    def _all(self) -> Sequence[Drift]:
        return [one for _, one in sorted(self._tables.drifts.items())]
