"""What stands around the agent's executor and sync loop in tests."""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.ports import Controller, LoadedModel, SavedState, Tensor
from agent.app.shadowing import Shadows
from agent.app.sync_loop import SyncLoop
from agent.app.traffic import Traffic
from agent.domain.artifact import Artifact, ArtifactFile, ModelSignature
from agent.domain.device import Configuration, Device, DeviceMeasurement, Host, RuntimePolicy
from agent.domain.errors import ArtifactError, PrepareError, Reason, StateError
from agent.domain.slot import DesiredSlot, DesiredState, ObservedSlot, SamplePolicy
from tests.support.clock import LoopClock
from tests.support.fake_controller import FakeController
from tests.support.serving import MemoryComparisons, NoSamples

HOST = Host(
    hostname="box",
    os="linux",
    os_release="",
    architecture="x86_64",
    cpu_model="",
    cpu_count=2,
    memory_bytes=1,
    disk_bytes=1,
    disk_free_bytes=1,
    agent_version="",
    openvino_version="",
)


def wanted(version: int, *, slot: str = "cells", offer: int = 0, random_fraction: float = 0.0) -> DesiredSlot:
    file = ArtifactFile(path="m.xml", digest=f"sha256:{version + 1000:064x}", size_bytes=2048)
    return DesiredSlot(
        slot=slot,
        version=version,
        deployment="deployments/all",
        artifact=Artifact(digest=f"sha256:{version:064x}", files=(file,)),
        signature=ModelSignature(entry_path="m.xml", inputs=(), outputs=()),
        runtime_policy=RuntimePolicy(),
        sample_policy=SamplePolicy(random_fraction=random_fraction, confidence_below=0.0, budget_bytes_per_day=0),
        offer=offer,
    )


def state(generation: int, *slots: DesiredSlot) -> DesiredState:
    return DesiredState(generation=generation, slots=slots)


@dataclass(slots=True)
class FakeLoaded:
    """Says what it was loaded from."""

    folder: Path
    device: str
    signature: ModelSignature
    optimal_requests: int = 1

    def infer(self, inputs: Mapping[str, Tensor], **_: object) -> Mapping[str, Tensor]:
        return {spec.name: np.full((1, spec.shape[-1]), 1 / spec.shape[-1]) for spec in self.signature.outputs}

    def close(self) -> None:
        return


@dataclass(slots=True)
class FakeRuntime:
    """Measures and loads at once, or fails as it is told."""

    fail_measure: set[str] = field(default_factory=set)
    """Names of folders on which every device fails."""
    fail_load: set[str] = field(default_factory=set)
    hang_measure: bool = False
    hang_load: set[str] = field(default_factory=set)
    """Loads that never end, for processes that end first."""
    measured: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    cancelled: int = 0
    box: str = ""
    """The fingerprint of its devices and drivers."""
    devices_lost: list[frozenset[str]] = field(default_factory=list)
    """What each measurement was told to leave out."""
    pruned: int = 0

    async def fingerprint(self) -> str:
        return self.box

    async def prune(self) -> None:
        self.pruned += 1

    async def devices(self) -> Sequence[Device]:
        return (Device(device="CPU"),)

    async def host(self) -> Host:
        return HOST

    async def measure(
        self,
        folder: Path,
        signature: ModelSignature,
        policy: RuntimePolicy,
        *,
        without: frozenset[str] = frozenset(),
    ) -> Sequence[DeviceMeasurement]:
        self.measured.append(folder.name)
        self.devices_lost.append(without)
        if self.hang_measure:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        ok = folder.name not in self.fail_measure
        failure = None if ok else Reason.COMPILE_CRASHED
        return (
            DeviceMeasurement(device="CPU", ok=ok, latency_ms_p50=1.0, error="" if ok else "died", failure=failure),
        )

    async def load(
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, configuration: Configuration
    ) -> FakeLoaded:
        if folder.name in self.fail_load:
            raise PrepareError("cannot load", reason=Reason.LOAD_FAILED)
        self.loaded.append(folder.name)
        if folder.name in self.hang_load:
            await asyncio.Event().wait()
        return FakeLoaded(folder, configuration.device, signature)


@dataclass(slots=True)
class FakeServing:
    """Which version answers for each slot, and every change of it."""

    slots: dict[str, DesiredSlot] = field(default_factory=dict)
    history: list[tuple[str, int]] = field(default_factory=list)
    announced: Collection[str] = ()
    with_lots: set[str] = field(default_factory=set)
    """Slots whose applications name their lots."""
    staged: dict[str, tuple[DesiredSlot, LoadedModel, Callable[[], None]]] = field(default_factory=dict)
    brought_in: list[LoadedModel] = field(default_factory=list)
    """By a lot."""
    withdrawn: list[tuple[str, int]] = field(default_factory=list)

    def announce(self, slots: Collection[str]) -> None:
        self.announced = slots

    def swap(self, slot: DesiredSlot, loaded: LoadedModel) -> None:
        assert loaded.device == "CPU"
        self.staged.pop(slot.slot, None)
        if not any(loaded is each for each in self.brought_in):
            self.slots[slot.slot] = slot
            self.history.append((slot.slot, slot.version))

    def stage(
        self, slot: DesiredSlot, loaded: LoadedModel, *, wait_seconds: float, on_swap: Callable[[], None]
    ) -> bool:
        if slot.slot not in self.with_lots or slot.slot not in self.slots:
            return False
        self.staged[slot.slot] = (slot, loaded, on_swap)
        return True

    def withdraw(self, slot: str, loaded: LoadedModel) -> bool:
        staged = self.staged.get(slot)
        if staged is None or staged[1] is not loaded:
            return False
        self.withdrawn.append((slot, self.staged.pop(slot)[0].version))
        return True

    def begin_lot(self, slot: str) -> None:
        """An application names a lot that nobody has begun."""
        wanted, loaded, on_swap = self.staged.pop(slot)
        self.brought_in.append(loaded)
        self.slots[slot] = wanted
        self.history.append((slot, wanted.version))
        on_swap()

    def adopt(self, slot: DesiredSlot) -> None:
        assert self.slots[slot.slot].version == slot.version
        self.slots[slot.slot] = slot

    def unload(self, slot: str) -> None:
        self.slots.pop(slot, None)
        self.history.append((slot, 0))

    def versions(self) -> dict[str, int]:
        return {name: slot.version for name, slot in sorted(self.slots.items())}


class MemoryCache:
    """Artifacts by digest without bytes: `fetch` asks the controller once, as the real one does for one file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.complete: set[str] = set()
        self.mismatches = 0
        """So many fetches end with wrong bytes."""
        self.disk_full = False
        self.room = 1000
        """Artifacts that the disk holds."""
        self.rates: list[int] = []
        self.hang = False
        self.fetches = 0

    def folder(self, artifact: Artifact) -> Path | None:
        return self._root / artifact.digest if artifact.digest in self.complete else None

    def received_bytes(self, artifact: Artifact) -> int:
        return artifact.size_bytes if artifact.digest in self.complete else 0

    def digests(self) -> frozenset[str]:
        return frozenset(self.complete)

    def prune(self, keep: frozenset[str]) -> None:
        self.complete &= keep

    async def fetch(self, artifact: Artifact, controller: Controller, *, bytes_per_second_max: int = 0) -> Path:
        self.fetches += 1
        self.rates.append(bytes_per_second_max)
        if self.disk_full or len(self.complete) >= self.room:
            raise ArtifactError("no room", reason=Reason.DISK_FULL)
        if self.hang:
            await asyncio.Event().wait()
        assert isinstance(controller, FakeController)
        controller.check()
        if self.mismatches > 0:
            self.mismatches -= 1
            raise ArtifactError("wrong bytes", reason=Reason.DIGEST_MISMATCH)
        self.complete.add(artifact.digest)
        return self._root / artifact.digest


class MemoryState:
    """A state file that can be read-only or damaged."""

    def __init__(self) -> None:
        self.saved = SavedState()
        self.writable = True
        self.readable = True

    def load(self) -> SavedState:
        if not self.readable:
            raise StateError("damaged")
        return self.saved

    def save(self, state: SavedState) -> None:
        if not self.writable:
            raise StateError("read-only", reason=Reason.STATE_UNWRITABLE)
        self.saved = state


@dataclass(slots=True, kw_only=True)
class Core:
    """The agent's core and everything around it."""

    clock: LoopClock
    controller: FakeController
    conditions: Conditions
    runtime: FakeRuntime
    serving: FakeServing
    cache: MemoryCache
    state_file: MemoryState
    executor: Executor
    sync_loop: SyncLoop
    shadows: Shadows
    comparisons: MemoryComparisons
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list)

    async def start(self, *, sync: bool = True) -> None:
        await self.executor.start()
        self.tasks.append(asyncio.create_task(self.executor.run()))
        if sync:
            self.tasks.append(asyncio.create_task(self.sync_loop.run()))

    async def die(self) -> "Core":
        """End the process without notice; return the next one on the same disk."""
        left = self.state_file.saved
        await self.stop()
        self.state_file.saved = left
        return new_core(controller=self.controller, runtime=self.runtime, cache=self.cache, state_file=self.state_file)

    async def stop(self) -> None:
        for task in self.tasks:
            assert not task.done(), f"a loop ended: {task}"
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    def slot(self, name: str = "cells") -> ObservedSlot:
        return next(slot for slot in self.executor.observed() if slot.slot == name)

    def condition(self, kind: str) -> str:
        return next((each.state for each in self.conditions.all() if each.type == kind), "")


def new_core(*, controller: FakeController, runtime: FakeRuntime, cache: MemoryCache, state_file: MemoryState) -> Core:
    """A process that has not started yet."""
    clock, serving, rng = LoopClock(), FakeServing(), random.Random(1)
    conditions = Conditions(clock)
    comparisons = MemoryComparisons()
    shadows = Shadows(results=comparisons, samples=NoSamples(), traffic=Traffic(), clock=clock)
    executor = Executor(
        runtime=runtime,
        serving=serving,
        cache=cache,
        controller=controller,
        state_file=state_file,
        shadows=shadows,
        conditions=conditions,
        clock=clock,
        rng=rng,
    )
    sync_loop = SyncLoop(
        controller=controller, executor=executor, runtime=runtime, conditions=conditions, clock=clock, rng=rng
    )
    return Core(
        clock=clock,
        controller=controller,
        conditions=conditions,
        runtime=runtime,
        serving=serving,
        cache=cache,
        state_file=state_file,
        executor=executor,
        sync_loop=sync_loop,
        shadows=shadows,
        comparisons=comparisons,
    )
