"""Admission: which agents are given the version now, which prepare it, and which are taken back.

A wave is admitted as a whole; its agents are released one by one. What holds of every outcome:
- Only a RUNNING rollout releases or tells anybody to prepare; a PAUSED one may take back.
- An agent out of reach is not released: it could not hear, and would swap at a time that nobody chose.
- In no line are more than `max_unavailable_per_line` released agents between versions at once. An agent without a
  `line` label is a line of its own. An agent that has been silent for `offline_wait_seconds` is not waited for.
- In no 60 seconds are more than `agents_per_minute` agents released, and after a pause they come no faster (GCRA).
- At a site the bytes of one fetch are through at `bytes_per_second_per_site` before the next is told to begin. A return
  to the version before is not held up by any of this.
- Where the strategy prefetches, an agent is released once it has the version prepared, has failed to prepare it, or has
  taken too long; the install is judged then.
- An agent that is a target no more loses its release: one that comes back waits its turn as any other, and has all the
  time that an install may take.
- Where a swap window binds an agent it is released while that is open. When the window closes, an agent that has not
  taken the version up is taken back.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from operator import is_
from types import MappingProxyType

from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import Agent, AgentRecord, AgentState, ObservedSlot
from controlplane.domain.progress import Install, Sight, Word, install_state
from controlplane.domain.rollout import Release, Rollout, RolloutState, WaveState, exposed_agents

MINUTE = timedelta(seconds=60)
PACE_SLACK = timedelta(seconds=2)
"""How early a release may come: the ticks that release are a second apart, and times are kept in whole seconds."""

Place = tuple[str, str, str]
"""Site, line, and the agent where it is a line of its own."""


class HoldReason(StrEnum):
    """Why an agent of an admitted wave is not released yet; the first that applies, in this order."""

    ROLLOUT_HELD = "ROLLOUT_HELD"
    OUT_OF_REACH = "OUT_OF_REACH"
    WAITS_FOR_PREFETCH = "WAITS_FOR_PREFETCH"
    WAITS_FOR_WINDOW = "WAITS_FOR_WINDOW"
    LINE_BUSY = "LINE_BUSY"
    PACED = "PACED"
    SITE_BUSY = "SITE_BUSY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why one agent waits."""

    reason: HoldReason
    message: str
    blocks: bool = True
    """The gate of the open wave waits for the agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetView:
    """What admission looks at of one target."""

    agent_id: AgentId
    site: str
    line: str
    in_reach: bool
    silent_seconds: float
    """Since it was last heard, or we began to listen; 0 while it is in reach."""
    install: Install
    prefetched: bool
    """It has the version prepared, or serves it."""
    prefetch_failed: bool
    took_up: bool
    """It has heard what it should run now, or says itself that it was asked for the version."""
    swap_open: bool
    """Its swap window is open, or none binds it."""
    up_to_date: bool = True
    """It has heard what it should run now: what it says of itself is its answer to that."""

    @property
    def place(self) -> Place:
        """Agents of one place are not swapped together."""
        return (self.site, self.line, "" if self.line else self.agent_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What is to be done now, and why what is not done waits."""

    release: tuple[AgentId, ...] = ()
    prefetch: tuple[AgentId, ...] = ()
    withdraw: tuple[AgentId, ...] = ()
    leave: tuple[AgentId, ...] = ()
    """Released before and no target any more: pinned, relabelled, revoked. One that comes back is released anew."""
    holds: Mapping[AgentId, Hold] = field(default_factory=lambda: MappingProxyType({}))
    """Of each agent of an admitted wave that stays unreleased, in the order of the waves."""


def view_target(record: AgentRecord, rollout: Rollout, sight: Sight, *, swap_open: bool = True) -> TargetView:
    """Return what admission looks at of an agent that the deployment holds."""
    in_reach = record.state(now=sight.now, silent_seconds_max=sight.silent_seconds_max) is AgentState.CONNECTED
    observation = record.observation
    heard = max(observation.receive_time, sight.listening_since) if observation is not None else sight.listening_since
    slot = observation.observed.slot(rollout.model_id) if observation is not None else None
    up_to_date = _is_up_to_date(record)
    prefetched = slot is not None and rollout.target_version in {slot.prefetched_version, slot.serving_version}
    return TargetView(
        agent_id=record.agent.id,
        site=record.agent.labels.get("site", ""),
        line=record.agent.labels.get("line", ""),
        in_reach=in_reach,
        silent_seconds=0.0 if in_reach else max(0.0, (sight.now - heard).total_seconds()),
        install=install_state(record, rollout, sight),
        prefetched=prefetched,
        prefetch_failed=up_to_date and not prefetched and slot is not None and bool(slot.prefetch_failure),
        took_up=up_to_date or (slot is not None and _was_asked(slot, rollout, sight)),
        swap_open=swap_open,
        up_to_date=up_to_date,
    )


def _was_asked(slot: ObservedSlot, rollout: Rollout, sight: Sight) -> bool:
    asked = slot.target_version == rollout.target_version and slot.offer == sight.offer
    return asked or slot.serving_version == rollout.target_version


_MadeOf = tuple[Agent, Word, Install, bool, bool]
"""What the view of an agent in reach is made of; the last two say whether it is up to date and its window is open."""


class Views:
    """The views of one rollout's targets. That of an agent in reach stays the same object as long as everything that it
    is made of is: a tick asks for those of a whole fleet, of which few have moved."""

    def __init__(self) -> None:
        self._known: dict[AgentId, tuple[_MadeOf, TargetView]] = {}

    def look(
        self, rollout: Rollout, sight: Sight, swap_open: Callable[[AgentRecord], bool] | None
    ) -> Mapping[AgentId, TargetView]:
        """Return `view_target` of each target; without `swap_open` no swap window binds any."""
        words, installs, in_reach = sight.words(rollout), sight.installs(rollout), sight.in_reach
        known = self._known
        views: dict[AgentId, TargetView] = {}
        for agent_id, record in sight.targets.items():
            is_open = swap_open is None or swap_open(record)
            if agent_id not in in_reach:
                # For how long it was silent changes all the time.
                views[agent_id] = view_target(record, rollout, sight, swap_open=is_open)
                continue
            entry = known.get(agent_id)
            made_of = (record.agent, words[agent_id], installs[agent_id], _is_up_to_date(record), is_open)
            if entry is None or not all(map(is_, entry[0], made_of)):
                entry = known[agent_id] = (made_of, view_target(record, rollout, sight, swap_open=is_open))
            views[agent_id] = entry[1]
        for agent_id in known.keys() - views.keys():
            del known[agent_id]
        return views


def _is_up_to_date(record: AgentRecord) -> bool:
    """Whether the agent has heard what it should run now."""
    return record.observation is not None and record.observation.observed.generation >= record.desired_generation


def admit_targets(
    rollout: Rollout, views: Mapping[AgentId, TargetView], now: datetime, *, artifact_bytes: int = 0
) -> Admission:
    """Return who is released, told to prepare, taken back and no longer counted now. `views` are of the agents that
    still are targets. `artifact_bytes` is the size of the target version, 0 where bytes are not paced."""
    if rollout.state not in {RolloutState.RUNNING, RolloutState.PAUSED}:
        return Admission()
    withdrawn = tuple(agent for agent in _released_in_order(rollout) if agent in views and _must_return(views[agent]))
    round_ = _Round(rollout, views, now, artifact_bytes, frozenset(withdrawn))
    holds: dict[AgentId, Hold] = {}
    released: list[AgentId] = []
    for agent, admit_time, is_open in _unreleased(rollout, views):
        hold = round_.hold(views[agent])
        if hold is None:
            round_.release(views[agent])
            released.append(agent)
        else:
            holds[agent] = _with_blocking(hold, rollout, views[agent], is_open, (now - admit_time).total_seconds())
    return Admission(
        release=tuple(released),
        prefetch=tuple(_to_prefetch(rollout, views, round_, frozenset(released))),
        withdraw=withdrawn,
        leave=tuple(agent for agent in _released_in_order(rollout) if agent not in views),
        holds=holds,
    )


def _released_in_order(rollout: Rollout) -> Iterator[AgentId]:
    return (release.agent_id for wave in rollout.waves for release in wave.releases)


def _must_return(view: TargetView) -> bool:
    return not view.swap_open and not view.took_up and view.install in {Install.WAITING, Install.SILENT}


def _unreleased(rollout: Rollout, views: Mapping[AgentId, TargetView]) -> Iterator[tuple[AgentId, datetime, bool]]:
    """Targets of admitted waves that are not released, when their wave was, and whether its gate is open."""
    for wave in rollout.waves:
        if wave.state in {WaveState.ADMITTED, WaveState.PASSED} and wave.admit_time is not None:
            known = {release.agent_id for release in wave.releases}
            if len(known) < len(wave.agents):
                is_open = wave.state is WaveState.ADMITTED
                yield from (
                    (agent, wave.admit_time, is_open) for agent in wave.agents if agent not in known and agent in views
                )


def _with_blocking(hold: Hold, rollout: Rollout, view: TargetView, is_open: bool, wave_seconds: float) -> Hold:
    waited = view.in_reach or min(view.silent_seconds, wave_seconds) < rollout.strategy.offline_wait_seconds
    return hold if is_open and waited else Hold(reason=hold.reason, message=hold.message, blocks=False)


def _to_prefetch(
    rollout: Rollout, views: Mapping[AgentId, TargetView], round_: "_Round", released: frozenset[AgentId]
) -> Iterator[AgentId]:
    if rollout.state is not RolloutState.RUNNING or not rollout.strategy.prefetches:
        return
    known = {told.agent_id for told in rollout.prefetches} | exposed_agents(rollout) | released
    for wave in rollout.waves:
        for agent in wave.agents:
            view = views.get(agent)
            if view is not None and view.in_reach and agent not in known and round_.site_is_free(view):
                round_.fetch(view)
                yield agent


class _Round:
    """One round of admission: what is free as agents are taken, one after the other."""

    def __init__(
        self,
        rollout: Rollout,
        views: Mapping[AgentId, TargetView],
        now: datetime,
        artifact_bytes: int,
        withdrawn: frozenset[AgentId],
    ) -> None:
        strategy = rollout.strategy
        self._rollout = rollout
        self._now = now
        self._strategy = strategy
        self._prefetches = {told.agent_id: told.time for told in rollout.prefetches}
        self._busy = Counter(
            view.place
            for agent in _released_in_order(rollout)
            if (view := views.get(agent)) is not None and agent not in withdrawn and self._is_between(view)
        )
        self._pace = _Pace(rollout, now)
        paced = strategy.bytes_per_second_per_site > 0 and artifact_bytes > 0
        self._fetch_time = timedelta(seconds=artifact_bytes / strategy.bytes_per_second_per_site) if paced else None
        self._site_free = self._site_times(views) if self._fetch_time is not None else {}

    def _is_between(self, view: TargetView) -> bool:
        """Whether a released agent may be between versions."""
        if view.install not in {Install.WAITING, Install.SILENT}:
            return False
        return view.in_reach or view.silent_seconds < self._strategy.offline_wait_seconds

    def _site_times(self, views: Mapping[AgentId, TargetView]) -> dict[str, datetime]:
        """When the bytes of those that were told to fetch are through, by site."""
        fetches = sorted(self._fetches(), key=lambda told: told.time)
        free: dict[str, datetime] = {}
        for told in fetches:
            if told.agent_id in views:
                self._occupy(free, views[told.agent_id].site, told.time)
        return free

    def _fetches(self) -> Iterator[Release]:
        yield from self._rollout.prefetches
        for wave in self._rollout.waves:
            yield from (told for told in wave.releases if told.agent_id not in self._prefetches)

    def _occupy(self, free: dict[str, datetime], site: str, time: datetime) -> None:
        assert self._fetch_time is not None, "bytes are paced"
        free[site] = max(free.get(site, time), time) + self._fetch_time

    def hold(self, view: TargetView) -> Hold | None:
        """Why the agent is not released now; None when nothing speaks against it."""
        if self._rollout.state is not RolloutState.RUNNING:
            return _HELD
        if not view.in_reach:
            return _OUT_OF_REACH
        # One that was taken back and still serves the version is about to swap back: it waits as any other.
        if view.install is Install.INSTALLED and view.up_to_date:
            return None if self._pace.is_free() else self._pace.hold
        if self._waits_for_prefetch(view):
            return _PREPARES
        if not view.swap_open:
            return _CLOSED
        limit = self._strategy.max_unavailable_per_line
        if limit and self._busy[view.place] >= limit:
            return _line_busy(view, limit)
        if not self._pace.is_free():
            return self._pace.hold
        return None if self._brings_no_bytes(view) or self.site_is_free(view) else _site_busy(view)

    def _waits_for_prefetch(self, view: TargetView) -> bool:
        if not self._strategy.prefetches or view.prefetched or view.prefetch_failed:
            return False
        told = self._prefetches.get(view.agent_id)
        return told is None or (self._now - told).total_seconds() < self._strategy.install_seconds_max

    def _brings_no_bytes(self, view: TargetView) -> bool:
        return view.prefetched or view.agent_id in self._prefetches

    def site_is_free(self, view: TargetView) -> bool:
        """Whether the bytes of the fetch before are through."""
        return view.prefetched or view.site not in self._site_free or self._site_free[view.site] <= self._now

    def fetch(self, view: TargetView) -> None:
        """The agent begins to fetch."""
        if self._fetch_time is not None and not view.prefetched:
            self._occupy(self._site_free, view.site, self._now)

    def release(self, view: TargetView) -> None:
        """The agent is given the version."""
        self._pace.take()
        if view.install is not Install.INSTALLED:
            self._busy[view.place] += 1
        if not self._brings_no_bytes(view):
            self.fetch(view)


class _Pace:
    """Agents a minute: GCRA over the stored times of releases, and never more than the number in any minute."""

    def __init__(self, rollout: Rollout, now: datetime) -> None:
        self._limit = rollout.strategy.agents_per_minute
        self._now = now
        self._taken = 0
        self.hold = Hold(
            reason=HoldReason.PACED, message=f"waits for its turn: {self._limit} agents a minute are released"
        )
        if self._limit:
            self._interval = MINUTE / self._limit
            recent = sorted(
                release.time for wave in rollout.waves for release in wave.releases if release.time + MINUTE > now
            )
            self._left = self._limit - len(recent)
            self._due = _due_time(recent, self._interval)

    def is_free(self) -> bool:
        if not self._limit:
            return True
        return self._left > 0 and (self._due is None or self._due - PACE_SLACK <= self._now)

    def take(self) -> None:
        if self._limit:
            self._left -= 1
            self._due = max(self._due or self._now, self._now) + self._interval


def _due_time(times: Sequence[datetime], interval: timedelta) -> datetime | None:
    """When the release after these is due at an even pace; None where none were."""
    due: datetime | None = None
    for time in times:
        due = max(due or time, time) + interval
    return due


_HELD = Hold(reason=HoldReason.ROLLOUT_HELD, message="waits for the rollout, which releases nobody now")
_OUT_OF_REACH = Hold(reason=HoldReason.OUT_OF_REACH, message="is out of reach, and released when it is heard again")
_PREPARES = Hold(reason=HoldReason.WAITS_FOR_PREFETCH, message="prepares the version first")
_CLOSED = Hold(reason=HoldReason.WAITS_FOR_WINDOW, message="waits for its swap window to open")


def _line_busy(view: TargetView, limit: int) -> Hold:
    place = f"line {view.line}" + (f" at {view.site}" if view.site else "") if view.line else "the agent"
    message = f"waits for {place}: at most {limit} of its agents may be between versions at once"
    return Hold(reason=HoldReason.LINE_BUSY, message=message)


def _site_busy(view: TargetView) -> Hold:
    where = f"at {view.site}" if view.site else "without a site"
    message = f"waits for the bytes of the agents before it {where}"
    return Hold(reason=HoldReason.SITE_BUSY, message=message)
