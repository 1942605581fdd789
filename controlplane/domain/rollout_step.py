"""Steps: how a rollout is carried on, from what is known now. A step does no more than one thing at a time: it ends,
returns, judges the open wave, or admits the next; and it releases, withdraws and has prepared whom admission names."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from controlplane.domain.admission import Admission, Hold, TargetView, admit_targets
from controlplane.domain.audit import Happening, Json, rule
from controlplane.domain.gate import FailureAction, GateOutcome, GateVerdict, says_the_same
from controlplane.domain.ids import AgentId
from controlplane.domain.rollout import (
    DEADLINE_EXCEEDED,
    HOLDING,
    RELEASING,
    VERSION_YANKED,
    WAITS_FOR_APPROVAL,
    WAITS_FOR_WINDOW,
    WAVE_ADMITTED,
    Decision,
    Progress,
    Release,
    Rollout,
    RolloutState,
    SetVersion,
    Wave,
    WaveState,
    coming_wave,
    exposed_agents,
    failed_wave,
    happened,
    moved,
    names_of,
    needs_approval,
    open_wave,
    previous_text,
    with_wave,
)
from controlplane.domain.rollout import SHADOWING as SHADOWING_REASON
from controlplane.domain.wave import enlist

GATE, WINDOW, APPROVAL, DEADLINE = rule("gate"), rule("window"), rule("approval"), rule("deadline")
ADMISSION, MEMBERSHIP, YANK, ROLLBACK = rule("admission"), rule("membership"), rule("yank"), rule("rollback")
RELATED_MAX = 20
"""Agents that one event of the log names, so that it stays small for any fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWindow:
    """Whether the next wave may start by the windows of its agents, and when it may if not now."""

    is_open: bool = True
    opens: datetime | None = None
    """None where it is open, or never will be."""


ALWAYS = StartWindow()
NOBODY = Admission()


def step(
    rollout: Rollout,
    progress: Progress,
    verdict: GateVerdict | None,
    now: datetime,
    *,
    admission: Admission = NOBODY,
    start_window: StartWindow = ALWAYS,
    yanked: frozenset[int] = frozenset(),
) -> Decision:
    """Return what follows from what is known.

    `verdict` is of `open_wave(rollout)`, None exactly when there is none: of its shadow run while it is SHADOWING, of
    its gate once it is ADMITTED. `admission` was computed for this rollout, `start_window` is of
    `coming_wave(rollout)`, `yanked` are the forbidden versions of its model.
    """
    known = _Known(
        progress=progress, verdict=verdict, now=now, admission=admission, start_window=start_window, yanked=yanked
    )
    match rollout.state:
        case RolloutState.RUNNING | RolloutState.PAUSED | RolloutState.QUEUED if rollout.target_version in yanked:
            return _refuse(rollout, known)
        case RolloutState.RUNNING | RolloutState.QUEUED if _is_late(rollout, now):
            return _expire(rollout, known)
        case RolloutState.RUNNING:
            decision = _run(rollout, known)
            return admit(decision, admission, now) if decision.rollout.state is RolloutState.RUNNING else decision
        case RolloutState.PAUSED:
            judged = moved(rollout, now, waves=_judged(rollout, verdict))
            return admit(Decision(rollout=judged), Admission(withdraw=admission.withdraw, leave=admission.leave), now)
        case RolloutState.ROLLING_BACK:
            return _bring_back(rollout, known)
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


def carry(
    rollout: Rollout,
    progress: Progress,
    verdict: GateVerdict | None,
    views: Mapping[AgentId, TargetView],
    now: datetime,
    *,
    artifact_bytes: int = 0,
    start_window: StartWindow = ALWAYS,
    yanked: frozenset[int] = frozenset(),
) -> Decision:
    """Return a whole round: the step, with whom admission names by these views, and where the step admitted a wave its
    first releases at once."""
    decision = step(
        rollout,
        progress,
        verdict,
        now,
        admission=admit_targets(rollout, views, now, artifact_bytes=artifact_bytes),
        start_window=start_window,
        yanked=yanked,
    )
    if decision.rollout.state is RolloutState.RUNNING and _admitted(decision.rollout) > _admitted(rollout):
        return admit(decision, admit_targets(decision.rollout, views, now, artifact_bytes=artifact_bytes), now)
    return decision


def _admitted(rollout: Rollout) -> int:
    return sum(wave.state in {WaveState.ADMITTED, WaveState.PASSED} for wave in rollout.waves)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What a step was told."""

    progress: Progress
    verdict: GateVerdict | None
    now: datetime
    admission: Admission
    start_window: StartWindow
    yanked: frozenset[int]


def enlist_late(rollout: Rollout, targets: Iterable[AgentId], now: datetime) -> Decision:
    """Return the rollout with targets that are in no wave appended to the last one. Of a RUNNING one."""
    waves = enlist(rollout.waves, targets)
    if waves is rollout.waves:
        return Decision(rollout=rollout)
    known = frozenset(rollout.waves[-1].agents)
    late = tuple(agent for agent in waves[-1].agents if agent not in known)
    after = moved(rollout, now, waves=waves)
    return Decision(rollout=after, happenings=tuple(_crowd(after, "rollout.enlist", "joined the last wave", late)))


def deadline_of(rollout: Rollout) -> datetime | None:
    """When the rollout has to have ended, counted from its creation; None without a deadline."""
    seconds = rollout.strategy.deadline_seconds
    return rollout.create_time + timedelta(seconds=seconds) if seconds > 0 else None


def admit(decision: Decision, admission: Admission, now: datetime) -> Decision:
    """Return the decision with the agents of `admission` taken back, released and told to prepare.

    Times are kept in whole seconds, rounded up: so they never look longer ago than they are.
    """
    rollout = decision.rollout
    if not (admission.release or admission.withdraw or admission.prefetch or admission.leave):
        return decision
    time = now if now.microsecond == 0 else now.replace(microsecond=0) + timedelta(seconds=1)
    gone, new = frozenset((*admission.withdraw, *admission.leave)), frozenset(admission.release)
    waves = tuple(_released(wave, gone, new, time) for wave in rollout.waves)
    told = {release.agent_id for release in rollout.prefetches}
    prefetches = (*rollout.prefetches, *(Release(agent, time) for agent in admission.prefetch if agent not in told))
    after = moved(rollout, now, waves=waves, prefetches=prefetches)
    happenings = [
        *_crowd(after, "wave.withdraw", "was taken back as the swap window closed", admission.withdraw),
        *_crowd(after, "wave.leave", "was given the version, and left", admission.leave),
        *_crowd(after, "wave.release", "was given the version", admission.release),
        *_crowd(after, "rollout.prefetch", "was told to prepare the version", admission.prefetch),
    ]
    return replace(decision, rollout=after, happenings=(*decision.happenings, *happenings))


def _crowd(rollout: Rollout, action: str, deed: str, agents: tuple[AgentId, ...]) -> Iterator[Happening]:
    """One event for any number of agents; none for nobody."""
    if agents:
        shown = agents[:RELATED_MAX]
        evidence: dict[str, Json] = {"agents": len(agents), "first": list(shown)}
        yield happened(
            rollout,
            MEMBERSHIP if action in {"rollout.enlist", "wave.leave"} else ADMISSION,
            action,
            evidence=evidence,
            related=[f"agents/{agent}" for agent in shown],
            reason=action.partition(".")[2].upper(),
            message=f"{names_of(agents)} {deed if len(agents) == 1 else deed.replace('was', 'were', 1)}",
        )


def _released(wave: Wave, gone: frozenset[AgentId], new: frozenset[AgentId], time: datetime) -> Wave:
    known = {release.agent_id for release in wave.releases}
    kept = tuple(release for release in wave.releases if release.agent_id not in gone)
    fresh = tuple(Release(agent, time) for agent in wave.agents if agent in new and agent not in known)
    return wave if len(kept) == len(known) and not fresh else replace(wave, releases=(*kept, *fresh))


def _is_late(rollout: Rollout, now: datetime) -> bool:
    deadline = deadline_of(rollout)
    return deadline is not None and now >= deadline


# --- what ends or turns it whatever its waves say ---


def _refuse(rollout: Rollout, known: _Known) -> Decision:
    """The target version was yanked."""
    said = f"version {rollout.target_version} was yanked"
    if rollout.state is RolloutState.QUEUED:
        return _end_queued(rollout, known, YANK, VERSION_YANKED, f"{said} before it began")
    return _turn_back(rollout, known, YANK, VERSION_YANKED, said)


def _expire(rollout: Rollout, known: _Known) -> Decision:
    """It took longer than it may."""
    said = f"not done by its deadline of {deadline_of(rollout):%Y-%m-%dT%H:%M:%SZ}"
    if rollout.state is RolloutState.QUEUED:
        return _end_queued(rollout, known, DEADLINE, DEADLINE_EXCEEDED, f"{said}: it was still queued")
    if rollout.strategy.gate.on_failure is FailureAction.ROLLBACK:
        return _turn_back(rollout, known, DEADLINE, DEADLINE_EXCEEDED, said)
    after = moved(rollout, known.now, state=RolloutState.PAUSED, reason=DEADLINE_EXCEEDED, message=said)
    return Decision(rollout=after, happenings=(happened(after, DEADLINE, "rollout.pause"),))


def _end_queued(rollout: Rollout, known: _Known, actor: str, reason: str, message: str) -> Decision:
    now = known.now
    after = moved(rollout, now, state=RolloutState.ABORTED, reason=reason, message=message, end_time=now)
    return Decision(rollout=after, happenings=(happened(after, actor, "rollout.abort"),))


def _turn_back(rollout: Rollout, known: _Known, actor: str, reason: str, said: str) -> Decision:
    message = f"{said}; returns to {_previous(rollout, known)}"
    after = moved(rollout, known.now, state=RolloutState.ROLLING_BACK, reason=reason, message=message)
    return Decision(rollout=after, happenings=(happened(after, actor, "rollout.rollback"),))


def _previous(rollout: Rollout, known: _Known) -> str:
    return previous_text(rollout, yanked=rollout.previous_version in known.yanked)


# --- a running one ---


def _run(rollout: Rollout, known: _Known) -> Decision:
    wave = open_wave(rollout)
    if wave is None:
        following = coming_wave(rollout)
        assert following is not None, "a running rollout has a wave that is open or comes next"
        return _begin(rollout, following, known)
    verdict = known.verdict
    assert verdict is not None, "an open wave is judged at every step"
    if wave.state is WaveState.ADMITTED:
        verdict = _unless_releasing(verdict, known.admission)
    place = f"wave {wave.index + 1} of {len(rollout.waves)}"
    match verdict.outcome:
        case GateOutcome.PENDING:
            reason = SHADOWING_REASON if wave.state is WaveState.SHADOWING else verdict.reason
            return _wait(rollout, known, verdict, reason, f"{place}: {verdict.message}{_awaited(known.progress)}")
        case GateOutcome.INCONCLUSIVE:
            held = f"{place} holds: {verdict.message}{_awaited(known.progress)}; goes on by itself when evidence comes"
            return _wait(rollout, known, verdict, HOLDING + verdict.reason, held)
        case GateOutcome.FAIL:
            return _fail(rollout, wave, verdict, known)
        case GateOutcome.PASS if wave.state is WaveState.SHADOWING:
            judged = moved(rollout, known.now, waves=_judged(rollout, verdict))
            return _begin(judged, judged.waves[wave.index], known)
        case GateOutcome.PASS:
            return _pass(rollout, wave, verdict, known)
        case _:
            assert_never(verdict.outcome)


def _unless_releasing(verdict: GateVerdict, admission: Admission) -> GateVerdict:
    """The verdict; while agents of the wave are not released yet it can only fail, or wait."""
    waiting = [(agent, hold) for agent, hold in admission.holds.items() if hold.blocks]
    if verdict.outcome not in {GateOutcome.PASS, GateOutcome.INCONCLUSIVE} or not (waiting or admission.release):
        return verdict
    reasons = Counter(hold.reason for _, hold in waiting)
    only = next(iter(reasons)) if len(reasons) == 1 and not admission.release else RELEASING
    agents = len(waiting) + len(admission.release)
    message = f"{agents} more {'agents are' if agents > 1 else 'agent is'} to be released{_hold_text(waiting)}"
    return replace(verdict, outcome=GateOutcome.PENDING, reason=str(only), message=message)


def _hold_text(waiting: Iterable[tuple[AgentId, Hold]]) -> str:
    """The reasons and who waits for them."""
    by_message: dict[str, list[AgentId]] = {}
    for agent, hold in waiting:
        by_message.setdefault(hold.message, []).append(agent)
    return "".join(f"; {names_of(agents)}: {message}" for message, agents in by_message.items())


def _begin(rollout: Rollout, wave: Wave, known: _Known) -> Decision:
    """Admit the wave, or begin its shadow run, or say what it waits for."""
    now, strategy = known.now, rollout.strategy
    place = f"wave {wave.index + 1} of {len(rollout.waves)}"
    agents = f"{len(wave.agents)} agent" + ("s" if len(wave.agents) != 1 else "")
    if wave.state is WaveState.PENDING and wave.index == 0 and strategy.shadow is not None:
        message = f"{place}: the version runs in shadow on {agents} and answers nothing"
        shadowing = replace(wave, state=WaveState.SHADOWING, shadow_time=now, verdict=None)
        waves = with_wave(rollout.waves, shadowing)
        after = moved(rollout, now, reason=SHADOWING_REASON, message=message, waves=waves)
        return Decision(rollout=after, happenings=(happened(after, GATE, "wave.shadow"),))
    if needs_approval(strategy, wave.index) and not wave.approver:
        other = " by another operator than who started it" if strategy.second_person else ""
        message = f"{place} ({agents}) waits for an approval{other}"
        return _waited(rollout, moved(rollout, now, reason=WAITS_FOR_APPROVAL, message=message), APPROVAL)
    if not known.start_window.is_open:
        opens = known.start_window.opens
        when = f"it opens at {opens:%Y-%m-%dT%H:%M:%SZ}" if opens is not None else "it never opens"
        message = f"{place} ({agents}) waits for its start window: {when}"
        return _waited(rollout, moved(rollout, now, reason=WAITS_FOR_WINDOW, message=message), WINDOW)
    admitted = replace(wave, state=WaveState.ADMITTED, admit_time=now, verdict=None)
    message = f"{place} ({wave.size}) was admitted: {agents}"
    after = moved(rollout, now, reason=WAVE_ADMITTED, message=message, waves=with_wave(rollout.waves, admitted))
    evidence = evidence_of(wave.verdict) if wave.verdict is not None else None
    return Decision(rollout=after, happenings=(happened(after, GATE, "wave.admit", evidence=evidence),))


def _wait(rollout: Rollout, known: _Known, verdict: GateVerdict, reason: str, message: str) -> Decision:
    after = moved(rollout, known.now, reason=reason, message=message, waves=_judged(rollout, verdict))
    return _waited(rollout, after, GATE, evidence_of(verdict))


def _waited(before: Rollout, after: Rollout, actor: str, evidence: Mapping[str, Json] | None = None) -> Decision:
    """What it waits for is written down when that changes, not at every step."""
    if after.reason == before.reason:
        return Decision(rollout=after)
    action = "rollout.hold" if after.reason.startswith(HOLDING) else "rollout.wait"
    return Decision(rollout=after, happenings=(happened(after, actor, action, evidence=evidence),))


def _fail(rollout: Rollout, wave: Wave, verdict: GateVerdict, known: _Known) -> Decision:
    now = known.now
    failed = replace(wave, state=WaveState.FAILED, complete_time=now, verdict=verdict)
    message = f"wave {wave.index + 1} of {len(rollout.waves)} failed: {verdict.message}"
    state, action = RolloutState.PAUSED, "rollout.pause"
    if rollout.strategy.gate.on_failure is FailureAction.ROLLBACK:
        state, action = RolloutState.ROLLING_BACK, "rollout.rollback"
        message += f"; returns to {_previous(rollout, known)}"
    waves = with_wave(rollout.waves, failed)
    after = moved(rollout, now, state=state, reason=verdict.reason, message=message, waves=waves)
    said = happened(after, GATE, "wave.fail", evidence=evidence_of(verdict), message=verdict.message)
    return Decision(rollout=after, happenings=(said, happened(after, GATE, action)))


def _pass(rollout: Rollout, wave: Wave, verdict: GateVerdict, known: _Known) -> Decision:
    now = known.now
    waves = with_wave(rollout.waves, replace(wave, state=WaveState.PASSED, complete_time=now, verdict=verdict))
    passed = moved(rollout, now, waves=waves)
    said = happened(
        passed, GATE, "wave.pass", evidence=evidence_of(verdict), reason=verdict.reason, message=verdict.message
    )
    if wave.index < len(waves) - 1:
        following = _begin(passed, waves[wave.index + 1], known)
        return Decision(rollout=passed, happenings=(said,)).then(following)
    after = moved(
        passed,
        now,
        state=RolloutState.SUCCEEDED,
        reason="EVERY_WAVE_PASSED",
        message=f"the deployment is at version {rollout.target_version}: {verdict.message}",
        end_time=now,
    )
    return Decision(
        rollout=after,
        set_version=SetVersion(version=rollout.target_version),
        clear_kept=True,
        happenings=(said, happened(after, GATE, "rollout.succeed")),
    )


def _bring_back(rollout: Rollout, known: _Known) -> Decision:
    version, cause, progress, now = _previous(rollout, known), _cause(rollout), known.progress, known.now
    if progress.returning:
        message = f"{cause}returns to {version}, waits for {names_of(progress.returning)}"
        return Decision(rollout=moved(rollout, now, message=message))
    message = f"{cause}every agent in reach was returned to {version}"
    if not exposed_agents(rollout):
        message = f"{cause}no agent had been given the version"
    if progress.stuck:
        message += f", which failed on {names_of(progress.stuck)}"
    if progress.missing:
        message += f"; out of reach: {names_of(progress.missing)}"
    after = moved(rollout, now, state=RolloutState.ROLLED_BACK, message=message, end_time=now)
    return Decision(rollout=after, happenings=(happened(after, ROLLBACK, "rollout.return"),))


def _cause(rollout: Rollout) -> str:
    """What turned it back; empty for a rollback by hand."""
    failed = failed_wave(rollout)
    if rollout.reason == VERSION_YANKED:
        return f"version {rollout.target_version} was yanked; "
    if rollout.reason == DEADLINE_EXCEEDED:
        return "its deadline passed; "
    by_gate = failed is not None and failed.verdict is not None and failed.verdict.reason == rollout.reason
    return f"{failed.verdict.message}; " if by_gate and failed is not None and failed.verdict is not None else ""


def _judged(rollout: Rollout, verdict: GateVerdict | None) -> tuple[Wave, ...]:
    """The waves with the verdict on the open one; the old verdict stays where the new one says the same."""
    wave = open_wave(rollout)
    if wave is None or verdict is None or says_the_same(verdict, wave.verdict):
        return rollout.waves
    return with_wave(rollout.waves, replace(wave, verdict=verdict))


def evidence_of(verdict: GateVerdict) -> Mapping[str, Json]:
    """The numbers of a verdict, for the log."""
    seen = verdict.evidence
    checks: list[Json] = [
        {
            "name": check.name,
            "device_class": check.device_class,
            "outcome": str(check.outcome),
            "reason": check.reason,
            "observed": check.observed,
            "low": check.low,
            "high": check.high,
            "limit": check.limit,
            "samples": check.samples,
        }
        for check in verdict.checks
    ]
    return {
        "outcome": str(verdict.outcome),
        "reason": verdict.reason,
        "targets": seen.targets,
        "installed": seen.installed,
        "failed": seen.failed,
        "inferences": seen.inferences,
        "errors": seen.errors,
        "checks": checks,
    }


def _awaited(progress: Progress) -> str:
    waiting = f"; not ready: {names_of(progress.waiting)}" if progress.waiting else ""
    return waiting + (f"; out of reach: {names_of(progress.silent)}" if progress.silent else "")
