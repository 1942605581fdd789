"""Promotions: only what was proposed goes out, once, with who decided it."""

from collections.abc import Callable

import pytest

from controlplane.domain.errors import PreconditionError, Reason
from controlplane.domain.ids import RolloutId
from controlplane.domain.judgement import Verdict
from controlplane.domain.promotion import (
    OPEN_STATES,
    Promotion,
    PromotionState,
    PromotionStep,
    approve,
    decline,
    propose,
    published,
    released,
    waits,
)
from controlplane.domain.training_policy import Approval
from tests.support.factories import NOW, after_seconds
from tests.support.judging import ALL_AT_ONCE, make_judgement, make_policy, make_promotion
from tests.support.training import make_run

STEPS: dict[str, Callable[[Promotion], PromotionStep]] = {
    "approve": lambda it: approve(it, NOW, actor="operators/anna", message="m"),
    "decline": lambda it: decline(it, NOW, actor="operators/anna", message="m"),
    "publish": lambda it: published(it, 2, NOW),
    "release": lambda it: released(it, RolloutId("x1"), NOW),
}
ALLOWED = {
    "approve": {PromotionState.PROPOSED},
    "decline": OPEN_STATES,
    "publish": {PromotionState.APPROVED},
    "release": {PromotionState.PUBLISHED},
}


@pytest.mark.parametrize("step", sorted(STEPS))
@pytest.mark.parametrize("state", sorted(PromotionState))
def test_only_steps_of_the_table_are_taken(step: str, state: PromotionState) -> None:
    promotion = make_promotion(state=state)
    if state in ALLOWED[step]:
        taken = STEPS[step](promotion)
        assert taken.promotion.state is not state
        assert len(taken.happenings) == 1
        return
    with pytest.raises(PreconditionError) as refusal:
        STEPS[step](promotion)
    assert refusal.value.reason is Reason.PROMOTION_STATE


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("approval", sorted(Approval))
def test_what_is_not_proposed_goes_nowhere(verdict: Verdict, approval: Approval) -> None:
    step = propose(make_run(), make_judgement(verdict=verdict), make_policy(approval=approval), uid="u", now=NOW)
    assert step.promotion.state is PromotionState.WITHHELD
    assert [happening.action for happening in step.happenings] == ["promotion.judge"]


def test_a_proposal_waits_for_a_person_unless_the_policy_approves() -> None:
    policy = make_policy(deployment_id="line-3", strategy=ALL_AT_ONCE)
    waiting = propose(make_run(), make_judgement(), policy, uid="u", now=NOW)
    assert waiting.promotion.state is PromotionState.PROPOSED
    assert (waiting.promotion.deployment_id, waiting.promotion.strategy) == ("line-3", ALL_AT_ONCE)
    by_policy = propose(make_run(), make_judgement(), make_policy(approval=Approval.AUTO), uid="u", now=NOW)
    assert by_policy.promotion.state is PromotionState.APPROVED
    assert by_policy.promotion.decider == "rules/training-policy"
    assert [happening.action for happening in by_policy.happenings] == ["promotion.judge", "promotion.approve"]
    without = propose(make_run(), make_judgement(), None, uid="u", now=NOW)
    assert (without.promotion.state, without.promotion.deployment_id) == (PromotionState.PROPOSED, None)


def test_without_a_deployment_publishing_is_the_end() -> None:
    step = published(make_promotion(state=PromotionState.APPROVED, deployment_id=None, strategy=None), 2, NOW)
    assert (step.promotion.state, step.promotion.version) == (PromotionState.RELEASED, 2)


def test_who_decided_is_written_down_with_everything_it_touches() -> None:
    step = approve(make_promotion(), after_seconds(5), actor="operators/bo", message="fine")
    (happening,) = step.happenings
    assert (happening.actor, happening.action, happening.message) == ("operators/bo", "promotion.approve", "fine")
    assert set(happening.related) == {"trainingRuns/r1", "models/solar", "datasets/d1"}
    assert (step.promotion.decider, step.promotion.decide_time) == ("operators/bo", after_seconds(5))


def test_why_it_waits_is_said_once() -> None:
    promotion = make_promotion(state=PromotionState.PUBLISHED)
    said = waits(promotion, "no agent", after_seconds(1))
    assert (said.message, said.update_time) == ("no agent", after_seconds(1))
    assert waits(said, "no agent", after_seconds(2)) is said
