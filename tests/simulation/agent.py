"""A simulated agent: what the contract asks of one, with failures drawn instead of compiled."""

import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controlplane.domain.assignment import DesiredSlot, DesiredState, ShadowRun
from controlplane.domain.ids import ModelId
from controlplane.domain.inventory import Host, ObservedShadow, ObservedSlot, ObservedState, ShadowState, SlotState
from controlplane.rehearsal.draws import draw_binomial
from tests.simulation.scenario import ARTIFACT_BYTES, Station, Version

FETCH_BYTES_PER_SECOND = 1_000_000
PREPARE_SECONDS_MAX = 6.0
SWAP_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one version did in one window."""

    model_id: ModelId
    version: int
    inferences: int
    errors: int
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a candidate did in shadow in one window."""

    model_id: ModelId
    serving: int
    candidate: int
    compared: int
    agreed: int
    errors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A batch of the spool: sent until it is acknowledged."""

    batch: int
    windows: tuple[Counted, ...]
    shadows: tuple[Compared, ...]


@dataclass(slots=True)
class Disk:
    """What outlives a restart."""

    generation: int = 0
    wanted: dict[ModelId, DesiredSlot] = field(default_factory=dict)
    slots: dict[ModelId, ObservedSlot] = field(default_factory=dict)
    prepared: set[tuple[ModelId, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An install or a preparation under way, and how long it takes."""

    boots: int
    slot: DesiredSlot
    version: int
    prefetch: bool
    seconds: float


def _copy(disk: Disk) -> Disk:
    """What is wanted does not change, and some of it cannot be copied."""
    return deepcopy(disk, {id(slot): slot for slot in disk.wanted.values()})


class SimulatedAgent:
    """One box. `versions` are the models' by number."""

    def __init__(self, station: Station, versions: Mapping[ModelId, Mapping[int, Version]], rng: random.Random) -> None:
        self.station = station
        self.id = station.agent_id
        self.dead = False
        """Killed by a version; only hands at the box bring it back."""
        self.spool: list[Sealed] = []
        self.disk = Disk()
        self._versions = versions
        self._rng = rng
        self._boots = 1
        self._images: list[Disk] = []
        self._batches = 0
        self._compared: dict[tuple[ModelId, int, int], int] = {}
        self._told_facts = False

    @property
    def generation(self) -> int:
        return self.disk.generation

    def serving(self, model_id: ModelId) -> int:
        """Version that answers; 0 for none."""
        slot = self.disk.slots.get(model_id)
        return slot.serving_version if slot is not None else 0

    @property
    def settled(self) -> bool:
        """Serves everything that is wanted, or has failed to under the present offer."""
        wanted, slots = self.disk.wanted, self.disk.slots
        return wanted.keys() == slots.keys() and all(
            (slots[model].state is SlotState.SERVING and slots[model].serving_version == slot.version)
            or self._failed_for_good(slot)
            for model, slot in wanted.items()
        )

    def observe(self, now: datetime) -> ObservedState:
        """Everything it reports, by its own clock."""
        return ObservedState(
            generation=self.disk.generation,
            slots=tuple(self.disk.slots[model] for model in sorted(self.disk.slots)),
            agent_time=now + timedelta(seconds=self.station.skew_seconds),
            boot_count=self._boots,
        )

    def host(self, seconds: float) -> Host:
        free = 10_000 if seconds < self.station.disk_full_until else 1 << 34
        return Host(
            hostname=self.id,
            os="Linux",
            architecture=self.station.box.architecture,
            disk_bytes=1 << 35,
            disk_free_bytes=free,
        )

    def take_up(self, desired: DesiredState, seconds: float) -> list[Work]:
        """Take up a newer desired state; return the work that begins. An older one changes nothing."""
        if self.dead or desired.generation <= self.disk.generation:
            return []
        self.disk.generation = desired.generation
        self.disk.wanted = {slot.slot: slot for slot in desired.slots}
        return self._begin(seconds)

    def restart(self, seconds: float) -> list[Work]:
        """Start again from what is on disk."""
        self.dead = False
        self._boots += 1
        return self._begin(seconds)

    def image(self) -> None:
        """Take an image of the disk, to be restored one day."""
        self._images.append(_copy(self.disk))

    def restore(self, seconds: float) -> list[Work]:
        """Put an old image back. Batches are numbered on: their numbers come from the clock of the first boot."""
        if self._images:
            self.disk = _copy(self._rng.choice(self._images))
        return self.restart(seconds)

    def finish(self, work: Work, seconds: float) -> tuple[ModelId, int] | None:
        """Let work come to its end; return (model, version) if it serves now. Work that was overtaken by another
        desired state, a restart or a death comes to nothing."""
        wanted, slot = self.disk.wanted.get(work.slot.slot), self.disk.slots.get(work.slot.slot)
        if self.dead or work.boots != self._boots or wanted != work.slot or slot is None:
            return None
        full = seconds < self.station.disk_full_until
        if work.prefetch:
            self._finish_prefetch(slot, work, full=full)
            return None
        if slot.state is not SlotState.PREPARING:
            return None
        behaviour = self._versions[slot.slot][work.version]
        prepared = (slot.slot, work.version) in self.disk.prepared
        if (full and not prepared) or self._rng.random() < behaviour.install_failure:
            why = "DISK_FULL" if full and not prepared else "COMPILE_FAILED"
            self.disk.slots[slot.slot] = replace(
                slot, state=SlotState.FAILED, failure_reason=why, last_known_good=slot.serving_version > 0
            )
            return None
        self.disk.slots[slot.slot] = replace(slot, state=SlotState.SERVING, serving_version=work.version)
        self.dead = self._rng.random() < behaviour.deadly
        return slot.slot, work.version

    def seal_window(self, inferences_max: int) -> None:
        """Answer the requests of one window, compare in shadow, and seal what came of it into a batch."""
        if self.dead or not self.station.busy:
            return
        windows, shadows = [], []
        for model_id, slot in sorted(self.disk.slots.items()):
            if slot.serving_version:
                inferences = self._rng.randint(inferences_max // 2, inferences_max)
                windows.append(self._count(model_id, slot.serving_version, inferences))
                if (wanted := self.disk.wanted.get(model_id)) is not None and wanted.shadow is not None:
                    shadows += self._compare(slot, wanted, wanted.shadow, inferences)
        if windows:
            self._batches += 1
            self.spool.append(Sealed(batch=self._batches, windows=tuple(windows), shadows=tuple(shadows)))

    def _count(self, model_id: ModelId, version: int, inferences: int) -> Counted:
        behaviour = self._versions[model_id][version]
        share = behaviour.error_share if self.station.box in behaviour.bad_boxes else 0.0
        errors = draw_binomial(self._rng, inferences, share)
        latency = 8.0 * behaviour.slowness * self._rng.uniform(0.9, 1.1)
        return Counted(model_id=model_id, version=version, inferences=inferences, errors=errors, latency_ms=latency)

    def _compare(self, slot: ObservedSlot, wanted: DesiredSlot, run: ShadowRun, inferences: int) -> list[Compared]:
        key = (slot.slot, run.candidate_version, wanted.offer)
        done = self._compared.get(key, 0)
        compared = min(inferences, max(run.comparisons_max - done, 0)) if run.comparisons_max else inferences
        self._compared[key] = done + compared
        complete = bool(run.comparisons_max) and self._compared[key] >= run.comparisons_max
        self.disk.slots[slot.slot] = replace(
            slot,
            shadow=ObservedShadow(
                candidate_version=run.candidate_version,
                state=ShadowState.COMPLETE if complete else ShadowState.RUNNING,
                compared=self._compared[key],
                offer=wanted.offer,
            ),
        )
        if not compared:
            return []
        behaviour = self._versions[slot.slot][run.candidate_version]
        share = behaviour.error_share if self.station.box in behaviour.bad_boxes else 0.0
        return [
            Compared(
                model_id=slot.slot,
                serving=slot.serving_version,
                candidate=run.candidate_version,
                compared=compared,
                agreed=draw_binomial(self._rng, compared, behaviour.agreement),
                errors=draw_binomial(self._rng, compared, share),
            )
        ]

    def _failed_for_good(self, wanted: DesiredSlot) -> bool:
        slot = self.disk.slots.get(wanted.slot)
        return (
            slot is not None
            and slot.state is SlotState.FAILED
            and slot.target_version == wanted.version
            and wanted.offer <= slot.offer
        )

    def _begin(self, seconds: float) -> list[Work]:
        work: list[Work] = []
        self.disk.slots = {model: slot for model, slot in self.disk.slots.items() if model in self.disk.wanted}
        for model, wanted in sorted(self.disk.wanted.items()):
            work += self._begin_install(model, wanted)
            work += self._begin_prefetch(model, wanted)
        return work

    def _begin_install(self, model: ModelId, wanted: DesiredSlot) -> list[Work]:
        before = self.disk.slots.get(model)
        shadow = before.shadow if before is not None and wanted.shadow is not None else None
        prefetched = wanted.prefetch_version if (model, wanted.prefetch_version) in self.disk.prepared else 0
        if self._failed_for_good(wanted) and before is not None:
            self.disk.slots[model] = replace(before, prefetched_version=prefetched, shadow=shadow)
            return []
        serves = self.serving(model) == wanted.version
        self.disk.slots[model] = ObservedSlot(
            slot=model,
            serving_version=self.serving(model),
            target_version=wanted.version,
            state=SlotState.SERVING if serves else SlotState.PREPARING,
            offer=wanted.offer,
            prefetched_version=prefetched,
            shadow=shadow,
        )
        if serves:
            return []
        seconds = SWAP_SECONDS if (model, wanted.version) in self.disk.prepared else self._fetch_seconds(wanted)
        return [Work(boots=self._boots, slot=wanted, version=wanted.version, prefetch=False, seconds=seconds)]

    def _begin_prefetch(self, model: ModelId, wanted: DesiredSlot) -> list[Work]:
        version = wanted.prefetch_version
        if not version or (model, version) in self.disk.prepared:
            return []
        seconds = self._fetch_seconds(wanted)
        return [Work(boots=self._boots, slot=wanted, version=version, prefetch=True, seconds=seconds)]

    def _fetch_seconds(self, wanted: DesiredSlot) -> float:
        rate = min(wanted.fetch_bytes_per_second_max or FETCH_BYTES_PER_SECOND, FETCH_BYTES_PER_SECOND)
        return ARTIFACT_BYTES / rate + self._rng.uniform(0.5, PREPARE_SECONDS_MAX)

    def _finish_prefetch(self, slot: ObservedSlot, work: Work, *, full: bool) -> None:
        if full:
            self.disk.slots[slot.slot] = replace(slot, prefetch_failure="DISK_FULL: no room for the artifact")
            return
        self.disk.prepared.add((slot.slot, work.version))
        self.disk.slots[slot.slot] = replace(slot, prefetched_version=work.version, prefetch_failure="")
