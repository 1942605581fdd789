"""What the agent itself says of a slot, and what stands between its word and what it should run."""

from typing import assert_never

from controlplane.domain.agent_conditions import clock_skew_seconds, skew_text
from controlplane.domain.assignment import Place
from controlplane.domain.explanation import Account, Case
from controlplane.domain.ids import ModelId
from controlplane.domain.inventory import AgentState, Observation, ObservedSlot, SlotState


def explain_report(case: Case, model_id: ModelId, desired: int | None, place: Place | None, account: Account) -> None:
    """Tell what was last heard. `place` is None where no deployment holds the agent."""
    observation = case.record.observation
    if observation is None:
        account.tell("NEVER_HEARD", "it has enrolled and never synced: what it serves is not known")
        account.advise("BRING_BACK", "start the agent on its box, and look at its log if it does not connect")
        return
    if case.record.state(now=case.now, silent_seconds_max=case.silent_seconds_max) is AgentState.DISCONNECTED:
        account.tell(
            "OUT_OF_REACH",
            f"it was last heard at {observation.receive_time:%Y-%m-%d %H:%M:%S} UTC; what follows is from then, and it "
            "goes on serving what it has",
        )
        account.advise("BRING_BACK", "start the agent or mend its network: it takes up what it should run by itself")
    _explain_generation(case, observation, account)
    slot = observation.observed.slot(model_id)
    if slot is None:
        account.tell("NOT_SERVED", "it says that it has no such slot")
    else:
        _explain_slot(slot, desired, place, account)
    skew_seconds = clock_skew_seconds(observation)
    if abs(skew_seconds) > case.clock_skew_seconds_max:
        account.tell("CLOCK_SKEWED", skew_text(skew_seconds))
        account.advise("SET_CLOCK", "set the clock of its box, by NTP at best")


def _explain_generation(case: Case, observation: Observation, account: Account) -> None:
    observed, wanted = observation.observed, case.record.desired_generation
    if observed.nack_message and observed.nack_generation == wanted:
        account.tell("NACK", f"it refuses its desired state {wanted} as a whole: {observed.nack_message}")
        account.advise(
            "CHANGE_INTENT", "change what it should run, or update the agent: it is told again when that changes"
        )
    elif observed.generation < wanted:
        account.tell("NOT_TAKEN_UP", f"it has taken up its desired state {observed.generation}, and {wanted} is newest")
    elif observed.generation > wanted:
        account.tell(
            "AHEAD",
            f"it speaks of desired state {observed.generation}, which is yet to come: the controller's store "
            f"or its disk is older than it was; it takes up {wanted} all the same",
        )


def _explain_slot(slot: ObservedSlot, desired: int | None, place: Place | None, account: Account) -> None:
    serving = f"it serves version {slot.serving_version}" if slot.serving_version else "it serves nothing"
    match slot.state:
        case SlotState.SERVING:
            on = (
                f" on {slot.device}" + (f" ({slot.device_reason})" if slot.device_reason else "") if slot.device else ""
            )
            lkg = ", its last-known-good" if slot.last_known_good else ""
            account.tell("SERVES", f"{serving}{on}{lkg}")
        case SlotState.PENDING:
            account.tell("PENDING", f"it is about to take up version {slot.target_version}; {serving} meanwhile")
        case SlotState.DOWNLOADING:
            account.tell(
                "DOWNLOADING",
                f"it fetches version {slot.target_version}, {slot.downloaded_bytes} bytes so far; {serving} meanwhile",
            )
        case SlotState.PREPARING:
            account.tell("PREPARING", f"it measures and compiles version {slot.target_version}; {serving} meanwhile")
        case SlotState.FAILED:
            _explain_failure(slot, desired, place, serving, account)
        case _:
            assert_never(slot.state)
    if slot.prefetch_failure:
        account.tell("PREFETCH_FAILED", f"it could not prepare the version ahead: {slot.prefetch_failure}")
    if slot.shadow is not None and slot.shadow.message:
        shadow = slot.shadow
        account.tell(
            f"SHADOW_{shadow.state}",
            f"its shadow of version {shadow.candidate_version} compared {shadow.compared}: {shadow.message}",
        )


def _explain_failure(
    slot: ObservedSlot, desired: int | None, place: Place | None, serving: str, account: Account
) -> None:
    said = ": ".join(part for part in (slot.failure_reason, slot.failure_message) if part)
    fell_back = " as its last-known-good" if slot.last_known_good and slot.serving_version else ""
    account.tell(
        "FAILED",
        f"version {slot.target_version} failed on it ({said or 'it does not say why'}); {serving}{fell_back}, and does "
        "not try again by itself",
    )
    if desired is None or slot.target_version != desired or place is None:
        return
    if place.deployment.offer > slot.offer:
        account.tell("OFFERED_AGAIN", f"it was offered version {desired} again, and has not answered that yet")
    elif place.move is not None and place.is_exposed:
        account.advise("RETRY", f"`lineside rollouts retry {place.move.rollout.id}` offers it the version again")
    else:
        account.advise(
            "RETRY",
            f"`lineside rollouts start {place.deployment.id} --version {desired}` offers it the version again",
        )
