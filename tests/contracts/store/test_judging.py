"""What PromotionRepository and TrainingPolicyRepository promise."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from controlplane.app.ports import Store
from controlplane.domain.dataset import DatasetRule, WeightKey, WeightRule
from controlplane.domain.errors import ResourceExistsError, ResourceNotFoundError, StaleWriteError
from controlplane.domain.ids import DeploymentId, ModelId, RolloutId, TrainingRunId
from controlplane.domain.judgement import ClassMetric, JudgementPolicy, Metric
from controlplane.domain.promotion import PromotionState
from controlplane.domain.training_policy import Approval
from tests.support.factories import after_seconds
from tests.support.judging import ALL_AT_ONCE, make_policy, make_promotion

SOLAR = ModelId("solar")


async def test_a_promotion_comes_back_as_it_was_stored(store: Store) -> None:
    whole = make_promotion(
        state=PromotionState.RELEASED,
        decider="operators/anna",
        decide_time=after_seconds(2),
        message="looked at ten of them",
        version=7,
        rollout_id=RolloutId("x1"),
    )
    bare = make_promotion("r2", deployment_id=None, strategy=None)
    async with store.write() as work:
        await work.promotions.add(whole)
        await work.promotions.add(bare)
    async with store.read() as work:
        assert await work.promotions.get(whole.run_id) == whole
        assert await work.promotions.find(bare.run_id) == bare
        assert await work.promotions.find(TrainingRunId("r3")) is None
        with pytest.raises(ResourceNotFoundError, match="trainingRuns/r3/promotion"):
            await work.promotions.get(TrainingRunId("r3"))


async def test_a_run_has_one_promotion_and_its_changes_are_counted(store: Store) -> None:
    promotion = make_promotion()
    async with store.write() as work:
        await work.promotions.add(promotion)
    with pytest.raises(ResourceExistsError):
        async with store.write() as work:
            await work.promotions.add(replace(promotion, uid="other"))
    async with store.write() as work:
        assert (await work.promotions.save(replace(promotion, message="m"))).revision == 1
    with pytest.raises(StaleWriteError):
        async with store.write() as work:
            await work.promotions.save(promotion)


async def test_promotions_are_listed_newest_first_and_by_state_oldest_first(store: Store) -> None:
    made = [
        make_promotion("r1"),
        make_promotion("r2", model_id=ModelId("weld"), state=PromotionState.APPROVED),
        make_promotion("r3", state=PromotionState.APPROVED, version=2),
        make_promotion("r4", state=PromotionState.WITHHELD, version=2),
    ]
    async with store.write() as work:
        for one in made:
            await work.promotions.add(one)
    async with store.read() as work:
        listed = await work.promotions.list(model_id=SOLAR, before=None, limit=2)
        assert [one.run_id for one in listed] == ["r4", "r3"]
        rest = await work.promotions.list(model_id=SOLAR, before=listed[-1].uid, limit=2)
        assert [one.run_id for one in rest] == ["r1"]
        assert len(await work.promotions.list(model_id=None, before=None, limit=9)) == 4
        approved = await work.promotions.list_in([PromotionState.APPROVED, PromotionState.PUBLISHED])
        assert [one.run_id for one in approved] == ["r2", "r3"]
        assert await work.promotions.find_version(SOLAR, 2) == made[2]
        assert await work.promotions.find_version(SOLAR, 9) is None


async def test_a_policy_comes_back_as_it_was_stored(store: Store) -> None:
    policy = make_policy(
        suspended=True,
        parameters=MappingProxyType({"epochs": 3, "names": ["a"], "x": None}),
        dataset_rule=DatasetRule(holdout_percent=30, weights=(WeightRule(key=WeightKey.LINE, value="3", weight=4.0),)),
        cron="0 2 * * SAT",
        time_zone="Asia/Shanghai",
        min_new_labels=100,
        on_drift=True,
        drift_min_new_labels=20,
        minimum_interval_seconds=3600.0,
        judgement=JudgementPolicy(
            metric=Metric.ACCURACY,
            minimum_gain=0.01,
            confidence=0.9,
            class_metric=ClassMetric.RECALL,
            class_budget=0.02,
            class_budgets=MappingProxyType({"defect": 0.0}),
            line_budget=0.1,
            budget_confidence=0.8,
            min_parts=5,
            min_class_parts=4,
        ),
        approval=Approval.AUTO,
        deployment_id=DeploymentId("line-3"),
        strategy=ALL_AT_ONCE,
    )
    async with store.write() as work:
        await work.training_policies.add(policy)
        await work.training_policies.add(make_policy(model_id=ModelId("weld")))
    async with store.read() as work:
        assert await work.training_policies.get(SOLAR) == policy
        assert await work.training_policies.find(ModelId("weld")) == make_policy(model_id=ModelId("weld"))
        assert await work.training_policies.find(ModelId("none")) is None
        with pytest.raises(ResourceNotFoundError):
            await work.training_policies.get(ModelId("none"))
        assert [one.model_id for one in await work.training_policies.list(after=None, limit=9)] == ["solar", "weld"]
        assert [one.model_id for one in await work.training_policies.list(after=SOLAR, limit=9)] == ["weld"]


async def test_a_policy_is_changed_over_its_newest_state_alone(store: Store) -> None:
    policy = make_policy()
    async with store.write() as work:
        await work.training_policies.add(policy)
    async with store.write() as work:
        saved = await work.training_policies.save(replace(policy, min_new_labels=5))
    assert (saved.revision, saved.min_new_labels) == (1, 5)
    with pytest.raises(StaleWriteError):
        async with store.write() as work:
            await work.training_policies.save(policy)
    with pytest.raises(ResourceExistsError):
        async with store.write() as work:
            await work.training_policies.add(policy)
