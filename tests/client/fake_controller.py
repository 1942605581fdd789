"""A controller in memory behind real gRPC and TLS: metadata, deadlines, rich errors and broken streams are real.

It keeps what it is given and answers from it. What is not its point, such as waves or selectors, it does not do. A test
scripts refusals and breaks beforehand and looks at the calls afterwards.
"""

# ruff: noqa: N802 (methods of servicers are named as the contract names them)

import hashlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from lineside.v1 import (
    agent_pb2,
    agent_service_pb2,
    audit_pb2,
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    drift_pb2,
    drift_service_pb2,
    endpoints_pb2,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    evidence_pb2,
    join_token_pb2,
    join_token_service_pb2,
    join_token_service_pb2_grpc,
    lineage_service_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    operator_pb2,
    promotion_pb2,
    result_service_pb2,
    result_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    sample_content_service_pb2,
    sample_content_service_pb2_grpc,
    sample_pb2,
    sample_service_pb2,
    sample_service_pb2_grpc,
    training_policy_pb2,
    training_run_pb2,
    upload_pb2,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

from controlplane.client import OperatorConfig
from tests.client.certificates import ServerIdentity
from tests.client.fake_answers import Refusal as Refusal
from tests.client.fake_answers import find, page
from tests.client.fake_drift import Drifts
from tests.client.fake_engine import Agents, Audit, Operators, Rollouts
from tests.client.fake_promotion import Lineages, Promotions, TrainingPolicies
from tests.client.fake_training import Training

TOKEN = "lso1.test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as it arrived."""

    method: str
    authorization: str
    seconds_left: float | None
    request: Any


@dataclass(kw_only=True)
class FakeController:
    """Start it, look at it, stop it. Addresses are 127.0.0.1 with ports of the system's choice."""

    identity: ServerIdentity
    calls: list[Call] = field(default_factory=list)
    refusals: defaultdict[str, deque[Refusal]] = field(default_factory=lambda: defaultdict(deque))
    """By method: what the next calls of it are answered with."""
    models: dict[str, model_pb2.Model] = field(default_factory=dict)
    versions: dict[str, list[model_pb2.ModelVersion]] = field(default_factory=lambda: defaultdict(list))
    agents: dict[str, agent_pb2.Agent] = field(default_factory=dict)
    tokens: dict[str, join_token_pb2.JoinToken] = field(default_factory=dict)
    deployments: dict[str, deployment_pb2.Deployment] = field(default_factory=dict)
    rollouts: dict[str, rollout_pb2.Rollout] = field(default_factory=dict)
    samples: dict[str, sample_pb2.Sample] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    results: list[evidence_pb2.Result] = field(default_factory=list)
    summaries: list[result_service_pb2.MetricSummary] = field(default_factory=list)
    answer: result_service_pb2.QueryResultsResponse = field(default_factory=result_service_pb2.QueryResultsResponse)
    traced: list[result_service_pb2.TracedResult] = field(default_factory=list)
    rejudged: list[result_service_pb2.RejudgedPart] = field(default_factory=list)
    blobs: dict[str, bytearray] = field(default_factory=dict)
    """By digest: the bytes that uploads have committed."""
    received_bytes: int = 0
    """Bytes that came over the wire in uploads, those of broken streams included."""
    break_upload_after: deque[int] = field(default_factory=deque)
    """Each ends one upload stream as a dying process would, after so many messages."""
    on_break: Callable[[], None] = lambda: None
    watches: deque[Sequence[rollout_pb2.Rollout | rollout_service_pb2.WatchRolloutResponse | Refusal]] = field(
        default_factory=deque
    )
    """What the next watch streams send."""
    plans: deque[Sequence[rollout_service_pb2.PlanRolloutResponse | Refusal]] = field(default_factory=deque)
    """What the next plan streams send."""
    rehearsals: deque[Sequence[rollout_service_pb2.RehearseRolloutResponse | Refusal]] = field(default_factory=deque)
    """What the next rehearsal streams send."""
    explanations: dict[str, agent_service_pb2.AgentExplanation] = field(default_factory=dict)
    events: list[audit_pb2.AuditEvent] = field(default_factory=list)
    """Oldest first."""
    operators: dict[str, operator_pb2.Operator] = field(default_factory=dict)
    drifts: dict[str, drift_pb2.Drift] = field(default_factory=dict)
    drift_history: drift_service_pb2.QueryDriftHistoryResponse = field(
        default_factory=drift_service_pb2.QueryDriftHistoryResponse
    )
    drift_news: list[drift_service_pb2.WatchDriftsResponse] = field(default_factory=list)
    training_runs: dict[str, training_run_pb2.TrainingRun] = field(default_factory=dict)
    training_steps: list[training_run_pb2.TrainingRun] = field(default_factory=list)
    """What becomes of a run, one each time that it is read."""
    training_log: list[bytes | Refusal] = field(default_factory=list)
    trainers: list[training_run_pb2.Trainer] = field(default_factory=list)
    promotions: dict[str, promotion_pb2.Promotion] = field(default_factory=dict)
    training_policies: dict[str, training_policy_pb2.TrainingPolicy] = field(default_factory=dict)
    lineages: dict[str, lineage_service_pb2.Lineage] = field(default_factory=dict)
    port: int = 0
    bytes_port: int = 0
    _servers: list[grpc.Server] = field(default_factory=list)

    def start(self) -> None:
        """Listen."""
        self.port = self._listen(
            *(
                _Enrollment,
                _Models,
                Agents,
                _Tokens,
                _Deployments,
                Rollouts,
                _Samples,
                _Results,
                Audit,
                Operators,
                Drifts,
                Training,
                Promotions,
                TrainingPolicies,
                Lineages,
            ),
            port=self.port,
        )
        self.bytes_port = self._listen(_Uploads, _Contents, port=0)

    def stop(self) -> None:
        """End at once, calls under way too."""
        for stopped in [server.stop(grace=None) for server in self._servers]:
            stopped.wait()
        self._servers.clear()

    def move_bytes(self) -> None:
        """Let the bytes process come back on another port."""
        stopped = self._servers.pop()
        self.bytes_port = self._listen(_Uploads, _Contents, port=0)
        stopped.stop(grace=None).wait()

    @property
    def config(self) -> OperatorConfig:
        """Return what an operator of this controller has."""
        return OperatorConfig(controller=f"127.0.0.1:{self.port}", token=TOKEN, ca_certificate=self.identity.ca)

    def requests(self, method: str) -> list[Any]:
        """Return the requests of the calls of `method`, in order; None for a stream."""
        return [call.request for call in self.calls if call.method == method]

    def _listen(self, *servicers: Callable[["FakeController", grpc.Server], Any], port: int) -> int:
        server = grpc.server(ThreadPoolExecutor(8), interceptors=[_Door(self)], options=[("grpc.so_reuseport", 0)])
        for servicer in servicers:
            servicer(self, server)
        pair = (self.identity.key.encode(), self.identity.certificate.encode())
        bound = server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
        server.start()
        self._servers.append(server)
        return bound


class _Door(grpc.ServerInterceptor):
    """Records each call, checks the token, answers scripted refusals."""

    def __init__(self, fake: FakeController) -> None:
        self._fake = fake

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)
        method = details.method.rpartition("/")[2]
        authorization = dict(details.invocation_metadata).get("authorization", "")

        def enter(request: Any, context: grpc.ServicerContext) -> None:
            self._fake.calls.append(
                Call(
                    method=method,
                    authorization=authorization,
                    seconds_left=context.time_remaining(),
                    request=None if handler.request_streaming else request,
                )
            )
            if method != "GetEndpoints" and authorization != f"Bearer {TOKEN}":
                Refusal(
                    code=grpc.StatusCode.UNAUTHENTICATED, message="no such token", reason="OPERATOR_TOKEN_INVALID"
                ).abort(context)
            if self._fake.refusals[method]:
                self._fake.refusals[method].popleft().abort(context)

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            enter(request, context)
            inner = handler.stream_unary if handler.request_streaming else handler.unary_unary
            return inner(request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            enter(request, context)
            yield from handler.unary_stream(request, context)

        replaced = {"request_deserializer": handler.request_deserializer}
        replaced["response_serializer"] = handler.response_serializer
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **replaced)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(unary, **replaced)
        return grpc.unary_unary_rpc_method_handler(unary, **replaced)


class _Enrollment(enrollment_service_pb2_grpc.EnrollmentServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(self, server)

    def EnrollAgent(self, request: Any, context: Any) -> NoReturn:
        raise AssertionError("no client of the public API enrols")

    def GetEndpoints(self, request: Any, context: Any) -> enrollment_service_pb2.GetEndpointsResponse:
        endpoints = endpoints_pb2.Endpoints(operator_bytes=f":{self._fake.bytes_port}")
        return enrollment_service_pb2.GetEndpointsResponse(endpoints=endpoints)


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, server)

    def CreateModel(self, request: Any, context: Any) -> model_pb2.Model:
        model = model_pb2.Model(name=f"models/{request.model_id}", description=request.model.description)
        return self._fake.models.setdefault(model.name, model)

    def GetModel(self, request: Any, context: Any) -> model_pb2.Model:
        model: model_pb2.Model = find(self._fake.models, request.name, context)
        return model

    def ListModels(self, request: Any, context: Any) -> model_service_pb2.ListModelsResponse:
        models, token = page(list(self._fake.models.values()), request)
        return model_service_pb2.ListModelsResponse(models=models, next_page_token=token)

    def PublishModelVersion(self, request: Any, context: Any) -> model_pb2.ModelVersion:
        versions = self._fake.versions[request.parent]
        for version in versions:
            if version.artifact.digest == request.artifact.digest:
                return version
        self._fake.models.setdefault(request.parent, model_pb2.Model(name=request.parent))
        number = len(versions) + 1
        version = model_pb2.ModelVersion(
            name=f"{request.parent}/versions/{number}", number=number, artifact=request.artifact, notes=request.notes
        )
        version.create_time.GetCurrentTime()
        version.signature.CopyFrom(
            model_pb2.ModelSignature(
                format="ir",
                entry_path=request.artifact.files[-1].path,
                inputs=[model_pb2.TensorSpec(name="image", datatype="UINT8", shape=[1, -1, 300, 1])],
                precision="f32",
            )
        )
        versions.append(version)
        self._fake.models[request.parent].latest_version = number
        return version

    def GetModelVersion(self, request: Any, context: Any) -> model_pb2.ModelVersion:
        found = {version.name: version for versions in self._fake.versions.values() for version in versions}
        version: model_pb2.ModelVersion = find(found, request.name, context)
        return version

    def YankModelVersion(self, request: Any, context: Any) -> model_pb2.ModelVersion:
        version = self.GetModelVersion(request, context)
        version.yank_time.GetCurrentTime()
        version.yank_reason = request.reason
        return version

    def UnyankModelVersion(self, request: Any, context: Any) -> model_pb2.ModelVersion:
        version = self.GetModelVersion(request, context)
        version.ClearField("yank_time")
        version.ClearField("yank_reason")
        return version

    def ListModelVersions(self, request: Any, context: Any) -> model_service_pb2.ListModelVersionsResponse:
        versions, token = page(self._fake.versions[request.parent][::-1], request)
        return model_service_pb2.ListModelVersionsResponse(model_versions=versions, next_page_token=token)


class _Tokens(join_token_service_pb2_grpc.JoinTokenServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        join_token_service_pb2_grpc.add_JoinTokenServiceServicer_to_server(self, server)

    def CreateJoinToken(self, request: Any, context: Any) -> join_token_pb2.JoinToken:
        token = join_token_pb2.JoinToken(name=f"joinTokens/t{len(self._fake.tokens) + 1}", uses=request.join_token.uses)
        token.ttl.CopyFrom(request.join_token.ttl)
        token.labels.update(request.join_token.labels)
        token.create_time.GetCurrentTime()
        token.expire_time.FromSeconds(token.create_time.seconds + token.ttl.seconds)
        self._fake.tokens[token.name] = token
        shown = join_token_pb2.JoinToken(token="lsj1.c2VjcmV0")
        shown.MergeFrom(token)
        return shown

    def ListJoinTokens(self, request: Any, context: Any) -> join_token_service_pb2.ListJoinTokensResponse:
        tokens, token = page(list(self._fake.tokens.values()), request)
        return join_token_service_pb2.ListJoinTokensResponse(join_tokens=tokens, next_page_token=token)

    def RevokeJoinToken(self, request: Any, context: Any) -> join_token_pb2.JoinToken:
        token: join_token_pb2.JoinToken = find(self._fake.tokens, request.name, context)
        token.revoked = True
        return token


class _Deployments(deployment_service_pb2_grpc.DeploymentServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        deployment_service_pb2_grpc.add_DeploymentServiceServicer_to_server(self, server)

    def CreateDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        deployment = deployment_pb2.Deployment(name=f"deployments/{request.deployment_id}", matched_agents=3)
        deployment.MergeFrom(request.deployment)
        self._fake.deployments[deployment.name] = deployment
        return deployment

    def GetDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        deployment: deployment_pb2.Deployment = find(self._fake.deployments, request.name, context)
        return deployment

    def ListDeployments(self, request: Any, context: Any) -> deployment_service_pb2.ListDeploymentsResponse:
        deployments, token = page(list(self._fake.deployments.values()), request)
        return deployment_service_pb2.ListDeploymentsResponse(deployments=deployments, next_page_token=token)

    def DeleteDeployment(self, request: Any, context: Any) -> deployment_pb2.Deployment:
        find(self._fake.deployments, request.name, context)
        return self._fake.deployments.pop(request.name)


class _Samples(sample_service_pb2_grpc.SampleServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        sample_service_pb2_grpc.add_SampleServiceServicer_to_server(self, server)

    def GetSample(self, request: Any, context: Any) -> sample_pb2.Sample:
        sample: sample_pb2.Sample = find(self._fake.samples, request.name, context)
        return sample

    def ListSamples(self, request: Any, context: Any) -> sample_service_pb2.ListSamplesResponse:
        samples, token = page(list(self._fake.samples.values()), request)
        return sample_service_pb2.ListSamplesResponse(samples=samples, next_page_token=token)


class _Results(result_service_pb2_grpc.ResultServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        result_service_pb2_grpc.add_ResultServiceServicer_to_server(self, server)

    def ListResults(self, request: Any, context: Any) -> result_service_pb2.ListResultsResponse:
        ordered = self._fake.results[::-1] if request.newest_first else self._fake.results
        results, token = page(ordered, request)
        return result_service_pb2.ListResultsResponse(results=results, next_page_token=token)

    def QueryResults(self, request: Any, context: Any) -> result_service_pb2.QueryResultsResponse:
        return self._fake.answer

    def TracePart(self, request: Any, context: Any) -> result_service_pb2.TracePartResponse:
        of_part = [one for one in self._fake.traced if one.result.part_id == request.part_id]
        results, token = page(of_part, request)
        return result_service_pb2.TracePartResponse(results=results, next_page_token=token)

    def RejudgeParts(self, request: Any, context: Any) -> result_service_pb2.RejudgePartsResponse:
        parts, token = page(self._fake.rejudged, request)
        return result_service_pb2.RejudgePartsResponse(
            parts=parts, next_page_token=token, passed_parts=9, judged_parts=4
        )

    def QueryMetrics(self, request: Any, context: Any) -> result_service_pb2.QueryMetricsResponse:
        return result_service_pb2.QueryMetricsResponse(summaries=self._fake.summaries)


class _Uploads(upload_service_pb2_grpc.UploadServiceServicer):
    """One upload a digest; a stream that breaks leaves what it brought."""

    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        self._sizes: dict[str, int] = {}
        upload_service_pb2_grpc.add_UploadServiceServicer_to_server(self, server)

    def CreateUpload(self, request: Any, context: Any) -> upload_service_pb2.CreateUploadResponse:
        wanted = request.upload
        self._sizes[wanted.digest] = wanted.size_bytes
        held = self._fake.blobs.setdefault(wanted.digest, bytearray())
        return upload_service_pb2.CreateUploadResponse(upload=self._upload(wanted.digest, held, began=False))

    def WriteUpload(self, request: Iterator[Any], context: Any) -> upload_service_pb2.WriteUploadResponse:
        messages_left = self._fake.break_upload_after.popleft() if self._fake.break_upload_after else None
        digest = ""
        for message in request:
            digest = digest or "sha256:" + message.name.removeprefix("uploads/")
            held = self._fake.blobs[digest]
            if message.offset_bytes != len(held):
                Refusal(
                    code=grpc.StatusCode.FAILED_PRECONDITION, reason="UPLOAD_OFFSET", message="not the committed bytes"
                ).abort(context)
            held += message.data
            self._fake.received_bytes += len(message.data)
            if messages_left is not None:
                messages_left -= 1
                if messages_left <= 0:
                    self._fake.on_break()
                    Refusal(code=grpc.StatusCode.UNAVAILABLE, message="Socket closed").abort(context)
        held = self._fake.blobs[digest]
        if len(held) == self._sizes[digest] and f"sha256:{hashlib.sha256(held).hexdigest()}" != digest:
            held.clear()
            Refusal(
                code=grpc.StatusCode.INVALID_ARGUMENT,
                reason="DIGEST_MISMATCH",
                message="other bytes",
                field="upload.digest",
                remedy="publish again",
            ).abort(context)
        return upload_service_pb2.WriteUploadResponse(upload=self._upload(digest, held, began=True))

    def _upload(self, digest: str, held: bytearray, *, began: bool) -> upload_pb2.Upload:
        size_bytes = self._sizes[digest]
        return upload_pb2.Upload(
            name=f"uploads/{digest.removeprefix('sha256:')}",
            digest=digest,
            size_bytes=size_bytes,
            committed_bytes=len(held),
            complete=len(held) == size_bytes and (began or size_bytes > 0),
        )


class _Contents(sample_content_service_pb2_grpc.SampleContentServiceServicer):
    def __init__(self, fake: FakeController, server: grpc.Server) -> None:
        self._fake = fake
        sample_content_service_pb2_grpc.add_SampleContentServiceServicer_to_server(self, server)

    def ReadSampleContent(
        self, request: Any, context: Any
    ) -> Iterator[sample_content_service_pb2.ReadSampleContentResponse]:
        content = find(self._fake.contents, request.name, context)
        for start in range(0, len(content), 4):
            yield sample_content_service_pb2.ReadSampleContentResponse(data=content[start : start + 4])
