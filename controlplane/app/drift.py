"""Drift: new windows are looked at in ticks, and what is known is shown, watched, and learned anew.

What holds:
- A batch is looked at once: it waits in a queue, which it enters with what it brings and leaves with what came of it.
- A tick reads only slots with new windows, decides in memory and writes in one transaction, with the decisions for the
  log. One that finds nothing new writes nothing; one that loses a race writes nothing and decides again.
- Notices go out after the commit. They only hurry.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

import structlog

from controlplane import limits, observability
from controlplane.app.audit import LogFollower, write_down
from controlplane.app.drift_flags import find_flagged
from controlplane.app.notices import Notices
from controlplane.app.paging import Page, clamp_page_size, decode_page_token, encode_page_token, page_of
from controlplane.app.pins import check_reason
from controlplane.app.ports import AuditFilter, Clock, IdSource, Store, UnitOfWork
from controlplane.app.ports_drift import DriftFilter, DriftKey, DriftNotifier
from controlplane.app.retries import retry_stale
from controlplane.domain.audit import AuditEvent, Happening
from controlplane.domain.drift import (
    Drift,
    DriftPolicy,
    add_blocks,
    block_of,
    distances,
    related,
    relearn,
)
from controlplane.domain.drift_slot import Followed, follow
from controlplane.domain.errors import FieldInvalidError, ResourceNotFoundError
from controlplane.domain.evidence import MetricWindow
from controlplane.domain.ids import AgentId, ModelId

log = structlog.get_logger(__name__)

POLICY = DriftPolicy(
    reference_count=limits.DRIFT_REFERENCE_COUNT,
    reference_factor_max=limits.DRIFT_REFERENCE_FACTOR_MAX,
    sampled_factor_max=limits.DRIFT_SAMPLED_FACTOR_MAX,
    reference_blocks_max=limits.DRIFT_REFERENCE_BLOCKS_MAX,
    tolerance=limits.DRIFT_TOLERANCE,
    false_alarm=limits.DRIFT_FALSE_ALARM,
    block_count=limits.DRIFT_BLOCK_COUNT,
    recent_count=limits.DRIFT_RECENT_COUNT,
    labels_max=limits.DRIFT_LABELS_MAX,
)
ACTIONS = "drift."
"""How the actions of every decision about drift begin."""


class DriftTicks:
    """Looks at new windows; of several controllers the leader's job."""

    def __init__(
        self, *, store: Store, clock: Clock, ids: IdSource, notifier: DriftNotifier, policy: DriftPolicy = POLICY
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._notifier = notifier
        self._policy = policy

    async def tick(self, now: datetime) -> None:
        """Look at the batches of the agents that have waited longest, DRIFT_AGENTS_A_TICK_MAX of them."""
        happenings = await retry_stale(lambda: self._look(now))
        if not happenings:
            return
        for happening in happenings:
            log.info(
                observability.DRIFT_MOVED,
                drift=happening.resource,
                action=happening.action,
                reason=happening.reason,
                message=happening.message,
            )
        self._notifier.drift_changed(_models(happenings))

    async def _look(self, now: datetime) -> Sequence[Happening]:
        async with self._store.read() as uow:
            new = await uow.drifts.list_new(
                agents=limits.DRIFT_AGENTS_A_TICK_MAX, limit=limits.DRIFT_BATCHES_A_TICK_MAX
            )
            if not new:
                return ()
            windows = _by_slot(window for batch in new for window in batch.windows)
            known: defaultdict[tuple[AgentId, ModelId], list[Drift]] = defaultdict(list)
            for drift in await uow.drifts.list_slots(windows.keys()):
                known[drift.agent_id, drift.model_id].append(drift)
        followed = await self._follow(known, windows, now)
        happenings = [happening for one in followed for happening in one.happenings]
        async with self._store.write() as uow:
            await uow.drifts.done([batch.arrival for batch in new])
            await uow.drifts.save([drift for one in followed for drift in one.changed])
            await uow.drifts.remove([_key(drift) for one in followed for drift in one.removed])
            await write_down(uow, happenings, clock=self._clock, ids=self._ids)
            if passed_over := await uow.drifts.forget_new(keep=limits.DRIFT_BACKLOG_MAX):
                log.warning(observability.DRIFT_PASSED_OVER, batches=passed_over)
        return happenings

    async def _follow(
        self,
        known: Mapping[tuple[AgentId, ModelId], Sequence[Drift]],
        windows: Mapping[tuple[AgentId, ModelId], Sequence[MetricWindow]],
        now: datetime,
    ) -> Sequence[Followed]:
        followed = []
        for slot, measured in windows.items():
            followed.append(
                follow(
                    known.get(slot, ()),
                    measured,
                    self._policy,
                    versions_max=limits.DRIFT_VERSIONS_MAX,
                    stretches_max=limits.DRIFT_STRETCHES_MAX,
                    now=now,
                )
            )
            # One that becomes whole takes 5 ms: streams have their turn after each.
            await asyncio.sleep(0)
        return followed


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDrift:
    """A drift with the labels of its agent."""

    drift: Drift
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPoint:
    """What was measured over one stretch of time."""

    version: int
    start_time: datetime
    end_time: datetime
    inferences: int
    distances: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftHistory:
    """How far a slot was from its references over a time, and what was decided about it, both by time."""

    points: Sequence[DriftPoint]
    events: Sequence[AuditEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftNews:
    """What a watch tells: drifts that have begun, and what was decided since."""

    drifts: Sequence[ShownDrift]
    events: Sequence[AuditEvent]


class Drifts:
    """Shows what is known of drift, and begins anew where an operator says so."""

    def __init__(
        self, *, store: Store, clock: Clock, ids: IdSource, notices: Notices, policy: DriftPolicy = POLICY
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._notices = notices
        self.policy = policy

    async def flagged(self, model_id: ModelId) -> Sequence[Drift]:
        """Return the drifts of the model that are DRIFTED now, by agent; see `find_flagged`."""
        async with self._store.read() as uow:
            return await find_flagged(uow, model_id)

    async def of_agents(self, agent_ids: Iterable[AgentId]) -> Mapping[AgentId, Sequence[Drift]]:
        """Return what has drifted on these agents now, by model."""
        found: defaultdict[AgentId, list[Drift]] = defaultdict(list)
        async with self._store.read() as uow:
            for drift in await uow.drifts.list_serving(agent_ids):
                found[drift.agent_id].append(drift)
        return found

    async def list(self, wanted: DriftFilter, *, page_size: int, page_token: str) -> Page[ShownDrift]:
        """By agent, then model, then version."""
        size, key = clamp_page_size(page_size), decode_page_token(page_token, str, str, int)
        after = (AgentId(str(key[0])), ModelId(str(key[1])), int(key[2])) if key else None
        async with self._store.read() as uow:
            found = await uow.drifts.list(wanted, after=after, limit=size + 1)
            shown = await _shown(uow, found)
        return page_of(shown, size, lambda one: encode_page_token(*_key(one.drift)))

    async def get(self, agent_id: AgentId, model_id: ModelId, version: int | None) -> ShownDrift:
        """Of the version, or of the one that serves. Raises ResourceNotFoundError."""
        async with self._store.read() as uow:
            return (await _shown(uow, [await _get(uow, agent_id, model_id, version)]))[0]

    async def relearn(
        self, agent_id: AgentId, model_id: ModelId, version: int | None, *, reason: str, actor: str
    ) -> ShownDrift:
        """Take what comes next as the reference, and end a drift. Raises FieldInvalidError without a reason and
        ResourceNotFoundError."""
        words = check_reason(reason, field="reason")

        async def attempt() -> ShownDrift:
            async with self._store.write() as uow:
                before = await _get(uow, agent_id, model_id, version)
                after = relearn(before, words, now=self._clock.now())
                await uow.drifts.save([after])
                await write_down(uow, [_relearned(before, words, actor)], clock=self._clock, ids=self._ids)
                return (await _shown(uow, [after]))[0]

        shown = await retry_stale(attempt)
        self._notices.drift_changed([model_id])
        return shown

    async def history(
        self,
        agent_id: AgentId,
        model_id: ModelId,
        *,
        start_time: datetime | None,
        end_time: datetime | None,
        points: int,
    ) -> DriftHistory:
        """How far one slot was from the reference of the version that served, over the last 24 hours where no start is
        given. Raises FieldInvalidError for a time that ends before it starts, and for more windows than can be read."""
        end = end_time or self._clock.now()
        start = start_time or end - limits.METRIC_TIME_DEFAULT
        if start >= end:
            raise FieldInvalidError("the time ends before it starts", field="start_time", remedy="name an earlier one")
        stretch = (end - start) / min(points or limits.DRIFT_HISTORY_POINTS_DEFAULT, limits.DRIFT_HISTORY_POINTS_MAX)
        async with self._store.read() as uow:
            windows = await uow.drifts.list_windows(
                agent_id, model_id, start_time=start, end_time=end, limit=limits.DRIFT_HISTORY_WINDOWS_MAX + 1
            )
            if len(windows) > limits.DRIFT_HISTORY_WINDOWS_MAX:
                raise FieldInvalidError(
                    f"there are more than {limits.DRIFT_HISTORY_WINDOWS_MAX} windows in that time",
                    field="start_time",
                    remedy="name a later start",
                )
            known = {drift.version: drift for drift in await uow.drifts.list_slots([(agent_id, model_id)])}
            wanted = AuditFilter(resource=f"agents/{agent_id}", action=ACTIONS, start_time=start, end_time=end)
            events = await uow.audit.list(wanted, after=None, limit=limits.DRIFT_HISTORY_EVENTS_MAX, oldest_first=True)
        return DriftHistory(
            points=await _points(windows, known, start=start, stretch=stretch),
            events=[event for event in events if f"models/{model_id}" in event.happening.related],
        )

    async def watch(self, model_id: ModelId | None) -> AsyncGenerator[DriftNews, None]:
        """Yield the drifts that are flagged now, then each that begins, with what was decided since the time before;
        never ends by itself."""
        resource = f"models/{model_id}" if model_id is not None else None
        follower = LogFollower(AuditFilter(resource=resource, action=ACTIONS, start_time=self._clock.now()))
        told: Mapping[str, datetime] = {}
        with self._notices.watch_drift(model_id) as changes:
            first = True
            while True:
                async with self._store.read() as uow:
                    flagged = await find_flagged(uow, model_id)
                    begun = [drift for drift in flagged if told.get(drift.name) != drift.transition_time]
                    has_more, begun = len(begun) > limits.PAGE_SIZE_MAX, begun[: limits.PAGE_SIZE_MAX]
                    news = DriftNews(
                        drifts=await _shown(uow, begun), events=await follower.look(uow, self._clock.now())
                    )
                names = {drift.name for drift in flagged}
                told = {name: since for name, since in told.items() if name in names}
                told |= {drift.name: drift.transition_time for drift in begun}
                if first or news.drifts or news.events:
                    yield news
                first = False
                if not (has_more or follower.has_more):
                    await changes.wait(timeout_seconds=limits.WATCH_LOOK_SECONDS)


async def _get(uow: UnitOfWork, agent_id: AgentId, model_id: ModelId, version: int | None) -> Drift:
    found = await uow.drifts.find(agent_id, model_id, version)
    if found is None:
        which = model_id if version is None else f"{model_id}@{version}"
        raise ResourceNotFoundError(
            f"agents/{agent_id}/drifts/{which} does not exist",
            field="name",
            remedy="name one of ListDrifts; a slot has one from its version's first inference on",
        )
    return found


async def _shown(uow: UnitOfWork, drifts: Sequence[Drift]) -> list[ShownDrift]:
    records = {record.agent.id: record for record in await uow.agents.list_of({one.agent_id for one in drifts})}
    return [
        ShownDrift(drift=drift, labels=records[drift.agent_id].agent.labels if drift.agent_id in records else {})
        for drift in drifts
    ]


async def _points(
    windows: Sequence[MetricWindow], known: Mapping[int, Drift], *, start: datetime, stretch: timedelta
) -> Sequence[DriftPoint]:
    """One a stretch and version."""
    stretches: defaultdict[tuple[int, int], list[MetricWindow]] = defaultdict(list)
    for window in windows:
        if window.inference_count > window.error_count:
            stretches[max(0, (window.end_time - start) // stretch), window.version].append(window)
    points = []
    for (_, version), measured in sorted(stretches.items()):
        drift = known.get(version)
        reference = drift.reference if drift is not None and drift.tests else {}
        block = add_blocks([block_of(window, reference) for window in measured])
        points.append(
            DriftPoint(
                version=version,
                start_time=min(window.start_time for window in measured),
                end_time=max(window.end_time for window in measured),
                inferences=block.inferences,
                distances=distances(drift, block.counts) if drift is not None else {},
            )
        )
        await asyncio.sleep(0)
    return sorted(points, key=lambda point: (point.end_time, point.version))


def _relearned(before: Drift, words: str, actor: str) -> Happening:
    return Happening(
        actor=actor,
        action="drift.relearn",
        resource=before.name,
        message=words,
        evidence={"state_before": before.state.value, "inference_count": before.inference_count},
        related=related(before),
    )


def _by_slot(windows: Iterable[MetricWindow]) -> Mapping[tuple[AgentId, ModelId], Sequence[MetricWindow]]:
    found: defaultdict[tuple[AgentId, ModelId], list[MetricWindow]] = defaultdict(list)
    for window in windows:
        found[window.agent_id, window.slot].append(window)
    return found


def _models(happenings: Iterable[Happening]) -> Sequence[ModelId]:
    return sorted({ModelId(one.removeprefix("models/")) for happening in happenings for one in happening.related[1:2]})


def _key(drift: Drift) -> DriftKey:
    return drift.agent_id, drift.model_id, drift.version
