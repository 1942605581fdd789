"""The gate of a shadow run: whether a candidate that answered nothing yet agrees with the version that answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from controlplane.domain.distribution import add_shadow_tallies
from controlplane.domain.evidence import ShadowEvidence
from controlplane.domain.gate import (
    Evidence,
    GateCheck,
    GateOutcome,
    GatePolicy,
    GateVerdict,
    Judged,
    conclude,
    errors_check,
    errors_text,
    is_idle,
    on_class,
    percent,
)
from controlplane.domain.interval import Side, more_needed, share_interval, share_side
from controlplane.domain.rollout import ShadowPolicy


def evaluate_shadow(policy: ShadowPolicy, evidence: Evidence, *, gate: GatePolicy, now: datetime) -> GateVerdict:
    """Return what the shadow run says of the candidate.

    - FAIL once it surely agrees with the version that answers on too few inputs, or surely fails on too many: on all
      agents together or on those of one device class. One class alone can only fail it.
    - INCONCLUSIVE when more cannot come: every run ended, or no input came for `idle_seconds`.
    - PENDING while it is not decided, or fewer than `min_comparisons` were made.
    - PASS else. A failed answer agrees with nothing, so errors alone can only fail it.

    `gate` lends its confidence, its limit of errors and its idle time.
    """
    judge = _Judge(policy=policy, gate=gate, now=now)
    shadows = evidence.shadows
    whole = ShadowEvidence(
        tally=add_shadow_tallies(shadow.tally for shadow in shadows),
        running=sum(shadow.running for shadow in shadows),
        ended=sum(shadow.ended for shadow in shadows),
        first_end=next((shadow.first_end for shadow in shadows if shadow.first_end), ""),
        quiet_since=max((s.quiet_since for s in shadows if s.quiet_since is not None), default=None),
    )
    classes = shadows if len(shadows) > 1 else ()
    of_classes = [judge.agreement(shadow) for shadow in classes]
    checks = [judge.agreement(whole), *(check for check in of_classes if check.outcome is GateOutcome.FAIL)]
    checks += [check for shadow in (whole, *classes) for check in judge.errors(shadow)]
    tally = whole.tally
    so_far = (
        f"{tally.agreed} of {tally.compared} inputs judged alike, {tally.errors} failed on, {tally.skipped} left out"
    )
    return conclude(tuple(checks), evidence, so_far, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    policy: ShadowPolicy
    gate: GatePolicy
    now: datetime

    def agreement(self, shadow: ShadowEvidence) -> GateCheck:
        tally, limit, miss = shadow.tally, 1 - self.policy.min_agreement_per_mille / 1000, self.gate.miss
        differing = tally.compared - tally.agreed
        between = share_interval(differing, tally.compared, limit=limit, miss=miss)
        outcome, reason, message = self._judge_agreement(shadow, differing, limit)
        return GateCheck(
            name="shadow",
            device_class=shadow.device_class,
            outcome=outcome,
            reason=reason,
            message=message,
            observed=1000 * tally.agreed / tally.compared if tally.compared else 0.0,
            low=1000 * (1 - between.high),
            high=1000 * (1 - between.low),
            limit=self.policy.min_agreement_per_mille,
            samples=tally.compared,
        )

    def _judge_agreement(self, shadow: ShadowEvidence, differing: int, limit: float) -> Judged:
        total, floor = shadow.tally.compared, self.policy.min_comparisons
        side = share_side(differing, total, limit=limit, miss=self.gate.miss)
        if side is Side.OPEN and limit <= 0 and total:
            side = Side.BELOW
        seen = percent(shadow.tally.agreed / total) if total else "none"
        words = f"{shadow.tally.agreed} of {total} inputs judged alike ({seen})"
        words += f"{on_class(shadow.device_class)}, at least {percent(1 - limit)} asked for"
        if side is Side.ABOVE:
            return GateOutcome.FAIL, "SHADOW_DISAGREES", words
        if side is Side.BELOW and total >= floor:
            return GateOutcome.PASS, "SHADOW_AGREES", words
        more = max(more_needed(differing, total, limit=limit, miss=self.gate.miss), floor - total, 1)
        return self._undecided(shadow, f"{more} more inputs judged alike ({words})", words)

    def _undecided(self, shadow: ShadowEvidence, need: str, words: str) -> Judged:
        if not shadow.running:
            early = f"; {shadow.first_end}" if shadow.first_end else ""
            return GateOutcome.INCONCLUSIVE, "SHADOW_ENDED", f"every shadow run ended undecided: {words}{early}"
        if is_idle(self.gate, shadow.quiet_since, self.now):
            idle = f"no input since {shadow.quiet_since:%Y-%m-%dT%H:%M:%SZ}"
            return GateOutcome.INCONCLUSIVE, "SHADOW_IDLE", f"{idle}; to pass it takes {need}"
        return GateOutcome.PENDING, "SHADOWING", need

    def errors(self, shadow: ShadowEvidence) -> Iterator[GateCheck]:
        count, total = shadow.tally.errors, shadow.tally.compared
        limit = self.gate.max_errors_per_mille / 1000
        if share_side(count, total, limit=limit, miss=self.gate.miss) is Side.ABOVE:
            words = f"in shadow, {errors_text(self.gate, count, total)}{on_class(shadow.device_class)}"
            judged = (GateOutcome.FAIL, "SHADOW_ERRORS", words)
            yield errors_check("shadow", shadow.device_class, judged, self.gate, count=count, total=total)
