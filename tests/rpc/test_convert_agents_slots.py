"""Agents and slots survive the wire, and bad ones are refused by field."""

from dataclasses import replace
from datetime import timedelta

import pytest
from lineside.v1 import agent_pb2, condition_pb2, slot_pb2

from controlplane import limits
from controlplane.app.desired import DesiredStates, ResolvedState
from controlplane.domain.assignment import ShadowRun
from controlplane.domain.condition import Condition, ConditionState
from controlplane.domain.deployment import PerformanceHint, RuntimePolicy
from controlplane.domain.errors import FieldInvalidError, StaleWriteError
from controlplane.domain.inventory import (
    AgentRecord,
    ObservedShadow,
    ObservedState,
    SampleCounts,
    ShadowState,
    SlotState,
)
from controlplane.domain.pin import Pin
from controlplane.rpc.convert import agents, conditions, etags, slots
from tests.support.factories import (
    NOW,
    SOLAR,
    ST_1,
    make_agent,
    make_desired,
    make_desired_slot,
    make_device,
    make_host,
    make_model,
    make_observation,
    make_observed_slot,
    make_version,
)
from tests.support.memory_store import MemoryStore


def on_the_wire(*observed: slot_pb2.ObservedSlot) -> slot_pb2.ObservedState:
    return slot_pb2.ObservedState(generation=4, slots=observed, boot_count=2)


@pytest.mark.parametrize("state", SlotState)
def test_an_observed_slot_returns(state: SlotState) -> None:
    slot = make_observed_slot(state=state, serving_time=NOW)
    returned = slots.observed_state_from_proto(on_the_wire(slots.observed_slot_to_proto(slot)))
    assert returned == ObservedState(generation=4, slots=(slot,), boot_count=2)


@pytest.mark.parametrize("state", ConditionState)
def test_a_condition_returns(state: ConditionState) -> None:
    condition = Condition(type="DiskPressure", state=state, reason="Full", message="m", transition_time=NOW)
    assert conditions.condition_from_proto(conditions.condition_to_proto(condition), field="c") == condition


def test_a_condition_of_a_newer_agent_is_unknown() -> None:
    message = condition_pb2.Condition(type="X")
    message.state = 77  # type: ignore[assignment]
    assert conditions.condition_from_proto(message, field="c").state is ConditionState.UNKNOWN


@pytest.mark.parametrize("hint", PerformanceHint)
def test_policies_return(hint: PerformanceHint) -> None:
    runtime = RuntimePolicy(hint=hint, inference_precision="f32", devices=("CPU", "GPU.0"))
    assert slots.runtime_policy_from_proto(slots.runtime_policy_to_proto(runtime)) == runtime


def test_host_and_device_return() -> None:
    assert agents.host_from_proto(agents.host_to_proto(make_host())) == make_host()
    device = make_device(device="GPU.0")
    message = agents.device_to_proto(device, ST_1)
    assert message.name == "agents/st-1/devices/gpu-0"
    assert agents.device_from_proto(message) == device


def test_a_desired_state_carries_the_bytes_and_the_signature() -> None:
    version = make_version()
    desired = make_desired(generation=5)
    message = slots.desired_state_to_proto(ResolvedState(desired=desired, versions={(SOLAR, 1): version}))
    (slot,) = message.slots
    assert (message.generation, slot.slot, slot.model_version) == (5, "solar", "models/solar/versions/1")
    assert slot.artifact.digest == version.artifact.digest
    assert slot.signature.format == version.signature.format


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (on_the_wire(slot_pb2.ObservedSlot(slot="Not An Id")), "observed_state.slots.slot"),
        (on_the_wire(slot_pb2.ObservedSlot(slot="m", serving_version="1")), "observed_state.slots.serving_version"),
        (
            on_the_wire(slot_pb2.ObservedSlot(slot="m", target_version="models/other/versions/1")),
            "observed_state.slots.target_version",
        ),
        (on_the_wire(slot_pb2.ObservedSlot(slot="m"), slot_pb2.ObservedSlot(slot="m")), "observed_state.slots"),
        (
            on_the_wire(*(slot_pb2.ObservedSlot(slot=f"m{n}") for n in range(limits.OBSERVED_SLOTS_MAX + 1))),
            "observed_state",
        ),
    ],
)
def test_a_bad_observation_is_refused_by_field(message: slot_pb2.ObservedState, field: str) -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        slots.observed_state_from_proto(message)
    assert refusal.value.field == field


def test_more_devices_than_a_box_can_have_are_refused() -> None:
    with pytest.raises(FieldInvalidError):
        agents.check_device_count(limits.DEVICES_MAX + 1)


def test_an_agent_shows_what_was_last_heard_and_that_it_refused() -> None:
    observed = ObservedState(
        generation=3, slots=(make_observed_slot(),), nack_message="no room for it", nack_generation=4
    )
    record = AgentRecord(agent=make_agent(), observation=make_observation(observed=observed), desired_generation=4)
    message = agents.agent_to_proto(record, now=NOW, silent_seconds_max=10)
    assert (message.name, message.state) == ("agents/st-1", agent_pb2.Agent.STATE_CONNECTED)
    assert (message.desired_generation, message.observed_generation) == (4, 3)
    refused = message.conditions[-1]
    assert (refused.type, refused.state, refused.message) == (
        "DesiredStateAccepted",
        condition_pb2.Condition.STATE_FALSE,
        "no room for it",
    )


def test_a_silent_agent_counts_as_disconnected_and_a_revoked_one_as_revoked() -> None:
    later = NOW + timedelta(seconds=11)
    record = AgentRecord(agent=make_agent(), observation=make_observation())
    assert agents.agent_to_proto(record, now=later, silent_seconds_max=10).state == agent_pb2.Agent.STATE_DISCONNECTED
    new = AgentRecord(agent=make_agent())
    assert agents.agent_to_proto(new, now=later, silent_seconds_max=10).state == agent_pb2.Agent.STATE_ENROLLED
    gone = AgentRecord(agent=make_agent(revoked=True), observation=make_observation())
    assert agents.agent_to_proto(gone, now=NOW, silent_seconds_max=10).state == agent_pb2.Agent.STATE_REVOKED


def test_etags_return_and_others_are_stale() -> None:
    assert etags.parse_etag(etags.etag_of(7)) == 7
    assert etags.parse_etag("") is None
    with pytest.raises(StaleWriteError):
        etags.parse_etag("nonsense")


@pytest.mark.parametrize("state", ShadowState)
def test_what_is_prepared_and_compared_returns(state: ShadowState) -> None:
    shadow = ObservedShadow(candidate_version=3, state=state, compared=40, message="too slow", offer=2)
    for slot in (
        make_observed_slot(prefetched_version=2, shadow=shadow),
        make_observed_slot(prefetch_failure="no room", shadow=replace(shadow, candidate_version=0, message="")),
    ):
        returned = slots.observed_state_from_proto(on_the_wire(slots.observed_slot_to_proto(slot)))
        assert returned.slots == (slot,)


@pytest.mark.parametrize("field", ["prefetched_version", "shadow.candidate_version"])
def test_a_version_of_another_model_is_refused_by_field(field: str) -> None:
    message = slot_pb2.ObservedSlot(slot="solar")
    holder = message.shadow if field.startswith("shadow.") else message
    setattr(holder, field.rpartition(".")[2], "models/weld/versions/1")
    with pytest.raises(FieldInvalidError) as caught:
        slots.observed_state_from_proto(on_the_wire(message))
    assert caught.value.field == f"observed_state.slots.{field}"
    assert caught.value.remedy


def test_words_of_a_failed_prefetch_and_shadow_are_cut() -> None:
    long = "x" * (limits.NACK_CHARS_MAX + 1)
    message = slot_pb2.ObservedSlot(slot="solar", prefetch_failure=long, shadow=slot_pb2.ObservedShadow(message=long))
    (slot,) = slots.observed_state_from_proto(on_the_wire(message)).slots
    assert len(slot.prefetch_failure) == limits.NACK_CHARS_MAX
    assert slot.shadow is not None
    assert len(slot.shadow.message) == limits.NACK_CHARS_MAX


def test_an_agent_is_given_what_to_prepare_and_to_compare_with_all_it_needs() -> None:
    run = ShadowRun(candidate_version=3, comparisons_max=500, serving_latency_ms_p99_max=12.5)
    slot = make_desired_slot(version=1, prefetch_version=2, shadow=run, fetch_bytes_per_second_max=1000)
    versions = {(SOLAR, number): make_version(number=number) for number in (1, 2, 3)}
    message = slots.desired_state_to_proto(ResolvedState(desired=make_desired(slots=(slot,)), versions=versions))
    (told,) = message.slots
    assert told.fetch_bytes_per_second_max == 1000
    assert (told.shadow.comparisons_max, told.shadow.serving_latency_ms_p99_max) == (500, 12.5)
    for candidate, number in ((told.prefetch, 2), (told.shadow.candidate, 3)):
        version = versions[SOLAR, number]
        assert candidate.model_version == version.name
        assert candidate.artifact.digest == version.artifact.digest
        assert candidate.signature.entry_path == version.signature.entry_path
    bare = slots.desired_state_to_proto(ResolvedState(desired=make_desired(), versions=versions)).slots[0]
    assert not bare.HasField("prefetch")
    assert not bare.HasField("shadow")


async def test_every_version_of_a_desired_state_is_resolved() -> None:
    store = MemoryStore()
    async with store.write() as work:
        await work.models.add(make_model())
        for number in (1, 2, 3):
            await work.models.add_version(make_version(number=number))
    run = ShadowRun(candidate_version=3, comparisons_max=1)
    desired = make_desired(slots=(make_desired_slot(version=1, prefetch_version=2, shadow=run),))
    resolved = await DesiredStates(store=store).resolve(desired)
    assert sorted(resolved.versions) == [(SOLAR, 1), (SOLAR, 2), (SOLAR, 3)]


def test_an_agent_tells_its_pins_and_a_clock_that_is_off() -> None:
    pin = Pin(agent_id=ST_1, model_id=SOLAR, version=2, reason="glare", create_time=NOW, actor="operators/anna")
    observed = ObservedState(generation=1, agent_time=NOW + timedelta(days=800))
    record = AgentRecord(agent=make_agent(), observation=make_observation(observed=observed))
    message = agents.agent_to_proto(record, now=NOW, silent_seconds_max=10, pins=[pin])
    (told,) = message.pins
    assert (told.model_version, told.reason, told.creator) == ("models/solar/versions/2", "glare", "operators/anna")
    assert [condition.type for condition in message.conditions] == ["ClockSkewed"]


def test_an_agent_tells_what_became_of_its_samples_once_there_are_any() -> None:
    counts = SampleCounts(kept={"RANDOM": 3}, skipped={"quota": 2}, waiting=1, waiting_bytes=100)
    for told in (SampleCounts(), counts):
        observed = ObservedState(generation=1, agent_time=NOW, sample_counts=told)
        record = AgentRecord(agent=make_agent(), observation=make_observation(observed=observed))
        message = agents.agent_to_proto(record, now=NOW, silent_seconds_max=10)
        assert message.HasField("sample_counts") == (told is counts)
    assert message.sample_counts == slots.sample_counts_to_proto(counts)
    state = slot_pb2.ObservedState(sample_counts=message.sample_counts)
    assert slots.ObservedStateReader().read(state).sample_counts == counts


def test_what_an_agent_repeats_is_the_object_it_was_and_what_is_new_is_read() -> None:
    reader = slots.ObservedStateReader()
    old, moved = make_observed_slot(slot="a"), make_observed_slot(slot="b", state=SlotState.PREPARING)
    first = reader.read(on_the_wire(*map(slots.observed_slot_to_proto, (old, moved))))
    again = reader.read(on_the_wire(*map(slots.observed_slot_to_proto, (old, moved))))
    assert again.slots is first.slots
    serving = replace(moved, state=SlotState.SERVING)
    after = reader.read(on_the_wire(*map(slots.observed_slot_to_proto, (serving, old))))
    assert after.slots == (serving, old)
    assert after.slots[1] is first.slots[0]


def test_a_refused_message_does_not_spoil_the_next() -> None:
    reader, slot = slots.ObservedStateReader(), slots.observed_slot_to_proto(make_observed_slot())
    for _ in range(2):
        with pytest.raises(FieldInvalidError):
            reader.read(on_the_wire(slot, slot))
    assert len(reader.read(on_the_wire(slot)).slots) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"offer": 1},
        {"prefetch_version": 2},
        {"fetch_bytes_per_second_max": 5},
        {"runtime_policy": RuntimePolicy(devices=("NPU",))},
        {"shadow": ShadowRun(candidate_version=2, comparisons_max=7)},
    ],
)
def test_a_slot_is_built_once_and_anew_when_anything_of_it_changes(changes: dict[str, object]) -> None:
    versions = {(SOLAR, number): make_version(number=number) for number in (1, 2)}
    writer, slot = slots.DesiredStateWriter(), make_desired_slot(version=1)
    for each in (slot, replace(slot, **changes), slot):  # type: ignore[arg-type]
        resolved = ResolvedState(desired=make_desired(slots=(each,)), versions=versions)
        assert writer.write(resolved) == slots.desired_state_to_proto(resolved)
