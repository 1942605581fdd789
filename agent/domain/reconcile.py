"""What to do so that the box runs what is desired: one pure diff, applied by one executor.

Rules kept here:
- `diff` of a box that runs what is desired is empty; applying the actions in order reaches desired.
- A slot is swapped only after its artifact is complete and a device is chosen; what serves before is never unloaded
  to make room, so at each prefix of the actions some good version still serves.
- A version that failed under an offer is not tried again until another offer comes.
- Slots that must go are unloaded after the others are settled, and bytes are pruned after that.
- Candidates (versions to prefetch or to run in shadow) come after all of this and never answer: nothing about them
  swaps, unloads or delays a serving version. A shadow run that is no longer wanted ends first, to make room.
- What serves as it should on a device that was chosen among others than the box has now is measured again last of all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.domain.device import RuntimePolicy
from agent.domain.slot import CandidateVersion, DesiredSlot, DesiredState, ObservedSlot, ShadowState, SlotState


class Purpose(StrEnum):
    """What a version is fetched and prepared for."""

    SERVE = "SERVE"
    PREFETCH = "PREFETCH"
    SHADOW = "SHADOW"
    REMEASURE = "REMEASURE"
    """It serves, and its device was chosen among others than the box has now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Download and verify the slot's artifact."""

    slot: DesiredSlot
    purpose: Purpose = Purpose.SERVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Measure the slot's version on the eligible devices and choose one."""

    slot: DesiredSlot
    purpose: Purpose = Purpose.SERVE


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StartShadow:
    """Load the candidate of `slot.shadow` beside the serving version and run it on the same inputs."""

    slot: DesiredSlot


@dataclass(frozen=True, slots=True, kw_only=True)
class EndShadow:
    """Free the slot's candidate and forget its run."""

    slot: str


Action = Fetch | Prepare | Swap | Adopt | Unload | Prune | StartShadow | EndShadow


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedKey:
    """What a device choice was made for."""

    artifact_digest: str
    policy: RuntimePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldShadow:
    """A shadow run that goes on or has ended. One that another process began and this one has not is not held."""

    candidate: DesiredSlot
    """As `candidate_slot` makes it."""
    state: ShadowState
    compared: int = 0


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
    shadows: tuple[HeldShadow, ...] = ()
    stale: frozenset[str] = frozenset()
    """Slots whose serving version runs on a device that was chosen among others than the box has now."""
    on_trial: bool = False
    """A serving version has not proven itself yet: a crash must have one culprit, so no shadow run begins."""

    def slot(self, name: str) -> ObservedSlot | None:
        return next((slot for slot in self.slots if slot.slot == name), None)

    def shadow(self, name: str) -> HeldShadow | None:
        return next((held for held in self.shadows if held.candidate.slot == name), None)


def prepared_key(slot: DesiredSlot) -> PreparedKey:
    return PreparedKey(artifact_digest=slot.artifact.digest, policy=slot.runtime_policy)


def runs_alike(one: DesiredSlot, other: DesiredSlot) -> bool:
    """Whether both ask for the same version, bytes and device policy, so that neither needs a load after the other."""
    return one.version == other.version and prepared_key(one) == prepared_key(other)


def same_work(one: DesiredSlot, other: DesiredSlot) -> bool:
    """Whether to fetch or prepare the one is to do so for the other, at the same pace."""
    alike = one.slot == other.slot and runs_alike(one, other)
    return alike and one.fetch_bytes_per_second_max == other.fetch_bytes_per_second_max


def candidate_slot(wanted: DesiredSlot, candidate: CandidateVersion) -> DesiredSlot:
    """How the candidate would be asked for, were it the version to serve."""
    return replace(
        wanted,
        version=candidate.version,
        artifact=candidate.artifact,
        signature=candidate.signature,
        prefetch=None,
        shadow=None,
    )


def prefetch_of(wanted: DesiredSlot) -> DesiredSlot | None:
    """What to fetch and prepare beside the version to serve; None where that is the version itself."""
    if wanted.prefetch is None:
        return None
    candidate = candidate_slot(wanted, wanted.prefetch)
    return None if runs_alike(candidate, wanted) else candidate


def shadow_of(wanted: DesiredSlot) -> DesiredSlot | None:
    """What to run in shadow beside the version to serve; None where that is the version itself."""
    if wanted.shadow is None:
        return None
    candidate = candidate_slot(wanted, wanted.shadow.candidate)
    return None if runs_alike(candidate, wanted) else candidate


def candidates_of(wanted: DesiredSlot) -> tuple[DesiredSlot, ...]:
    return tuple(each for each in (shadow_of(wanted), prefetch_of(wanted)) if each is not None)


def shadow_settled(held: HeldShadow, wanted: DesiredSlot) -> bool:
    """Whether the run is the one that is wanted and needs no other start: it goes on, or has ended under this offer or
    with enough comparisons."""
    candidate = shadow_of(wanted)
    if wanted.shadow is None or candidate is None or not runs_alike(held.candidate, candidate):
        return False
    match held.state:
        case ShadowState.COMPLETE:
            return held.compared >= wanted.shadow.comparisons_max
        case ShadowState.STOPPED | ShadowState.FAILED:
            return held.candidate.offer == wanted.offer
        case _:
            return True


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
    actions: list[Action] = list(_ended_shadows(wanted_slots, holding))
    for wanted in wanted_slots:
        actions.extend(_slot_actions(wanted, holding))
    wanted_names = {slot.slot for slot in wanted_slots}
    actions.extend(Unload(slot=slot.slot) for slot in holding.slots if slot.slot not in wanted_names)
    keep = _kept_digests(wanted_slots, holding)
    # Generation 0 means that nothing was ever asked for: bytes that survived a lost state file may be asked for soon.
    if desired.generation > 0 and holding.stored - keep:
        actions.append(Prune(keep=keep))
    for wanted in wanted_slots:
        actions.extend(_shadow_actions(wanted, holding))
    for wanted in wanted_slots:
        candidate = prefetch_of(wanted)
        if candidate is not None:
            actions.extend(_preparations(candidate, holding, Purpose.PREFETCH))
    actions.extend(
        Prepare(slot=wanted, purpose=Purpose.REMEASURE) for wanted in wanted_slots if _is_stale(wanted, holding)
    )
    return tuple(actions)


def _is_stale(wanted: DesiredSlot, holding: Holding) -> bool:
    return (
        wanted.slot in holding.stale
        and wanted.artifact.digest in holding.complete
        and not _slot_actions(wanted, holding)
        and not failed_for_good(wanted, holding.slot(wanted.slot))
    )


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
    return (*_preparations(wanted, holding, Purpose.SERVE), Swap(slot=wanted))


def _preparations(slot: DesiredSlot, holding: Holding, purpose: Purpose) -> tuple[Action, ...]:
    steps: list[Action] = []
    if slot.artifact.digest not in holding.complete:
        steps.append(Fetch(slot=slot, purpose=purpose))
    if prepared_key(slot) not in holding.prepared:
        steps.append(Prepare(slot=slot, purpose=purpose))
    return tuple(steps)


def _ended_shadows(wanted_slots: list[DesiredSlot], holding: Holding) -> tuple[Action, ...]:
    """Runs of slots or candidates that are no longer wanted, or that have nothing to run beside."""
    wanted = {slot.slot: slot for slot in wanted_slots}
    return tuple(
        EndShadow(slot=held.candidate.slot)
        for held in holding.shadows
        if held.candidate.slot not in wanted
        or (candidate := _shadow_candidate(wanted[held.candidate.slot], holding)) is None
        or not runs_alike(held.candidate, candidate)
    )


def _shadow_candidate(wanted: DesiredSlot, holding: Holding) -> DesiredSlot | None:
    """What is to run beside the version that serves once the slot is settled; None where nothing serves then, or the
    candidate itself does."""
    candidate = shadow_of(wanted)
    observed = holding.slot(wanted.slot)
    if candidate is None or not failed_for_good(wanted, observed):
        return candidate
    serving = observed.serving if observed is not None else None
    return None if serving is None or runs_alike(serving, candidate) else candidate


def _shadow_actions(wanted: DesiredSlot, holding: Holding) -> tuple[Action, ...]:
    candidate = _shadow_candidate(wanted, holding)
    held = holding.shadow(wanted.slot)
    if candidate is None or (held is not None and shadow_settled(held, wanted)):
        return ()
    steps = _preparations(candidate, holding, Purpose.SHADOW)
    return steps if holding.on_trial else (*steps, StartShadow(slot=wanted))


def _kept_digests(wanted: list[DesiredSlot], holding: Holding) -> frozenset[str]:
    """Desired artifacts and candidates, those of slots that a failed target leaves on their old version, fallbacks."""
    staying = (
        slot.serving
        for slot in holding.slots
        if slot.serving is not None and any(failed_for_good(want, slot) for want in wanted if want.slot == slot.slot)
    )
    candidates = (candidate for slot in wanted for candidate in candidates_of(slot))
    return digests_of((*wanted, *candidates, *staying, *holding.fallbacks))
