"""What the controller sends is checked at the edge; what the agent reports says everything."""

import math
from datetime import timedelta

import pytest
from lineside.v1 import (
    artifact_pb2,
    condition_pb2,
    endpoints_pb2,
    evidence_pb2,
    fleet_service_pb2,
    model_pb2,
    slot_pb2,
)

from agent.app.evidence import result_message
from agent.app.ports import EvidenceBatch
from agent.domain.artifact import ArtifactFile, manifest_digest
from agent.domain.device import DeviceChoice, DeviceMeasurement, PerformanceHint
from agent.domain.slot import AgentCondition, ObservedShadow, ObservedSlot, ObservedState, ShadowState, SlotState
from agent.rpc import convert
from agent.rpc.controller import resolve_endpoints
from tests.agent.storage.test_result_log import result as make_result
from tests.support.clock import START

FILE = ArtifactFile(path="m.xml", digest=f"sha256:{7:064x}", size_bytes=3)


def slot_message() -> slot_pb2.DesiredSlot:
    return slot_pb2.DesiredSlot(
        slot="cells",
        model_version="models/cells/versions/7",
        deployment="deployments/all",
        artifact=artifact_pb2.Artifact(
            digest=manifest_digest([FILE]),
            files=[artifact_pb2.ArtifactFile(path=FILE.path, digest=FILE.digest, size_bytes=FILE.size_bytes)],
            size_bytes=3,
        ),
        signature=model_pb2.ModelSignature(
            entry_path="m.xml", inputs=[model_pb2.TensorSpec(name="x", datatype="FP32", shape=[-1, 3])]
        ),
        runtime_policy=slot_pb2.RuntimePolicy(hint=slot_pb2.PERFORMANCE_HINT_THROUGHPUT, devices=["CPU"]),
        sample_policy=slot_pb2.SamplePolicy(random_fraction=0.5, confidence_below=0.25, budget_bytes_per_day=9),
        offer=2,
    )


def candidate_message(number: int = 8) -> slot_pb2.CandidateVersion:
    slot = slot_message()
    return slot_pb2.CandidateVersion(
        model_version=f"models/cells/versions/{number}", artifact=slot.artifact, signature=slot.signature
    )


def test_candidates_are_taken_with_their_slot() -> None:
    message = slot_message()
    message.prefetch.CopyFrom(candidate_message(8))
    message.shadow.CopyFrom(
        slot_pb2.ShadowRun(candidate=candidate_message(9), comparisons_max=500, serving_latency_ms_p99_max=12.5)
    )
    message.fetch_bytes_per_second_max = 1000
    slot = convert.desired_slot(message)
    assert slot.prefetch is not None
    assert slot.shadow is not None
    assert (slot.prefetch.version, slot.shadow.candidate.version) == (8, 9)
    assert (slot.shadow.comparisons_max, slot.shadow.serving_latency_ms_p99_max) == (500, 12.5)
    assert slot.prefetch.artifact.files == (FILE,)
    assert slot.fetch_bytes_per_second_max == 1000
    plain = convert.desired_slot(slot_message())
    assert (plain.prefetch, plain.shadow, plain.fetch_bytes_per_second_max) == (None, None, 0)


@pytest.mark.parametrize(
    "shadow",
    [
        slot_pb2.ShadowRun(candidate=candidate_message(), comparisons_max=0),
        slot_pb2.ShadowRun(candidate=candidate_message(), comparisons_max=1, serving_latency_ms_p99_max=math.nan),
        slot_pb2.ShadowRun(comparisons_max=1),
    ],
)
def test_a_shadow_run_that_cannot_be_understood_is_refused(shadow: slot_pb2.ShadowRun) -> None:
    message = slot_message()
    message.shadow.CopyFrom(shadow)
    assert "desired_state.slots" in convert.sync_reply(reply_of(message)).refusal


def test_how_candidates_stand_is_reported() -> None:
    observed = ObservedSlot(
        slot="cells",
        prefetched_version=8,
        prefetch_failure="no room",
        shadow=ObservedShadow(candidate_version=9, state=ShadowState.STOPPED, compared=3, message="too slow", offer=2),
    )
    message = convert.observed_slot(observed)
    assert (message.prefetched_version, message.prefetch_failure) == ("models/cells/versions/8", "no room")
    assert message.shadow == slot_pb2.ObservedShadow(
        candidate_version="models/cells/versions/9",
        state=slot_pb2.ObservedShadow.STATE_STOPPED,
        compared_count=3,
        message="too slow",
        offer=2,
    )
    assert not convert.observed_slot(ObservedSlot(slot="cells")).HasField("shadow")


def reply_of(slot: slot_pb2.DesiredSlot, *more: slot_pb2.DesiredSlot) -> fleet_service_pb2.SyncResponse:
    state = slot_pb2.DesiredState(generation=3, slots=[slot, *more])
    return fleet_service_pb2.SyncResponse(desired_state=state, generation=3)


def test_a_desired_state_is_taken_whole() -> None:
    reply = convert.sync_reply(reply_of(slot_message()))
    assert reply.refusal == ""
    assert reply.desired is not None
    (slot,) = reply.desired.slots
    assert (slot.slot, slot.version, slot.offer) == ("cells", 7, 2)
    assert slot.artifact.files == (FILE,)
    assert slot.runtime_policy.hint is PerformanceHint.THROUGHPUT
    assert slot.sample_policy.budget_bytes_per_day == 9
    assert slot.signature.inputs[0].shape == (-1, 3)


def test_a_model_may_be_the_whole_artifact() -> None:
    message = slot_message()
    message.signature.entry_path = "."
    reply = convert.sync_reply(reply_of(message))
    assert reply.refusal == ""
    assert reply.desired is not None
    assert reply.desired.slots[0].signature.entry_path == "."


def test_a_reply_without_a_desired_state_is_no_wish() -> None:
    reply = convert.sync_reply(fleet_service_pb2.SyncResponse(generation=3))
    assert (reply.desired, reply.generation, reply.refusal) == (None, 3, "")


def hostile(change: str) -> slot_pb2.DesiredSlot:
    message = slot_message()
    match change:
        case "path":
            message.artifact.files[0].path = "../../etc/cron.d/x"
        case "entry":
            message.signature.entry_path = "/etc/passwd"
        case "digest":
            message.artifact.digest = f"sha256:{1:064x}"
        case "file digest":
            message.artifact.files[0].digest = "sha256:../../x"
        case "size":
            message.artifact.files[0].size_bytes = -1
        case "no files":
            del message.artifact.files[:]
        case "slot":
            message.slot = "../cells"
        case "version":
            message.model_version = "models/cells/versions/0"
        case "model":
            message.model_version = "models/other/versions/1"
        case _:
            raise AssertionError(change)
    return message


@pytest.mark.parametrize(
    "change", ["path", "entry", "digest", "file digest", "size", "no files", "slot", "version", "model"]
)
def test_a_desired_state_that_is_not_right_is_refused_whole(change: str) -> None:
    reply = convert.sync_reply(reply_of(hostile(change)))
    assert reply.desired is None
    assert reply.refusal
    assert reply.generation == 3


def test_a_slot_named_twice_is_refused() -> None:
    assert convert.sync_reply(reply_of(slot_message(), slot_message())).refusal


def test_everything_that_is_observed_is_reported() -> None:
    choice = DeviceChoice(
        device="CPU",
        reason="best",
        measurements=(DeviceMeasurement(device="CPU", ok=True, compile_seconds=1.25, chosen=True),),
    )
    state = ObservedState(
        generation=4,
        slots=(
            ObservedSlot(
                slot="cells",
                serving_version=1,
                target_version=2,
                state=SlotState.FAILED,
                device_choice=choice,
                failure_reason="DISK_FULL",
                failure_message="no room",
                offer=3,
                serving_time=START,
                last_known_good=True,
            ),
            ObservedSlot(slot="welds"),
        ),
        boot_count=9,
        agent_time=START,
        conditions=(
            AgentCondition(type="StateWritable", state="FALSE", reason="R", message="m", transition_time=START),
        ),
        nack_message="no",
        nack_generation=5,
    )
    message = convert.observed_state(state)
    first, second = message.slots
    assert (first.serving_version, first.target_version) == ("models/cells/versions/1", "models/cells/versions/2")
    assert first.state == slot_pb2.ObservedSlot.STATE_FAILED
    assert (first.device, first.device_reason, first.failure_reason) == ("CPU", "best", "DISK_FULL")
    assert first.measurements[0].compile_duration.ToTimedelta().total_seconds() == 1.25
    assert first.last_known_good
    assert first.offer == 3
    assert first.serving_time.ToDatetime() == START.replace(tzinfo=None)
    assert (second.serving_version, second.state) == ("", slot_pb2.ObservedSlot.STATE_PENDING)
    assert message.conditions[0].state == condition_pb2.Condition.STATE_FALSE
    assert (message.generation, message.boot_count) == (4, 9)
    assert (message.nack_message, message.nack_generation) == ("no", 5)


def test_every_state_has_its_word_on_the_wire() -> None:
    states = {convert.observed_slot(ObservedSlot(slot="x", state=each)).state for each in SlotState}
    assert len(states) == len(SlotState)
    assert slot_pb2.ObservedSlot.STATE_UNSPECIFIED not in states


def test_a_batch_goes_out_whole() -> None:
    result = make_result("p")
    window = evidence_pb2.MetricWindow(slot="cells", inference_count=1)
    request = convert.evidence_request(
        EvidenceBatch(
            number=5,
            windows=(window.SerializeToString(),),
            results=(result,),
            dropped_results=2,
        )
    )
    assert (request.batch, list(request.results), list(request.windows)) == (
        5,
        [result_message(result)],
        [window],
    )
    assert request.dropped_results == 2


def test_an_empty_host_is_the_one_by_which_the_controller_was_reached() -> None:
    message = endpoints_pb2.Endpoints(api=":1", fleet=":2", agent_bytes="bytes.example:3")
    found = resolve_endpoints(message, api="10.0.0.5:7443")
    assert (found.api, found.fleet, found.agent_bytes) == ("10.0.0.5:7443", "10.0.0.5:2", "bytes.example:3")


def test_a_reply_says_by_how_much_to_spread_what_is_reported() -> None:
    message = fleet_service_pb2.SyncResponse(generation=3)
    assert convert.sync_reply(message).report_jitter_seconds == 0.0
    message.report_jitter.FromTimedelta(timedelta(seconds=2.5))
    assert convert.sync_reply(message).report_jitter_seconds == 2.5
