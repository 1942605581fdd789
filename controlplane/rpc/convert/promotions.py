"""Judgements and promotions on the wire."""

from types import MappingProxyType

from lineside.v1 import promotion_pb2

from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.ids import ModelId, TrainingRunId
from controlplane.domain.judgement import Judgement, PairedComparison, Verdict
from controlplane.domain.promotion import Promotion, PromotionState
from controlplane.rpc.convert.etags import etag_of
from controlplane.rpc.convert.names import parse_training_run_name, version_name
from controlplane.rpc.convert.strategies import strategy_to_proto
from controlplane.rpc.convert.times import optional_time_to_proto, time_to_proto

_STATES = MappingProxyType(
    {
        PromotionState.WITHHELD: promotion_pb2.Promotion.STATE_WITHHELD,
        PromotionState.PROPOSED: promotion_pb2.Promotion.STATE_PROPOSED,
        PromotionState.APPROVED: promotion_pb2.Promotion.STATE_APPROVED,
        PromotionState.PUBLISHED: promotion_pb2.Promotion.STATE_PUBLISHED,
        PromotionState.RELEASED: promotion_pb2.Promotion.STATE_RELEASED,
        PromotionState.DECLINED: promotion_pb2.Promotion.STATE_DECLINED,
    }
)
_VERDICTS = MappingProxyType(
    {
        Verdict.PROPOSED: promotion_pb2.Judgement.VERDICT_PROPOSED,
        Verdict.REJECTED: promotion_pb2.Judgement.VERDICT_REJECTED,
        Verdict.INCONCLUSIVE: promotion_pb2.Judgement.VERDICT_INCONCLUSIVE,
    }
)
_SUFFIX = "/promotion"


def parse_promotion_name(name: str, *, field: str) -> TrainingRunId:
    """Return the run of `trainingRuns/{training_run}/promotion`. Raises FieldInvalidError."""
    if not name.endswith(_SUFFIX):
        raise FieldInvalidError(
            f"{name[:200]!r} is not a name", field=field, remedy="write trainingRuns/{training_run}/promotion"
        )
    return parse_training_run_name(name.removesuffix(_SUFFIX), field=field)


def promotion_to_proto(promotion: Promotion) -> promotion_pb2.Promotion:
    deployment_id, rollout_id = promotion.deployment_id, promotion.rollout_id
    return promotion_pb2.Promotion(
        name=promotion.name,
        model=f"models/{promotion.model_id}",
        dataset=f"datasets/{promotion.dataset_id}",
        create_time=time_to_proto(promotion.create_time),
        update_time=time_to_proto(promotion.update_time),
        etag=etag_of(promotion.revision),
        state=_STATES[promotion.state],
        judgement=_judgement_to_proto(promotion.judgement, promotion.model_id),
        decider=promotion.decider,
        decide_time=optional_time_to_proto(promotion.decide_time),
        message=promotion.message,
        model_version=version_name(promotion.model_id, promotion.version) if promotion.version is not None else "",
        deployment=f"deployments/{deployment_id}" if deployment_id is not None else "",
        strategy=strategy_to_proto(promotion.strategy) if promotion.strategy is not None else None,
        rollout=f"rollouts/{rollout_id}" if rollout_id is not None else "",
    )


def _judgement_to_proto(judgement: Judgement, model_id: ModelId) -> promotion_pb2.Judgement:
    return promotion_pb2.Judgement(
        verdict=_VERDICTS[judgement.verdict],
        reasons=judgement.reasons,
        champion_version=version_name(model_id, judgement.champion_version),
        candidate_digest=judgement.candidate_digest,
        items=judgement.items,
        skipped_items=judgement.skipped_items,
        parts=judgement.parts,
        confidence=judgement.confidence,
        budget_confidence=judgement.budget_confidence,
        overall=_comparison_to_proto(judgement.overall),
        classes=map(_comparison_to_proto, judgement.classes),
        lines=map(_comparison_to_proto, judgement.lines),
    )


def _comparison_to_proto(one: PairedComparison) -> promotion_pb2.PairedComparison:
    return promotion_pb2.PairedComparison(
        subject=one.subject,
        metric=one.metric.value.lower(),
        items=one.items,
        parts=one.parts,
        measured=one.measured,
        candidate=one.candidate,
        champion=one.champion,
        difference=one.gain,
        difference_low=one.difference.low,
        difference_high=one.difference.high,
    )
