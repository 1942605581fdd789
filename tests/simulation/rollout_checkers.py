"""What must hold of each rollout after each event; written from the rules as those of `checkers`."""

from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise

from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import AgentRecord, SlotState
from controlplane.domain.rollout import (
    ApprovalScope,
    MaintenanceWindow,
    Release,
    Rollout,
    RolloutState,
    WaveState,
    WindowScope,
)
from controlplane.domain.selector import facts, parse_selector
from tests.simulation.scenario import ARTIFACT_BYTES
from tests.simulation.snapshot import ACTIVE, Snapshot, Truth, ViolationError

TICK_SECONDS = 2.0
LATE_SECONDS = 12.0
"""A tick, a delay in each direction and a sync: so late may an agent act on what was true."""
AGAIN_SECONDS = 60.0
"""So late does a box hear again what it was given before, on a bad link: after its disk was restored, after a retry."""
CLOSED = frozenset({WaveState.PENDING, WaveState.SHADOWING})


def check_rollout(before: Rollout | None, after: Rollout, snapshot: Snapshot, truth: Truth) -> None:
    """Check one rollout, and how it changed; `before` is None where it is new."""
    check_swaps(after, snapshot, truth)
    if before is after:
        return
    if before is not None:
        note_releases(before, truth)
    check_waves(after)
    check_pace(after)
    if before is None:
        before_waves = after.waves[:0]
    else:
        before_waves = before.waves
        check_membership(before, after)
        check_admission(before, after, snapshot, truth)
        check_ended(before, after)
    given = {release for wave in before_waves for release in wave.releases}
    fresh = [release for wave in after.waves for release in wave.releases if release not in given]
    check_releases(after, fresh, snapshot)
    check_unavailable(after, fresh, snapshot)
    check_bytes(before, after, snapshot)
    note_releases(after, truth)


def note_releases(rollout: Rollout, truth: Truth) -> None:
    """Remember to whom the version was given by now."""
    given = truth.released.setdefault(rollout.id, set())
    given.update(release.agent_id for wave in rollout.waves for release in wave.releases)


def check_waves(rollout: Rollout) -> None:
    """Behind the first wave that did not pass, none is admitted; each target is in one wave."""
    open_seen = False
    for wave in rollout.waves:
        if open_seen and wave.state is not WaveState.PENDING:
            raise ViolationError(f"waves: {rollout.id} admitted wave {wave.index} behind one that did not pass")
        open_seen = open_seen or wave.state is not WaveState.PASSED
    agents = [agent for wave in rollout.waves for agent in wave.agents]
    if len(agents) != len(set(agents)):
        raise ViolationError(f"waves: {rollout.id} has a target in two waves")


def check_membership(before: Rollout, after: Rollout) -> None:
    """Nobody moves to an earlier wave; who joins late is in the last."""
    if not before.waves:
        return
    was = {agent: wave.index for wave in before.waves for agent in wave.agents}
    for wave in after.waves:
        for agent in wave.agents:
            least = was.get(agent, len(after.waves) - 1)
            if wave.index < least:
                raise ViolationError(
                    f"membership: {agent} is in wave {wave.index} of {after.id}, and belongs to {least}"
                )


def check_admission(before: Rollout, after: Rollout, snapshot: Snapshot, truth: Truth) -> None:
    """A wave is admitted one at a time, while running, after the version truly served and inferred, was approved where
    that is asked for, and while the window of its agents is open."""
    admitted = [
        new
        for old, new in zip(before.waves, after.waves, strict=False)
        if old.state in CLOSED and new.state in {WaveState.ADMITTED, WaveState.PASSED}
    ]
    if len(admitted) > 1 or (admitted and before.state not in {RolloutState.RUNNING, RolloutState.QUEUED}):
        raise ViolationError(f"admission: {after.id} went from {before.state} and admitted {len(admitted)} waves")
    succeeded = after.state is RolloutState.SUCCEEDED and before.state is not RolloutState.SUCCEEDED
    if (admitted and admitted[0].index > 0) or succeeded:
        key = (after.model_id, after.target_version)
        if not truth.released.get(after.id, set()) & truth.installed.get(key, set()):
            raise ViolationError(f"admission: {after.id} went on, and no target ever served version {key[1]}")
        if truth.inferences.get(key, 0) < after.strategy.gate.min_inferences:
            raise ViolationError(f"admission: {after.id} went on with too few inferences by version {key[1]}")
    strategy = after.strategy
    for wave in admitted:
        asked = strategy.approval is ApprovalScope.EVERY_WAVE or (
            strategy.approval is ApprovalScope.AFTER_CANARY and wave.index > 0
        )
        if asked and not wave.approver:
            raise ViolationError(f"approval: {after.id} admitted wave {wave.index} without one")
        if asked and strategy.second_person and wave.approver == after.creator:
            raise ViolationError(f"second person: {after.creator} approved wave {wave.index} of their own {after.id}")
        targets = [agent for agent in wave.agents if _is_target(after, agent, snapshot)]
        closed = [agent for agent in targets if not _is_open(after, WindowScope.START, agent, snapshot)]
        if closed:
            raise ViolationError(f"start window: {after.id} admitted wave {wave.index} while {closed} are closed")


def check_releases(after: Rollout, fresh: list[Release], snapshot: Snapshot) -> None:
    """An agent is released while its swap window is open, with the version prepared where the strategy says so, and
    only while the rollout runs."""
    if fresh and after.state not in {RolloutState.RUNNING, RolloutState.SUCCEEDED}:
        raise ViolationError(f"release: {after.id} is {after.state} and releases {len(fresh)}")
    bound = any(window.scope is WindowScope.SWAP for window in after.strategy.windows)
    for release in fresh:
        if _serves(after, snapshot.agents[release.agent_id]):
            continue
        if not _is_open(after, WindowScope.SWAP, release.agent_id, snapshot):
            raise ViolationError(f"swap window: {after.id} releases {release.agent_id} while it is closed")
        if bound and not _has_prepared(after, release.agent_id, snapshot):
            raise ViolationError(f"swap window: {after.id} releases {release.agent_id}, which has prepared nothing")


def check_swaps(rollout: Rollout, snapshot: Snapshot, truth: Truth) -> None:
    """What an agent begins for a rollout, it begins within its window, but for what was on its way, was told while no
    controller had its round, or is tried again because an operator asked for it now."""
    for swap in truth.swaps:
        moved = rollout.model_id == swap.model_id and rollout.target_version == swap.version
        released = any(release.agent_id == swap.agent_id for wave in rollout.waves for release in wave.releases)
        since = (truth.restored.get(swap.agent_id), truth.retried.get(rollout.deployment_id))
        again = any(time is not None and swap.time - time < timedelta(seconds=AGAIN_SECONDS) for time in since)
        if again or not (moved and released and rollout.state in ACTIVE):
            continue
        if not _is_target(rollout, swap.agent_id, snapshot):
            continue  # relabelled: another deployment asks for the same version, and no window of this one binds it
        first = min(truth.tick_time or swap.time, swap.time) - timedelta(seconds=LATE_SECONDS)
        seconds = int((swap.time - first).total_seconds())
        times = [first + timedelta(seconds=second) for second in range(seconds + 1)]
        if not any(_is_open(rollout, WindowScope.SWAP, swap.agent_id, snapshot, time) for time in times):
            raise ViolationError(f"swap window: {swap.agent_id} swaps for {rollout.id} while it is closed")


def check_unavailable(after: Rollout, fresh: list[Release], snapshot: Snapshot) -> None:
    """A release never leaves more of one line between versions than the strategy allows."""
    most = after.strategy.max_unavailable_per_line
    if not most or not fresh:
        return
    lines: dict[tuple[str, ...], list[AgentId]] = defaultdict(list)
    for wave in after.waves:
        for release in wave.releases:
            if _is_between(after, release, snapshot):
                lines[_line(snapshot.agents[release.agent_id])].append(release.agent_id)
    for line in {_line(snapshot.agents[release.agent_id]) for release in fresh}:
        if len(lines[line]) > most:
            raise ViolationError(
                f"unavailable: {after.id} has {lines[line]} of {line} between versions, allowed {most}"
            )


def check_pace(after: Rollout) -> None:
    """No more agents in any time than the pace allows, but for what the length of a tick rounds up; no more bytes of a
    site either."""
    rate = after.strategy.agents_per_minute
    times = sorted(release.time for wave in after.waves for release in wave.releases)
    if rate:
        for first, start in enumerate(times):
            for last in range(first + 1, len(times)):
                seconds = (times[last] - start).total_seconds() + TICK_SECONDS + 1.0
                if last - first > seconds * rate / 60.0 + 1.0:
                    raise ViolationError(f"pace: {after.id} released {last - first + 1} agents in {seconds - 3.0} s")


def check_bytes(before: Rollout | None, after: Rollout, snapshot: Snapshot) -> None:
    """The agents of one site begin to fetch one after the other, each when the bytes before it are through."""
    rate = after.strategy.bytes_per_second_per_site
    if not rate:
        return
    was = set(_fetches(before)) if before is not None else set()
    sites: dict[str, list[datetime]] = defaultdict(list)
    new: set[tuple[str, datetime]] = set()
    for fetch in _fetches(after):
        record = snapshot.agents[fetch.agent_id]
        site = record.agent.labels.get("site", "")
        if fetch in was or not _has(after, record):
            sites[site].append(fetch.time)
        if fetch not in was:
            new.add((site, fetch.time))
    for site, times in sites.items():
        for earlier, later in pairwise(sorted(times)):
            near = (later - earlier).total_seconds() < ARTIFACT_BYTES / rate - TICK_SECONDS - 1.0
            if near and (site, later) in new:
                raise ViolationError(f"bytes: {after.id} lets two agents of {site} fetch at once")


def _fetches(rollout: Rollout) -> list[Release]:
    prepared = {told.agent_id for told in rollout.prefetches}
    return [*rollout.prefetches, *(r for wave in rollout.waves for r in wave.releases if r.agent_id not in prepared)]


def check_ended(before: Rollout, after: Rollout) -> None:
    """What has ended stays as it is, but that a success may be rolled back by hand."""
    undone = before.state is RolloutState.SUCCEEDED and after.reason == "ROLLED_BACK_BY_OPERATOR"
    over = before.state not in ACTIVE and before.state is not RolloutState.QUEUED
    if over and before != after and not undone:
        raise ViolationError(f"ended: {after.id} was {before.state} and became {after.state}")


def _line(record: AgentRecord) -> tuple[str, ...]:
    labels = record.agent.labels
    return (labels.get("site", ""), labels["line"]) if "line" in labels else (record.agent.id,)


def _is_between(rollout: Rollout, release: Release, snapshot: Snapshot) -> bool:
    """Whether a released target has, by its last words, neither installed the version nor failed to."""
    record, deployment = snapshot.agents.get(release.agent_id), snapshot.holder(release.agent_id, rollout.model_id)
    if record is None or record.observation is None or deployment is None:
        return False
    if not _is_target(rollout, release.agent_id, snapshot):
        return False
    strategy, observation = rollout.strategy, record.observation
    slot = observation.observed.slot(rollout.model_id)
    done = slot is not None and (
        (slot.state is SlotState.SERVING and slot.serving_version == rollout.target_version)
        or (
            slot.state is SlotState.FAILED
            and slot.target_version == rollout.target_version
            and slot.offer == deployment.offer
        )
    )
    silent_seconds = (snapshot.now - observation.receive_time).total_seconds()
    tried_seconds = (snapshot.now - release.time).total_seconds()
    return not done and silent_seconds < strategy.offline_wait_seconds and tried_seconds < strategy.install_seconds_max


def _serves(rollout: Rollout, record: AgentRecord) -> bool:
    slot = record.observation.observed.slot(rollout.model_id) if record.observation is not None else None
    return slot is not None and slot.serving_version == rollout.target_version


def _has(rollout: Rollout, record: AgentRecord) -> bool:
    """Whether it has the bytes of the version already."""
    slot = record.observation.observed.slot(rollout.model_id) if record.observation is not None else None
    return slot is not None and rollout.target_version in {slot.serving_version, slot.prefetched_version}


def _is_target(rollout: Rollout, agent_id: AgentId, snapshot: Snapshot) -> bool:
    record, deployment = snapshot.agents.get(agent_id), snapshot.holder(agent_id, rollout.model_id)
    pinned = (agent_id, rollout.model_id) in snapshot.pins
    held = deployment is not None and deployment.id == rollout.deployment_id
    return record is not None and not record.agent.revoked and not pinned and held


def _has_prepared(rollout: Rollout, agent_id: AgentId, snapshot: Snapshot) -> bool:
    """Whether it said so, or that it cannot, or had all the time that an install may take."""
    observation = snapshot.agents[agent_id].observation
    slot = observation.observed.slot(rollout.model_id) if observation is not None else None
    if slot is not None and (slot.prefetched_version == rollout.target_version or slot.prefetch_failure):
        return True
    told = next((told.time for told in rollout.prefetches if told.agent_id == agent_id), None)
    patience = rollout.strategy.install_seconds_max
    return told is not None and (snapshot.now - told).total_seconds() >= patience


def _is_open(
    rollout: Rollout, scope: WindowScope, agent_id: AgentId, snapshot: Snapshot, time: datetime | None = None
) -> bool:
    """Whether a window binds the agent and all that do are closed, for the windows that the simulation draws: open in
    the first `duration_seconds` of every `n` minutes, cron "*/n * * * *" in UTC."""
    record = snapshot.agents.get(agent_id)
    if record is None:
        return True
    labels, now = facts(record), time or snapshot.now
    bound = [
        window
        for window in rollout.strategy.windows
        if window.scope is scope
        and (not window.selector or parse_selector(window.selector, field="selector").matches(labels))
    ]
    return not bound or any(_is_open_at(window, now) for window in bound)


def _is_open_at(window: MaintenanceWindow, now: datetime) -> bool:
    minutes = int(window.cron.split()[0].removeprefix("*/"))
    return (now.minute % minutes) * 60 + now.second + now.microsecond / 1e6 < window.duration_seconds
