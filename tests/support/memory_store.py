"""A Store in memory. It passes the contract tests in `tests/contracts/`, and so may stand for the real one.

A transaction works on a copy of the tables; a write's copy replaces them when its block ends without an
exception. Entities are frozen, so that copying the dictionaries is enough. Writers queue; readers do not wait.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.app.ports import AuditFilter
from controlplane.domain.assignment import DesiredState
from controlplane.domain.audit import AuditEvent
from controlplane.domain.catalog import Model, ModelVersion, Yank
from controlplane.domain.condition import Condition
from controlplane.domain.deployment import Deployment
from controlplane.domain.errors import LeaseLostError, ResourceNotFoundError
from controlplane.domain.identity import AgentCertificate, JoinToken, OperatorToken
from controlplane.domain.ids import AgentId, DeploymentId, Digest, JoinTokenId, ModelId, RolloutId, SampleId
from controlplane.domain.inventory import Agent, AgentRecord, Observation
from controlplane.domain.lease import Lease
from controlplane.domain.pin import Pin
from controlplane.domain.rollout import ACTIVE_STATES, Rollout, RolloutState
from controlplane.domain.sample import Sample, SampleReason
from tests.support.memory_datasets import MemoryDatasets, MemoryLabels, MemoryPictures
from tests.support.memory_drifts import MemoryDrifts
from tests.support.memory_evidence import MemoryEvidence
from tests.support.memory_judging import MemoryPromotions, MemoryTrainingPolicies
from tests.support.memory_result_index import MemoryResultIndex
from tests.support.memory_tables import Tables, add_row, found, save_row, stale
from tests.support.memory_training import MemoryTrainingRuns


class _Models:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, model: Model) -> None:
        add_row(self._tables.models, model.id, model, resource=f"models/{model.id}", unique=("uid",), field="model_id")

    async def get(self, model_id: ModelId) -> Model:
        return found(self._tables.models.get(model_id), f"models/{model_id}")

    async def find(self, model_id: ModelId) -> Model | None:
        return self._tables.models.get(model_id)

    async def save(self, model: Model) -> Model:
        return save_row(self._tables.models, model.id, model, resource=f"models/{model.id}")

    async def list(self, *, after: ModelId | None, limit: int) -> Sequence[Model]:
        models = self._tables.models
        return [models[key] for key in sorted(models) if after is None or key > after][:limit]

    async def add_version(self, version: ModelVersion) -> None:
        if version.model_id not in self._tables.models:
            raise ResourceNotFoundError(f"it refers to something that does not exist: models/{version.model_id}")
        add_row(
            self._tables.versions, (version.model_id, version.number), version, resource=version.name, unique=("uid",)
        )

    async def get_version(self, model_id: ModelId, number: int) -> ModelVersion:
        return found(self._tables.versions.get((model_id, number)), f"models/{model_id}/versions/{number}")

    async def find_version_by_digest(self, model_id: ModelId, digest: Digest) -> ModelVersion | None:
        for key in sorted(self._tables.versions):
            if key[0] == model_id and self._tables.versions[key].artifact.digest == digest:
                return self._tables.versions[key]
        return None

    async def list_versions(self, model_id: ModelId, *, before: int | None, limit: int) -> Sequence[ModelVersion]:
        numbers = [number for model, number in self._tables.versions if model == model_id]
        wanted = [number for number in sorted(numbers, reverse=True) if before is None or number < before]
        return [self._tables.versions[model_id, number] for number in wanted[:limit]]

    async def get_versions(self, wanted: Iterable[tuple[ModelId, int]]) -> Mapping[tuple[ModelId, int], ModelVersion]:
        versions = self._tables.versions
        return {key: versions[key] for key in sorted(set(wanted)) if key in versions}

    async def set_yank(self, model_id: ModelId, number: int, yank: Yank | None) -> ModelVersion:
        changed = replace(await self.get_version(model_id, number), yank=yank)
        self._tables.versions[model_id, number] = changed
        return changed

    async def list_yanked(self) -> frozenset[tuple[ModelId, int]]:
        return frozenset(key for key, version in self._tables.versions.items() if version.yank is not None)


class _Agents:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, agent: Agent) -> None:
        add_row(self._tables.agents, agent.id, agent, resource=f"agents/{agent.id}", unique=("uid",))

    async def get(self, agent_id: AgentId) -> AgentRecord:
        return found(await self.find(agent_id), f"agents/{agent_id}")

    async def find(self, agent_id: AgentId) -> AgentRecord | None:
        return self._record(agent_id) if agent_id in self._tables.agents else None

    async def save(self, agent: Agent) -> Agent:
        return save_row(self._tables.agents, agent.id, agent, resource=f"agents/{agent.id}")

    async def list(self, *, after: AgentId | None, limit: int) -> Sequence[AgentRecord]:
        wanted = [key for key in sorted(self._tables.agents) if after is None or key > after]
        return [self._record(key) for key in wanted[:limit]]

    async def list_all(self) -> Sequence[AgentRecord]:
        return [self._record(key) for key in sorted(self._tables.agents)]

    async def list_of(self, agent_ids: Iterable[AgentId]) -> Sequence[AgentRecord]:
        return [self._record(key) for key in sorted(set(agent_ids)) if key in self._tables.agents]

    async def list_revoked(self) -> frozenset[AgentId]:
        return frozenset(key for key, agent in self._tables.agents.items() if agent.revoked)

    async def record(self, observations: Sequence[Observation]) -> None:
        for observation in observations:
            if observation.agent_id not in self._tables.agents:
                raise ResourceNotFoundError(f"it refers to something that does not exist: {observation.agent_id}")
            before = self._tables.observations.get(observation.agent_id)
            if before is not None:
                observation = replace(  # noqa: PLW2901 - the observation as it is to be stored
                    observation,
                    host=before.host if observation.host is None else observation.host,
                    devices=before.devices if observation.devices is None else observation.devices,
                )
            self._tables.observations[observation.agent_id] = observation

    def _record(self, agent_id: AgentId) -> AgentRecord:
        desired = self._tables.desired.get(agent_id)
        expiries = [
            certificate.expire_time
            for certificate in self._tables.certificates.values()
            if certificate.agent_id == agent_id
        ]
        return AgentRecord(
            agent=self._tables.agents[agent_id],
            observation=self._tables.observations.get(agent_id),
            desired_generation=desired.generation if desired is not None else 0,
            certificate_expire_time=max(expiries, default=None),
        )


class _Certificates:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, certificate: AgentCertificate) -> None:
        rows, serial = self._tables.certificates, certificate.serial
        add_row(rows, serial, certificate, resource=f"certificate {serial}")

    async def find(self, serial: str) -> AgentCertificate | None:
        return self._tables.certificates.get(serial)

    async def find_all(self, serials: Iterable[str]) -> Mapping[str, AgentCertificate]:
        known = self._tables.certificates
        return {serial: known[serial] for serial in serials if serial in known}

    async def find_by_key(self, agent_id: AgentId, public_key_sha256: str) -> AgentCertificate | None:
        return max(
            (
                certificate
                for certificate in self._tables.certificates.values()
                if (certificate.agent_id, certificate.public_key_sha256) == (agent_id, public_key_sha256)
            ),
            key=lambda certificate: (certificate.not_before, certificate.expire_time, certificate.serial),
            default=None,
        )


class _Tokens:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add_join_token(self, token: JoinToken) -> None:
        add_row(self._tables.join_tokens, token.id, token, resource=f"joinTokens/{token.id}", unique=("uid",))

    async def get_join_token(self, token_id: JoinTokenId) -> JoinToken:
        return found(self._tables.join_tokens.get(token_id), f"joinTokens/{token_id}")

    async def find_join_token(self, token_id: JoinTokenId) -> JoinToken | None:
        return self._tables.join_tokens.get(token_id)

    async def save_join_token(self, token: JoinToken) -> JoinToken:
        return save_row(self._tables.join_tokens, token.id, token, resource=f"joinTokens/{token.id}")

    async def list_join_tokens(self, *, before: str | None, limit: int) -> Sequence[JoinToken]:
        newest = sorted(self._tables.join_tokens.values(), key=lambda token: token.uid, reverse=True)
        return [token for token in newest if before is None or token.uid < before][:limit]

    async def add_operator_token(self, token: OperatorToken) -> None:
        rows = self._tables.operator_tokens
        add_row(rows, token.id, token, resource=f"operators/{token.id}", unique=("secret_sha256",))

    async def find_operator_token(self, secret_sha256: str) -> OperatorToken | None:
        tokens = self._tables.operator_tokens.values()
        return next((token for token in tokens if token.secret_sha256 == secret_sha256), None)

    async def get_operator_token(self, operator_id: str) -> OperatorToken:
        return found(self._tables.operator_tokens.get(operator_id), f"operators/{operator_id}")

    async def revoke_operator_token(self, operator_id: str) -> OperatorToken:
        revoked = replace(await self.get_operator_token(operator_id), revoked=True)
        self._tables.operator_tokens[operator_id] = revoked
        return revoked

    async def list_operator_tokens(self, *, after: str | None, limit: int) -> Sequence[OperatorToken]:
        rows = self._tables.operator_tokens
        return [rows[key] for key in sorted(rows) if after is None or key > after][:limit]


class _Deployments:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, deployment: Deployment) -> None:
        rows = self._tables.deployments
        resource = f"deployments/{deployment.id}"
        add_row(rows, deployment.id, deployment, resource=resource, unique=("uid",), field="deployment_id")

    async def get(self, deployment_id: DeploymentId) -> Deployment:
        return found(self._tables.deployments.get(deployment_id), f"deployments/{deployment_id}")

    async def save(self, deployment: Deployment) -> Deployment:
        stored = self._tables.deployments.get(deployment.id)
        if stored is not None:
            deployment = replace(deployment, conditions=stored.conditions)
        return save_row(self._tables.deployments, deployment.id, deployment, resource=f"deployments/{deployment.id}")

    async def delete(self, deployment: Deployment) -> None:
        stored = self._tables.deployments.get(deployment.id)
        if stored is None or stored.revision != deployment.revision:
            raise stale(f"deployments/{deployment.id}")
        del self._tables.deployments[deployment.id]

    async def list(self, *, after: DeploymentId | None, limit: int) -> Sequence[Deployment]:
        rows = self._tables.deployments
        return [rows[key] for key in sorted(rows) if after is None or key > after][:limit]

    async def list_all(self) -> Sequence[Deployment]:
        return [self._tables.deployments[key] for key in sorted(self._tables.deployments)]

    async def set_conditions(self, deployment_id: DeploymentId, conditions: Sequence[Condition]) -> None:
        stored = await self.get(deployment_id)
        self._tables.deployments[deployment_id] = replace(stored, conditions=tuple(conditions))


class _Rollouts:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, rollout: Rollout) -> None:
        add_row(self._tables.rollouts, rollout.id, rollout, resource=f"rollouts/{rollout.id}", unique=("uid",))

    async def get(self, rollout_id: RolloutId) -> Rollout:
        return found(self._tables.rollouts.get(rollout_id), f"rollouts/{rollout_id}")

    async def save(self, rollout: Rollout) -> Rollout:
        return save_row(self._tables.rollouts, rollout.id, rollout, resource=f"rollouts/{rollout.id}")

    async def list(self, *, deployment_id: DeploymentId | None, before: str | None, limit: int) -> Sequence[Rollout]:
        newest = sorted(self._tables.rollouts.values(), key=lambda rollout: rollout.uid, reverse=True)
        return [
            rollout
            for rollout in newest
            if deployment_id in (None, rollout.deployment_id) and (before is None or rollout.uid < before)
        ][:limit]

    async def list_active(self) -> Sequence[Rollout]:
        active = (rollout for rollout in self._tables.rollouts.values() if rollout.state in ACTIVE_STATES)
        return sorted(active, key=lambda rollout: rollout.uid)

    async def list_queued(self) -> Sequence[Rollout]:
        queued = (rollout for rollout in self._tables.rollouts.values() if rollout.state is RolloutState.QUEUED)
        return sorted(queued, key=lambda rollout: rollout.uid)


class _Pins:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def put(self, pin: Pin) -> None:
        self._tables.pins[pin.agent_id, pin.model_id] = pin

    async def remove(self, agent_id: AgentId, model_id: ModelId) -> bool:
        return self._tables.pins.pop((agent_id, model_id), None) is not None

    async def list_all(self) -> Sequence[Pin]:
        return [pin for _, pin in sorted(self._tables.pins.items())]

    async def list(self, agent_ids: Iterable[AgentId]) -> Sequence[Pin]:
        wanted = set(agent_ids)
        return [pin for (agent_id, _), pin in sorted(self._tables.pins.items()) if agent_id in wanted]


class _Audit:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, events: Sequence[AuditEvent]) -> None:
        for event in events:
            add_row(self._tables.events, event.id, event, resource=f"auditEvents/{event.id}")

    async def list(
        self, wanted: AuditFilter, *, after: str | None, limit: int, oldest_first: bool = False
    ) -> Sequence[AuditEvent]:
        ordered = sorted(self._tables.events.values(), key=lambda event: event.id, reverse=not oldest_first)
        return [
            event
            for event in ordered
            if _is_wanted(event, wanted) and (after is None or (event.id > after if oldest_first else event.id < after))
        ][:limit]


def _is_wanted(event: AuditEvent, wanted: AuditFilter) -> bool:
    happening = event.happening
    action = wanted.action
    return (
        (wanted.resource is None or wanted.resource in (happening.resource, *happening.related))
        and wanted.actor in (None, happening.actor)
        and (
            action is None
            or happening.action == action
            or (action.endswith(".") and happening.action.startswith(action))
        )
        and (wanted.start_time is None or event.create_time >= wanted.start_time)
        and (wanted.end_time is None or event.create_time < wanted.end_time)
    )


class _Desired:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def list_all(self) -> Mapping[AgentId, DesiredState]:
        return dict(sorted(self._tables.desired.items()))

    async def list(self, agent_ids: Iterable[AgentId]) -> Mapping[AgentId, DesiredState]:
        return {agent: self._tables.desired[agent] for agent in sorted(set(agent_ids)) if agent in self._tables.desired}

    async def find(self, agent_id: AgentId) -> DesiredState | None:
        return self._tables.desired.get(agent_id)

    async def save(self, states: Sequence[DesiredState]) -> None:
        for state in states:
            before = self._tables.desired.get(state.agent_id)
            if before is not None and state.generation <= before.generation:
                raise stale("the desired state of an agent")
            self._tables.desired[state.agent_id] = state

    async def is_assigned(self, agent_id: AgentId, blob: Digest) -> bool:
        state = self._tables.desired.get(agent_id)
        needed = [(slot.slot, number) for slot in state.slots for number in slot.versions] if state else []
        versions = [self._tables.versions.get(key) for key in needed]
        return any(file.digest == blob for version in versions if version for file in version.artifact.files)


class _Samples:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add(self, sample: Sample) -> bool:
        if sample.id in self._tables.samples:
            return False
        self._tables.samples[sample.id] = sample
        return True

    async def get(self, sample_id: SampleId) -> Sample:
        return found(self._tables.samples.get(sample_id), f"samples/{sample_id}")

    async def list_of(self, sample_ids: Collection[SampleId]) -> Sequence[Sample]:
        return [self._tables.samples[key] for key in sorted(set(sample_ids)) if key in self._tables.samples]

    async def find_targets(self, model_id: ModelId, targets: Collection[str]) -> Sequence[tuple[SampleId, Digest, str]]:
        wanted = set(targets)
        return sorted(
            (sample.id, sample.digest, sample.result.part_id)
            for sample in self._tables.samples.values()
            if sample.model_id == model_id and wanted & {sample.id, sample.digest, sample.result.part_id}
        )

    async def list(
        self,
        *,
        model_id: ModelId | None,
        agent_id: AgentId | None,
        reason: SampleReason | None,
        before: tuple[datetime, SampleId] | None,
        limit: int,
    ) -> Sequence[Sample]:
        samples = self._tables.samples.values()
        newest = sorted(samples, key=lambda sample: (sample.create_time, sample.id), reverse=True)
        return [
            sample
            for sample in newest
            if model_id in (None, sample.model_id)
            and agent_id in (None, sample.agent_id)
            and reason in (None, sample.reason)
            and (before is None or (sample.create_time, sample.id) < before)
        ][:limit]


class _Requests:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def find(self, request_id: str) -> tuple[str, str] | None:
        return self._tables.requests.get(request_id)

    async def add(self, request_id: str, *, fingerprint: str, resource: str, create_time: datetime) -> None:
        add_row(self._tables.requests, request_id, (fingerprint, resource), resource=f"request {request_id}")


class _Leases:
    def __init__(self, tables: Tables, now: Callable[[], datetime]) -> None:
        self._tables = tables
        self._now = now

    async def acquire(self, name: str, *, holder: str, ttl_seconds: float) -> Lease | None:
        now, stored = self._now(), self._tables.leases.get(name)
        held = stored is not None and stored.expire_time > now
        if stored is not None and held and stored.holder != holder:
            return None
        epoch = 1 if stored is None else stored.epoch + (not held)
        lease = Lease(name=name, holder=holder, epoch=epoch, expire_time=now + timedelta(seconds=ttl_seconds))
        self._tables.leases[name] = lease
        return lease

    async def release(self, lease: Lease) -> None:
        if self.is_held(lease):
            self._tables.leases[lease.name] = replace(self._tables.leases[lease.name], expire_time=self._now())

    async def find(self, name: str) -> Lease | None:
        return self._tables.leases.get(name)

    def is_held(self, lease: Lease) -> bool:
        stored = self._tables.leases.get(lease.name)
        return (
            stored is not None
            and (stored.holder, stored.epoch) == (lease.holder, lease.epoch)
            and stored.expire_time > self._now()
        )


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryUnitOfWork:
    """Repositories over one copy of the tables."""

    def __init__(self, tables: Tables, now: Callable[[], datetime]) -> None:
        self.models = _Models(tables)
        self.agents = _Agents(tables)
        self.certificates = _Certificates(tables)
        self.tokens = _Tokens(tables)
        self.deployments = _Deployments(tables)
        self.rollouts = _Rollouts(tables)
        self.desired = _Desired(tables)
        self.evidence = MemoryEvidence(tables)
        self.result_index = MemoryResultIndex(tables)
        self.drifts = MemoryDrifts(tables)
        self.samples = _Samples(tables)
        self.labels = MemoryLabels(tables)
        self.datasets = MemoryDatasets(tables)
        self.pictures = MemoryPictures(tables)
        self.requests = _Requests(tables)
        self.pins = _Pins(tables)
        self.audit = _Audit(tables)
        self.leases = _Leases(tables, now)
        self.training_runs = MemoryTrainingRuns(tables)
        self.promotions = MemoryPromotions(tables)
        self.training_policies = MemoryTrainingPolicies(tables)


class MemoryStore:
    """The Store in memory. `now` stands for the database's clock, which leases run by."""

    def __init__(self, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._now = now
        self._tables = Tables()
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[MemoryUnitOfWork]:
        yield MemoryUnitOfWork(self._tables.copy(), self._now)

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncIterator[MemoryUnitOfWork]:
        async with self._writing:
            tables = self._tables.copy()
            work = MemoryUnitOfWork(tables, self._now)
            yield work
            if lease is not None and not work.leases.is_held(lease):
                raise LeaseLostError(f"{lease.holder} does not hold the lease {lease.name!r} any more")
            self._tables = tables
