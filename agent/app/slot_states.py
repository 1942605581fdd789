"""Slots as they are reported and saved."""

from dataclasses import replace
from datetime import datetime

from agent.app.ports import FailureRecord, ServingRecord
from agent.domain.device import DeviceChoice
from agent.domain.errors import AgentError
from agent.domain.reconcile import failed_for_good, runs_alike
from agent.domain.slot import DesiredSlot, ObservedSlot, SlotState


def serving_record(slot: ObservedSlot) -> ServingRecord | None:
    """None where nothing serves."""
    if slot.serving is None or slot.device_choice is None:
        return None
    return ServingRecord(desired=slot.serving, choice=slot.device_choice)


def failure_record(slot: ObservedSlot) -> FailureRecord | None:
    """None where the target has not failed."""
    if slot.state is not SlotState.FAILED:
        return None
    return FailureRecord(
        slot=slot.slot,
        version=slot.target_version,
        offer=slot.offer,
        reason=slot.failure_reason,
        message=slot.failure_message,
    )


def failed_slot(slot: ObservedSlot, failure: FailureRecord) -> ObservedSlot:
    """The slot as the record of an earlier process says."""
    return replace(
        slot,
        state=SlotState.FAILED,
        target_version=failure.version,
        offer=failure.offer,
        failure_reason=failure.reason,
        failure_message=failure.message,
    )


def heading(slot: ObservedSlot, wanted: DesiredSlot, state: SlotState) -> ObservedSlot:
    """The slot on its way to `wanted`; what serves is untouched."""
    return replace(
        slot,
        state=state,
        target_version=wanted.version,
        offer=wanted.offer,
        failure_reason="",
        failure_message="",
        downloaded_bytes=0,
    )


def taken(slot: ObservedSlot, wanted: DesiredSlot, *, is_prepared: bool) -> ObservedSlot:
    """The slot once `wanted` is what it should serve."""
    settled = slot.serving is not None and runs_alike(slot.serving, wanted)
    if settled or failed_for_good(wanted, slot):
        return slot
    return heading(slot, wanted, SlotState.PREPARING if is_prepared else SlotState.PENDING)


def failed(slot: ObservedSlot, wanted: DesiredSlot, error: AgentError) -> ObservedSlot:
    return replace(heading(slot, wanted, SlotState.FAILED), failure_reason=error.reason, failure_message=str(error))


def confirmed(slot: ObservedSlot, wanted: DesiredSlot) -> ObservedSlot:
    """The slot once the controller has said that `wanted` is what it should serve: if it does, that is no guess."""
    is_wanted = slot.last_known_good and wanted.version == slot.serving_version
    return replace(slot, last_known_good=False) if is_wanted else slot


def adopted(slot: ObservedSlot, wanted: DesiredSlot) -> ObservedSlot:
    """The slot whose serving version is now asked for like this."""
    return replace(
        slot,
        state=SlotState.SERVING,
        serving=wanted,
        target_version=wanted.version,
        offer=wanted.offer,
        failure_reason="",
        failure_message="",
    )


def serving_slot(
    wanted: DesiredSlot, choice: DeviceChoice, *, serving_time: datetime, last_known_good: bool = False
) -> ObservedSlot:
    return ObservedSlot(
        slot=wanted.slot,
        serving_version=wanted.version,
        target_version=wanted.version,
        state=SlotState.SERVING,
        device_choice=choice,
        downloaded_bytes=wanted.artifact.size_bytes,
        offer=wanted.offer,
        serving_time=serving_time,
        last_known_good=last_known_good,
        serving=wanted,
    )
