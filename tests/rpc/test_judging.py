"""Promotions, training policies and lineage over the API, and their conversion."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lineside.v1 import (
    lineage_service_pb2,
    lineage_service_pb2_grpc,
    promotion_pb2,
    promotion_service_pb2,
    promotion_service_pb2_grpc,
    training_policy_pb2,
    training_policy_service_pb2,
    training_policy_service_pb2_grpc,
)

from controlplane.domain.dataset import DatasetRule, WeightKey, WeightRule
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import AgentId, DatasetId, DeploymentId, ModelId, RolloutId, TrainingRunId
from controlplane.domain.judgement import ClassMetric, JudgementPolicy, Metric
from controlplane.domain.lineage import AgentUse, Ancestor, Lineage, RolloutUse, Training, count_origins
from controlplane.domain.promotion import PromotionState
from controlplane.domain.rollout import RolloutState
from controlplane.domain.split import Split
from controlplane.domain.training_policy import DEFAULT_STRATEGY, Approval, TrainingPolicy
from controlplane.rpc.convert.lineage import lineage_to_proto
from controlplane.rpc.convert.promotions import parse_promotion_name, promotion_to_proto
from controlplane.rpc.convert.training_policies import parse_policy_name, policy_from_proto, policy_to_proto
from tests.support.dataset_factories import make_item
from tests.support.factories import NOW, after_seconds, make_model
from tests.support.judging import ALL_AT_ONCE, make_policy, make_promotion
from tests.support.wire import bearer, refused

shares = st.integers(1, 99).map(lambda hundredths: hundredths / 100)
policies = st.builds(
    make_policy,
    suspended=st.booleans(),
    dataset_rule=st.builds(
        DatasetRule,
        holdout_percent=st.integers(0, 40),
        validation_percent=st.integers(0, 40),
        weights=st.just((WeightRule(key=WeightKey.LINE, value="3", weight=4.0),)),
    ),
    cron=st.sampled_from(["", "0 2 * * SAT"]),
    time_zone=st.sampled_from(["UTC", "Asia/Shanghai"]),
    min_new_labels=st.integers(0, 1000),
    on_drift=st.booleans(),
    drift_min_new_labels=st.integers(1, 1000),
    minimum_interval_seconds=st.integers(0, 10**6).map(float),
    judgement=st.builds(
        JudgementPolicy,
        metric=st.sampled_from(Metric),
        class_metric=st.sampled_from(ClassMetric),
        minimum_gain=st.just(0.0) | shares,
        confidence=shares,
        class_budget=st.just(0.0) | shares,
        class_budgets=st.dictionaries(st.sampled_from(["a", "b"]), shares).map(MappingProxyType),
        line_budget=st.none() | st.just(0.0) | shares,
        budget_confidence=shares,
        min_parts=st.integers(2, 100),
        min_class_parts=st.integers(2, 100),
    ),
    approval=st.sampled_from(Approval),
    deployment_id=st.none() | st.just(DeploymentId("line-3")),
    strategy=st.sampled_from([ALL_AT_ONCE, DEFAULT_STRATEGY]),
)


@given(policies)
def test_a_policy_comes_over_the_wire_as_it_was(policy: TrainingPolicy) -> None:
    message = training_policy_pb2.TrainingPolicy.FromString(policy_to_proto(policy).SerializeToString())
    found = policy_from_proto(message, actor=policy.actor)
    assert replace(found, update_time=policy.update_time) == policy


def test_what_is_left_out_of_a_policy_is_the_default() -> None:
    message = training_policy_pb2.TrainingPolicy(name="models/solar/trainingPolicy", trainer="head")
    found = policy_from_proto(message, actor="operators/anna")
    assert replace(found, update_time=NOW) == make_policy()


@pytest.mark.parametrize(
    "name", ["models/solar", "models/So/trainingPolicy", "trainingPolicy", "models/a/b/trainingPolicy"]
)
def test_what_names_no_policy_is_refused(name: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        parse_policy_name(name, field="name")
    assert refusal.value.field == "name"


def test_names_of_policies_and_promotions_are_read() -> None:
    assert parse_policy_name("models/solar/trainingPolicy", field="name") == "solar"
    assert parse_promotion_name("trainingRuns/r1/promotion", field="name") == "r1"
    with pytest.raises(FieldInvalidError):
        parse_promotion_name("trainingRuns/r1", field="name")


def test_a_whole_promotion_is_told() -> None:
    message: Any = promotion_to_proto(
        make_promotion(
            state=PromotionState.RELEASED,
            decider="operators/anna",
            decide_time=after_seconds(2),
            message="fine",
            version=7,
            rollout_id=RolloutId("x1"),
            revision=3,
        )
    )
    unset = [
        field.name
        for field in message.DESCRIPTOR.fields
        if not (message.HasField(field.name) if field.has_presence else getattr(message, field.name))
    ]
    assert unset == []
    assert (message.name, message.model_version, message.rollout) == (
        "trainingRuns/r1/promotion",
        "models/solar/versions/7",
        "rollouts/x1",
    )
    judgement = message.judgement
    assert judgement.champion_version == "models/solar/versions/1"
    assert (judgement.overall.metric, judgement.overall.difference) == ("auc", pytest.approx(0.1))
    assert [(one.subject, one.metric) for one in judgement.classes] == [("defect", "f1"), ("good", "recall")]
    assert [one.measured for one in judgement.lines] == [True, False]


@pytest.mark.parametrize("state", PromotionState)
def test_every_state_has_its_word(state: PromotionState) -> None:
    message = promotion_to_proto(make_promotion(state=state))
    assert promotion_pb2.Promotion.State.Name(message.state) == f"STATE_{state}"


def test_a_lineage_is_told_back_and_forward() -> None:
    items = [
        make_item(sample_id="a", agent_id=AgentId("st-1"), site="suzhou", line="3", annotators=("anna", "bo")),
        make_item(sample_id="b", split=Split.HOLDOUT, label="defect"),
    ]
    training = Training(
        run_id=TrainingRunId("r1"),
        trainer="head",
        dataset_id=DatasetId("d1"),
        base_version=1,
        origins=count_origins(items),
        judgement="better",
        decider="operators/anna",
    )
    solar = ModelId("solar")
    lineage = Lineage(
        ancestors=(
            Ancestor(model_id=solar, version=2, create_time=NOW, training=training),
            Ancestor(model_id=solar, version=1, create_time=NOW),
        ),
        rollouts=(
            RolloutUse(
                rollout_id=RolloutId("x1"),
                deployment_id=DeploymentId("line-3"),
                state=RolloutState.SUCCEEDED,
                create_time=NOW,
            ),
        ),
        agents=(
            AgentUse(agent_id=AgentId("st-1"), place="suzhou/3", receive_time=after_seconds(-10)),
            AgentUse(agent_id=AgentId("st-2"), place="", receive_time=after_seconds(-20)),
        ),
    )
    message = lineage_to_proto(lineage, now=NOW, silent_seconds_max=15.0)
    made, base = message.ancestors
    assert dict(made.items) == {"train": 1, "holdout": 1}
    assert dict(made.items_by_agent) == {"agents/st-1": 1, "": 1}
    assert dict(made.items_by_line) == {"suzhou/3": 1, "": 1}
    assert dict(made.items_by_label) == {"good": 1, "defect": 1}
    assert dict(made.labels_by_annotator) == {"anna": 2, "bo": 1}
    assert (made.base_version, base.training_run) == ("models/solar/versions/1", "")
    assert [use.state for use in message.rollouts] == ["SUCCEEDED"]
    assert [agent.connected for agent in message.agents] == [True, False]


async def test_they_are_served_to_operators(served: Any) -> None:
    metadata = bearer(served.operator_token)
    async with served.parts.store.write() as work:
        await work.models.add(make_model(id="solar"))
        await work.promotions.add(make_promotion())
    async with served.box("laptop").tls_channel(served.api) as channel:
        policies_stub: Any = training_policy_service_pb2_grpc.TrainingPolicyServiceStub(channel)
        named = "models/solar/trainingPolicy"
        wanted = training_policy_pb2.TrainingPolicy(name=named, trainer="head", min_new_labels=9)
        update = training_policy_service_pb2.UpdateTrainingPolicyRequest(training_policy=wanted)
        was_set = await policies_stub.UpdateTrainingPolicy(update, metadata=metadata)
        assert (was_set.min_new_labels, was_set.actor) == (9, "operators/admin")
        get = training_policy_service_pb2.GetTrainingPolicyRequest(name=named)
        assert await policies_stub.GetTrainingPolicy(get, metadata=metadata) == was_set
        listed = await policies_stub.ListTrainingPolicies(
            training_policy_service_pb2.ListTrainingPoliciesRequest(), metadata=metadata
        )
        assert list(listed.training_policies) == [was_set]
        explained = await policies_stub.ExplainTrainingPolicy(
            training_policy_service_pb2.ExplainTrainingPolicyRequest(name=named), metadata=metadata
        )
        assert explained.message == "the candidate of trainingRuns/r1 waits to be approved or to be published"
        update.training_policy.trainer = "nobody"
        refusal = await refused(policies_stub.UpdateTrainingPolicy(update, metadata=metadata))
        assert (refusal.code, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, "training_policy.trainer")

        promotions: Any = promotion_service_pb2_grpc.PromotionServiceStub(channel)
        name = "trainingRuns/r1/promotion"
        page = await promotions.ListPromotions(
            promotion_service_pb2.ListPromotionsRequest(model="models/solar"), metadata=metadata
        )
        assert [one.name for one in page.promotions] == [name]
        shown = await promotions.GetPromotion(promotion_service_pb2.GetPromotionRequest(name=name), metadata=metadata)
        reject = promotion_service_pb2.RejectPromotionRequest(name=name, etag=shown.etag, reason="wrong labels")
        declined = await promotions.RejectPromotion(reject, metadata=metadata)
        assert (declined.state, declined.decider) == (promotion_pb2.Promotion.STATE_DECLINED, "operators/admin")
        approve = promotion_service_pb2.ApprovePromotionRequest(name=name)
        refusal = await refused(promotions.ApprovePromotion(approve, metadata=metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROMOTION_STATE")

        lineages: Any = lineage_service_pb2_grpc.LineageServiceStub(channel)
        asked = lineage_service_pb2.GetLineageRequest(name="models/solar/versions/9")
        refusal = await refused(lineages.GetLineage(asked, metadata=metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
