"""The control process put together: which adapters stand behind the ports, which servicers on which listener."""

import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from lineside.v1 import (
    agent_service_pb2_grpc,
    audit_service_pb2_grpc,
    deployment_service_pb2_grpc,
    drift_service_pb2_grpc,
    endpoints_pb2,
    enrollment_service_pb2_grpc,
    evidence_service_pb2_grpc,
    fleet_service_pb2_grpc,
    join_token_service_pb2_grpc,
    model_service_pb2_grpc,
    operator_service_pb2_grpc,
    result_service_pb2_grpc,
    rollout_service_pb2_grpc,
    sample_service_pb2_grpc,
)

from controlplane import limits
from controlplane.app.agents import Agents
from controlplane.app.audit import Audit
from controlplane.app.convergence import Convergence
from controlplane.app.datasets import Datasets
from controlplane.app.deployments import Deployments
from controlplane.app.desired import DesiredStates
from controlplane.app.drift import Drifts, DriftTicks
from controlplane.app.enrollment import Enrollment
from controlplane.app.evidence import Evidence
from controlplane.app.explanations import Explanations
from controlplane.app.fleet import Fleet
from controlplane.app.lake_keeping import LakeKeeping
from controlplane.app.leadership import FencedStore, Leadership
from controlplane.app.metrics import Metrics
from controlplane.app.notices import Notice, NoticeKind, Notices
from controlplane.app.observations import Observations
from controlplane.app.operators import Operators
from controlplane.app.pins import Pins
from controlplane.app.planning import Planning
from controlplane.app.ports import BlobStore, Store
from controlplane.app.ports_lake import ObjectStore, ResultCodec
from controlplane.app.registry import Registry
from controlplane.app.rehearsals import Rehearsals
from controlplane.app.rejudging import SampleJudges
from controlplane.app.result_questions import ResultQuestions
from controlplane.app.results import Results
from controlplane.app.revocations import Revocations
from controlplane.app.rollout_ticks import RolloutTicks
from controlplane.app.rollouts import Rollouts
from controlplane.app.samples import Samples
from controlplane.app.telling import Telling
from controlplane.app.tokens import JoinTokens
from controlplane.artifacts.blob_store import open_blob_store
from controlplane.artifacts.object_store import open_object_store
from controlplane.composition_datasets import api_services, open_datasets
from controlplane.composition_judging import judging_jobs, judging_services
from controlplane.composition_training import TrainingParts, compose_training, training_services
from controlplane.config import Address, Settings
from controlplane.domain.ids import AgentId
from controlplane.folder import clear_workspace, take_over
from controlplane.identity.authority import LocalAuthority
from controlplane.identity.peers import parse_peer
from controlplane.inspection.evaluation import OpenVinoEvaluator
from controlplane.inspection.inspector import OpenVinoInspector
from controlplane.jobs import Job
from controlplane.lake.codec import ParquetCodec
from controlplane.lake.query import DuckDbQuestions
from controlplane.metrics_endpoint import MeasuredStore, Meter
from controlplane.rpc import server
from controlplane.rpc.agents import AgentServicer
from controlplane.rpc.audit import AuditServicer
from controlplane.rpc.authentication import AgentGuard, Anyone, OperatorGuard
from controlplane.rpc.deployments import DeploymentServicer
from controlplane.rpc.drift import DriftServicer
from controlplane.rpc.enrollment import EnrollmentServicer
from controlplane.rpc.evidence import EvidenceServicer
from controlplane.rpc.fleet import FleetServicer
from controlplane.rpc.join_tokens import JoinTokenServicer
from controlplane.rpc.models import ModelServicer
from controlplane.rpc.operators import OperatorServicer
from controlplane.rpc.results import ResultServicer
from controlplane.rpc.rollouts import RolloutServicer
from controlplane.rpc.samples import SampleServicer
from controlplane.store import SqlStore, open_store
from controlplane.store.notifications import PostgresNotices, open_notices
from controlplane.system import SystemClock, SystemIds

Registration = tuple[str, Callable[[grpc.aio.Server], None]]
"""Full name of a service, and what adds its servicer to a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the control process is made of."""

    settings: Settings
    authority: LocalAuthority
    clock: SystemClock
    ids: SystemIds
    store: Store
    fenced: Store
    """As `store`, for the jobs: what it writes is refused once another controller leads."""
    database: SqlStore
    """Behind `store`; close it at the end."""
    meter: Meter
    blobs: BlobStore
    datasets: Datasets
    training: TrainingParts
    objects: ObjectStore
    codec: ResultCodec
    notices: Notices
    revocations: Revocations
    convergence: Convergence
    observations: Observations
    enrollment: Enrollment
    telling: Telling
    fleet: Fleet
    rollouts: Rollouts
    leadership: Leadership
    led_convergence: Convergence
    """For the jobs: as `convergence`, behind the fence."""
    led_rollouts: RolloutTicks
    """For the jobs: behind the fence."""
    led_drift: DriftTicks
    """For the jobs: behind the fence."""
    drifts: Drifts
    bridge: PostgresNotices | None
    """To the other controllers; None with SQLite."""
    endpoints: endpoints_pb2.Endpoints
    """Filled in once every listener is bound, before any of them answers."""


def silent_seconds_max(settings: Settings) -> float:
    """After so long without a word an agent counts as disconnected."""
    return max(limits.AGENT_SILENT_SECONDS_MAX, limits.AGENT_SILENT_INTERVALS_MAX * settings.sync_interval_seconds)


def compose(settings: Settings, *, measure: bool = False) -> Parts:
    """Put the control process together; with `measure` every transaction is timed. Nothing listens and nothing runs
    yet; the database is migrated and the keys exist. Raises StorageError and FieldInvalidError."""
    clear_workspace(settings.work_dir)
    clock, ids, notices, telling = SystemClock(), SystemIds(), Notices(), Telling()
    authority = LocalAuthority(settings.pki_dir, agent_certificate_ttl=settings.agent_certificate_ttl)
    database = open_store(settings.database_url)
    meter = Meter(silent_seconds_max=silent_seconds_max(settings))
    store: Store = MeasuredStore(database, meter) if measure else database
    revocations = Revocations(store=store, clock=clock)
    convergence = Convergence(store=store, notifier=notices)
    observations = Observations(store=store, convergence=convergence)
    name = _process_name(ids)
    leadership = _leadership(settings, name, store=store, clock=clock, ids=ids)
    fenced = FencedStore(store, leadership)
    bridge = open_notices(settings.database_url, source=name, hear=_hearing(notices, revocations))
    if bridge is not None:
        notices.relay_to(bridge.tell)

    silence = silent_seconds_max(settings)
    blobs = open_blob_store(settings.artifact_url)
    datasets = open_datasets(store=store, blobs=blobs, clock=clock, ids=ids)
    return Parts(
        settings=settings,
        authority=authority,
        clock=clock,
        ids=ids,
        store=store,
        fenced=fenced,
        database=database,
        meter=meter,
        blobs=blobs,
        datasets=datasets,
        training=compose_training(
            settings,
            store=store,
            fenced=fenced,
            blobs=blobs,
            datasets=datasets,
            inspector=OpenVinoInspector(),
            clock=clock,
            ids=ids,
        ),
        objects=open_object_store(settings.artifact_url),
        codec=ParquetCodec(),
        notices=notices,
        revocations=revocations,
        convergence=convergence,
        observations=observations,
        enrollment=Enrollment(store=store, clock=clock, ids=ids, authority=authority, notifier=notices),
        telling=telling,
        fleet=Fleet(
            clock=clock,
            notices=notices,
            observations=observations,
            desired_states=DesiredStates(store=store),
            revocations=revocations,
            telling=telling,
        ),
        rollouts=Rollouts(
            store=store, clock=clock, ids=ids, notices=notices, silent_seconds_max=silence, deciding=telling.deciding
        ),
        leadership=leadership,
        led_convergence=Convergence(store=fenced, notifier=notices, see=meter.see),
        led_drift=DriftTicks(store=fenced, clock=clock, ids=ids, notifier=notices),
        drifts=Drifts(store=store, clock=clock, ids=ids, notices=notices),
        led_rollouts=RolloutTicks(store=fenced, clock=clock, ids=ids, notices=notices, silent_seconds_max=silence),
        bridge=bridge,
        endpoints=endpoints_pb2.Endpoints(),
    )


def _leadership(settings: Settings, name: str, *, store: Store, clock: SystemClock, ids: SystemIds) -> Leadership:
    """Of this process, in place of the one that ran before on the same folder."""
    predecessor = take_over(settings.dir, name=name)
    return Leadership(store=store, clock=clock, ids=ids, monotonic=time.monotonic, holder=name, predecessor=predecessor)


def _process_name(ids: SystemIds) -> str:
    """Of this run of the control process, told apart from every other one; shows the machine in logs and the audit."""
    machine = re.sub(r"[^a-z0-9]+", "-", platform.node().lower()).strip("-")[:40]
    return f"{machine or 'controller'}-{ids.short_id()}"


def _hearing(notices: Notices, revocations: Revocations) -> Callable[[Notice], None]:
    """What becomes of a notice of another controller."""

    def hear(notice: Notice) -> None:
        if notice.kind is NoticeKind.REVOKED:
            for agent_id in notice.ids:
                revocations.add(AgentId(agent_id))
        notices.hear(notice)

    return hear


def lake_jobs(parts: Parts) -> tuple[Job, ...]:
    """Merging, retention and sweeping of the results lake."""
    keeping = LakeKeeping(
        store=parts.fenced,
        objects=parts.objects,
        codec=parts.codec,
        ids=parts.ids,
        retention=parts.settings.result_retention,
    )
    now = parts.clock.now
    return (
        Job(name="lake", work=lambda: keeping.round(now()), seconds=limits.LAKE_TICK_SECONDS),
        Job(name="lake_sweep", work=lambda: keeping.sweep(now()), seconds=limits.LAKE_SWEEP_SECONDS),
    )


def led_jobs(parts: Parts) -> tuple[Job, ...]:
    """What the controller that leads does by itself, beside rollouts and convergence."""
    now = parts.clock.now
    return (
        *lake_jobs(parts),
        Job(name="drift", work=lambda: parts.led_drift.tick(now()), seconds=limits.DRIFT_TICK_SECONDS),
        Job(name="training", work=lambda: parts.training.ticks.tick(now()), seconds=limits.TRAINING_TICK_SECONDS),
        *judging_jobs(
            parts.settings,
            fenced=parts.fenced,
            blobs=parts.blobs,
            datasets=parts.datasets,
            training=parts.training.training,
            notices=parts.notices,
            clock=parts.clock,
            ids=parts.ids,
            silent_seconds_max=silent_seconds_max(parts.settings),
        ),
    )


def fleet_listener(parts: Parts) -> server.Listener:
    """What agents reach all the time."""
    settings = parts.settings
    fleet = FleetServicer(
        fleet=parts.fleet,
        enrollment=parts.enrollment,
        endpoints=parts.endpoints,
        sync_interval_seconds=settings.sync_interval_seconds,
    )
    evidence = EvidenceServicer(
        Evidence(store=parts.store, clock=parts.clock, ids=parts.ids, objects=parts.objects, codec=parts.codec)
    )
    services: tuple[Registration, ...] = (
        ("lineside.v1.FleetService", lambda to: fleet_service_pb2_grpc.add_FleetServiceServicer_to_server(fleet, to)),
        (
            "lineside.v1.EvidenceService",
            lambda to: evidence_service_pb2_grpc.add_EvidenceServiceServicer_to_server(evidence, to),
        ),
    )
    return server.Listener(
        name="fleet",
        keys=server.KeyFiles.within(settings.pki_dir),
        mutual=True,
        guard=AgentGuard(store=parts.store, revocations=parts.revocations, parse_peer=parse_peer),
        services=_names(services),
        register=_register(services),
        connection_age_max=min(limits.CONNECTION_AGE_MAX, settings.agent_certificate_ttl),
    )


def api_listener(parts: Parts) -> server.Listener:
    """What operators reach, and boxes that are no agents yet."""
    services = (
        *_identity_services(parts),
        *_registry_services(parts),
        *_rollout_services(parts),
        *api_services(store=parts.store, datasets=parts.datasets, clock=parts.clock, ids=parts.ids),
        *training_services(parts.training),
        *judging_services(
            store=parts.store,
            datasets=parts.datasets,
            training=parts.training.training,
            clock=parts.clock,
            ids=parts.ids,
            silent_seconds_max=silent_seconds_max(parts.settings),
        ),
    )
    return server.Listener(
        name="api",
        keys=server.KeyFiles.within(parts.settings.pki_dir),
        mutual=False,
        guard=OperatorGuard(store=parts.store, clock=parts.clock),
        guards={"lineside.v1.EnrollmentService": Anyone()},
        services=_names(services),
        register=_register(services),
        reflect=True,
    )


def _identity_services(parts: Parts) -> tuple[Registration, ...]:
    enrollment = EnrollmentServicer(parts.enrollment, endpoints=parts.endpoints, clock=parts.clock)
    tokens = JoinTokenServicer(
        JoinTokens(
            store=parts.store,
            clock=parts.clock,
            ids=parts.ids,
            ca_certificate_der=parts.authority.ca_certificate_der,
        )
    )
    operators = OperatorServicer(Operators(store=parts.store, clock=parts.clock, ids=parts.ids))
    audit = AuditServicer(Audit(store=parts.store))
    agents = AgentServicer(
        Agents(
            store=parts.store,
            clock=parts.clock,
            ids=parts.ids,
            notifier=parts.notices,
            revocations=parts.revocations,
        ),
        Pins(store=parts.store, clock=parts.clock, ids=parts.ids, notifier=parts.notices),
        Explanations(store=parts.store, clock=parts.clock, silent_seconds_max=silent_seconds_max(parts.settings)),
        parts.drifts,
        clock=parts.clock,
        silent_seconds_max=silent_seconds_max(parts.settings),
    )
    return (
        (
            "lineside.v1.EnrollmentService",
            lambda to: enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(enrollment, to),
        ),
        (
            "lineside.v1.JoinTokenService",
            lambda to: join_token_service_pb2_grpc.add_JoinTokenServiceServicer_to_server(tokens, to),
        ),
        ("lineside.v1.AgentService", lambda to: agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, to)),
        (
            "lineside.v1.OperatorService",
            lambda to: operator_service_pb2_grpc.add_OperatorServiceServicer_to_server(operators, to),
        ),
        ("lineside.v1.AuditService", lambda to: audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, to)),
    )


def _registry_services(parts: Parts) -> tuple[Registration, ...]:
    models = ModelServicer(
        Registry(
            store=parts.store,
            blobs=parts.blobs,
            inspector=OpenVinoInspector(),
            clock=parts.clock,
            ids=parts.ids,
            notifier=parts.notices,
            workspace=parts.settings.work_dir,
        )
    )
    results = ResultServicer(
        results=Results(store=parts.store, objects=parts.objects, codec=parts.codec),
        questions=ResultQuestions(
            store=parts.store,
            objects=parts.objects,
            engine=DuckDbQuestions(),
            judges=SampleJudges(
                store=parts.store,
                blobs=parts.blobs,
                evaluator=OpenVinoEvaluator(),
                workspace=parts.settings.work_dir,
            ),
            workspace=parts.settings.work_dir,
        ),
        metrics=Metrics(store=parts.store, clock=parts.clock),
    )
    samples = SampleServicer(Samples(store=parts.store, blobs=parts.blobs, clock=parts.clock))
    return (
        ("lineside.v1.ModelService", lambda to: model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, to)),
        (
            "lineside.v1.ResultService",
            lambda to: result_service_pb2_grpc.add_ResultServiceServicer_to_server(results, to),
        ),
        (
            "lineside.v1.SampleService",
            lambda to: sample_service_pb2_grpc.add_SampleServiceServicer_to_server(samples, to),
        ),
    )


def _rollout_services(parts: Parts) -> tuple[Registration, ...]:
    deployments = DeploymentServicer(
        Deployments(store=parts.store, clock=parts.clock, ids=parts.ids, notifier=parts.notices)
    )
    planning = Planning(store=parts.store, clock=parts.clock, silent_seconds_max=silent_seconds_max(parts.settings))
    rehearsals = Rehearsals(planning=planning, silent_seconds_max=silent_seconds_max(parts.settings))
    rollouts = RolloutServicer(parts.rollouts, planning, rehearsals)
    drift = DriftServicer(parts.drifts)
    return (
        (
            "lineside.v1.DeploymentService",
            lambda to: deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(deployments, to),
        ),
        ("lineside.v1.DriftService", lambda to: drift_service_pb2_grpc.add_DriftServiceServicer_to_server(drift, to)),
        (
            "lineside.v1.RolloutService",
            lambda to: rollout_service_pb2_grpc.add_RolloutServiceServicer_to_server(rollouts, to),
        ),
    )


def advertise(address: Address, *, api: Address) -> str:
    """Return an endpoint as clients are told it: without a host where the one by which they reached `api` will do,
    as it does behind an address translation or a wildcard."""
    host = "" if address.is_wildcard or address.host == api.host else address.host
    return str(Address(host=host, port=address.port))


def _names(services: tuple[Registration, ...]) -> tuple[str, ...]:
    return tuple(name for name, _ in services)


def _register(services: tuple[Registration, ...]) -> Callable[[grpc.aio.Server], None]:
    def register(to: grpc.aio.Server) -> None:
        for _, add in services:
            add(to)

    return register
