"""SampleContentService."""

from collections.abc import AsyncIterator

from lineside.v1 import sample_content_service_pb2, sample_content_service_pb2_grpc

from controlplane.app.samples import Samples
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.names import parse_sample_name


class SampleContentServicer(sample_content_service_pb2_grpc.SampleContentServiceServicer):
    """Contents of samples, for operators."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    async def ReadSampleContent(
        self, request: sample_content_service_pb2.ReadSampleContentRequest, context: Context
    ) -> AsyncIterator[sample_content_service_pb2.ReadSampleContentResponse]:
        async for chunk in self._samples.read_content(parse_sample_name(request.name, field="name")):
            yield sample_content_service_pb2.ReadSampleContentResponse(data=chunk)
