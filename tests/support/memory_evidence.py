"""The EvidenceRepository in memory."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from controlplane.app.ports import WindowPlace
from controlplane.domain.distribution import add_shadow_tallies, add_tallies
from controlplane.domain.evidence import EvidenceBatch, InferenceCount, MetricWindow, Result, ShadowTally, Tally
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.lake import ResultFilter, ResultObject
from tests.support.memory_result_index import MemoryResultIndex
from tests.support.memory_tables import Tables


class MemoryEvidence:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, batch: EvidenceBatch, objects: Sequence[ResultObject] = ()) -> bool:
        if (batch.agent_id, batch.batch) in self._tables.batches:
            return False
        self._tables.batches[batch.agent_id, batch.batch] = batch
        MemoryResultIndex(self._tables).add(objects)
        return True

    async def has(self, agent_id: AgentId, batch: int) -> bool:
        return (agent_id, batch) in self._tables.batches

    async def list_results(
        self, wanted: ResultFilter, *, after: int | None, limit: int, newest_first: bool = False
    ) -> Sequence[tuple[int, Result]]:
        arrived = sorted(self._tables.result_rows.items())
        matching = [
            (arrival, result)
            for arrival, result in arrived
            if wanted.model_id in (None, result.slot)
            and wanted.version in (None, result.version)
            and wanted.agent_id in (None, result.agent_id)
            and wanted.part_id in (None, result.part_id)
        ]
        if newest_first:
            return [pair for pair in reversed(matching) if after is None or pair[0] < after][:limit]
        return [pair for pair in matching if after is None or pair[0] > after][:limit]

    async def list_windows(
        self,
        model_id: ModelId,
        *,
        start_time: datetime | None,
        end_time: datetime | None,
        after: WindowPlace | None,
        limit: int,
    ) -> Sequence[tuple[WindowPlace, MetricWindow]]:
        windows = [
            ((window.start_time, window.agent_id, window.batch, index), window)
            for batch in self._tables.batches.values()
            for index, window in enumerate(batch.windows)
            if window.slot == model_id
            and (start_time is None or window.end_time > start_time)
            and (end_time is None or window.start_time < end_time)
        ]
        ordered = sorted(windows, key=lambda placed: placed[0])
        return [placed for placed in ordered if after is None or placed[0] > after][:limit]

    async def count_dropped(self, model_id: ModelId) -> int:
        batches = self._tables.batches.values()
        return sum(
            batch.dropped_results for batch in batches if any(window.slot == model_id for window in batch.windows)
        )

    def _windows_of(
        self, model_id: ModelId, version: int, since: datetime, before: datetime | None
    ) -> Iterator[tuple[datetime, MetricWindow]]:
        for batch in self._tables.batches.values():
            if batch.receive_time >= since and (before is None or batch.receive_time < before):
                for window in batch.windows:
                    if (window.slot, window.version) == (model_id, version):
                        yield batch.receive_time, window

    async def count_inferences(
        self, model_id: ModelId, version: int, *, received_since: datetime, received_before: datetime | None = None
    ) -> Sequence[InferenceCount]:
        counts: dict[AgentId, tuple[int, int, datetime]] = {}
        for time, window in self._windows_of(model_id, version, received_since, received_before):
            inferences, errors, last = counts.get(window.agent_id, (0, 0, time))
            newest = max(last, time)
            counts[window.agent_id] = (inferences + window.inference_count, errors + window.error_count, newest)
        return [
            InferenceCount(agent_id=agent_id, inferences=inferences, errors=errors, last_receive_time=last)
            for agent_id, (inferences, errors, last) in sorted(counts.items())
        ]

    async def tally(
        self,
        model_id: ModelId,
        version: int,
        *,
        received_since: datetime,
        received_before: datetime | None = None,
        agent_ids: Collection[AgentId] | None = None,
    ) -> Sequence[Tally]:
        tallies: dict[AgentId, list[Tally]] = {}
        for time, window in self._windows_of(model_id, version, received_since, received_before):
            agent_id = window.agent_id
            if agent_ids is not None and agent_id not in agent_ids:
                continue
            one = Tally(
                agent_id=agent_id,
                inferences=window.inference_count,
                errors=window.error_count,
                latency=window.latency,
                confidence_histogram=window.confidence_histogram,
                label_counts=window.label_counts,
                active_seconds=(window.end_time - window.start_time).total_seconds(),
                paced_inferences=max(0, window.inference_count - 1),
                last_receive_time=time,
            )
            tallies.setdefault(agent_id, []).append(one)
        return [
            add_tallies(given, agent_id=agent_id)
            for agent_id, given in sorted(tallies.items(), key=lambda pair: pair[0])
        ]

    async def tally_shadow(
        self, model_id: ModelId, candidate_version: int, *, received_since: datetime
    ) -> Sequence[ShadowTally]:
        tallies: dict[AgentId, list[ShadowTally]] = {}
        for batch in self._tables.batches.values():
            if batch.receive_time < received_since:
                continue
            for window in batch.shadow_windows:
                if (window.slot, window.candidate_version) == (model_id, candidate_version):
                    tallies.setdefault(window.agent_id, []).append(
                        ShadowTally(
                            agent_id=window.agent_id,
                            compared=window.compared,
                            agreed=window.agreed,
                            errors=window.errors,
                            skipped=window.skipped,
                            candidate_latency=window.candidate_latency,
                            serving_latency=window.serving_latency,
                            score_distance_histogram=window.score_distance_histogram,
                            last_receive_time=batch.receive_time,
                        )
                    )
        return [
            add_shadow_tallies(given, agent_id=agent_id)
            for agent_id, given in sorted(tallies.items(), key=lambda pair: pair[0])
        ]
