"""A simulated agent: what the contract asks of one, with failures drawn instead of compiled."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from controlplane.domain.assignment import DesiredSlot, DesiredState
from controlplane.domain.ids import AgentId
from controlplane.domain.inventory import ObservedSlot, ObservedState, SlotState
from tests.simulation.scenario import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Inferences of one version that wait in the spool."""

    version: int
    inferences: int
    errors: int


class SimulatedAgent:
    """One slot at most. What is on its disk (what serves, the last desired state, the spool) outlives restarts."""

    def __init__(self, agent_id: AgentId, versions: Mapping[int, Version], rng: random.Random) -> None:
        self.id = agent_id
        self.online = True
        self.generation = 0
        self.spool: list[Counted] = []
        self.batches = 0
        self._versions = versions
        self._rng = rng
        self._boots = 1
        self._wanted: DesiredSlot | None = None
        self._slot: ObservedSlot | None = None

    @property
    def serving(self) -> int:
        """Version that answers; 0 for none."""
        return self._slot.serving_version if self._slot is not None else 0

    @property
    def settled(self) -> bool:
        """Serves what is wanted, or has failed to under the present offer."""
        wanted, slot = self._wanted, self._slot
        if wanted is None or slot is None:
            return wanted is None and slot is None
        done = slot.state is SlotState.SERVING and slot.serving_version == wanted.version
        return done or (slot.state is SlotState.FAILED and self._failed_for_good(wanted))

    def observe(self) -> ObservedState:
        slots = (self._slot,) if self._slot is not None else ()
        return ObservedState(generation=self.generation, slots=slots, boot_count=self._boots)

    def take_up(self, desired: DesiredState) -> bool:
        """Take up a newer desired state; return whether an install begins. An older one changes nothing."""
        if desired.generation <= self.generation:
            return False
        self.generation = desired.generation
        self._wanted = desired.slots[0] if desired.slots else None
        return self._begin()

    def restart(self) -> bool:
        """Start again from what is on disk; return whether an install begins anew."""
        self._boots += 1
        return self._begin()

    def finish_install(self, wanted: DesiredSlot, boots: int) -> int | None:
        """Let an install come to its end; return the version if it serves now. One that was overtaken by another
        desired state or a restart comes to nothing."""
        slot = self._slot
        overtaken = boots != self._boots or wanted != self._wanted or slot is None
        if overtaken or slot is None or slot.state is not SlotState.PREPARING:
            return None
        if self._rng.random() < self._versions[wanted.version].install_failure:
            self._slot = replace(slot, state=SlotState.FAILED, failure_reason="COMPILE_FAILED")
            return None
        self._slot = replace(slot, state=SlotState.SERVING, serving_version=wanted.version)
        return wanted.version

    def install(self) -> tuple[DesiredSlot, int]:
        """What `finish_install` is to be given once the install has taken its time."""
        assert self._wanted is not None, "there is something to install"
        return self._wanted, self._boots

    def infer(self) -> None:
        """Answer some requests, and spool the outcome."""
        if self.serving:
            inferences = self._rng.randint(0, 12)
            share = self._versions[self.serving].error_share
            errors = sum(self._rng.random() < share for _ in range(inferences))
            self.spool.append(Counted(version=self.serving, inferences=inferences, errors=errors))

    def _failed_for_good(self, wanted: DesiredSlot) -> bool:
        slot = self._slot
        return (
            slot is not None
            and slot.state is SlotState.FAILED
            and slot.target_version == wanted.version
            and wanted.offer <= slot.offer
        )

    def _begin(self) -> bool:
        wanted = self._wanted
        if wanted is None:
            self._slot = None
            return False
        if self._failed_for_good(wanted):
            return False
        serves = self.serving == wanted.version
        self._slot = ObservedSlot(
            slot=wanted.slot,
            serving_version=self.serving,
            target_version=wanted.version,
            state=SlotState.SERVING if serves else SlotState.PREPARING,
            offer=wanted.offer,
        )
        return not serves
