"""Measurement: what the open wave of a rollout is judged by, read from the store at each tick.

A wave bakes for hours and is looked at each second, so what is old is added up once and kept: windows received longer
than EVIDENCE_SETTLE_SECONDS ago no longer change. What is newer is read again. So what is gathered always equals what
one would add up from the beginning, and a controller that starts anew does just that.

Of a large wave nothing is read each second: counts once in so many seconds as it has thousands of agents, distributions
(only where the policy asks for them) of the first DISTRIBUTION_AGENTS_MAX agents of each device class.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from controlplane import limits
from controlplane.app.ports import UnitOfWork
from controlplane.domain.device_class import device_class
from controlplane.domain.distribution import add_tallies
from controlplane.domain.evidence import InferenceCount, Tally
from controlplane.domain.gate import Evidence
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.progress import Sight, pool_evidence, pool_shadow
from controlplane.domain.rollout import Rollout, Wave, WaveState

T = TypeVar("T", InferenceCount, Tally)
Read = Callable[[datetime, datetime | None], Coroutine[Any, Any, Sequence[T]]]
"""Reads what was received from the one time on and before the other, one an agent."""

_SETTLE = timedelta(seconds=limits.EVIDENCE_SETTLE_SECONDS)
_BASELINE = timedelta(seconds=limits.EVIDENCE_BASELINE_SECONDS)


@dataclass(slots=True)
class _Sum(Generic[T]):
    """What agents measured since a time, added up as it comes."""

    add: Callable[[Sequence[T]], T]
    sealed_until: datetime
    """What was received before is in `sealed`."""
    sealed: dict[AgentId, T] = field(default_factory=dict)
    latest: Sequence[T] = ()
    read_time: datetime | None = None

    async def update(self, read: Read[T], now: datetime, *, every_seconds: float) -> Sequence[T]:
        """Return everything as of now, or as of the last reading where that is not `every_seconds` ago."""
        if self.read_time is not None and timedelta() <= now - self.read_time < timedelta(seconds=every_seconds):
            return self.latest
        settled, until = now - _SETTLE, self.sealed_until
        if settled > until:
            for one in await read(until, settled):
                self.sealed[one.agent_id] = self._added(self.sealed, one)
            self.sealed_until = settled
        recent = {one.agent_id: self._added(self.sealed, one) for one in await read(self.sealed_until, None)}
        self.latest = [one for _, one in sorted({**self.sealed, **recent}.items())]
        self.read_time = now
        return self.latest

    def _added(self, to: Mapping[AgentId, T], one: T) -> T:
        before = to.get(one.agent_id)
        return one if before is None else self.add([before, one])


@dataclass(slots=True)
class _WaveSums:
    """Of one wave as it was admitted."""

    key: tuple[object, ...]
    counts: _Sum[InferenceCount]
    sampled: tuple[AgentId, ...] = ()
    distributions: _Sum[Tally] | None = None
    previous: _Sum[Tally] | None = None


@dataclass(slots=True)
class _Absence:
    """For how long a released agent was out of reach, as far as we saw."""

    release_time: datetime
    seen_time: datetime
    seconds: float = 0.0


class Measurement:
    """Gathers evidence. What it remembers only saves work, but for absences: after a restart an agent may be given more
    time to install than the strategy says, never less."""

    def __init__(self) -> None:
        self._sums: dict[RolloutId, _WaveSums] = {}
        self._absences: dict[RolloutId, dict[AgentId, _Absence]] = {}

    def keep(self, active: Iterable[RolloutId]) -> None:
        """Forget every other rollout."""
        kept = frozenset(active)
        self._sums = {rollout: sums for rollout, sums in self._sums.items() if rollout in kept}
        self._absences = {rollout: found for rollout, found in self._absences.items() if rollout in kept}

    def absent_seconds(self, rollout: Rollout, sight: Sight) -> Mapping[AgentId, float]:
        """For how long each released agent was out of reach since its release. To be asked at every tick."""
        known = self._absences.get(rollout.id, {})
        found: dict[AgentId, _Absence] = {}
        targets, in_reach, now = sight.targets, sight.in_reach, sight.now
        for agent, release_time in sight.released.items():
            if agent not in targets:
                continue
            absence = known.get(agent)
            if absence is None or absence.release_time != release_time:
                absence = _Absence(release_time, max(release_time, sight.listening_since))
            if agent not in in_reach:
                absence.seconds += max(0.0, (now - absence.seen_time).total_seconds())
            absence.seen_time = max(absence.seen_time, now)
            found[agent] = absence
        self._absences[rollout.id] = found
        return {agent: absence.seconds for agent, absence in found.items() if absence.seconds}

    async def gather(self, uow: UnitOfWork, rollout: Rollout, wave: Wave, sight: Sight) -> Evidence:
        """Return the evidence for the gate of `wave`, or for its shadow run while it is SHADOWING."""
        if wave.state is WaveState.SHADOWING:
            assert wave.shadow_time is not None, "a shadowing wave knows since when"
            tallies = await uow.evidence.tally_shadow(
                rollout.model_id, rollout.target_version, received_since=wave.shadow_time
            )
            return pool_shadow(rollout, wave, sight, tallies)
        assert wave.admit_time is not None, "an admitted wave knows since when"
        sums = self._sums_of(rollout, wave, wave.admit_time)

        async def count(since: datetime, before: datetime | None) -> Sequence[InferenceCount]:
            return await uow.evidence.count_inferences(
                rollout.model_id, rollout.target_version, received_since=since, received_before=before
            )

        pace = len(sight.targets) / limits.EVIDENCE_AGENTS_A_SECOND
        counts = await sums.counts.update(count, sight.now, every_seconds=pace)
        distributions, previous = await self._distributions(uow, rollout, wave.admit_time, sums, sight)
        return pool_evidence(rollout, wave, sight, counts, distributions=distributions, previous=previous)

    def _sums_of(self, rollout: Rollout, wave: Wave, admit_time: datetime) -> _WaveSums:
        key = (rollout.uid, wave.index, admit_time)
        sums = self._sums.get(rollout.id)
        if sums is None or sums.key != key:
            sums = self._sums[rollout.id] = _WaveSums(key=key, counts=_Sum(_add_counts, admit_time))
        return sums

    async def _distributions(
        self, uow: UnitOfWork, rollout: Rollout, admit_time: datetime, sums: _WaveSums, sight: Sight
    ) -> tuple[Sequence[Tally], Sequence[Tally]]:
        """What the sampled agents measured of the target version since the admission, and of the one before."""
        policy = rollout.strategy.gate
        if not policy.reads_distributions:
            return (), ()
        sampled = _sample(rollout, sight)
        if sums.sampled != sampled or sums.distributions is None:
            sums.sampled = sampled
            sums.distributions = _Sum(_add_tallies, admit_time)
            sums.previous = _Sum(_add_tallies, rollout.create_time - _BASELINE) if policy.compares else None
        pace = len(sampled) / limits.DISTRIBUTION_AGENTS_A_SECOND

        def tally(version: int) -> Read[Tally]:
            async def read(since: datetime, before: datetime | None) -> Sequence[Tally]:
                return await uow.evidence.tally(
                    rollout.model_id, version, received_since=since, received_before=before, agent_ids=sampled
                )

            return read

        measured = await sums.distributions.update(tally(rollout.target_version), sight.now, every_seconds=pace)
        if sums.previous is None or rollout.previous_version is None:
            return measured, ()
        return measured, await sums.previous.update(tally(rollout.previous_version), sight.now, every_seconds=pace)


def _sample(rollout: Rollout, sight: Sight) -> tuple[AgentId, ...]:
    """The first agents of each device class that were given the version, sorted."""
    taken: dict[str, list[AgentId]] = {}
    releases = (release for wave in rollout.waves for release in wave.releases)
    for release in sorted(releases, key=lambda release: (release.time, release.agent_id)):
        agent = release.agent_id
        record = sight.targets.get(agent)
        if record is not None:
            of_class = taken.setdefault(device_class(record), [])
            if len(of_class) < limits.DISTRIBUTION_AGENTS_MAX:
                of_class.append(agent)
    return tuple(sorted(agent for agents in taken.values() for agent in agents))


def _add_counts(counts: Sequence[InferenceCount]) -> InferenceCount:
    heard = [count.last_receive_time for count in counts if count.last_receive_time is not None]
    return InferenceCount(
        agent_id=counts[0].agent_id,
        inferences=sum(count.inferences for count in counts),
        errors=sum(count.errors for count in counts),
        last_receive_time=max(heard, default=None),
    )


def _add_tallies(tallies: Sequence[Tally]) -> Tally:
    return add_tallies(tallies, agent_id=tallies[0].agent_id)
