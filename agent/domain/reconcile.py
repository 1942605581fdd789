"""What to do so that the box runs what is desired: one pure diff, applied by one executor.

Rules kept here:
- `diff` of a box that runs what is desired is empty; applying the actions in order reaches desired.
- A slot is swapped only after its artifact is complete and a device is chosen; what serves before is never unloaded
  to make room, so at each prefix of the actions some good version still serves.
- A version that failed under an offer is not tried again until another offer comes.
- Slots that must go are unloaded after the others are settled, and bytes are pruned last.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from agent.domain.device import RuntimePolicy
from agent.domain.slot import DesiredSlot, DesiredState, ObservedSlot, SlotState


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Download and verify the slot's artifact."""

    slot: DesiredSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Measure the slot's version on the eligible devices and choose one."""

    slot: DesiredSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Load the slot's version on the chosen device and let it answer."""

    slot: DesiredSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopt:
    """The right version serves as it should; only what surrounds it (offer, samples, deployment) has changed."""

    slot: DesiredSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class Unload:
    """Answer no longer for the slot."""

    slot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Drop every artifact and received file whose digest is not kept."""

    keep: frozenset[str]


Action = Fetch | Prepare | Swap | Adopt | Unload | Prune


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedKey:
    """What a device choice was made for."""

    artifact_digest: str
    policy: RuntimePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What the box has: its slots, complete artifacts, bytes on disk and device choices."""

    slots: tuple[ObservedSlot, ...] = ()
    complete: frozenset[str] = frozenset()
    """Digests of complete artifacts."""
    stored: frozenset[str] = frozenset()
    """Digests of everything on disk, files that came in part included."""
    prepared: frozenset[PreparedKey] = frozenset()
    fallbacks: tuple[DesiredSlot, ...] = ()
    """What may have to serve again."""

    def slot(self, name: str) -> ObservedSlot | None:
        return next((slot for slot in self.slots if slot.slot == name), None)


def prepared_key(slot: DesiredSlot) -> PreparedKey:
    return PreparedKey(artifact_digest=slot.artifact.digest, policy=slot.runtime_policy)


def runs_alike(one: DesiredSlot, other: DesiredSlot) -> bool:
    """Whether both ask for the same version, bytes and device policy, so that neither needs a load after the other."""
    return one.version == other.version and prepared_key(one) == prepared_key(other)


def digests_of(slots: Iterable[DesiredSlot]) -> frozenset[str]:
    """Digests of the artifacts and of each of their files."""
    return frozenset(
        digest for slot in slots for digest in (slot.artifact.digest, *(file.digest for file in slot.artifact.files))
    )


def failed_for_good(wanted: DesiredSlot, observed: ObservedSlot | None) -> bool:
    """Whether this version has failed under this offer. A lower offer is another one as well: that of a controller
    restored from a backup, or of another deployment."""
    return (
        observed is not None
        and observed.state is SlotState.FAILED
        and observed.target_version == wanted.version
        and wanted.offer == observed.offer
    )


def diff(desired: DesiredState, holding: Holding) -> tuple[Action, ...]:
    """The actions that bring the box to `desired`, in the order in which to apply them."""
    wanted_slots = sorted(desired.slots, key=lambda slot: slot.slot)
    actions: list[Action] = []
    for wanted in wanted_slots:
        actions.extend(_slot_actions(wanted, holding))
    wanted_names = {slot.slot for slot in wanted_slots}
    actions.extend(Unload(slot=slot.slot) for slot in holding.slots if slot.slot not in wanted_names)
    keep = _kept_digests(wanted_slots, holding)
    # Generation 0 means that nothing was ever asked for: bytes that survived a lost state file may be asked for soon.
    if desired.generation > 0 and holding.stored - keep:
        actions.append(Prune(keep=keep))
    return tuple(actions)


def _slot_actions(wanted: DesiredSlot, holding: Holding) -> tuple[Action, ...]:
    observed = holding.slot(wanted.slot)
    serving = observed.serving if observed is not None else None
    if observed is not None and serving is not None and runs_alike(serving, wanted):
        settled = (
            serving == wanted
            and observed.state is SlotState.SERVING
            and observed.target_version == wanted.version
            and observed.offer == wanted.offer
        )
        return () if settled else (Adopt(slot=wanted),)
    if failed_for_good(wanted, observed):
        return ()
    steps: list[Action] = []
    if wanted.artifact.digest not in holding.complete:
        steps.append(Fetch(slot=wanted))
    if prepared_key(wanted) not in holding.prepared:
        steps.append(Prepare(slot=wanted))
    return (*steps, Swap(slot=wanted))


def _kept_digests(wanted: list[DesiredSlot], holding: Holding) -> frozenset[str]:
    """Desired artifacts, those of slots that a failed target leaves on their old version, and fallbacks."""
    staying = (
        slot.serving
        for slot in holding.slots
        if slot.serving is not None and any(failed_for_good(want, slot) for want in wanted if want.slot == slot.slot)
    )
    return digests_of((*wanted, *staying, *holding.fallbacks))
