import json

from lineside.v1 import agent_pb2, artifact_pb2, join_token_pb2, model_pb2, result_service_pb2, rollout_pb2, slot_pb2

from controlplane.cli.document import document_of, word


def test_every_field_is_there_under_its_proto_name() -> None:
    document = document_of(agent_pb2.Agent())
    assert list(document) == [field.name for field in agent_pb2.Agent.DESCRIPTOR.fields]
    assert document["labels"] == {}
    assert document["slots"] == []
    assert document["state"] == "UNSPECIFIED"
    assert document["host"] is None
    assert document["last_sync_time"] is None


def test_numbers_of_64_bits_are_numbers() -> None:
    assert document_of(model_pb2.Model(latest_version=2**53 + 1))["latest_version"] == 2**53 + 1


def test_enums_lose_their_prefix() -> None:
    assert document_of(rollout_pb2.Rollout(state=rollout_pb2.Rollout.STATE_ROLLING_BACK))["state"] == "ROLLING_BACK"
    policy = slot_pb2.RuntimePolicy(hint=slot_pb2.PERFORMANCE_HINT_THROUGHPUT)
    assert document_of(policy)["hint"] == "THROUGHPUT"
    gate = rollout_pb2.GatePolicy(on_failure=rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE)
    assert word(gate, "on_failure") == "PAUSE"


def test_a_value_from_a_newer_controller_reads_as_unspecified() -> None:
    newer = rollout_pb2.Rollout()
    newer.ParseFromString(rollout_pb2.Rollout(state=99).SerializeToString())  # type: ignore[arg-type]
    assert document_of(newer)["state"] == "UNSPECIFIED"


def test_an_optional_that_is_absent_is_null_and_zero_is_zero() -> None:
    document = document_of(rollout_pb2.GatePolicy(min_inferences=0))
    assert document["min_inferences"] == 0
    assert document["max_errors_per_mille"] is None


def test_times_durations_and_bytes_are_text() -> None:
    token = join_token_pb2.JoinToken()
    token.expire_time.FromJsonString("2026-11-04T10:20:30.5Z")
    token.ttl.FromSeconds(90)
    document = document_of(token)
    assert document["expire_time"] == "2026-11-04T10:20:30.500Z"
    assert document["ttl"] == "90s"
    assert document_of(artifact_pb2.ArtifactFile(chunk_digests=[b"\xff\x00"]))["chunk_digests"] == ["/wA="]


def test_maps_are_sorted_and_nested_messages_are_documents() -> None:
    slot = slot_pb2.ObservedSlot(slot="solar", state=slot_pb2.ObservedSlot.STATE_SERVING)
    document = document_of(agent_pb2.Agent(labels={"b": "2", "a": "1"}, slots=[slot]))
    assert list(document["labels"].items()) == [("a", "1"), ("b", "2")]
    assert document["slots"][0]["state"] == "SERVING"


def test_not_a_number_is_valid_json() -> None:
    document = document_of(result_service_pb2.MetricSummary(latency_ms_p50=float("nan"), latency_ms_p95=1.5))
    assert json.loads(json.dumps(document, allow_nan=False))["latency_ms_p50"] is None
    assert document["latency_ms_p95"] == 1.5
