"""Samples: inputs that agents kept for training."""

import hashlib
from collections.abc import Iterator

from lineside.v1 import (
    sample_content_service_pb2,
    sample_content_service_pb2_grpc,
    sample_pb2,
    sample_service_pb2,
    sample_service_pb2_grpc,
)

from controlplane.client import limits
from controlplane.client.channel import Connection
from controlplane.client.errors import IntegrityError, UnreachableError
from controlplane.client.names import agent_name, model_name, sample_name
from controlplane.client.pages import iterate
from controlplane.client.retry import Backoff, Repeat


class Samples:
    """Calls of SampleService and SampleContentService. Samples are named by id or resource name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = sample_service_pb2_grpc.SampleServiceStub(connection.api)

    def get(self, sample: str) -> sample_pb2.Sample:
        """Return a sample without its content."""
        request = sample_service_pb2.GetSampleRequest(name=sample_name(sample))
        return self._connection.call(self._stub.GetSample, request)

    def list(
        self,
        *,
        model: str = "",
        agent: str = "",
        reason: sample_pb2.Sample.Reason.ValueType = sample_pb2.Sample.REASON_UNSPECIFIED,
        limit: int | None = None,
    ) -> Iterator[sample_pb2.Sample]:
        """Yield samples, newest first, those of a model, an agent, a reason when they are given."""

        def fetch(size: int, token: str) -> tuple[list[sample_pb2.Sample], str]:
            request = sample_service_pb2.ListSamplesRequest(
                model=model_name(model) if model else "",
                agent=agent_name(agent) if agent else "",
                reason=reason,
                page_size=size,
                page_token=token,
            )
            page = self._connection.call(self._stub.ListSamples, request)
            return [*page.samples], page.next_page_token

        return iterate(fetch, limit=limit)

    def content(self, sample: sample_pb2.Sample) -> bytes:
        """Return the content of a sample, verified against its digest. Raises ClientError."""
        backoff = Backoff(self._connection.pacing, budget_seconds=limits.CALL_RETRY_SECONDS)
        while True:
            try:
                return self._read(sample)
            except UnreachableError as failure:
                self._connection.forget_bytes()
                if not Repeat.SAFE.allows(failure) or not backoff.wait():
                    raise

    def _read(self, sample: sample_pb2.Sample) -> bytes:
        stub = sample_content_service_pb2_grpc.SampleContentServiceStub(self._connection.bytes_channel())
        request = sample_content_service_pb2.ReadSampleContentRequest(name=sample.name)
        content = bytearray()
        for piece in self._connection.receive(stub.ReadSampleContent, request, deadline_seconds=limits.CONTENT_SECONDS):
            content += piece.data
            if len(content) > limits.SAMPLE_BYTES_MAX:
                raise IntegrityError("more content than a sample can have", field=sample.name)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != sample.digest:
            raise IntegrityError(
                "the content does not match its digest",
                field=sample.name,
                remedy="look at the controller's object store",
            )
        return bytes(content)
