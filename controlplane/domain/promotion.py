"""Promotions: what a run's candidate was found worth, and what became of it.

    PROPOSED --approve--> APPROVED --publish--> PUBLISHED --release--> RELEASED
       '---------decline------'--------------------'-----> DECLINED
    WITHHELD: the judgement proposes nothing

What holds:
- Only a proposal is approved, once; it is declined as long as something is still to be done.
- A version is published only of an approved candidate, and a rollout starts only of a published one.
- What decides how it goes out (deployment, strategy) is kept with the judgement: a policy that changes later changes
  nothing of it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from controlplane.domain.audit import Happening, Json
from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.ids import DatasetId, DeploymentId, ModelId, RolloutId, TrainingRunId
from controlplane.domain.judgement import Judgement, Verdict
from controlplane.domain.rollout import RolloutStrategy
from controlplane.domain.training_policy import POLICY, Approval, TrainingPolicy
from controlplane.domain.training_run import TrainingRun


class PromotionState(StrEnum):
    WITHHELD = "WITHHELD"
    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    PUBLISHED = "PUBLISHED"
    RELEASED = "RELEASED"
    DECLINED = "DECLINED"


OPEN_STATES = frozenset({PromotionState.PROPOSED, PromotionState.APPROVED, PromotionState.PUBLISHED})
"""Something is still to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One a judged run."""

    run_id: TrainingRunId
    uid: str
    model_id: ModelId
    dataset_id: DatasetId
    create_time: datetime
    update_time: datetime
    state: PromotionState
    judgement: Judgement
    decider: str = ""
    """`operators/{operator}` or `rules/{rule}`; empty while nobody has decided."""
    decide_time: datetime | None = None
    message: str = ""
    """In the decider's words; or why the next step waits."""
    version: int | None = None
    deployment_id: DeploymentId | None = None
    strategy: RolloutStrategy | None = None
    """Where there is a deployment."""
    rollout_id: RolloutId | None = None
    revision: int = 0

    @property
    def name(self) -> str:
        return f"trainingRuns/{self.run_id}/promotion"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionStep:
    """A promotion as it is to be stored, and what is to be written down of it."""

    promotion: Promotion
    happenings: tuple[Happening, ...] = ()


def propose(
    run: TrainingRun, judgement: Judgement, policy: TrainingPolicy | None, *, uid: str, now: datetime
) -> PromotionStep:
    """Begin with the judgement of a run; approved at once where the policy says so."""
    proposed = judgement.verdict is Verdict.PROPOSED
    deployment_id = policy.deployment_id if policy is not None else None
    promotion = Promotion(
        run_id=run.id,
        uid=uid,
        model_id=run.model_id,
        dataset_id=run.dataset_id,
        create_time=now,
        update_time=now,
        state=PromotionState.PROPOSED if proposed else PromotionState.WITHHELD,
        judgement=judgement,
        deployment_id=deployment_id,
        strategy=policy.strategy if policy is not None and deployment_id is not None else None,
    )
    told = PromotionStep(promotion=promotion, happenings=(_happening(promotion, POLICY, "judge", _numbers(judgement)),))
    if not proposed or policy is None or policy.approval is not Approval.AUTO:
        return told
    approved = approve(promotion, now, actor=POLICY, message="the policy approves what is proposed")
    return PromotionStep(promotion=approved.promotion, happenings=told.happenings + approved.happenings)


def approve(promotion: Promotion, now: datetime, *, actor: str, message: str) -> PromotionStep:
    """Let the candidate go out. Raises PreconditionError (PROMOTION_STATE) unless it is PROPOSED."""
    _check(promotion, PromotionState.PROPOSED)
    return _decided(promotion, now, PromotionState.APPROVED, "approve", actor=actor, message=message)


def decline(promotion: Promotion, now: datetime, *, actor: str, message: str) -> PromotionStep:
    """Let it not go out, or no further: what was published stays so. Raises PreconditionError (PROMOTION_STATE) where
    nothing is left to be done."""
    _check(promotion, *OPEN_STATES)
    return _decided(promotion, now, PromotionState.DECLINED, "decline", actor=actor, message=message)


def published(promotion: Promotion, version: int, now: datetime) -> PromotionStep:
    """The candidate is a version."""
    _check(promotion, PromotionState.APPROVED)
    moved = replace(promotion, state=PromotionState.PUBLISHED, version=version, update_time=now)
    if moved.deployment_id is None:
        moved = replace(moved, state=PromotionState.RELEASED)
    return PromotionStep(promotion=moved, happenings=(_happening(moved, promotion.decider, "publish"),))


def released(promotion: Promotion, rollout_id: RolloutId, now: datetime) -> PromotionStep:
    """Its rollout was started."""
    _check(promotion, PromotionState.PUBLISHED)
    moved = replace(promotion, state=PromotionState.RELEASED, rollout_id=rollout_id, message="", update_time=now)
    return PromotionStep(promotion=moved, happenings=(_happening(moved, promotion.decider, "release"),))


def waits(promotion: Promotion, message: str, now: datetime) -> Promotion:
    """Say why the next step waits; the same promotion where that is said already."""
    return promotion if promotion.message == message else replace(promotion, message=message, update_time=now)


def _decided(
    promotion: Promotion, now: datetime, state: PromotionState, action: str, *, actor: str, message: str
) -> PromotionStep:
    moved = replace(promotion, state=state, decider=actor, decide_time=now, message=message, update_time=now)
    return PromotionStep(promotion=moved, happenings=(_happening(moved, actor, action),))


def _numbers(judgement: Judgement) -> dict[str, Json]:
    overall = judgement.overall
    return {
        "metric": overall.metric,
        "candidate": round(overall.candidate, 6),
        "champion": round(overall.champion, 6),
        "gain_low": round(overall.difference.low, 6),
        "gain_high": round(overall.difference.high, 6),
        "parts": judgement.parts,
        "digest": judgement.candidate_digest,
    }


def _happening(promotion: Promotion, actor: str, action: str, evidence: dict[str, Json] | None = None) -> Happening:
    of_version = [f"models/{promotion.model_id}/versions/{promotion.version}"] if promotion.version else []
    of_rollout = [f"rollouts/{promotion.rollout_id}"] if promotion.rollout_id else []
    return Happening(
        actor=actor,
        action=f"promotion.{action}",
        resource=promotion.name,
        reason=promotion.judgement.verdict,
        message=promotion.message or "; ".join(promotion.judgement.reasons),
        evidence=evidence or {},
        related=(
            f"trainingRuns/{promotion.run_id}",
            f"models/{promotion.model_id}",
            f"datasets/{promotion.dataset_id}",
            *of_version,
            *of_rollout,
        ),
    )


def _check(promotion: Promotion, *states: PromotionState) -> None:
    if promotion.state not in states:
        raise PreconditionError(
            f"{promotion.name} is {promotion.state}",
            field="name",
            remedy=f"this needs one that is {' or '.join(sorted(states))}",
            reason=Reason.PROMOTION_STATE,
        )
