"""EvidenceService."""

from lineside.v1 import evidence_service_pb2, evidence_service_pb2_grpc

from controlplane.app.evidence import Evidence
from controlplane.rpc.authentication import Context, current_agent
from controlplane.rpc.convert.evidence import batch_from_proto
from controlplane.rpc.convert.times import day_from_text


class EvidenceServicer(evidence_service_pb2_grpc.EvidenceServiceServicer):
    """Takes an agent's own evidence."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    async def ReportEvidence(
        self, request: evidence_service_pb2.ReportEvidenceRequest, context: Context
    ) -> evidence_service_pb2.ReportEvidenceResponse:
        duplicate = await self._evidence.report(batch_from_proto(request, agent_id=current_agent()))
        return evidence_service_pb2.ReportEvidenceResponse(
            duplicate=duplicate,
            uploads_supported=self._evidence.uploads_supported,
            result_files_supported=True,
        )

    async def CreateResultUploads(
        self, request: evidence_service_pb2.CreateResultUploadsRequest, context: Context
    ) -> evidence_service_pb2.CreateResultUploadsResponse:
        days = [day_from_text(file.day, field="files.day") for file in request.files]
        uploads = await self._evidence.create_uploads(current_agent(), request.batch, days)
        return evidence_service_pb2.CreateResultUploadsResponse(
            uploads=[
                evidence_service_pb2.ResultUpload(key=one.key, url=one.put.url, headers=one.put.headers)
                for one in uploads
            ]
        )
