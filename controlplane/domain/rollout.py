"""Rollouts: the move of a deployment to another version, in waves.

This module holds what a rollout is and which moves there are; `rollout_step` carries one on, `rollout_commands` does
what operators ask for, `admission` says which agents are released.

Rules of the state machine, each held by a property in `tests/domain/test_rollout.py`:
- Only the transitions of TRANSITIONS happen; ROLLED_BACK, ABORTED and SUPERSEDED absorb.
- A step admits at most one wave, and only after the gate of the wave before it passed, its shadow run passed, it was
  approved and its window opened, each where the strategy asks for it.
- PAUSED, ROLLING_BACK and the ended states never expose another agent to the target version.
- A step that moved nothing moves nothing when it is repeated.
- While PAUSED only an operator or a yank moves the rollout; the gate's verdict is still kept for him to see.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, assert_never

from controlplane.domain.audit import Happening, Json
from controlplane.domain.gate import GateOutcome, GatePolicy, GateVerdict
from controlplane.domain.ids import AgentId, DeploymentId, ModelId, RolloutId


class RolloutState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    ROLLED_BACK = "ROLLED_BACK"
    ABORTED = "ABORTED"
    SUPERSEDED = "SUPERSEDED"


class WaveState(StrEnum):
    PENDING = "PENDING"
    SHADOWING = "SHADOWING"
    ADMITTED = "ADMITTED"
    PASSED = "PASSED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSize:
    """Cumulative size of a rollout up to and with a wave: a count of agents or a percentage."""

    count: int | None = None
    percent: int | None = None

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent is not None else str(self.count)

    def of(self, total: int) -> int:
        """Return the cumulative number of agents out of `total`; a percentage rounds up."""
        if self.percent is not None:
            return -(-total * self.percent // 100)
        return min(self.count or 0, total)


class ApprovalScope(StrEnum):
    NONE = "NONE"
    AFTER_CANARY = "AFTER_CANARY"
    EVERY_WAVE = "EVERY_WAVE"


class WindowScope(StrEnum):
    SWAP = "SWAP"
    START = "START"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """A recurring time: opens when `cron` says so in `time_zone`, for `duration_seconds`."""

    selector: str
    """Of the agents that it binds; empty means all."""
    cron: str
    duration_seconds: float
    time_zone: str
    scope: WindowScope = WindowScope.SWAP


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPolicy:
    """A shadow run on the first wave before the version answers anything."""

    min_comparisons: int
    min_agreement_per_mille: int = 950
    serving_latency_ms_p99_max: float = 0.0
    """0 means no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutStrategy:
    """How a rollout moves. A bound of 0 means none."""

    waves: tuple[WaveSize, ...]
    bake_seconds: float = 0.0
    gate: GatePolicy = field(default_factory=GatePolicy)
    canary_per_device_class: bool = True
    max_unavailable_per_line: int = 0
    approval: ApprovalScope = ApprovalScope.NONE
    second_person: bool = False
    windows: tuple[MaintenanceWindow, ...] = ()
    deadline_seconds: float = 0.0
    install_seconds_max: float = 1800.0
    offline_wait_seconds: float = 900.0
    agents_per_minute: int = 0
    bytes_per_second_per_site: int = 0
    prefetch: bool = False
    shadow: ShadowPolicy | None = None

    @property
    def prefetches(self) -> bool:
        """Whether targets prepare the version before they are given it: asked for, or demanded by a swap window."""
        return self.prefetch or any(window.scope is WindowScope.SWAP for window in self.windows)


@dataclass(frozen=True, slots=True)
class Release:
    """The version was given to this agent at this time."""

    agent_id: AgentId
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One wave and its own targets, sorted."""

    index: int
    size: WaveSize
    agents: tuple[AgentId, ...]
    state: WaveState = WaveState.PENDING
    admit_time: datetime | None = None
    complete_time: datetime | None = None
    verdict: GateVerdict | None = None
    releases: tuple[Release, ...] = ()
    """In order of time, whole seconds: which of `agents` were given the version. A wave is admitted as a whole; its
    agents are released as pace, windows and lines allow."""
    approver: str = ""
    """`operators/{operator}`; empty while nobody approved it."""
    approve_time: datetime | None = None
    shadow_time: datetime | None = None
    """When its shadow run began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Invariant: waves are PASSED up to the first that is not, which may be in any state; those after it are PENDING.
    A QUEUED one has no waves: they are planned when it starts."""

    id: RolloutId
    uid: str
    create_time: datetime
    update_time: datetime
    deployment_id: DeploymentId
    model_id: ModelId
    target_version: int
    previous_version: int | None
    strategy: RolloutStrategy
    state: RolloutState
    reason: str
    message: str
    waves: tuple[Wave, ...]
    end_time: datetime | None = None
    revision: int = 0
    creator: str = ""
    """`operators/{operator}` who started it."""
    related_id: RolloutId | None = None
    """The rollout that it waits for (QUEUED), or that took its place (SUPERSEDED)."""
    prefetches: tuple[Release, ...] = ()
    """Targets that were told to prepare the version, in order of time."""


ACTIVE_STATES = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK})
"""A deployment has at most one rollout in these, and at most one that is QUEUED behind it."""

ENDED_STATES = frozenset(
    {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}
)


def exposed_agents(rollout: Rollout) -> frozenset[AgentId]:
    """Return the agents that were released and not withdrawn: those that get the target version while the rollout is
    RUNNING or PAUSED, whatever became of their wave."""
    return frozenset(release.agent_id for wave in rollout.waves for release in wave.releases)


def version_for(version: int | None, rollout: Rollout | None, *, exposed: bool) -> int | None:
    """Return what an agent should run while `rollout`, its deployment's active one, stands so.

    `version` is what the agent has without it (`deployment.version_of(agent_id)`: a rollback returns each agent
    there); `exposed` says whether it is one of `exposed_agents`. Pins and yanked versions are the caller's.
    """
    if rollout is None or not exposed:
        return version
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED:
            return rollout.target_version
        case (
            RolloutState.ROLLING_BACK
            | RolloutState.QUEUED
            | RolloutState.SUCCEEDED
            | RolloutState.ROLLED_BACK
            | RolloutState.ABORTED
            | RolloutState.SUPERSEDED
        ):
            return version
        case _:
            assert_never(rollout.state)


TRANSITIONS: Mapping[RolloutState, frozenset[RolloutState]] = MappingProxyType(
    {
        RolloutState.QUEUED: frozenset({RolloutState.RUNNING, RolloutState.ABORTED, RolloutState.SUPERSEDED}),
        RolloutState.RUNNING: frozenset(
            {
                RolloutState.PAUSED,
                RolloutState.ROLLING_BACK,
                RolloutState.SUCCEEDED,
                RolloutState.ABORTED,
                RolloutState.SUPERSEDED,
            }
        ),
        RolloutState.PAUSED: frozenset(
            {RolloutState.RUNNING, RolloutState.ROLLING_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}
        ),
        RolloutState.ROLLING_BACK: frozenset({RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}),
        RolloutState.SUCCEEDED: frozenset({RolloutState.ROLLING_BACK}),
        RolloutState.ROLLED_BACK: frozenset(),
        RolloutState.ABORTED: frozenset(),
        RolloutState.SUPERSEDED: frozenset(),
    }
)
"""Every move there is."""

PAUSED_BY_OPERATOR = "PAUSED_BY_OPERATOR"
WAITS_FOR_APPROVAL = "WAITS_FOR_APPROVAL"
WAITS_FOR_WINDOW = "WAITS_FOR_WINDOW"
WAVE_ADMITTED = "WAVE_ADMITTED"
SHADOWING = "SHADOWING"
RELEASING = "RELEASING"
HOLDING = "HOLDING_"
"""Before the reason of a gate that is INCONCLUSIVE: the rollout holds, and goes on by itself when evidence comes."""
DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
VERSION_YANKED = "VERSION_YANKED"

NAMES_MAX = 5
"""Agents named in a message, so that it stays one line for any fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the agents that are still targets have come; revoked and no longer matching ones are in no field."""

    waiting: tuple[AgentId, ...] = ()
    """Released and in reach, neither installed nor failed."""
    silent: tuple[AgentId, ...] = ()
    """Released and out of reach; counted as neither."""
    returning: tuple[AgentId, ...] = ()
    """Exposed and in reach, not back at the version before."""
    stuck: tuple[AgentId, ...] = ()
    """Exposed and in reach, failed to return to the version before."""
    missing: tuple[AgentId, ...] = ()
    """Exposed and out of reach; they return by the standing intent when they are heard again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVersion:
    """The deployment's version becomes this; None where it had none before its first rollout."""

    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows: the rollout as it is to be stored, what becomes of its deployment, and what to write down, as one
    change.

    `rollout` equals the one that was given, `update_time` included, when there is nothing to do.
    """

    rollout: Rollout
    set_version: SetVersion | None = None
    raise_offer: bool = False
    """The deployment's offer rises by one."""
    keep_versions: Mapping[AgentId, int] = field(default_factory=lambda: MappingProxyType({}))
    """Agents that stay on these versions: they are added to the deployment's `kept_versions`."""
    clear_kept: bool = False
    """The deployment forgets its `kept_versions`: every agent is at its version now."""
    happenings: tuple[Happening, ...] = ()
    """What was decided, in order."""

    def then(self, following: "Decision") -> "Decision":
        """This decision and the one that was made on its rollout, as one."""
        return Decision(
            rollout=following.rollout,
            set_version=following.set_version or self.set_version,
            raise_offer=self.raise_offer or following.raise_offer,
            keep_versions={**self.keep_versions, **following.keep_versions},
            clear_kept=self.clear_kept or following.clear_kept,
            happenings=self.happenings + following.happenings,
        )


def open_wave(rollout: Rollout) -> Wave | None:
    """Return the wave that is judged now, ADMITTED or SHADOWING; None when none is."""
    return next((wave for wave in rollout.waves if wave.state in {WaveState.ADMITTED, WaveState.SHADOWING}), None)


def coming_wave(rollout: Rollout) -> Wave | None:
    """Return the first wave that is not admitted yet, PENDING or SHADOWING; None after the last."""
    return next((wave for wave in rollout.waves if wave.state in {WaveState.PENDING, WaveState.SHADOWING}), None)


def needs_approval(strategy: RolloutStrategy, index: int) -> bool:
    """Whether the wave of this index is admitted only after somebody approved it."""
    match strategy.approval:
        case ApprovalScope.NONE:
            return False
        case ApprovalScope.AFTER_CANARY:
            return index > 0
        case ApprovalScope.EVERY_WAVE:
            return True
        case _:
            assert_never(strategy.approval)


def due_for_approval(rollout: Rollout) -> Wave | None:
    """Return the wave that waits for nothing but an approval (and its window): the waves before it passed, and its
    shadow run, where it has one."""
    wave = coming_wave(rollout)
    if rollout.state not in {RolloutState.RUNNING, RolloutState.PAUSED} or wave is None or wave.approver:
        return None
    if any(before.state is not WaveState.PASSED for before in rollout.waves[: wave.index]):
        return None
    if not needs_approval(rollout.strategy, wave.index):
        return None
    if wave.state is WaveState.SHADOWING:
        return wave if wave.verdict is not None and wave.verdict.outcome is GateOutcome.PASS else None
    return None if wave.index == 0 and rollout.strategy.shadow is not None else wave


def failed_wave(rollout: Rollout) -> Wave | None:
    """Return the wave whose gate failed; None when none did."""
    return next((wave for wave in rollout.waves if wave.state is WaveState.FAILED), None)


def resource_of(rollout: Rollout) -> str:
    """The rollout's name."""
    return f"rollouts/{rollout.id}"


def moved(rollout: Rollout, now: datetime, **changes: Any) -> Rollout:
    """Return the rollout with the changes; `update_time` moves exactly when something else does."""
    after = replace(rollout, **changes)
    assert after.state is rollout.state or after.state in TRANSITIONS[rollout.state], (rollout.state, after.state)
    return rollout if after == rollout else replace(after, update_time=now)


def with_wave(waves: tuple[Wave, ...], wave: Wave) -> tuple[Wave, ...]:
    """Return the waves with this one in its place."""
    return (*waves[: wave.index], wave, *waves[wave.index + 1 :])


def happened(
    rollout: Rollout,
    actor: str,
    action: str,
    *,
    evidence: Mapping[str, Json] | None = None,
    related: Iterable[str] = (),
    reason: str | None = None,
    message: str | None = None,
) -> Happening:
    """A decision about the rollout, with its own reason and message unless told otherwise."""
    return Happening(
        actor=actor,
        action=action,
        resource=resource_of(rollout),
        reason=rollout.reason if reason is None else reason,
        message=rollout.message if message is None else message,
        evidence=MappingProxyType(dict(evidence or {})),
        related=(f"deployments/{rollout.deployment_id}", *related),
    )


def names_of(agents: Sequence[AgentId]) -> str:
    """The first NAMES_MAX of them, and how many more there are."""
    more = f" and {len(agents) - NAMES_MAX} more" if len(agents) > NAMES_MAX else ""
    return ", ".join(agents[:NAMES_MAX]) + more


def previous_text(rollout: Rollout, *, yanked: bool = False) -> str:
    """The version before, in words; `yanked` says whether it is forbidden by now."""
    if rollout.previous_version is None:
        return "no version"
    return f"version {rollout.previous_version}" + (" (yanked, and where they were)" if yanked else "")
