"""Commands: what operators, and the rules that stand in for them, do to a rollout. Each returns what follows, or raises
PreconditionError (ROLLOUT_STATE unless told otherwise) naming the state and the remedy.

`actor` is `operators/{operator}`, or a rule.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from controlplane.domain.audit import Json, rule
from controlplane.domain.deployment import Deployment
from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.ids import AgentId, RolloutId
from controlplane.domain.rollout import (
    ACTIVE_STATES,
    PAUSED_BY_OPERATOR,
    Decision,
    Rollout,
    RolloutState,
    RolloutStrategy,
    SetVersion,
    Wave,
    WaveState,
    coming_wave,
    due_for_approval,
    exposed_agents,
    failed_wave,
    happened,
    moved,
    needs_approval,
    previous_text,
    with_wave,
)
from controlplane.domain.rollout_step import deadline_of, evidence_of

QUEUE = rule("queue")


def start(
    deployment: Deployment,
    *,
    rollout_id: RolloutId,
    uid: str,
    target_version: int,
    strategy: RolloutStrategy,
    waves: tuple[Wave, ...],
    actor: str,
    now: datetime,
) -> Decision:
    """Return a RUNNING rollout with no wave admitted: the first step does that. `waves` are planned and not empty.

    The offer rises, so that what agents last said of an earlier try of the version counts for nothing.
    """
    rollout = _new(
        deployment,
        rollout_id=rollout_id,
        uid=uid,
        target_version=target_version,
        strategy=strategy,
        actor=actor,
        now=now,
    )
    return _started(rollout, deployment, waves, actor, now)


def queue(
    deployment: Deployment,
    *,
    rollout_id: RolloutId,
    uid: str,
    target_version: int,
    strategy: RolloutStrategy,
    behind: RolloutId,
    actor: str,
    now: datetime,
) -> Decision:
    """Return a QUEUED rollout that waits until rollout `behind` has ended. Its waves are planned when it starts."""
    new = _new(
        deployment,
        rollout_id=rollout_id,
        uid=uid,
        target_version=target_version,
        strategy=strategy,
        actor=actor,
        now=now,
    )
    rollout = replace(
        new,
        reason="QUEUED",
        message=f"waits until rollouts/{behind} has ended",
        related_id=behind,
    )
    related = (f"rollouts/{behind}",)
    return Decision(rollout=rollout, happenings=(happened(rollout, actor, "rollout.queue", related=related),))


def dequeue(rollout: Rollout, deployment: Deployment, waves: tuple[Wave, ...], now: datetime) -> Decision:
    """Start a QUEUED rollout whose turn has come. `waves` are planned on the fleet as it is now, and not empty."""
    _demand(rollout, "started", RolloutState.QUEUED)
    return _started(replace(rollout, related_id=None), deployment, waves, QUEUE, now)


def give_up(rollout: Rollout, reason: str, message: str, now: datetime) -> Decision:
    """End a QUEUED rollout that cannot start any more."""
    _demand(rollout, "given up", RolloutState.QUEUED)
    after = moved(rollout, now, state=RolloutState.ABORTED, reason=reason, message=message, end_time=now)
    return Decision(rollout=after, happenings=(happened(after, QUEUE, "rollout.abort"),))


def supersede(rollout: Rollout, by: RolloutId, now: datetime, *, actor: str) -> Decision:
    """End it as rollout `by` takes its place. From every state that has not ended.

    Its released targets keep the version until they are moved, unless its gate failed or it returns them already.
    """
    _demand(rollout, "superseded", RolloutState.QUEUED, *ACTIVE_STATES)
    keeps = rollout.state in {RolloutState.RUNNING, RolloutState.PAUSED} and failed_wave(rollout) is None
    keep_versions = _kept(rollout) if keeps else {}
    become = f"its {len(keep_versions)} targets keep version {rollout.target_version}" if keep_versions else ""
    if not keeps and exposed_agents(rollout):
        become = "its targets return to what they had"
    after = moved(
        rollout,
        now,
        state=RolloutState.SUPERSEDED,
        reason="SUPERSEDED",
        message=f"rollouts/{by} took its place" + (f"; {become}" if become else ""),
        related_id=by,
        end_time=now,
    )
    said = happened(after, actor, "rollout.supersede", related=(f"rollouts/{by}",))
    return Decision(rollout=after, keep_versions=keep_versions, happenings=(said,))


def pause(rollout: Rollout, now: datetime, *, actor: str) -> Decision:
    """Admit and release nothing more until it is resumed. From RUNNING."""
    _demand(rollout, "paused", RolloutState.RUNNING)
    after = moved(
        rollout, now, state=RolloutState.PAUSED, reason=PAUSED_BY_OPERATOR, message=f"paused by {_name(actor)}"
    )
    return Decision(rollout=after, happenings=(happened(after, actor, "rollout.pause"),))


def resume(rollout: Rollout, now: datetime, *, actor: str) -> Decision:
    """Go on. From PAUSED. A wave whose gate failed is judged anew, on what is measured from now on."""
    _demand(rollout, "resumed", RolloutState.PAUSED)
    _demand_time(rollout, now)
    after = moved(
        rollout,
        now,
        state=RolloutState.RUNNING,
        reason="RESUMED_BY_OPERATOR",
        message=f"resumed by {_name(actor)}",
        waves=_reopened(rollout, now),
    )
    return Decision(rollout=after, happenings=(happened(after, actor, "rollout.resume"),))


def retry(rollout: Rollout, now: datetime, *, actor: str) -> Decision:
    """Offer the version again to targets whose install failed. From RUNNING and PAUSED.

    What its gate stopped goes on, judged anew from now on; what an operator paused stays paused.
    """
    _demand(rollout, "retried", RolloutState.RUNNING, RolloutState.PAUSED)
    _demand_time(rollout, now)
    held = rollout.state is RolloutState.PAUSED and rollout.reason == PAUSED_BY_OPERATOR
    after = moved(
        rollout,
        now,
        state=RolloutState.PAUSED if held else RolloutState.RUNNING,
        reason=PAUSED_BY_OPERATOR if held else "RETRIED_BY_OPERATOR",
        message="the version is offered again to targets whose install failed",
        waves=_reopened(rollout, now),
    )
    return Decision(rollout=after, raise_offer=True, happenings=(happened(after, actor, "rollout.retry"),))


def abort(rollout: Rollout, now: datetime, *, actor: str, keep: bool = False) -> Decision:
    """End it. From every state that has not ended. Its targets return to what they had before, or with `keep` stay on
    the version until a later rollout moves them; not from ROLLING_BACK, where they are on their way already."""
    _demand(rollout, "aborted", RolloutState.QUEUED, *ACTIVE_STATES)
    if keep:
        _demand(rollout, "aborted so that targets keep the version", RolloutState.RUNNING, RolloutState.PAUSED)
    kept = _kept(rollout) if keep else {}
    became = "its targets return to what they had before"
    if keep:
        became = f"{len(kept)} targets keep version {rollout.target_version} until a later rollout moves them"
    elif not exposed_agents(rollout):
        became = "no target had been given the version"
    after = moved(
        rollout,
        now,
        state=RolloutState.ABORTED,
        reason="ABORTED_BY_OPERATOR",
        message=f"ended by {_name(actor)}; {became}",
        end_time=now,
    )
    evidence: dict[str, Json] = {"keep": keep, "kept": len(kept)}
    return Decision(
        rollout=after, keep_versions=kept, happenings=(happened(after, actor, "rollout.abort", evidence=evidence),)
    )


def rollback(rollout: Rollout, now: datetime, *, actor: str, previous_yanked: bool = False) -> Decision:
    """Return every target and track it to the end, at once: neither windows nor pace hold up a return. From RUNNING,
    PAUSED and SUCCEEDED. That the version before was yanked does not stop it: it is where they were.

    Of a succeeded one the deployment gets its version from before; the caller has made sure that it is the
    last that succeeded and that no other is active.
    """
    _demand(rollout, "rolled back", RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SUCCEEDED)
    after = moved(
        rollout,
        now,
        state=RolloutState.ROLLING_BACK,
        reason="ROLLED_BACK_BY_OPERATOR",
        message=f"{_name(actor)} returns it to {previous_text(rollout, yanked=previous_yanked)}",
        end_time=None,
    )
    version = SetVersion(version=rollout.previous_version) if rollout.state is RolloutState.SUCCEEDED else None
    return Decision(rollout=after, set_version=version, happenings=(happened(after, actor, "rollout.rollback"),))


def approve(rollout: Rollout, now: datetime, *, actor: str, wave: int | None = None) -> Decision:
    """Let the wave that waits for it be admitted. `wave` is the index of the one that is meant.

    Raises PreconditionError when no wave, or another one, waits for an approval (APPROVAL_NOT_DUE), or when a second
    person is asked for and `actor` started the rollout (SECOND_PERSON).
    """
    _demand(rollout, "approved", RolloutState.RUNNING, RolloutState.PAUSED)
    due = due_for_approval(rollout)
    if due is None or wave not in (None, due.index):
        raise PreconditionError(
            f"{_not_due(rollout, due)}" + (f", not wave {wave + 1}" if due is not None and wave is not None else ""),
            field="wave" if due is not None else "name",
            remedy="watch the rollout, and approve when its reason is WAITS_FOR_APPROVAL",
            reason=Reason.APPROVAL_NOT_DUE,
        )
    if rollout.strategy.second_person and actor == rollout.creator:
        raise PreconditionError(
            f"{actor} started rollouts/{rollout.id} and cannot approve it too",
            field="name",
            remedy="ask another operator to approve it",
            reason=Reason.SECOND_PERSON,
        )
    approved = replace(due, approver=actor, approve_time=now)
    after = moved(rollout, now, waves=with_wave(rollout.waves, approved))
    message = f"wave {due.index + 1} of {len(rollout.waves)} was approved by {_name(actor)}"
    evidence = _seen(rollout, due)
    said = happened(after, actor, "wave.approve", reason="APPROVED", message=message, evidence=evidence)
    return Decision(rollout=after, happenings=(said,))


def _seen(rollout: Rollout, due: Wave) -> Mapping[str, Json]:
    """What whoever approves had before him: the last verdict."""
    verdict = due.verdict or (rollout.waves[due.index - 1].verdict if due.index else None)
    return evidence_of(verdict) if verdict is not None else {}


def _not_due(rollout: Rollout, due: Wave | None) -> str:
    if due is not None:
        return f"rollouts/{rollout.id} waits for an approval of wave {due.index + 1}"
    coming = coming_wave(rollout)
    if coming is None or not any(
        needs_approval(rollout.strategy, wave.index) for wave in rollout.waves[coming.index :]
    ):
        return f"rollouts/{rollout.id} needs no further approval"
    return f"no wave of rollouts/{rollout.id} waits for an approval yet"


def _new(
    deployment: Deployment,
    *,
    rollout_id: RolloutId,
    uid: str,
    target_version: int,
    strategy: RolloutStrategy,
    actor: str,
    now: datetime,
) -> Rollout:
    return Rollout(
        id=rollout_id,
        uid=uid,
        create_time=now,
        update_time=now,
        deployment_id=deployment.id,
        model_id=deployment.model_id,
        target_version=target_version,
        previous_version=deployment.version,
        strategy=strategy,
        state=RolloutState.QUEUED,
        reason="",
        message="",
        waves=(),
        creator=actor,
    )


def _started(rollout: Rollout, deployment: Deployment, waves: tuple[Wave, ...], actor: str, now: datetime) -> Decision:
    assert waves, "a rollout has targets"
    agents = sum(len(wave.agents) for wave in waves)
    after = moved(
        rollout,
        now,
        state=RolloutState.RUNNING,
        previous_version=deployment.version,
        reason="STARTED",
        message=f"started with {agents} agent{'s' if agents != 1 else ''} in {len(waves)} wave"
        + ("s" if len(waves) != 1 else ""),
        waves=waves,
    )
    evidence: dict[str, Json] = {
        "target_version": rollout.target_version,
        "agents": agents,
        "waves": [len(wave.agents) for wave in waves],
    }
    return Decision(
        rollout=after, raise_offer=True, happenings=(happened(after, actor, "rollout.start", evidence=evidence),)
    )


def _kept(rollout: Rollout) -> Mapping[AgentId, int]:
    return dict.fromkeys(sorted(exposed_agents(rollout)), rollout.target_version)


def _name(actor: str) -> str:
    """The operator or rule without its collection."""
    return actor.partition("/")[2] or actor


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


def _demand_time(rollout: Rollout, now: datetime) -> None:
    """Past its deadline it would be stopped again at once."""
    deadline = deadline_of(rollout)
    if deadline is not None and now >= deadline:
        raise PreconditionError(
            f"the deadline of rollouts/{rollout.id} passed at {deadline:%Y-%m-%dT%H:%M:%SZ}",
            field="name",
            remedy="roll it back, abort it with or without keeping the version, or start another rollout",
            reason=Reason.ROLLOUT_STATE,
        )


def _reopened(rollout: Rollout, now: datetime) -> tuple[Wave, ...]:
    """The waves with a failed one opened anew, so that what was measured before counts no longer."""
    return tuple(_open(wave, now) if wave.state is WaveState.FAILED else wave for wave in rollout.waves)


def _open(wave: Wave, now: datetime) -> Wave:
    if wave.admit_time is None:
        return replace(wave, state=WaveState.SHADOWING, shadow_time=now, complete_time=None, verdict=None)
    return replace(wave, state=WaveState.ADMITTED, admit_time=now, complete_time=None, verdict=None)
