"""Rollouts: the move of a deployment to another version, in waves.

Rules of the state machine, each held by a property in `tests/domain/test_rollout.py`:
- Only the transitions of TRANSITIONS happen; ROLLED_BACK and ABORTED absorb.
- A step admits at most one wave, and only after the gate of the wave before it passed.
- PAUSED, ROLLING_BACK and the ended states never expose another agent to the target version.
- A step that moved nothing moves nothing when it is repeated.
- While PAUSED only an operator moves the rollout; the gate's verdict is still kept for him to see.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, assert_never

from controlplane.domain.deployment import Deployment
from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.gate import FailureAction, GateOutcome, GatePolicy, GateVerdict, says_the_same
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
    """Invariant: waves are PASSED up to the first that is not; at most one is ADMITTED or FAILED."""

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
"""A deployment has at most one rollout in these."""

EXPOSED_WAVES = frozenset({WaveState.ADMITTED, WaveState.PASSED, WaveState.FAILED})


def exposed_agents(rollout: Rollout) -> frozenset[AgentId]:
    """Return the agents to which the target version was offered, in whatever state the rollout is."""
    return frozenset(agent for wave in rollout.waves if wave.state in EXPOSED_WAVES for agent in wave.agents)


def version_for(version: int | None, rollout: Rollout | None, *, exposed: bool) -> int | None:
    """Return what an agent of a deployment at `version` should run while `rollout`, the deployment's active
    one, stands so; `exposed` says whether the agent is one of its `exposed_agents`."""
    if rollout is None:
        return version
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED:
            return rollout.target_version if exposed else version
        case RolloutState.ROLLING_BACK:
            return rollout.previous_version
        case (
            RolloutState.QUEUED
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
        RolloutState.RUNNING: frozenset(
            {RolloutState.PAUSED, RolloutState.ROLLING_BACK, RolloutState.SUCCEEDED, RolloutState.ABORTED}
        ),
        RolloutState.PAUSED: frozenset({RolloutState.RUNNING, RolloutState.ROLLING_BACK, RolloutState.ABORTED}),
        RolloutState.ROLLING_BACK: frozenset({RolloutState.ROLLED_BACK, RolloutState.ABORTED}),
        RolloutState.SUCCEEDED: frozenset({RolloutState.ROLLING_BACK}),
        RolloutState.ROLLED_BACK: frozenset(),
        RolloutState.ABORTED: frozenset(),
        RolloutState.SUPERSEDED: frozenset(),
        RolloutState.QUEUED: frozenset({RolloutState.RUNNING, RolloutState.ABORTED, RolloutState.SUPERSEDED}),
    }
)
"""Every move there is."""

PAUSED_BY_OPERATOR = "PAUSED_BY_OPERATOR"
NAMES_MAX = 5
"""Agents named in a message, so that it stays one line for any fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the agents that are still targets have come; revoked and no longer matching ones are in no field."""

    waiting: tuple[AgentId, ...] = ()
    """Admitted and in reach, neither installed nor failed."""
    silent: tuple[AgentId, ...] = ()
    """Admitted and out of reach; counted as neither."""
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
    """What follows: the rollout as it is to be stored, and what becomes of its deployment, as one change.

    `rollout` equals the one that was given, `update_time` included, when there is nothing to do.
    """

    rollout: Rollout
    set_version: SetVersion | None = None
    raise_offer: bool = False
    """The deployment's offer rises by one."""


def open_wave(rollout: Rollout) -> Wave | None:
    """Return the wave whose gate decides now; None when none is ADMITTED."""
    return next((wave for wave in rollout.waves if wave.state is WaveState.ADMITTED), None)


def start(
    deployment: Deployment,
    *,
    rollout_id: RolloutId,
    uid: str,
    target_version: int,
    strategy: RolloutStrategy,
    waves: tuple[Wave, ...],
    now: datetime,
) -> Decision:
    """Return a rollout with its first wave admitted. `waves` are planned and not empty.

    The offer rises, so that what agents last said of an earlier try of the version counts for nothing.
    """
    assert waves, "a rollout has targets"
    first = replace(waves[0], state=WaveState.ADMITTED, admit_time=now)
    rollout = Rollout(
        id=rollout_id,
        uid=uid,
        create_time=now,
        update_time=now,
        deployment_id=deployment.id,
        model_id=deployment.model_id,
        target_version=target_version,
        previous_version=deployment.version,
        strategy=strategy,
        state=RolloutState.RUNNING,
        reason="WAVE_ADMITTED",
        message=_admitted_text(first, len(waves)),
        waves=(first, *waves[1:]),
    )
    return Decision(rollout=rollout, raise_offer=True)


def step(rollout: Rollout, progress: Progress, verdict: GateVerdict | None, now: datetime) -> Decision:
    """Return what follows from what is known. `verdict` is of the open wave, None exactly when there is none."""
    match rollout.state:
        case RolloutState.RUNNING:
            return _run(rollout, progress, verdict, now)
        case RolloutState.PAUSED:
            return _moved(rollout, now, waves=_judged(rollout, verdict))
        case RolloutState.ROLLING_BACK:
            return _bring_back(rollout, progress, now)
        case (
            RolloutState.QUEUED
            | RolloutState.SUCCEEDED
            | RolloutState.ROLLED_BACK
            | RolloutState.ABORTED
            | RolloutState.SUPERSEDED
        ):
            return Decision(rollout=rollout)
        case _:
            assert_never(rollout.state)


def _run(rollout: Rollout, progress: Progress, verdict: GateVerdict | None, now: datetime) -> Decision:
    wave = open_wave(rollout)
    assert wave is not None, "a running rollout has an admitted wave"
    assert verdict is not None, "an admitted wave is judged at every step"
    place = f"wave {wave.index + 1} of {len(rollout.waves)}: "
    match verdict.outcome:
        case GateOutcome.PENDING:
            message = place + verdict.message + _awaited(progress)
            return _moved(rollout, now, reason=verdict.reason, message=message, waves=_judged(rollout, verdict))
        case GateOutcome.INCONCLUSIVE:
            return _moved(
                rollout,
                now,
                state=RolloutState.PAUSED,
                reason=verdict.reason,
                message=place + verdict.message,
                waves=_judged(rollout, verdict),
            )
        case GateOutcome.FAIL:
            return _fail(rollout, wave, verdict, now)
        case GateOutcome.PASS:
            return _pass(rollout, wave, verdict, now)
        case _:
            assert_never(verdict.outcome)


def _fail(rollout: Rollout, wave: Wave, verdict: GateVerdict, now: datetime) -> Decision:
    failed = replace(wave, state=WaveState.FAILED, complete_time=now, verdict=verdict)
    message = f"wave {wave.index + 1} of {len(rollout.waves)} failed: {verdict.message}"
    state = RolloutState.PAUSED
    if rollout.strategy.gate.on_failure is FailureAction.ROLLBACK:
        state = RolloutState.ROLLING_BACK
        message += f"; returns to {_version_text(rollout)}"
    return _moved(rollout, now, state=state, reason=verdict.reason, message=message, waves=_with_wave(rollout, failed))


def _pass(rollout: Rollout, wave: Wave, verdict: GateVerdict, now: datetime) -> Decision:
    waves = _with_wave(rollout, replace(wave, state=WaveState.PASSED, complete_time=now, verdict=verdict))
    if wave.index == len(waves) - 1:
        decision = _moved(
            rollout,
            now,
            state=RolloutState.SUCCEEDED,
            reason="EVERY_WAVE_PASSED",
            message=f"the deployment is at version {rollout.target_version}: {verdict.message}",
            waves=waves,
            end_time=now,
        )
        return replace(decision, set_version=SetVersion(version=rollout.target_version))
    following = replace(waves[wave.index + 1], state=WaveState.ADMITTED, admit_time=now)
    return _moved(
        rollout,
        now,
        reason="WAVE_ADMITTED",
        message=_admitted_text(following, len(waves)),
        waves=(*waves[: following.index], following, *waves[following.index + 1 :]),
    )


def _bring_back(rollout: Rollout, progress: Progress, now: datetime) -> Decision:
    cause = f"{_cause(rollout)}; " if _cause(rollout) else ""
    if progress.returning:
        message = f"{cause}returns to {_version_text(rollout)}, waits for {_names(progress.returning)}"
        return _moved(rollout, now, message=message)
    message = f"{cause}every agent in reach was returned to {_version_text(rollout)}"
    if progress.stuck:
        message += f", which failed on {_names(progress.stuck)}"
    if progress.missing:
        message += f"; out of reach: {_names(progress.missing)}"
    return _moved(rollout, now, state=RolloutState.ROLLED_BACK, message=message, end_time=now)


def pause(rollout: Rollout, now: datetime) -> Decision:
    """Admit nothing more until it is resumed. From RUNNING."""
    _demand(rollout, "paused", RolloutState.RUNNING)
    return _moved(rollout, now, state=RolloutState.PAUSED, reason=PAUSED_BY_OPERATOR, message="paused by an operator")


def resume(rollout: Rollout, now: datetime) -> Decision:
    """Go on. From PAUSED. A wave whose gate failed is judged anew, on what is measured from now on."""
    _demand(rollout, "resumed", RolloutState.PAUSED)
    return _moved(
        rollout,
        now,
        state=RolloutState.RUNNING,
        reason="RESUMED_BY_OPERATOR",
        message="resumed by an operator",
        waves=_reopened(rollout, now),
    )


def retry(rollout: Rollout, now: datetime) -> Decision:
    """Offer the version again to targets whose install failed. From RUNNING and PAUSED.

    What its gate stopped goes on, judged anew from now on; what an operator paused stays paused.
    """
    _demand(rollout, "retried", RolloutState.RUNNING, RolloutState.PAUSED)
    held = rollout.state is RolloutState.PAUSED and rollout.reason == PAUSED_BY_OPERATOR
    decision = _moved(
        rollout,
        now,
        state=RolloutState.PAUSED if held else RolloutState.RUNNING,
        reason=PAUSED_BY_OPERATOR if held else "RETRIED_BY_OPERATOR",
        message="the version is offered again to targets whose install failed",
        waves=_reopened(rollout, now),
    )
    return replace(decision, raise_offer=True)


def abort(rollout: Rollout, now: datetime) -> Decision:
    """End it; targets return by the deployment's standing intent. From every state that has not ended."""
    _demand(rollout, "aborted", *ACTIVE_STATES)
    return _moved(
        rollout,
        now,
        state=RolloutState.ABORTED,
        reason="ABORTED_BY_OPERATOR",
        message="ended by an operator; its targets return to the version of the deployment",
        end_time=now,
    )


def rollback(rollout: Rollout, now: datetime) -> Decision:
    """Return every target and track it to the end. From RUNNING, PAUSED and SUCCEEDED.

    Of a succeeded one the deployment gets its version from before; the caller has made sure that it is the
    last that succeeded and that no other is active.
    """
    _demand(rollout, "rolled back", RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SUCCEEDED)
    decision = _moved(
        rollout,
        now,
        state=RolloutState.ROLLING_BACK,
        reason="ROLLED_BACK_BY_OPERATOR",
        message=f"an operator returns it to {_version_text(rollout)}",
        end_time=None,
    )
    if rollout.state is RolloutState.SUCCEEDED:
        return replace(decision, set_version=SetVersion(version=rollout.previous_version))
    return decision


_REMEDIES: Mapping[RolloutState, str] = MappingProxyType(
    {
        RolloutState.RUNNING: "watch it, or pause, roll back or abort it",
        RolloutState.PAUSED: "resume, retry, roll back or abort it",
        RolloutState.ROLLING_BACK: "wait until its targets are back, or abort it",
        RolloutState.SUCCEEDED: "start another rollout, or roll this one back",
        RolloutState.ROLLED_BACK: "start another rollout",
        RolloutState.ABORTED: "start another rollout",
        RolloutState.SUPERSEDED: "start another rollout",
        RolloutState.QUEUED: "wait until the one before it has ended, or abort it",
    }
)


def _demand(rollout: Rollout, deed: str, *states: RolloutState) -> None:
    if rollout.state not in states:
        raise PreconditionError(
            f"rollouts/{rollout.id} is {rollout.state} and cannot be {deed}",
            field="name",
            remedy=_REMEDIES[rollout.state],
            reason=Reason.ROLLOUT_STATE,
        )


def _moved(rollout: Rollout, now: datetime, **changes: Any) -> Decision:
    """The rollout with the changes; `update_time` moves exactly when something else does."""
    moved = replace(rollout, **changes)
    assert moved.state is rollout.state or moved.state in TRANSITIONS[rollout.state], (rollout.state, moved.state)
    return Decision(rollout=rollout if moved == rollout else replace(moved, update_time=now))


def _with_wave(rollout: Rollout, wave: Wave) -> tuple[Wave, ...]:
    return (*rollout.waves[: wave.index], wave, *rollout.waves[wave.index + 1 :])


def _judged(rollout: Rollout, verdict: GateVerdict | None) -> tuple[Wave, ...]:
    """The waves with the verdict on the open one; the old verdict stays where the new one says the same."""
    wave = open_wave(rollout)
    if wave is None or verdict is None or says_the_same(verdict, wave.verdict):
        return rollout.waves
    return _with_wave(rollout, replace(wave, verdict=verdict))


def _reopened(rollout: Rollout, now: datetime) -> tuple[Wave, ...]:
    """The waves with a failed one admitted anew, so that what was measured before counts no longer."""
    return tuple(
        replace(wave, state=WaveState.ADMITTED, admit_time=now, complete_time=None, verdict=None)
        if wave.state is WaveState.FAILED
        else wave
        for wave in rollout.waves
    )


def _cause(rollout: Rollout) -> str:
    """What the failed gate said; empty for a rollback by hand."""
    failed = next((wave for wave in rollout.waves if wave.state is WaveState.FAILED), None)
    return failed.verdict.message if failed is not None and failed.verdict is not None else ""


def _admitted_text(wave: Wave, waves: int) -> str:
    agents = f"{len(wave.agents)} agent" + ("s" if len(wave.agents) != 1 else "")
    return f"wave {wave.index + 1} of {waves} ({wave.size}) was admitted: {agents}"


def _awaited(progress: Progress) -> str:
    waiting = f"; not ready: {_names(progress.waiting)}" if progress.waiting else ""
    return waiting + (f"; out of reach: {_names(progress.silent)}" if progress.silent else "")


def _names(agents: tuple[AgentId, ...]) -> str:
    more = f" and {len(agents) - NAMES_MAX} more" if len(agents) > NAMES_MAX else ""
    return ", ".join(agents[:NAMES_MAX]) + more


def _version_text(rollout: Rollout) -> str:
    return f"version {rollout.previous_version}" if rollout.previous_version is not None else "no version"
