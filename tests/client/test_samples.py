import hashlib

import grpc
import pytest
from lineside.v1 import sample_pb2

from controlplane.client import Client, IntegrityError, UnreachableError, limits
from tests.client.fake_controller import FakeController, Refusal
from tests.client.stepped_time import SteppedTime

CONTENT = b"an image of a solar cell"


@pytest.fixture
def sample(fake: FakeController) -> sample_pb2.Sample:
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    sample = sample_pb2.Sample(name="samples/s1", digest=digest, size_bytes=len(CONTENT))
    fake.samples[sample.name] = sample
    fake.contents[sample.name] = CONTENT
    return sample


def test_content_is_put_together(client: Client, sample: sample_pb2.Sample) -> None:
    assert client.samples.content(client.samples.get("s1")) == CONTENT


def test_a_broken_read_begins_again(fake: FakeController, client: Client, sample: sample_pb2.Sample) -> None:
    fake.refusals["ReadSampleContent"].append(Refusal(code=grpc.StatusCode.UNAVAILABLE))
    assert client.samples.content(sample) == CONTENT


def test_a_read_that_stays_broken_ends(
    fake: FakeController, client: Client, sample: sample_pb2.Sample, time: SteppedTime
) -> None:
    fake.refusals["ReadSampleContent"].extend([Refusal(code=grpc.StatusCode.UNAVAILABLE)] * 1000)
    with pytest.raises(UnreachableError):
        client.samples.content(sample)
    assert time.seconds <= limits.CALL_RETRY_SECONDS


def test_other_bytes_are_not_handed_out(fake: FakeController, client: Client, sample: sample_pb2.Sample) -> None:
    fake.contents[sample.name] = CONTENT[:-1] + b"?"
    with pytest.raises(IntegrityError, match="digest"):
        client.samples.content(sample)


def test_endless_bytes_are_not_kept(
    fake: FakeController, client: Client, sample: sample_pb2.Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SAMPLE_BYTES_MAX", 8)
    with pytest.raises(IntegrityError, match="more content"):
        client.samples.content(sample)


def test_filters_reach_the_controller(fake: FakeController, client: Client, sample: sample_pb2.Sample) -> None:
    reason = sample_pb2.Sample.REASON_RANDOM
    assert list(client.samples.list(model="solar", agent="st-1", reason=reason)) == [sample]
    (request,) = fake.requests("ListSamples")
    assert (request.model, request.agent, request.reason) == ("models/solar", "agents/st-1", reason)
