"""SampleUploadService."""

from lineside.v1 import sample_upload_service_pb2, sample_upload_service_pb2_grpc

from controlplane.app.samples import Samples
from controlplane.rpc.authentication import Context, current_agent
from controlplane.rpc.convert.samples import sample_from_proto


class SampleUploadServicer(sample_upload_service_pb2_grpc.SampleUploadServiceServicer):
    """Takes an agent's own samples."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    async def UploadSample(
        self, request: sample_upload_service_pb2.UploadSampleRequest, context: Context
    ) -> sample_upload_service_pb2.UploadSampleResponse:
        sample = sample_from_proto(request, agent_id=current_agent())
        duplicate = await self._samples.store(sample, request.content)
        return sample_upload_service_pb2.UploadSampleResponse(duplicate=duplicate)
