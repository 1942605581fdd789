"""Times, artifacts and signatures survive the wire."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain.catalog import CHUNK_SIZE_BYTES, Artifact, ArtifactFile, ModelSignature, TensorSpec
from controlplane.domain.errors import FieldInvalidError, Reason
from controlplane.domain.ids import Digest
from controlplane.rpc.convert import artifacts, times

DIGEST = Digest("sha256:" + "0" * 64)


def make_artifact(size_bytes: int = CHUNK_SIZE_BYTES + 1, chunks: int = 2) -> Artifact:
    chunk_digests = tuple(hashlib.sha256(bytes([n])).digest() for n in range(chunks))
    file = ArtifactFile(path="model/net.xml", digest=DIGEST, size_bytes=size_bytes, chunk_digests=chunk_digests)
    return Artifact(files=(file,))


def test_a_time_returns_aware_and_in_utc() -> None:
    time = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=8)))
    returned = times.time_from_proto(times.time_to_proto(time), field="t")
    assert returned == time
    assert returned.tzinfo is UTC


def test_a_time_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        times.time_from_proto(Timestamp(seconds=1 << 60), field="start_time")
    assert refusal.value.field == "start_time"


def test_a_duration_returns() -> None:
    assert times.duration_from_proto(times.duration_to_proto(timedelta(seconds=1.5)), field="d").total_seconds() == 1.5
    assert times.seconds_from_proto(times.seconds_to_proto(0.25), field="d") == 0.25


def test_a_duration_out_of_range_is_refused_by_name() -> None:
    with pytest.raises(FieldInvalidError) as refusal:
        times.duration_from_proto(Duration(seconds=1 << 62), field="ttl")
    assert refusal.value.field == "ttl"


def test_an_artifact_returns() -> None:
    artifact = make_artifact()
    assert artifacts.artifact_from_proto(artifacts.artifact_to_proto(artifact)) == artifact


def test_an_artifact_under_another_digest_is_refused() -> None:
    message = artifacts.artifact_to_proto(make_artifact())
    message.digest = DIGEST
    with pytest.raises(FieldInvalidError) as refusal:
        artifacts.artifact_from_proto(message)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH


def test_chunk_digests_that_do_not_fit_the_size_are_refused() -> None:
    message = artifacts.artifact_to_proto(make_artifact(chunks=3))
    with pytest.raises(FieldInvalidError) as refusal:
        artifacts.artifact_from_proto(message)
    assert refusal.value.field == "artifact.files.chunk_digests"


def test_a_signature_returns() -> None:
    tensor = TensorSpec(name="x", datatype="FP32", shape=(-1, 3))
    signature = ModelSignature(
        format="onnx", entry_path="m.onnx", inputs=(tensor,), outputs=(tensor,), precision="f32", rt_info={"a/b": "c"}
    )
    assert artifacts.signature_from_proto(artifacts.signature_to_proto(signature)) == signature
