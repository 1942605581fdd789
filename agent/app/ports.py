"""What the agent's use cases need from outside, as Protocols. Fakes and adapters pass the same contract tests."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from lineside.v1 import evidence_pb2

from agent.domain.artifact import Artifact, ModelSignature
from agent.domain.day_budget import DayBudget
from agent.domain.device import Configuration, Device, DeviceChoice, DeviceMeasurement, Host, RuntimePolicy
from agent.domain.result import Result
from agent.domain.shadow import Comparison, ShadowPair
from agent.domain.slot import DesiredSlot, DesiredState, ObservedState, SamplePolicy, ShadowState

Tensor = npt.NDArray[np.generic]


class Clock(Protocol):
    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None: ...


# --- the controller -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    """One answer or push of the controller."""

    desired: DesiredState | None
    """None when the agent has the current generation."""
    generation: int
    sync_interval_seconds: float
    refusal: str = ""
    """Why a desired state that came cannot be understood and is not taken up; empty when all is well."""
    controller_time: datetime | None = None
    """What the controller's clock said when it answered."""
    report_jitter_seconds: float = 0.0
    """Up to so long a random wait is asked for before what this changes is reported: many were told at once."""


class SyncStream(Protocol):
    """One open Sync stream. Both calls raise ControllerError when it has ended."""

    async def send(self, state: ObservedState, *, host: Host | None, devices: Sequence[Device] | None) -> None: ...
    async def receive(self) -> SyncReply: ...


class Controller(Protocol):
    """The controller, as this agent reaches it. Every call raises ControllerError: retryable when it is out
    of reach, else with its own reason (AGENT_REVOKED, CONTROLLER_REFUSED)."""

    def sync(self) -> AbstractAsyncContextManager[SyncStream]: ...
    def read_blob(self, digest: str, *, offset_bytes: int) -> AsyncIterator[bytes]: ...
    async def report_evidence(self, batch: "EvidenceBatch") -> None:
        """Returns when the controller holds the batch, now or since earlier."""
        ...

    async def upload_sample(self, sample: "SpooledSample") -> None:
        """Returns when the controller holds the sample, now or since earlier."""
        ...

    async def locate(self) -> None:
        """Ask where the controller's listeners are now, and use them from the next call on."""
        ...

    async def renew_certificate(self, csr_der: bytes) -> "RenewedCertificate": ...
    async def reconnect(self) -> None:
        """Use the identity files as they are now from the next call on; streams that are open go on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewedCertificate:
    certificate_pem: str
    ca_certificate_pem: str


# --- disk -----------------------------------------------------------------------------------------


class ArtifactCache(Protocol):
    """Verified artifacts by digest. A folder it returns is complete and has the right bytes."""

    def folder(self, artifact: Artifact) -> Path | None:
        """Folder of a complete artifact whose path contains the digest, else None."""
        ...

    def received_bytes(self, artifact: Artifact) -> int: ...
    async def fetch(self, artifact: Artifact, controller: Controller, *, bytes_per_second_max: int = 0) -> Path:
        """Download what is missing, going on where an earlier try stopped; verify; return the folder. Asks for no more
        than so many bytes a second, 0 meaning no bound. Raises ArtifactError (DIGEST_MISMATCH after discarding the
        bytes, DISK_FULL) or ControllerError."""
        ...

    def digests(self) -> frozenset[str]:
        """Of all that is held: complete artifacts, and files that were received in part."""
        ...

    def prune(self, keep: frozenset[str]) -> None:
        """Drop artifacts and received files whose digest is not in `keep`."""
        ...


class StateFile(Protocol):
    """Last-known-good: what served, and what was desired, atomically on disk."""

    def load(self) -> "SavedState":
        """What was saved last; an empty state where nothing was. Raises StateError (STATE_UNREADABLE),
        having set a damaged file aside."""
        ...

    def save(self, state: "SavedState") -> None:
        """Durable on return. Raises StateError (STATE_UNWRITABLE) and then leaves what was saved before."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingRecord:
    """A slot as it served, with the device choice, so that a restart needs no measurement."""

    desired: DesiredSlot
    choice: DeviceChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """A version that failed under an offer, so that a restart does not try it again."""

    slot: str
    version: int
    offer: int
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A version that this process loads, or that serves and has not yet proven itself."""

    desired: DesiredSlot
    loads: int = 0
    """Loads that were begun, one a process, and have not ended."""
    starts: int = 0
    """Processes in a row that served it and did not last for TRIAL_SECONDS; the present one counts."""
    before: ServingRecord | None = None
    """What served before it and is known to be good; None where nothing did, or it has proven itself since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRecord:
    """A shadow run, so that a restart goes on with it or knows that it has ended."""

    candidate: DesiredSlot
    """The candidate as it would be asked for, under the offer of the run."""
    state: ShadowState
    compared: int = 0
    message: str = ""
    loads: int = 0
    """Loads that were begun, one a process, and have not ended."""
    starts: int = 0
    """Processes that ran it and ended other than by a regular stop; the present one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    desired: DesiredState = field(default_factory=DesiredState)
    serving: tuple[ServingRecord, ...] = ()
    failures: tuple[FailureRecord, ...] = ()
    boot_count: int = 0
    trials: tuple[Trial, ...] = ()
    prepared: tuple[ServingRecord, ...] = ()
    """Device choices of what is desired or a candidate, whether or not it serves."""
    shadows: tuple[ShadowRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceBatch:
    """A sealed segment of the result log, with the windows computed from exactly its records. `windows` and
    `shadow_windows` are serialized `lineside.v1` messages."""

    number: int
    windows: tuple[bytes, ...]
    results: tuple[Result, ...]
    dropped_results: int = 0
    shadow_windows: tuple[bytes, ...] = ()
    omitted_results: int = 0
    """Results that the slot's policy does not keep; the windows count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledSample:
    """A sample that waits on disk. `sample` is a serialized `lineside.v1.Sample`."""

    id: str
    sample: bytes
    content: bytes
    value: float = 0.5
    """0 to 1: the least goes first where room is short."""


class EvidenceSpool(Protocol):
    """What waits to be reported: batches by number, oldest first. Blocking; called from an executor."""

    def seal(self, *, force: bool = False) -> None:
        """Close the segment that is being written once it is old enough, at once with `force`; hold the bound."""
        ...

    def pending(self) -> Sequence[int]: ...
    def read(self, number: int) -> EvidenceBatch: ...
    def discard(self, number: int) -> None:
        """The controller holds the batch."""
        ...


class SampleSpool(Protocol):
    """Samples that wait on disk, oldest first. Thread-safe, blocking."""

    def add(self, sample: SpooledSample) -> bool:
        """Keep it, dropping the least valuable where the bound asks for it; False where that is the sample itself.
        Raises StateError (STATE_UNWRITABLE)."""
        ...

    def pending(self) -> Sequence[str]: ...
    def read(self, sample_id: str) -> SpooledSample | None:
        """None when it was dropped meanwhile or is damaged. Raises StateError (STATE_UNREADABLE) if the disk fails."""
        ...

    def discard(self, sample_id: str) -> None: ...
    def budget(self, slot: str) -> DayBudget:
        """Of today. Never waits for the disk."""
        ...

    def spend(self, slot: str, size_bytes: int, label: str) -> None:
        """Of the slot's budget of today, durably; for one thread. Raises StateError (STATE_UNWRITABLE)."""
        ...

    @property
    def dropped(self) -> int:
        """Since the start, for want of room."""
        ...

    @property
    def size_bytes(self) -> int: ...


class ResultLog(Protocol):
    """Where the serving path puts results. Thread-safe; a result is safe from a kill of the process when
    `append` returns, so it is called before the application is answered."""

    def append(self, results: Sequence[Result]) -> None: ...
    def count_refused(self, slot: str, version: int) -> None: ...


class ComparisonLog(Protocol):
    """Where a shadow run puts what it found. Thread-safe; safe from a kill of the process on return."""

    def append_comparisons(self, comparisons: Sequence[Comparison]) -> None: ...
    def count_skipped(self, pair: ShadowPair, time: datetime, count: int) -> None: ...


class InputLog(Protocol):
    """Where statistics of inputs go. Thread-safe; safe from a kill of the process on return."""

    def append_inputs(self, window: evidence_pb2.MetricWindow) -> None:
        """`window` says of which slot, version, device and time they are, and nothing else."""
        ...


class ShadowOffers(Protocol):
    """Where the serving path shows what it has answered. Thread-safe, never blocks, may skip."""

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result]) -> None: ...


class SampleOffers(Protocol):
    """Where the serving path offers inputs. Thread-safe, never blocks, may drop."""

    def offer(self, inputs: Mapping[str, Tensor], results: Sequence[Result], policy: SamplePolicy) -> None: ...
    def offer_disagreement(
        self, inputs: Mapping[str, Tensor], results: Sequence[Result], index: int, policy: SamplePolicy
    ) -> None:
        """Item `index` of `results` got another label from a candidate in shadow."""
        ...


# --- OpenVINO -------------------------------------------------------------------------------------


class LoadedModel(Protocol):
    """A compiled model in this process. Thread-safe."""

    @property
    def device(self) -> str: ...
    @property
    def signature(self) -> ModelSignature: ...
    @property
    def optimal_requests(self) -> int: ...
    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        begin_seconds: Callable[[], float] | None = None,
        answer_seconds_max: float | None = None,
    ) -> Mapping[str, Tensor]:
        """Blocks. Inputs are checked already; outputs are copies that the caller owns. Where it has to wait before it
        can begin, `begin_seconds` says for how much longer it may; None leaves that to the model's own bounds. Raises
        RequestError (INFERENCE_FAILED when the device fails, DEADLINE_EXCEEDED when it could not begin in time), and
        DeviceHungError when the device had so many seconds and gave no answer: what hangs costs the model that much of
        its capacity until it ends."""
        ...

    def close(self) -> None:
        """Frees it; the caller guarantees that no infer is running."""
        ...


class Runtime(Protocol):
    """OpenVINO on this box. Whatever can kill a process runs in a child."""

    async def devices(self) -> Sequence[Device]: ...
    async def host(self) -> Host: ...
    async def fingerprint(self) -> str:
        """Changes when a device, a driver or OpenVINO does, and then what was measured no longer holds."""
        ...

    async def measure(
        self,
        folder: Path,
        signature: ModelSignature,
        policy: RuntimePolicy,
        *,
        without: frozenset[str] = frozenset(),
    ) -> Sequence[DeviceMeasurement]:
        """Compile, first-infer, check against golden files and briefly measure each candidate configuration, none that
        uses a device of `without`, each in a child process under a time and memory limit, which leaves the compile
        cache warm. A crash, hang, error, lie or mismatch is a measurement with `ok=False`."""
        ...

    async def load(
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, configuration: Configuration
    ) -> LoadedModel:
        """Load from the warm cache and infer once. Raises PrepareError (LOAD_FAILED)."""
        ...

    async def prune(self) -> None:
        """Drop compiled models whose artifact is gone, and what is above the bound of the cache."""
        ...


class ServingPath(Protocol):
    """The serving path, as the executor drives it. Thread-safe, never blocks."""

    def announce(self, slots: Collection[str]) -> None:
        """Say which slots are to come, so that a request for one is told to wait."""
        ...

    def swap(self, slot: DesiredSlot, loaded: LoadedModel) -> None:
        """Answer for the slot with `loaded` from the next request on, and own it. No request fails: the model that
        answered before is closed when its last request is done."""
        ...

    def stage(
        self, slot: DesiredSlot, loaded: LoadedModel, *, wait_seconds: float, on_swap: Callable[[], None]
    ) -> bool:
        """Answer with `loaded` from the first lot that nobody has begun, and own it then; `on_swap` is called from the
        thread of that request. `swap` ends the wait. False, and nothing is staged, where no lots are known."""
        ...

    def withdraw(self, slot: str, loaded: LoadedModel) -> bool:
        """Free `loaded` if it is staged for the slot; False where it is not, since it serves already."""
        ...

    def adopt(self, slot: DesiredSlot) -> None:
        """The loaded model stays; its sample policy is the slot's from now on."""
        ...

    def unload(self, slot: str) -> None:
        """Answer no longer for the slot; requests under way finish."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a TLS client needs, in PEM."""

    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes


class Certificates(Protocol):
    """The agent's own key and certificate."""

    def read(self) -> Identity:
        """Raises EnrollmentError (NOT_ENROLLED) when any of it is missing."""
        ...

    def expire_time(self) -> datetime: ...
    def lifetime(self) -> timedelta: ...
    def new_request(self) -> bytes:
        """Make the next key, in memory, and return a PKCS #10 request (DER) signed with it."""
        ...

    def install(self, renewed: RenewedCertificate) -> None:
        """Replace key and certificate together by the key of the last `new_request` and its certificate.
        Raises StateError (STATE_UNWRITABLE) and then keeps the old pair."""
        ...
