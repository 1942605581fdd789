"""SampleService."""

from lineside.v1 import sample_pb2, sample_service_pb2, sample_service_pb2_grpc

from controlplane.app.samples import Samples
from controlplane.rpc.authentication import Context
from controlplane.rpc.convert.names import parse_agent_name, parse_model_name, parse_sample_name
from controlplane.rpc.convert.samples import reason_from_proto, sample_to_proto


class SampleServicer(sample_service_pb2_grpc.SampleServiceServicer):
    """Samples without their contents, for operators."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    async def GetSample(self, request: sample_service_pb2.GetSampleRequest, context: Context) -> sample_pb2.Sample:
        return sample_to_proto(await self._samples.get(parse_sample_name(request.name, field="name")))

    async def ListSamples(
        self, request: sample_service_pb2.ListSamplesRequest, context: Context
    ) -> sample_service_pb2.ListSamplesResponse:
        page = await self._samples.list(
            model_id=parse_model_name(request.model, field="model") if request.model else None,
            agent_id=parse_agent_name(request.agent, field="agent") if request.agent else None,
            reason=reason_from_proto(request.reason, field="reason") if request.reason else None,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return sample_service_pb2.ListSamplesResponse(
            samples=map(sample_to_proto, page.items), next_page_token=page.next_token
        )
