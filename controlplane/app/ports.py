"""What the use cases need from outside, as Protocols. Adapters pass the contract tests in `tests/contracts/`.

Rules that every repository keeps:
- `get` raises ResourceNotFoundError naming the resource ("models/x"); `find` returns None instead.
- `add` raises ResourceExistsError when the identity is taken.
- `save` writes the entity with `revision + 1` and returns it so; it raises StaleWriteError when the
  stored revision is not the entity's.
- Lists are ordered and keyset-paged: `after` is the key of the last item seen, `limit` at least 1.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from controlplane.app.ports_datasets import DatasetRepository, LabelRepository, PictureRepository
from controlplane.app.ports_drift import DriftRepository
from controlplane.app.ports_judging import PromotionRepository, TrainingPolicyRepository
from controlplane.app.ports_lake import ResultIndexRepository
from controlplane.app.ports_training import TrainingRunRepository
from controlplane.domain.assignment import DesiredState
from controlplane.domain.audit import AuditEvent
from controlplane.domain.catalog import Model, ModelSignature, ModelVersion, Yank
from controlplane.domain.condition import Condition
from controlplane.domain.deployment import Deployment
from controlplane.domain.evidence import EvidenceBatch, InferenceCount, MetricWindow, Result, ShadowTally, Tally
from controlplane.domain.identity import AgentCertificate, JoinToken, OperatorToken
from controlplane.domain.ids import AgentId, DeploymentId, Digest, JoinTokenId, ModelId, RolloutId, SampleId
from controlplane.domain.inventory import Agent, AgentRecord, Observation
from controlplane.domain.lake import ResultFilter, ResultObject
from controlplane.domain.lease import Lease
from controlplane.domain.pin import Pin
from controlplane.domain.rollout import Rollout
from controlplane.domain.sample import Sample, SampleReason


class Clock(Protocol):
    """The controller's clock."""

    def now(self) -> datetime:
        """Return the time, aware, in UTC."""
        ...


class IdSource(Protocol):
    """New identities and secrets."""

    def uid(self) -> str:
        """Return a UUID that sorts by time of creation."""
        ...

    def short_id(self) -> str:
        """Return a resource id of 12 characters, lower-case RFC-1123."""
        ...

    def secret(self) -> str:
        """Return 256 random bits in URL-safe base64 without padding."""
        ...


class ModelRepository(Protocol):
    """Models and versions."""

    async def add(self, model: Model) -> None: ...
    async def get(self, model_id: ModelId) -> Model: ...
    async def find(self, model_id: ModelId) -> Model | None: ...
    async def save(self, model: Model) -> Model: ...
    async def list(self, *, after: ModelId | None, limit: int) -> Sequence[Model]:
        """By id."""
        ...

    async def add_version(self, version: ModelVersion) -> None: ...
    async def get_version(self, model_id: ModelId, number: int) -> ModelVersion: ...
    async def find_version_by_digest(self, model_id: ModelId, digest: Digest) -> ModelVersion | None: ...
    async def list_versions(self, model_id: ModelId, *, before: int | None, limit: int) -> Sequence[ModelVersion]:
        """Newest first; only numbers below `before`."""
        ...

    async def get_versions(self, wanted: Iterable[tuple[ModelId, int]]) -> Mapping[tuple[ModelId, int], ModelVersion]:
        """All that exist of the wanted, in one query a batch."""
        ...

    async def set_yank(self, model_id: ModelId, number: int, yank: Yank | None) -> ModelVersion:
        """Forbid the version, or allow it again with None; return it so."""
        ...

    async def list_yanked(self) -> frozenset[tuple[ModelId, int]]:
        """Every forbidden version."""
        ...


class AgentRepository(Protocol):
    """Agents and what was last heard of them."""

    async def add(self, agent: Agent) -> None: ...
    async def get(self, agent_id: AgentId) -> AgentRecord: ...
    async def find(self, agent_id: AgentId) -> AgentRecord | None: ...
    async def save(self, agent: Agent) -> Agent: ...
    async def list(self, *, after: AgentId | None, limit: int) -> Sequence[AgentRecord]:
        """By id."""
        ...

    async def list_all(self) -> Sequence[AgentRecord]:
        """Every agent by id, in one query; for decisions over the fleet."""
        ...

    async def list_of(self, agent_ids: Iterable[AgentId]) -> Sequence[AgentRecord]:
        """Of these agents, those that exist, by id, in one query a batch."""
        ...

    async def list_revoked(self) -> frozenset[AgentId]:
        """Ids of the revoked agents alone; asked every second, so it reads no observations."""
        ...

    async def record(self, observations: Sequence[Observation]) -> None:
        """Replace what was last heard of each agent, in one statement a batch. An observation
        without host or devices keeps the stored ones. At most one per agent."""
        ...


class CertificateRepository(Protocol):
    """Certificates that the CA signed."""

    async def add(self, certificate: AgentCertificate) -> None: ...
    async def find(self, serial: str) -> AgentCertificate | None: ...
    async def find_all(self, serials: Iterable[str]) -> Mapping[str, AgentCertificate]:
        """All that exist of these, in one query a batch."""
        ...

    async def find_by_key(self, agent_id: AgentId, public_key_sha256: str) -> AgentCertificate | None:
        """The newest for that key."""
        ...


class TokenRepository(Protocol):
    """Join tokens and operator tokens."""

    async def add_join_token(self, token: JoinToken) -> None: ...
    async def get_join_token(self, token_id: JoinTokenId) -> JoinToken: ...
    async def find_join_token(self, token_id: JoinTokenId) -> JoinToken | None: ...
    async def save_join_token(self, token: JoinToken) -> JoinToken: ...
    async def list_join_tokens(self, *, before: str | None, limit: int) -> Sequence[JoinToken]:
        """Newest first, by uid."""
        ...

    async def add_operator_token(self, token: OperatorToken) -> None: ...
    async def find_operator_token(self, secret_sha256: str) -> OperatorToken | None: ...
    async def get_operator_token(self, operator_id: str) -> OperatorToken:
        """Resource "operators/{id}"."""
        ...

    async def revoke_operator_token(self, operator_id: str) -> OperatorToken:
        """Return it so; revoking a revoked one changes nothing."""
        ...

    async def list_operator_tokens(self, *, after: str | None, limit: int) -> Sequence[OperatorToken]:
        """By id."""
        ...


class DeploymentRepository(Protocol):
    """Deployments."""

    async def add(self, deployment: Deployment) -> None: ...
    async def get(self, deployment_id: DeploymentId) -> Deployment: ...
    async def save(self, deployment: Deployment) -> Deployment: ...
    async def delete(self, deployment: Deployment) -> None: ...
    async def list(self, *, after: DeploymentId | None, limit: int) -> Sequence[Deployment]:
        """By id."""
        ...

    async def list_all(self) -> Sequence[Deployment]: ...
    async def set_conditions(self, deployment_id: DeploymentId, conditions: Sequence[Condition]) -> None:
        """Replace them; neither revision nor update time moves, and `save` leaves them as they are stored."""
        ...


class RolloutRepository(Protocol):
    """Rollouts."""

    async def add(self, rollout: Rollout) -> None: ...
    async def get(self, rollout_id: RolloutId) -> Rollout: ...
    async def save(self, rollout: Rollout) -> Rollout: ...
    async def list(self, *, deployment_id: DeploymentId | None, before: str | None, limit: int) -> Sequence[Rollout]:
        """Newest first, by uid."""
        ...

    async def list_active(self) -> Sequence[Rollout]:
        """Those in RUNNING, PAUSED or ROLLING_BACK, oldest first."""
        ...

    async def list_queued(self) -> Sequence[Rollout]:
        """Those in QUEUED, oldest first."""
        ...


class PinRepository(Protocol):
    """Pins: at most one an agent and model."""

    async def put(self, pin: Pin) -> None:
        """Store it in place of an earlier one of the same slot."""
        ...

    async def remove(self, agent_id: AgentId, model_id: ModelId) -> bool:
        """Return whether there was one."""
        ...

    async def list_all(self) -> Sequence[Pin]:
        """By agent, then model."""
        ...

    async def list(self, agent_ids: Iterable[AgentId]) -> Sequence[Pin]:
        """Of these agents, by agent, then model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which decisions; None means any."""

    resource: str | None = None
    """Its own or a related one."""
    actor: str | None = None
    action: str | None = None
    """With a "." at its end, every action that begins so."""
    start_time: datetime | None = None
    end_time: datetime | None = None


class AuditRepository(Protocol):
    """The log of decisions. It only grows: the database itself refuses to change or remove a row."""

    async def add(self, events: Sequence[AuditEvent]) -> None: ...
    async def list(
        self, wanted: AuditFilter, *, after: str | None, limit: int, oldest_first: bool = False
    ) -> Sequence[AuditEvent]:
        """By id, newest first unless asked otherwise; `after` is the id of the last event seen in that order."""
        ...


class LeaseRepository(Protocol):
    """Who leads. Times are the database's, so that replicas need not agree on theirs."""

    async def acquire(self, name: str, *, holder: str, ttl_seconds: float) -> Lease | None:
        """Take the lease when it is free or expired (its epoch rises), renew it when `holder` has it (the epoch stays);
        return it, or None while another holds it. In one statement."""
        ...

    async def release(self, lease: Lease) -> None:
        """End it now, if it is still held; the next holder gets the next epoch."""
        ...

    async def find(self, name: str) -> Lease | None: ...


class DesiredStateRepository(Protocol):
    """The desired state that each agent was last given, one row an agent."""

    async def list_all(self) -> Mapping[AgentId, DesiredState]: ...
    async def list(self, agent_ids: Iterable[AgentId]) -> Mapping[AgentId, DesiredState]:
        """Of these agents, those that have one, in one query a batch."""
        ...

    async def find(self, agent_id: AgentId) -> DesiredState | None: ...
    async def save(self, states: Sequence[DesiredState]) -> None:
        """Replace, in one statement a batch. Refuses (StaleWriteError) a generation that is not above the stored."""
        ...

    async def is_assigned(self, agent_id: AgentId, blob: Digest) -> bool:
        """Whether a version that the agent should run, prepare or compare has a file with this digest."""
        ...


WindowPlace = tuple[datetime, AgentId, int, int]
"""Start of a window, agent, batch, and index in the batch: the key of a page."""


class EvidenceRepository(Protocol):
    """Metric windows, each batch stored once. Results lie in the lake, which `UnitOfWork.result_index` knows."""

    async def add(self, batch: EvidenceBatch, objects: Sequence[ResultObject] = ()) -> bool:
        """Store the whole batch with the index of the objects that hold its results, numbered as they arrive; or
        nothing and return False when (agent, batch) is stored already."""
        ...

    async def has(self, agent_id: AgentId, batch: int) -> bool:
        """Whether the batch is stored."""
        ...

    async def list_results(
        self, wanted: ResultFilter, *, after: int | None, limit: int, newest_first: bool = False
    ) -> Sequence[tuple[int, Result]]:
        """Of the table that held results before the lake, those that were not moved yet: in order of arrival, each with
        its arrival number, the key of the page."""
        ...

    async def list_windows(
        self,
        model_id: ModelId,
        *,
        start_time: datetime | None,
        end_time: datetime | None,
        after: WindowPlace | None,
        limit: int,
    ) -> Sequence[tuple[WindowPlace, MetricWindow]]:
        """Those that overlap the time from `start_time` up to `end_time`, in the order of their places."""
        ...

    async def count_dropped(self, model_id: ModelId) -> int:
        """Results that agents dropped from batches with windows of this model."""
        ...

    async def count_inferences(
        self, model_id: ModelId, version: int, *, received_since: datetime, received_before: datetime | None = None
    ) -> Sequence[InferenceCount]:
        """One a reporting agent, by agent, from windows received at or after the one time and before the other (the
        controller's clock)."""
        ...

    async def tally(
        self,
        model_id: ModelId,
        version: int,
        *,
        received_since: datetime,
        received_before: datetime | None = None,
        agent_ids: Collection[AgentId] | None = None,
    ) -> Sequence[Tally]:
        """Windows of the version added up with their distributions, one a reporting agent, by agent: of these agents,
        or of all; times are the controller's."""
        ...

    async def tally_shadow(
        self, model_id: ModelId, candidate_version: int, *, received_since: datetime
    ) -> Sequence[ShadowTally]:
        """Shadow windows of the candidate added up, one a reporting agent, by agent."""
        ...


class SampleRepository(Protocol):
    """Samples without their contents."""

    async def add(self, sample: Sample) -> bool:
        """Store it, or nothing and return False when its id is stored already."""
        ...

    async def get(self, sample_id: SampleId) -> Sample: ...
    async def list_of(self, sample_ids: Collection[SampleId]) -> Sequence[Sample]:
        """Those that exist, by id."""
        ...

    async def find_targets(self, model_id: ModelId, targets: Collection[str]) -> Sequence[tuple[SampleId, Digest, str]]:
        """Id, digest and part of the model's samples of which one of the three is among the targets, by id."""
        ...

    async def list(
        self,
        *,
        model_id: ModelId | None,
        agent_id: AgentId | None,
        reason: SampleReason | None,
        before: tuple[datetime, SampleId] | None,
        limit: int,
    ) -> Sequence[Sample]:
        """Newest first, by (create_time, id)."""
        ...


class RequestRepository(Protocol):
    """Outcomes of creates by request id (AIP-155)."""

    async def find(self, request_id: str) -> tuple[str, str] | None:
        """(fingerprint of the request, resource name) or None."""
        ...

    async def add(self, request_id: str, *, fingerprint: str, resource: str, create_time: datetime) -> None: ...


class UnitOfWork(Protocol):
    """Repositories that share one transaction."""

    @property
    def models(self) -> ModelRepository: ...
    @property
    def agents(self) -> AgentRepository: ...
    @property
    def certificates(self) -> CertificateRepository: ...
    @property
    def tokens(self) -> TokenRepository: ...
    @property
    def deployments(self) -> DeploymentRepository: ...
    @property
    def rollouts(self) -> RolloutRepository: ...
    @property
    def desired(self) -> DesiredStateRepository: ...
    @property
    def drifts(self) -> DriftRepository: ...
    @property
    def evidence(self) -> EvidenceRepository: ...
    @property
    def result_index(self) -> ResultIndexRepository: ...
    @property
    def samples(self) -> SampleRepository: ...
    @property
    def labels(self) -> LabelRepository: ...
    @property
    def datasets(self) -> DatasetRepository: ...
    @property
    def pictures(self) -> PictureRepository: ...
    @property
    def requests(self) -> RequestRepository: ...
    @property
    def pins(self) -> PinRepository: ...
    @property
    def audit(self) -> AuditRepository: ...
    @property
    def leases(self) -> LeaseRepository: ...
    @property
    def training_runs(self) -> TrainingRunRepository: ...
    @property
    def promotions(self) -> PromotionRepository: ...
    @property
    def training_policies(self) -> TrainingPolicyRepository: ...


class Store(Protocol):
    """Opens units of work by intent."""

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        """A transaction that is always rolled back."""
        ...

    def write(self, *, lease: Lease | None = None) -> AbstractAsyncContextManager[UnitOfWork]:
        """A transaction that commits when the block ends, and rolls back when it raises. Two writers
        never lose an update of each other: the second waits or gets StaleWriteError.

        With a `lease` it commits only while that is held with its epoch, else it raises LeaseLostError: what a leader
        decided before it was put to sleep is never written after another has taken over.
        """
        ...


class BlobStore(Protocol):
    """Content-addressed bytes in the object store."""

    async def has(self, digest: Digest) -> bool: ...
    async def put_file(self, digest: Digest, path: Path) -> None:
        """Store a local file whose digest has been verified; durable on return."""
        ...

    async def put_bytes(self, digest: Digest, content: bytes) -> None:
        """Store small content whose digest has been verified; durable on return."""
        ...

    async def size(self, digest: Digest) -> int:
        """Raises ResourceNotFoundError ("blobs/{digest}") when absent."""
        ...

    def read(self, digest: Digest, *, offset_bytes: int = 0) -> AsyncIterator[bytes]:
        """Yield chunks of at most 1 MiB from the offset on; raises ResourceNotFoundError when absent."""
        ...

    async def fetch(self, digest: Digest, path: Path) -> None:
        """Write the blob to a local file."""
        ...


class ModelInspector(Protocol):
    """Reads a model with OpenVINO where it can do no harm."""

    async def inspect(self, folder: Path) -> ModelSignature:
        """Read the model whose files lie in `folder`. Raises FieldInvalidError (MODEL_UNREADABLE, field
        "artifact") saying what is wrong when the files are no readable model, or when reading them crashes,
        hangs or takes too much memory."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCertificate:
    """What the CA hands out."""

    certificate: AgentCertificate
    certificate_pem: str
    ca_certificate_pem: str


class CertificateAuthority(Protocol):
    """Signs agents' keys."""

    @property
    def ca_certificate_pem(self) -> str: ...

    def sign(self, csr_der: bytes, *, agent_id: AgentId, now: datetime) -> SignedCertificate:
        """Sign for exactly that agent, whatever names the request asks for. Raises FieldInvalidError
        (field "csr_der") when the request is no valid EC P-256 request signed with its own key."""
        ...

    def public_key_sha256(self, csr_der: bytes) -> str:
        """Hex digest of the request's public key; raises as `sign` does."""
        ...


class ChangeNotifier(Protocol):
    """Hurries whoever waits for a change; a lost notice costs only time (level-triggered)."""

    def desired_changed(self, agent_ids: Iterable[AgentId]) -> None: ...
    def rollout_changed(self, rollout_id: RolloutId) -> None: ...
    def agent_revoked(self, agent_id: AgentId) -> None: ...
