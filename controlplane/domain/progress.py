"""Progress: what the fleet's last words say about a rollout. The order in which they came does not matter.

- Installed: in reach, and the slot serves the target version. Silence is never success.
- Failed: the agent says that the target version failed under the deployment's present offer, or that it refuses its
  present desired state as a whole, in reach or not; or it was in reach for `install_seconds_max` since its release and
  has not installed.
- Away: silent for longer than `offline_wait_seconds`, counted from its release or from when we began to listen where
  that is later. Nobody waits for it, and it never counts as installed.
- Missing on its way back: silent for longer than it may be, and we have listened for as long. After a restart of the
  controller everybody is silent, and a rollback does not end on that.
- Back: in reach, has taken up its present desired state, and serves the version before (or nothing, where
  there was none).
- An agent that is not held by the deployment any more, or is revoked, counts for nothing.

A tick asks for all of this of each agent of a large fleet. So what slots say is kept for as long as they are the same
object, and what holds of each agent at one moment is found once a sight.
"""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from controlplane.domain.device_class import device_class
from controlplane.domain.distribution import add_shadow_tallies, add_tallies
from controlplane.domain.evidence import GroupEvidence, InferenceCount, ShadowEvidence, ShadowTally, Tally
from controlplane.domain.gate import Evidence
from controlplane.domain.ids import AgentId, ModelId
from controlplane.domain.inventory import (
    AgentRecord,
    AgentState,
    ObservedShadow,
    ObservedSlot,
    ShadowState,
    SlotState,
)
from controlplane.domain.rollout import Progress, Rollout, RolloutState, Wave, exposed_agents


class Install(StrEnum):
    INSTALLED = "INSTALLED"
    FAILED = "FAILED"
    WAITING = "WAITING"
    SILENT = "SILENT"


class Return(StrEnum):
    BACK = "BACK"
    STUCK = "STUCK"
    RETURNING = "RETURNING"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, eq=False)
class Word:
    """What an agent's slots say of a version under an offer, whenever that is asked."""

    slots: tuple[ObservedSlot, ...]
    slot: ObservedSlot | None
    """The one of the version's model."""
    failed: bool
    serves: bool
    took_up: bool
    """It was about to run the version, or ran it."""


class Hearing:
    """The words of one rollout's targets. A word stays as long as the slots are the same object and the version and
    the offer are the same: most of what a fleet says is what it has said before."""

    def __init__(self) -> None:
        self._about: tuple[ModelId, int, int] | None = None
        self._words: Mapping[AgentId, Word] = {}

    def words(self, targets: Mapping[AgentId, AgentRecord], rollout: Rollout, offer: int) -> Mapping[AgentId, Word]:
        """What each target says of the rollout's version. Words of others are forgotten."""
        about = (rollout.model_id, rollout.target_version, offer)
        known = self._words if self._about == about else {}
        words: dict[AgentId, Word] = {}
        for agent_id, record in targets.items():
            observation = record.observation
            slots = observation.observed.slots if observation is not None else ()
            word = known.get(agent_id)
            words[agent_id] = word if word is not None and word.slots is slots else _word(slots, *about)
        self._about, self._words = about, words
        return words


def _word(slots: tuple[ObservedSlot, ...], model_id: ModelId, version: int, offer: int) -> Word:
    # A plain loop: a fleet has a hundred thousand slots.
    for slot in slots:
        if slot.slot == model_id:
            asked = slot.target_version == version and slot.offer == offer
            serves = slot.serving_version == version
            return Word(
                slots,
                slot,
                asked and slot.state is SlotState.FAILED,
                serves and slot.state is SlotState.SERVING,
                asked or serves,
            )
    return Word(slots, None, False, False, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The agents that the deployment holds, and how to judge what they said."""

    targets: Mapping[AgentId, AgentRecord]
    offer: int
    """The deployment's."""
    now: datetime
    silent_seconds_max: float
    listening_since: datetime
    """When this controller began to listen; before that, silence says nothing of an agent."""
    kept_versions: Mapping[AgentId, int] = field(default_factory=lambda: MappingProxyType({}))
    """The deployment's: agents that a rollback returns to another version than the others."""
    released: Mapping[AgentId, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """The rollout's `release_times`; an install is not timed where it is left out."""
    absent_seconds: Mapping[AgentId, float] = field(default_factory=lambda: MappingProxyType({}))
    """For how long agents were out of reach since their release, as far as we know: an install is not timed then."""
    hearing: Hearing = field(default_factory=Hearing, repr=False, compare=False)
    """What was heard before of the same targets."""
    _found: dict[object, Any] = field(init=False, default_factory=dict, repr=False, compare=False)
    """What follows from the rest, by what was asked."""

    @property
    def in_reach(self) -> frozenset[AgentId]:
        """The targets in reach."""
        found: frozenset[AgentId] | None = self._found.get("in_reach")
        if found is None:
            targets = self.targets.items()
            found = self._found["in_reach"] = frozenset(agent for agent, record in targets if _in_reach(record, self))
        return found

    def words(self, rollout: Rollout) -> Mapping[AgentId, Word]:
        """What each target says of the rollout's version."""
        key = ("words", rollout.model_id, rollout.target_version)
        found: Mapping[AgentId, Word] | None = self._found.get(key)
        if found is None:
            found = self._found[key] = self.hearing.words(self.targets, rollout, self.offer)
        return found

    def installs(self, rollout: Rollout) -> Mapping[AgentId, Install]:
        """`install_state` of each target."""
        key = ("installs", rollout.model_id, rollout.target_version, rollout.strategy.install_seconds_max)
        found: Mapping[AgentId, Install] | None = self._found.get(key)
        if found is None:
            words, in_reach = self.words(rollout), self.in_reach
            found = self._found[key] = {
                agent: _install(record, words[agent], rollout, self, in_reach=agent in in_reach)
                for agent, record in self.targets.items()
            }
        return found

    def with_absences(self, absent_seconds: Mapping[AgentId, float]) -> "Sight":
        """The same sight with these."""
        sight = replace(self, absent_seconds=absent_seconds)
        # Who is in reach has nothing to do with it.
        sight._found["in_reach"] = self.in_reach  # noqa: SLF001 - its own
        return sight


def _slot(record: AgentRecord, rollout: Rollout) -> ObservedSlot | None:
    return record.observation.observed.slot(rollout.model_id) if record.observation is not None else None


def _in_reach(record: AgentRecord, sight: Sight) -> bool:
    return record.state(now=sight.now, silent_seconds_max=sight.silent_seconds_max) is AgentState.CONNECTED


def _refuses(record: AgentRecord) -> bool:
    """Whether the agent cannot take up what it should run now."""
    if record.observation is None:
        return False
    observed = record.observation.observed
    return bool(observed.nack_message) and observed.nack_generation == record.desired_generation


def install_state(record: AgentRecord, rollout: Rollout, sight: Sight) -> Install:
    """Return how far an agent that was offered the target version has come."""
    slots = record.observation.observed.slots if record.observation is not None else ()
    word = _word(slots, rollout.model_id, rollout.target_version, sight.offer)
    return _install(record, word, rollout, sight, in_reach=_in_reach(record, sight))


def _install(record: AgentRecord, word: Word, rollout: Rollout, sight: Sight, *, in_reach: bool) -> Install:
    if word.failed or _refuses(record):
        return Install.FAILED
    if not in_reach:
        return Install.SILENT
    if word.serves:
        return Install.INSTALLED
    return Install.FAILED if _took_too_long(record, rollout, sight) else Install.WAITING


def _took_too_long(record: AgentRecord, rollout: Rollout, sight: Sight) -> bool:
    """Whether a released agent has been in reach for as long as an install may take."""
    release_time = sight.released.get(record.agent.id)
    if release_time is None:
        return False
    waited = (sight.now - max(release_time, sight.listening_since)).total_seconds()
    return waited - sight.absent_seconds.get(record.agent.id, 0.0) > rollout.strategy.install_seconds_max


def return_state(record: AgentRecord, rollout: Rollout, sight: Sight) -> Return:
    """Return how far an exposed agent is on its way back to the version before."""
    if not _in_reach(record, sight) or record.observation is None:
        listened_seconds = (sight.now - sight.listening_since).total_seconds()
        return Return.MISSING if listened_seconds > sight.silent_seconds_max else Return.RETURNING
    if _refuses(record):
        return Return.STUCK
    if record.observation.observed.generation < record.desired_generation:
        return Return.RETURNING
    slot = _slot(record, rollout)
    before = sight.kept_versions.get(record.agent.id, rollout.previous_version)
    if (slot.serving_version if slot is not None else 0) == (before or 0):
        return Return.BACK
    if slot is not None and slot.state is SlotState.FAILED and slot.target_version == before:
        return Return.STUCK
    return Return.RETURNING


def observe(rollout: Rollout, sight: Sight) -> Progress:
    """Return how far the rollout's targets have come: on their way back while it is ROLLING_BACK, to the target version
    otherwise."""
    exposed = _exposed_targets(rollout, sight)
    if rollout.state is RolloutState.ROLLING_BACK:
        returns = [(agent, return_state(sight.targets[agent], rollout, sight)) for agent in exposed]
        return Progress(
            returning=tuple(agent for agent, state in returns if state is Return.RETURNING),
            stuck=tuple(agent for agent, state in returns if state is Return.STUCK),
            missing=tuple(agent for agent, state in returns if state is Return.MISSING),
        )
    installs = sight.installs(rollout)
    return Progress(
        waiting=tuple(agent for agent in exposed if installs[agent] is Install.WAITING),
        silent=tuple(agent for agent in exposed if installs[agent] is Install.SILENT),
    )


def _exposed_targets(rollout: Rollout, sight: Sight) -> Sequence[AgentId]:
    """Those of the targets that were given the version, sorted."""
    exposed = exposed_agents(rollout)
    return sorted(agent for agent in sight.targets if agent in exposed)


def release_times(rollout: Rollout) -> Mapping[AgentId, datetime]:
    """Return when each agent was given the target version; of one released anew, the last time."""
    return {release.agent_id: release.time for wave in rollout.waves for release in wave.releases}


def _silent_seconds(record: AgentRecord, sight: Sight) -> float:
    """For how long it is missed: since it was last heard, was released or we began to listen; 0 while in reach."""
    if _in_reach(record, sight):
        return 0.0
    since = max(sight.listening_since, sight.released.get(record.agent.id, sight.listening_since))
    if record.observation is not None:
        since = max(since, record.observation.receive_time)
    return max(0.0, (sight.now - since).total_seconds())


def _is_away(record: AgentRecord, rollout: Rollout, sight: Sight) -> bool:
    return _silent_seconds(record, sight) > rollout.strategy.offline_wait_seconds


def pool_evidence(
    rollout: Rollout,
    wave: Wave,
    sight: Sight,
    counts: Iterable[InferenceCount],
    *,
    distributions: Iterable[Tally] = (),
    previous: Iterable[Tally] = (),
) -> Evidence:
    """Return the evidence for the gate of `wave`, which is ADMITTED.

    `counts` are inferences by the target version received since the wave's admission, of any agents;
    those of agents that were not given it through this rollout are left out. `distributions` are what some of those
    agents measured since then, `previous` what they measured of the version before.
    """
    assert wave.admit_time is not None, "an admitted wave knows since when"
    released = _exposed_targets(rollout, sight)
    words, found = sight.words(rollout), sight.installs(rollout)
    states = {agent: found[agent] for agent in released}
    installs = list(states.values())
    failed = next((agent for agent, state in states.items() if state is Install.FAILED), None)
    counted = {count.agent_id: count for count in counts if count.agent_id in states}
    own = [counted[agent] for agent in wave.agents if agent in counted]
    away = {
        agent
        for agent, state in states.items()
        if state is Install.SILENT and _is_away(sight.targets[agent], rollout, sight)
    }
    taken_up = {agent for agent in released if words[agent].took_up}
    others = [record for agent, record in sight.targets.items() if agent not in states and record.observation]
    pool = _Pool(
        states=states,
        away=away,
        counted=counted,
        distributions={tally.agent_id: tally for tally in distributions},
        previous={tally.agent_id: tally for tally in previous if tally.inferences},
    )
    return Evidence(
        targets=len(installs),
        installed=installs.count(Install.INSTALLED),
        failed=installs.count(Install.FAILED),
        inferences=sum(count.inferences for count in counted.values()),
        errors=sum(count.errors for count in counted.values()),
        wave_inferences=sum(count.inferences for count in own),
        wave_errors=sum(count.errors for count in own),
        wave_age_seconds=(sight.now - wave.admit_time).total_seconds(),
        first_failure=_failure(sight.targets[failed], rollout) if failed is not None else "",
        away=len(away),
        taken_up=len(taken_up),
        silent_taken_up=len(away & taken_up),
        silent_others_per_mille=_per_mille([_is_away(record, rollout, sight) for record in others]),
        has_previous=rollout.previous_version is not None,
        groups=tuple(
            pool.group(name, agents, since=_quiet_since(agents, counted, wave.admit_time, sight))
            for name, agents in _by_class(released, sight).items()
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """What is known of the released agents, to be added up by device class."""

    states: Mapping[AgentId, Install]
    away: AbstractSet[AgentId]
    counted: Mapping[AgentId, InferenceCount]
    distributions: Mapping[AgentId, Tally]
    previous: Mapping[AgentId, Tally]

    def group(self, device_class: str, agents: Sequence[AgentId], *, since: datetime) -> GroupEvidence:
        states = [self.states[agent] for agent in agents]
        installed, failed = states.count(Install.INSTALLED), states.count(Install.FAILED)
        counted = [self.counted[agent] for agent in agents if agent in self.counted]
        measured = add_tallies(self.distributions[agent] for agent in agents if agent in self.distributions)
        compared = [agent for agent in agents if agent in self.previous]
        return GroupEvidence(
            device_class=device_class,
            installed=installed,
            failed=failed,
            waiting=len(states) - installed - failed - sum(agent in self.away for agent in agents),
            target=replace(
                measured,
                inferences=sum(count.inferences for count in counted),
                errors=sum(count.errors for count in counted),
            ),
            compared=add_tallies(self.distributions[agent] for agent in compared if agent in self.distributions),
            previous=add_tallies(self.previous[agent] for agent in compared) if compared else None,
            quiet_since=since,
        )


def _by_class(agents: Iterable[AgentId], sight: Sight) -> Mapping[str, Sequence[AgentId]]:
    """The agents by device class, both in order."""
    classes: dict[str, list[AgentId]] = {}
    for agent in agents:
        classes.setdefault(device_class(sight.targets[agent]), []).append(agent)
    return dict(sorted(classes.items()))


def _quiet_since(
    agents: Sequence[AgentId], counted: Mapping[AgentId, InferenceCount], admit_time: datetime, sight: Sight
) -> datetime:
    """When the newest inference was heard of or, where that is later, the newest of the agents was released."""
    heard = [counted[agent].last_receive_time for agent in agents if agent in counted]
    released = [sight.released.get(agent) for agent in agents]
    return max(time for time in (admit_time, *heard, *released) if time is not None)


def _per_mille(flags: Sequence[bool]) -> int:
    """Rounded up; 0 of nothing."""
    return -(-1000 * sum(flags) // len(flags)) if flags else 0


def pool_shadow(rollout: Rollout, wave: Wave, sight: Sight, tallies: Iterable[ShadowTally]) -> Evidence:
    """Return the evidence for the shadow run of `wave`, which is SHADOWING; `tallies` are of the candidate since."""
    assert wave.shadow_time is not None, "a shadowing wave knows since when"
    agents = [agent for agent in wave.agents if agent in sight.targets]
    measured = {tally.agent_id: tally for tally in tallies}
    found = [measured[agent] for agent in agents if agent in measured]
    classes = _by_class(agents, sight)
    return Evidence(
        targets=len(agents),
        installed=0,
        failed=0,
        inferences=sum(tally.compared for tally in found),
        errors=sum(tally.errors for tally in found),
        wave_inferences=0,
        wave_errors=0,
        wave_age_seconds=(sight.now - wave.shadow_time).total_seconds(),
        shadows=tuple(
            _shadow_group(name, members, rollout, sight, measured=measured, since=wave.shadow_time)
            for name, members in classes.items()
        ),
    )


def _shadow_group(
    name: str,
    agents: Sequence[AgentId],
    rollout: Rollout,
    sight: Sight,
    *,
    measured: Mapping[AgentId, ShadowTally],
    since: datetime,
) -> ShadowEvidence:
    """What the agents of one device class compared, and how many of them still do."""
    present = [sight.targets[agent] for agent in agents if not _is_away(sight.targets[agent], rollout, sight)]
    shadows = [(record, _shadow(record, rollout, sight)) for record in present]
    ended = [(record, shadow) for record, shadow in shadows if _refuses(record) or (shadow and shadow.state in _ENDED)]
    preparing = any(shadow is None or shadow.state is ShadowState.PREPARING for _, shadow in shadows)
    may_prepare = preparing and (sight.now - since).total_seconds() <= rollout.strategy.install_seconds_max
    tallies = [measured[agent] for agent in agents if agent in measured]
    said = [f"{record.agent.id}: {shadow.message}" for record, shadow in ended if shadow is not None and shadow.message]
    heard = [tally.last_receive_time for tally in tallies if tally.last_receive_time is not None]
    return ShadowEvidence(
        device_class=name,
        tally=add_shadow_tallies(tallies),
        running=len(shadows) - len(ended),
        ended=len(ended),
        first_end=said[0] if said else "",
        quiet_since=None if may_prepare else max([since, *heard]),
    )


_ENDED = frozenset({ShadowState.COMPLETE, ShadowState.STOPPED, ShadowState.FAILED})


def _shadow(record: AgentRecord, rollout: Rollout, sight: Sight) -> ObservedShadow | None:
    """What the agent says of this run; None while it says nothing of it."""
    slot = _slot(record, rollout)
    shadow = slot.shadow if slot is not None else None
    if shadow is None or shadow.candidate_version != rollout.target_version or shadow.offer != sight.offer:
        return None
    return shadow


def _failure(record: AgentRecord, rollout: Rollout) -> str:
    """Why the agent's install failed, in its own words where it has some."""
    assert record.observation is not None, "an agent that was never heard has not failed"
    slot = _slot(record, rollout)
    said = record.observation.observed.nack_message if _refuses(record) else _install_failure(slot) if slot else ""
    if not (_refuses(record) or (slot is not None and slot.state is SlotState.FAILED)):
        said = f"has not installed within {rollout.strategy.install_seconds_max:.0f} s"
    return f"{record.agent.id}: {said}" if said else ""


def _install_failure(slot: ObservedSlot) -> str:
    return ": ".join(part for part in (slot.failure_reason, slot.failure_message) if part)
