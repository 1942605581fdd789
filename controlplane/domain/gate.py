"""Gates: the condition to admit the next wave, from measured evidence.

A gate is a list of checks; its verdict is the worst of them. Each check that rests on inferences compares an interval
with a limit, and `interval` makes it hold at every look: the check fails once the interval lies above the limit, passes
once it lies below, and while it holds the limit the check is PENDING, or INCONCLUSIVE when nothing more can come. So a
check fails a version that keeps its limit with a probability of at most 1 - `confidence_per_mille` / 1000, and passes
one that breaks it with no more, however often the gate is asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from controlplane.domain.comparison import (
    CLASS_DRIFT,
    CONFIDENCE_DRIFT,
    LATENCY_RATIO,
    THROUGHPUT,
    Aspect,
    Comparison,
)
from controlplane.domain.distribution import (
    add_tallies,
    over,
    quantile_interval,
    quantile_ms,
    quantile_side,
)
from controlplane.domain.evidence import TOGETHER, GroupEvidence, ShadowEvidence, Tally
from controlplane.domain.interval import Interval, Side, more_needed, share_interval, share_side


class GateOutcome(StrEnum):
    PASS = "PASS"
    FAIL = "FAIL"
    PENDING = "PENDING"
    INCONCLUSIVE = "INCONCLUSIVE"


class FailureAction(StrEnum):
    ROLLBACK = "ROLLBACK"
    PAUSE = "PAUSE"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePolicy:
    """When a wave's gate passes, and what happens when it fails."""

    min_inferences: int = 20
    """A floor under every check of inferences. 0 asks for none: then errors can only fail the gate."""
    max_errors_per_mille: int = 10
    max_failed_installs: int = 0
    on_failure: FailureAction = FailureAction.ROLLBACK
    max_latency_ms_p95: float = 0.0
    """0 asks for nothing, as in the next five."""
    max_latency_ms_p99: float = 0.0
    max_latency_p99_percent: int = 0
    min_throughput_percent: int = 0
    max_confidence_drift_per_mille: int = 0
    max_class_drift_per_mille: int = 0
    max_silent_per_mille: int = 200
    confidence_per_mille: int = 990
    idle_seconds: float = 900.0

    @property
    def miss(self) -> float:
        """How likely a check may be wrong."""
        return max(1, 1000 - self.confidence_per_mille) / 1000

    @property
    def compares(self) -> bool:
        """Whether it asks how the version before did."""
        return bool(
            self.max_latency_p99_percent
            or self.min_throughput_percent
            or self.max_confidence_drift_per_mille
            or self.max_class_drift_per_mille
        )

    @property
    def reads_distributions(self) -> bool:
        """Whether counts alone do not answer it."""
        return bool(self.max_latency_ms_p95 or self.max_latency_ms_p99 or self.compares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured of the target version. `targets` are the agents released so far;
    counts are of inferences received since the wave was admitted."""

    targets: int
    installed: int
    failed: int
    inferences: int
    errors: int
    wave_inferences: int
    """Of `inferences`, those by the newest wave's own agents."""
    wave_errors: int
    wave_age_seconds: float
    first_failure: str = ""
    """Which agent's install failed and why, of the first by name that says so."""
    away: int = 0
    """Out of reach for longer than the rollout waits, and not installed as far as we know: nobody waits for them."""
    taken_up: int = 0
    """Agents that said they were about to run the version, or ran it."""
    silent_taken_up: int = 0
    """Of those, agents that were silent since for longer than the rollout waits."""
    silent_others_per_mille: int = 0
    """Share of silent ones among the deployment's agents that were not given the version."""
    has_previous: bool = True
    """There is a version before to compare with."""
    groups: tuple[GroupEvidence, ...] = ()
    """By device class; empty where only counts are known."""
    shadows: tuple[ShadowEvidence, ...] = ()
    """By device class, of a shadow run."""

    def counts(self) -> "Evidence":
        """The counts alone, which a verdict keeps: its checks keep their own numbers."""
        return replace(
            self,
            away=0,
            taken_up=0,
            silent_taken_up=0,
            silent_others_per_mille=0,
            has_previous=True,
            groups=(),
            shadows=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """What one condition of a gate said, with the interval that decided it. Numbers are in the unit of `limit`."""

    name: str
    outcome: GateOutcome
    reason: str
    message: str
    device_class: str = ""
    """Empty for all targets together."""
    observed: float = 0.0
    low: float = 0.0
    high: float = 0.0
    limit: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """What a gate said, with the evidence it saw."""

    outcome: GateOutcome
    reason: str
    message: str
    evidence: Evidence
    """Counts alone."""
    evaluate_time: datetime
    checks: tuple[GateCheck, ...] = ()
    """The verdict is the worst of them."""


_SEVERITY = (GateOutcome.FAIL, GateOutcome.INCONCLUSIVE, GateOutcome.PENDING, GateOutcome.PASS)
_MESSAGES_MAX = 3
"""Checks quoted by a verdict's message; all of them are in `checks`."""


def rank(outcome: GateOutcome) -> int:
    """Order of outcomes from worst (0) to best: turning a success into a failure never raises it."""
    return _SEVERITY.index(outcome)


def evaluate(policy: GatePolicy, evidence: Evidence, *, bake_seconds: float, now: datetime) -> GateVerdict:
    """Return what the gate says of the newest wave: the worst of its checks.

    - FAIL as soon as more installs failed than allowed, or a limit is surely broken: by all targets together, by those
      of one device class, or (errors) by the newest wave's own.
    - INCONCLUSIVE when evidence cannot come: no target is left or installed, no inference came for `idle_seconds`, the
      version before was not measured.
    - PENDING while a target may still install, a limit is not decided, or the wave bakes.
    - PASS else: at least one target is installed and every limit is surely kept. Missing evidence never passes.
    """
    judge = _Judge(policy=policy, evidence=evidence, now=now)
    checks = (*judge.installs(), *judge.silence(), *judge.of_inferences(), *_bake(evidence, bake_seconds, now))
    return conclude(checks, evidence, _numbers(evidence), now=now)


def says_the_same(verdict: GateVerdict, other: GateVerdict | None) -> bool:
    """Whether two verdicts differ in nothing but when they were given."""
    if other is None:
        return False
    evidence = replace(other.evidence, wave_age_seconds=verdict.evidence.wave_age_seconds)
    return verdict == replace(other, evaluate_time=verdict.evaluate_time, evidence=evidence)


def conclude(checks: tuple[GateCheck, ...], evidence: Evidence, so_far: str, *, now: datetime) -> GateVerdict:
    """Return the worst of the checks as the verdict, in the words of all that are as bad.

    `so_far` says what was seen."""
    outcome = min((check.outcome for check in checks), key=rank)
    worst = [check for check in checks if check.outcome is outcome]
    said = [check.message for check in worst[:_MESSAGES_MAX]]
    if len(worst) > _MESSAGES_MAX:
        said.append(f"{len(worst) - _MESSAGES_MAX} more")
    reason, message = worst[0].reason, "; ".join(said)
    if outcome is GateOutcome.PASS:
        reason, message = "GATE_PASSED", so_far
    elif outcome is GateOutcome.PENDING:
        message = f"waits for {' and '.join(said)}; so far {so_far}"
    return GateVerdict(
        outcome=outcome,
        reason=reason,
        message=message,
        evidence=evidence.counts(),
        evaluate_time=now,
        checks=checks,
    )


def _numbers(evidence: Evidence) -> str:
    return (
        f"{evidence.installed} of {evidence.targets} installed, {evidence.failed} failed to, "
        f"{evidence.errors} of {evidence.inferences} inferences failed"
    )


def _bake(evidence: Evidence, bake_seconds: float, now: datetime) -> Iterator[GateCheck]:
    end = now + timedelta(seconds=bake_seconds - evidence.wave_age_seconds)
    baked = evidence.wave_age_seconds >= bake_seconds
    yield GateCheck(
        name="bake",
        outcome=GateOutcome.PASS if baked else GateOutcome.PENDING,
        reason="BAKED" if baked else "BAKING",
        message=f"the bake time {'ended' if baked else 'to end'} at {end:%Y-%m-%dT%H:%M:%SZ}",
        limit=bake_seconds,
    )


Judged = tuple[GateOutcome, str, str]
"""Outcome, reason and message of a check."""


def _check(
    name: str,
    device_class: str,
    judged: Judged,
    *,
    observed: float,
    between: Interval,
    limit: float,
    samples: int,
) -> GateCheck:
    outcome, reason, message = judged
    return GateCheck(
        name=name,
        device_class=device_class,
        outcome=outcome,
        reason=reason,
        message=message,
        observed=observed,
        low=between.low,
        high=between.high,
        limit=limit,
        samples=samples,
    )


def on_class(device_class: str) -> str:
    """Which agents; nothing for all of them."""
    return f" on {device_class}" if device_class else ""


def percent(share: float) -> str:
    """In percent, without zeros at the end."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + " %"


def errors_check(
    name: str, device_class: str, judged: Judged, policy: GatePolicy, *, count: int, total: int
) -> GateCheck:
    """A check of a share of errors, in inferences per 1,000."""
    between = share_interval(count, total, limit=policy.max_errors_per_mille / 1000, miss=policy.miss)
    return _check(
        name,
        device_class,
        judged,
        observed=1000 * count / total if total else 0.0,
        between=Interval(1000 * between.low, 1000 * between.high),
        limit=policy.max_errors_per_mille,
        samples=total,
    )


def errors_text(policy: GatePolicy, count: int, total: int) -> str:
    """Errors in plain words, with what the interval says of them."""
    limit = policy.max_errors_per_mille / 1000
    text = f"errors {count} of {total}"
    if count:
        low = share_interval(count, total, limit=limit, miss=policy.miss).low
        text += f" ({percent(count / total)}, at least {percent(low)} at {percent(1 - policy.miss)} confidence)"
    return f"{text}, allowed {percent(limit)}"


def is_idle(policy: GatePolicy, quiet_since: datetime | None, now: datetime) -> bool:
    """Whether nothing came for longer than the policy waits."""
    return quiet_since is not None and (now - quiet_since).total_seconds() > policy.idle_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """The checks of one policy on one evidence."""

    policy: GatePolicy
    evidence: Evidence
    now: datetime

    def installs(self) -> Iterator[GateCheck]:
        found, allowed = self.evidence, self.policy.max_failed_installs
        first = f"; {found.first_failure}" if found.first_failure else ""
        unsettled = found.targets - found.installed - found.failed - found.away
        if found.failed > allowed:
            outcome, reason = GateOutcome.FAIL, "INSTALLS_FAILED"
            message = f"{found.failed} of {found.targets} installs failed, allowed are {allowed}{first}"
        elif found.targets == 0:
            outcome, reason = GateOutcome.INCONCLUSIVE, "NO_TARGETS"
            message = "no target is left: each was revoked, no longer matches or was not given the version"
        elif found.failed == found.targets:
            outcome, reason = GateOutcome.INCONCLUSIVE, "NOTHING_INSTALLED"
            message = f"all {found.targets} installs failed, so nothing can be measured{first}"
        elif unsettled > 0:
            outcome, reason = GateOutcome.PENDING, "INSTALLING"
            message = f"{unsettled} of {found.targets} targets to install"
        elif found.installed == 0:
            outcome, reason = GateOutcome.INCONCLUSIVE, "NOBODY_IN_REACH"
            message = f"none of {found.targets} targets is in reach and installed, so nothing can be measured{first}"
        else:
            outcome, reason = GateOutcome.PASS, "INSTALLED"
            message = f"{found.installed} of {found.targets} installed, {found.failed} failed to, {found.away} away"
        yield GateCheck(
            name="installs",
            outcome=outcome,
            reason=reason,
            message=message,
            observed=found.failed,
            low=found.failed,
            high=found.targets - found.installed,
            limit=allowed,
            samples=found.targets,
        )
        for group in self._classes():
            if group.failed and not group.installed and not group.waiting:
                yield GateCheck(
                    name="installs",
                    device_class=group.device_class,
                    outcome=GateOutcome.INCONCLUSIVE,
                    reason="NOTHING_INSTALLED",
                    message=f"nobody of {group.device_class} could install, so nothing can be measured there",
                    observed=group.failed,
                    limit=allowed,
                    samples=group.failed,
                )

    def silence(self) -> Iterator[GateCheck]:
        silent, total = self.evidence.silent_taken_up, self.evidence.taken_up
        if not total:
            return
        per_mille = max(self.policy.max_silent_per_mille, self.evidence.silent_others_per_mille)
        limit = per_mille / 1000
        message = f"{silent} of {total} agents fell silent after they took the version up, allowed are {percent(limit)}"
        outcome, reason = GateOutcome.PASS, "HEARD"
        if silent * 1000 > per_mille * total:
            outcome, reason = GateOutcome.INCONCLUSIVE, "AGENTS_SILENT"
            message += ": too few to tell why"
            if share_side(silent, total, limit=limit, miss=self.policy.miss) is Side.ABOVE:
                outcome, message = GateOutcome.FAIL, message.removesuffix(": too few to tell why")
        between = share_interval(silent, total, limit=limit, miss=self.policy.miss)
        yield GateCheck(
            name="silence",
            outcome=outcome,
            reason=reason,
            message=message,
            observed=1000 * silent / total,
            low=1000 * between.low,
            high=1000 * between.high,
            limit=per_mille,
            samples=total,
        )

    def of_inferences(self) -> Iterator[GateCheck]:
        for group in (self._whole(), *self._classes()):
            yield from self._errors(group)
            yield from self._latency(group, "latency_p95", 0.95, self.policy.max_latency_ms_p95)
            yield from self._latency(group, "latency_p99", 0.99, self.policy.max_latency_ms_p99)
            yield from self._compared(group)
        yield from self._wave_errors()

    def _whole(self) -> GroupEvidence:
        found, groups = self.evidence, self.evidence.groups
        counts = Tally(agent_id=TOGETHER, inferences=found.inferences, errors=found.errors)
        previous = [group.previous for group in groups if group.previous is not None]
        return GroupEvidence(
            installed=found.installed,
            failed=found.failed,
            waiting=max(0, found.targets - found.installed - found.failed - found.away),
            target=add_tallies(group.target for group in groups) if groups else counts,
            compared=add_tallies(group.compared for group in groups),
            previous=add_tallies(previous) if previous else None,
            quiet_since=max((g.quiet_since for g in groups if g.quiet_since is not None), default=None),
        )

    def _classes(self) -> tuple[GroupEvidence, ...]:
        """Judged one by one where there are several; one alone is all."""
        return self.evidence.groups if len(self.evidence.groups) > 1 else ()

    def _errors(self, group: GroupEvidence) -> Iterator[GateCheck]:
        policy, count, total = self.policy, group.target.errors, group.target.inferences
        limit = policy.max_errors_per_mille / 1000
        side = share_side(count, total, limit=limit, miss=policy.miss)
        text = errors_text(policy, count, total)
        words = text + on_class(group.device_class)
        if total < policy.min_inferences or (side is Side.OPEN and limit > 0 and policy.min_inferences):
            more = more_needed(count, total, limit=limit, miss=policy.miss)
            more = max(more, policy.min_inferences - total)
            need = f"{more} more inferences without an error{on_class(group.device_class)} ({text})"
            judged = self._undecided(group, "TOO_FEW_INFERENCES", need)
        elif side is Side.ABOVE:
            judged = GateOutcome.FAIL, "ERROR_RATE_EXCEEDED", words
        else:
            judged = GateOutcome.PASS, "ERRORS_WITHIN_LIMIT", words
        if judged is not None:
            yield errors_check("errors", group.device_class, judged, policy, count=count, total=total)

    def _wave_errors(self) -> Iterator[GateCheck]:
        """The newest wave's own: they may fail the gate early, and are not asked to pass it."""
        policy, count, total = self.policy, self.evidence.wave_errors, self.evidence.wave_inferences
        if total < policy.min_inferences:
            return
        if share_side(count, total, limit=policy.max_errors_per_mille / 1000, miss=policy.miss) is Side.ABOVE:
            message = f"{errors_text(policy, count, total)} in the newest wave"
            judged = GateOutcome.FAIL, "WAVE_ERROR_RATE_EXCEEDED", message
            yield errors_check("errors", "", judged, policy, count=count, total=total)

    def _latency(self, group: GroupEvidence, name: str, quantile: float, limit_ms: float) -> Iterator[GateCheck]:
        if not limit_ms:
            return
        sketch, miss = group.target.latency, self.policy.miss
        samples = sketch.count if sketch is not None else 0
        side = quantile_side(sketch, quantile, limit_ms=limit_ms, miss=miss)
        between = quantile_interval(sketch, quantile, miss=miss)
        observed = quantile_ms(sketch, quantile) if sketch is not None else 0.0
        words = f"{name.removeprefix('latency_')} {observed:.4g} ms of {samples} inferences, allowed {limit_ms:g} ms"
        judged: Judged | None
        if side is Side.OPEN or samples < self.policy.min_inferences:
            above = over(sketch, limit_ms)[1] if sketch is not None else 0
            more = more_needed(above, samples, limit=1 - quantile, miss=miss)
            more = max(more, self.policy.min_inferences - samples)
            need = f"{more} more inferences within {limit_ms:g} ms{on_class(group.device_class)} ({words})"
            judged = self._undecided(group, "LATENCY_UNDECIDED", need)
        elif side is Side.ABOVE:
            judged = GateOutcome.FAIL, "LATENCY_EXCEEDED", words + on_class(group.device_class)
        else:
            judged = GateOutcome.PASS, "LATENCY_WITHIN_LIMIT", words + on_class(group.device_class)
        if judged is not None:
            yield _check(
                name,
                group.device_class,
                judged,
                observed=observed,
                between=between,
                limit=limit_ms,
                samples=samples,
            )

    def _compared(self, group: GroupEvidence) -> Iterator[GateCheck]:
        """What is asked relative to the version before, on the same agents."""
        policy = self.policy
        for aspect, limit in (
            (LATENCY_RATIO, policy.max_latency_p99_percent),
            (THROUGHPUT, policy.min_throughput_percent),
            (CONFIDENCE_DRIFT, policy.max_confidence_drift_per_mille),
            (CLASS_DRIFT, policy.max_class_drift_per_mille),
        ):
            found, judged = Comparison(), self._no_comparison(group, aspect)
            if not limit or (judged is not None and group.device_class):
                continue
            if judged is None:
                assert group.previous is not None, "else there is no comparison"
                found = aspect.compare(group.compared, group.previous, policy.miss)
                judged = self._judge_comparison(group, aspect, found, limit)
            if judged is not None:
                yield _check(
                    aspect.name,
                    group.device_class,
                    judged,
                    observed=found.observed,
                    between=found.between,
                    limit=limit,
                    samples=found.samples,
                )

    def _no_comparison(self, group: GroupEvidence, aspect: Aspect) -> Judged | None:
        """Why nothing can be compared; None where it can. It is said of all agents together alone."""
        if not self.evidence.has_previous:
            return GateOutcome.PASS, "NOTHING_TO_COMPARE", f"{aspect.words}: there is no version before"
        if group.previous is not None:
            return None
        if group.waiting:
            return GateOutcome.PENDING, "NO_BASELINE", f"agents that measured the version before ({aspect.words})"
        text = f"{aspect.words} cannot be told: no agent with the version measured the one before"
        return GateOutcome.INCONCLUSIVE, "NO_BASELINE", text

    def _judge_comparison(self, group: GroupEvidence, aspect: Aspect, found: Comparison, limit: float) -> Judged | None:
        words = f"{aspect.describe(found, limit)}{on_class(group.device_class)}"
        side = aspect.side(found, limit)
        if side is not Side.OPEN and found.samples >= self.policy.min_inferences:
            if side is Side.ABOVE:
                return GateOutcome.FAIL, f"{aspect.name.upper()}_LIMIT_BROKEN", words
            return GateOutcome.PASS, f"{aspect.name.upper()}_WITHIN_LIMIT", words
        if not aspect.can_decide(found, limit):
            text = f"{words}: the version before was measured too little to compare with"
            return GateOutcome.INCONCLUSIVE, "BASELINE_TOO_SMALL", text
        need = f"more inferences ({words}, now {found.between.low:.0f} to {found.between.high:.0f})"
        return self._undecided(group, f"{aspect.name.upper()}_UNDECIDED", need)

    def _undecided(self, group: GroupEvidence, reason: str, need: str) -> Judged | None:
        """PENDING while evidence may come, INCONCLUSIVE when the line is idle. None where nobody of a device class is
        installed or may still be: the gate does not wait for those who are away."""
        if group.waiting:
            return GateOutcome.PENDING, reason, need
        if not group.installed and group.device_class:
            return None
        if is_idle(self.policy, group.quiet_since, self.now):
            idle = f"no inference{on_class(group.device_class)} since {group.quiet_since:%Y-%m-%dT%H:%M:%SZ}"
            return GateOutcome.INCONCLUSIVE, "LINE_IDLE", f"{idle}; to pass it takes {need}"
        return GateOutcome.PENDING, reason, need
