"""Judging put together: who judges, promotes and triggers, and what operators see of it."""

from collections.abc import Callable

import grpc
from lineside.v1 import lineage_service_pb2_grpc, promotion_service_pb2_grpc, training_policy_service_pb2_grpc

from controlplane import limits
from controlplane.app.datasets import Datasets
from controlplane.app.judging import Judging
from controlplane.app.lineage import Lineages
from controlplane.app.notices import Notices
from controlplane.app.ports import BlobStore, Clock, IdSource, Store
from controlplane.app.promotions import Promotions, PromotionTicks
from controlplane.app.registry import Registry
from controlplane.app.rollouts import Rollouts
from controlplane.app.training import Training
from controlplane.app.training_policies import TrainingPolicies
from controlplane.app.training_triggers import TrainingTriggers
from controlplane.config import Settings
from controlplane.inspection.evaluation import OpenVinoEvaluator
from controlplane.inspection.inspector import OpenVinoInspector
from controlplane.jobs import Job
from controlplane.rpc.lineage import LineageServicer
from controlplane.rpc.promotions import PromotionServicer
from controlplane.rpc.training_policies import TrainingPolicyServicer

Registration = tuple[str, Callable[[grpc.aio.Server], None]]


def judging_jobs(
    settings: Settings,
    *,
    fenced: Store,
    blobs: BlobStore,
    datasets: Datasets,
    training: Training,
    notices: Notices,
    clock: Clock,
    ids: IdSource,
    silent_seconds_max: float,
) -> tuple[Job, ...]:
    """What the controller that leads does by itself; it writes behind the fence."""
    judging = Judging(
        store=fenced,
        blobs=blobs,
        holdouts=datasets,
        evaluator=OpenVinoEvaluator(),
        clock=clock,
        ids=ids,
        workspace=settings.work_dir,
    )
    registry = Registry(
        store=fenced,
        blobs=blobs,
        inspector=OpenVinoInspector(),
        clock=clock,
        ids=ids,
        notifier=notices,
        workspace=settings.work_dir,
    )
    rollouts = Rollouts(store=fenced, clock=clock, ids=ids, notices=notices, silent_seconds_max=silent_seconds_max)
    promotions = PromotionTicks(store=fenced, registry=registry, rollouts=rollouts, clock=clock, ids=ids)
    triggers = TrainingTriggers(store=fenced, datasets=datasets, training=training, clock=clock)
    return (
        Job(name="judging", work=judging.tick, seconds=limits.JUDGING_TICK_SECONDS),
        Job(name="promotions", work=promotions.tick, seconds=limits.PROMOTION_TICK_SECONDS),
        Job(name="training-triggers", work=triggers.tick, seconds=limits.TRIGGER_TICK_SECONDS),
    )


def judging_services(
    *,
    store: Store,
    datasets: Datasets,
    training: Training,
    clock: Clock,
    ids: IdSource,
    silent_seconds_max: float,
) -> tuple[Registration, ...]:
    """What operators reach on the API listener."""
    trainers = [trainer.id for trainer in training.list_trainers(page_size=limits.PAGE_SIZE_MAX).items]
    promotions = PromotionServicer(Promotions(store=store, clock=clock, ids=ids))
    policies = TrainingPolicyServicer(TrainingPolicies(store=store, clock=clock, ids=ids, trainers=trainers))
    lineages = LineageServicer(
        Lineages(store=store, datasets=datasets), clock=clock, silent_seconds_max=silent_seconds_max
    )
    return (
        (
            "lineside.v1.PromotionService",
            lambda to: promotion_service_pb2_grpc.add_PromotionServiceServicer_to_server(promotions, to),
        ),
        (
            "lineside.v1.TrainingPolicyService",
            lambda to: training_policy_service_pb2_grpc.add_TrainingPolicyServiceServicer_to_server(policies, to),
        ),
        (
            "lineside.v1.LineageService",
            lambda to: lineage_service_pb2_grpc.add_LineageServiceServicer_to_server(lineages, to),
        ),
    )
