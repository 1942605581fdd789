"""Estimates: when the waves of a plan would be admitted and pass, if nothing fails.

They are the earliest times: everybody in reach stays so, approvals come at once, no inference fails, and evidence comes
as fast as it came in the last hour. Where that cannot be said (no traffic is known, a window never opens) the time is
None, and so are those of the waves behind it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane import limits
from controlplane.app.windows import Windows
from controlplane.domain.ids import AgentId
from controlplane.domain.interval import more_needed
from controlplane.domain.rollout import RolloutStrategy, Wave, WindowScope


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is known of one target."""

    agent_id: AgentId
    labels: Mapping[str, str]
    device_class: str
    fetch_bytes: int
    connected: bool
    inferences_per_second: float
    """In the last hour."""

    @property
    def place(self) -> tuple[str, str, str]:
        """Site and line; an agent without a line is one of its own."""
        line = self.labels.get("line", "")
        return (self.labels.get("site", ""), line, "" if line else self.agent_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveEstimate:
    """When a wave would be admitted, and when its gate would pass."""

    admit_time: datetime | None = None
    pass_time: datetime | None = None


def estimate(
    strategy: RolloutStrategy,
    waves: Sequence[Wave],
    candidates: Mapping[AgentId, Candidate],
    windows: Windows,
    now: datetime,
) -> tuple[WaveEstimate, ...]:
    """Return the earliest times of each wave of a rollout that starts now."""
    schedule = _Schedule(strategy, candidates, windows, now)
    estimates: list[WaveEstimate] = []
    time: datetime | None = now
    for wave in waves:
        members = [candidates[agent] for agent in wave.agents]
        admit_time = None if time is None else schedule.admit(wave, members, time)
        time = None if admit_time is None else schedule.passes(members, admit_time)
        estimates.append(WaveEstimate(admit_time=admit_time, pass_time=time))
    return tuple(estimates)


class _Schedule:
    """What is taken as the waves go by: turns of the pace, bytes of the sites, places at the lines."""

    def __init__(
        self, strategy: RolloutStrategy, candidates: Mapping[AgentId, Candidate], windows: Windows, now: datetime
    ) -> None:
        self._strategy = strategy
        self._windows = windows
        self._now = now
        self._turn = now
        self._site_free: dict[str, datetime] = defaultdict(lambda: now)
        self._places: dict[tuple[str, str, str], list[datetime]] = defaultdict(list)
        self._prepared: dict[AgentId, datetime] = {}
        self._exposed: list[Candidate] = []
        if strategy.prefetches:
            for candidate in candidates.values():
                if candidate.connected:
                    self._prepared[candidate.agent_id] = self._fetch(candidate, now)

    def admit(self, wave: Wave, members: Sequence[Candidate], time: datetime) -> datetime | None:
        """When the wave is admitted, once everything before it has passed at `time`."""
        shadow = self._strategy.shadow
        if wave.index == 0 and shadow is not None:
            rate = sum(member.inferences_per_second for member in members)
            if rate <= 0:
                return None
            time += timedelta(seconds=shadow.min_comparisons / rate)
        return self._all_open(WindowScope.START, members, time)

    def _all_open(self, scope: WindowScope, members: Sequence[Candidate], time: datetime) -> datetime | None:
        """The first time from `time` on when the windows of all members are open together."""
        for _ in range(limits.PLAN_OPENINGS_MAX):
            opens = [self._windows.next_open(scope, member.labels, time) for member in members]
            known = [opening for opening in opens if opening is not None]
            if len(known) < len(opens):
                return None
            latest = max(known, default=time)
            if latest == time:
                return time
            time = latest
        return None

    def passes(self, members: Sequence[Candidate], admit_time: datetime) -> datetime | None:
        """When the gate of a wave that was admitted then passes; takes what its agents take."""
        installed = [self._install(member, admit_time) for member in members if member.connected]
        done = [time for time in installed if time is not None]
        if len(done) < len(installed):
            return None
        end = max(done, default=admit_time)
        if len(installed) < len(members):
            # Nobody waits longer for who is out of reach; what they do later is not estimated.
            end = max(end, admit_time + timedelta(seconds=self._strategy.offline_wait_seconds))
        self._exposed += [member for member in members if member.connected]
        seconds = self._evidence_seconds()
        if seconds is None or not self._exposed:
            return None
        return max(end + timedelta(seconds=seconds), admit_time + timedelta(seconds=self._strategy.bake_seconds))

    def _install(self, member: Candidate, admit_time: datetime) -> datetime | None:
        strategy = self._strategy
        time = max(admit_time, self._prepared.get(member.agent_id, admit_time), self._turn)
        place = self._places[member.place]
        if strategy.max_unavailable_per_line and len(place) >= strategy.max_unavailable_per_line:
            time = max(time, place.pop(0))
        opens = self._windows.next_open(WindowScope.SWAP, member.labels, time)
        if opens is None:
            return None
        if strategy.agents_per_minute:
            self._turn = max(opens, self._turn) + timedelta(seconds=60 / strategy.agents_per_minute)
        prepared = member.agent_id in self._prepared
        ready = opens if prepared else self._fetch(member, opens)
        done = ready + timedelta(seconds=limits.PLAN_SWAP_SECONDS)
        place.append(done)
        place.sort()
        return done

    def _fetch(self, member: Candidate, time: datetime) -> datetime:
        """When the version is fetched and prepared by an agent that may begin at `time`."""
        rate = limits.PLAN_FETCH_BYTES_PER_SECOND
        if (cap := self._strategy.bytes_per_second_per_site) > 0:
            site, rate = member.labels.get("site", ""), min(rate, cap)
            time = max(time, self._site_free[site])
            self._site_free[site] = time + timedelta(seconds=member.fetch_bytes / cap)
        return time + timedelta(seconds=member.fetch_bytes / rate + limits.PLAN_PREPARE_SECONDS)

    def _evidence_seconds(self) -> float | None:
        """How long the agents that have the version by then take for what the gate asks; None without traffic."""
        gate = self._strategy.gate
        if gate.min_inferences == 0:
            return 0.0
        rates: dict[str, float] = defaultdict(float)
        for member in self._exposed:
            rates[member.device_class] += member.inferences_per_second
        if not rates or min(rates.values()) <= 0:
            return None
        shown = more_needed(0, 0, limit=gate.max_errors_per_mille / 1000, miss=gate.miss)
        return max(gate.min_inferences / sum(rates.values()), *(shown / rate for rate in rates.values()))
