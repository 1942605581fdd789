"""Who may do what: tokens, certificates, names, and bytes of others."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    agent_pb2,
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    evidence_pb2,
    evidence_service_pb2,
    evidence_service_pb2_grpc,
    fleet_service_pb2,
    fleet_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    sample_content_service_pb2,
    sample_content_service_pb2_grpc,
    sample_pb2,
    sample_upload_service_pb2,
    sample_upload_service_pb2_grpc,
    slot_pb2,
    upload_pb2,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

from tests.e2e.refused_line import Act, Outcome, RefusedLine, Row

EVIDENCE = evidence_service_pb2_grpc.EvidenceServiceStub
FLEET = fleet_service_pb2_grpc.FleetServiceStub
ARTIFACTS = artifact_service_pb2_grpc.ArtifactServiceStub
SAMPLE_UPLOADS = sample_upload_service_pb2_grpc.SampleUploadServiceStub
UPLOADS = upload_service_pb2_grpc.UploadServiceStub
MODELS = model_service_pb2_grpc.ModelServiceStub
CONTENTS = sample_content_service_pb2_grpc.SampleContentServiceStub

# --- enrolment -------------------------------------------------------------------------------------

TOKEN = partial(
    Row,
    code="UNAUTHENTICATED",
    reason="JOIN_TOKEN_INVALID",
    field="token",
    remedy="create one with `lineside tokens create`",
)
INVALID = partial(Row, code="INVALID_ARGUMENT", reason="FIELD_INVALID")


def enroll(token: str, **fields: Any) -> Act:
    """Enrol with the line's token of that name, or with that text."""
    return lambda line: line.enroll(line.tokens.get(token, token), **fields)


def enroll_with_csr(csr_der: bytes) -> Act:
    def act(line: RefusedLine) -> Outcome:
        request = enrollment_service_pb2.EnrollAgentRequest(token=line.tokens["good"], agent_id="new", csr_der=csr_der)
        return line.operator(enrollment_service_pb2_grpc.EnrollmentServiceStub, "EnrollAgent", request, token="")

    return act


def enroll_by_command(token: str, *options: str) -> Act:
    """Run `lineside-agent enroll` as a person would."""

    def act(line: RefusedLine) -> Outcome:
        folder = line.line.folder / f"refused-{token}".replace(" ", "-")
        command = ["enroll", "--dir", str(folder), "--controller", line.line.controller.api]
        command += ["--token", line.tokens.get(token, token), *(options or ("--name", "new"))]
        done = subprocess.run(
            [sys.executable, "-m", "agent.main", *command], capture_output=True, text=True, timeout=60, check=False
        )
        assert not (folder / "agent.toml").exists()
        return Outcome(code=str(done.returncode), text=done.stderr)

    return act


ENROLMENT = [
    TOKEN(what="join token: empty", act=enroll("")),
    TOKEN(what="join token: another text", act=enroll("lso1.secret")),
    TOKEN(what="join token: forged secret", act=enroll("forged")),
    TOKEN(what="join token: of nobody", act=enroll("of nobody")),
    TOKEN(what="join token: NUL in its id", act=enroll("with NUL")),
    TOKEN(what="join token: half a pair in its secret", act=enroll("with half a pair")),
    TOKEN(what="join token: revoked", act=enroll("revoked")),
    TOKEN(what="join token: expired", act=enroll("expired"), reason="JOIN_TOKEN_EXPIRED", remedy="create another one"),
    TOKEN(
        what="join token: used up", act=enroll("used up"), reason="JOIN_TOKEN_EXHAUSTED", remedy="create another one"
    ),
    Row(
        what="an agent's name that is taken",
        act=enroll("good", name="st-1"),
        code="ALREADY_EXISTS",
        reason="RESOURCE_EXISTS",
        field="agent_id",
        remedy="choose another name",
    ),
    INVALID(what="an agent's name that is none", act=enroll("good", name="../x"), field="agent_id", remedy="lower"),
    INVALID(what="a label that is none", act=enroll("good", line="a b"), field="labels", remedy="letters"),
    INVALID(what="a fact as a label", act=enroll("good", os="linux"), field="labels", remedy="another key"),
    INVALID(what="a request for no certificate", act=enroll_with_csr(b"x"), field="csr_der", remedy="P-256"),
    Row(
        what="enrol with an expired token by the command line",
        act=enroll_by_command("expired"),
        code="1",
        field="token",
        remedy="create another one",
    ),
    Row(
        what="enrol with the token of a controller with another CA",
        act=enroll_by_command("of another CA"),
        code="1",
        field="--controller",
        remedy="that the token is of this controller",
    ),
    Row(
        what="enrol with a token that is none by the command line",
        act=enroll_by_command("lsj1.xyz"),
        code="1",
        field="--token",
        remedy="tokens create",
    ),
    Row(
        what="enrol under a name that is none by the command line",
        act=enroll_by_command("good", "--name", "St_1"),
        code="1",
        field="--name",
        remedy="lower-case",
    ),
]

# --- credentials of calls ---------------------------------------------------------------------------

OPERATOR = partial(
    Row, code="UNAUTHENTICATED", reason="OPERATOR_TOKEN_INVALID", field="authorization", remedy="operators create"
)
LIST_MODELS = (MODELS, "ListModels", model_service_pb2.ListModelsRequest())
CREATE_UPLOAD = (
    UPLOADS,
    "CreateUpload",
    upload_service_pb2.CreateUploadRequest(upload=upload_pb2.Upload(digest=f"sha256:{'0' * 64}", size_bytes=1)),
)
READ_CONTENT = (CONTENTS, "ReadSampleContent", sample_content_service_pb2.ReadSampleContentRequest(name="samples/x"))
RENEW = (FLEET, "RenewCertificate", fleet_service_pb2.RenewCertificateRequest(csr_der=b"x"))
REPORT = (EVIDENCE, "ReportEvidence", evidence_service_pb2.ReportEvidenceRequest(batch=1))


def read_blob(digest: str = f"sha256:{'0' * 64}", offset_bytes: int = 0) -> tuple[Any, str, Any]:
    return (
        ARTIFACTS,
        "ReadBlob",
        artifact_service_pb2.ReadBlobRequest(digest=digest, offset_bytes=offset_bytes),
    )


def present(call: tuple[Any, str, Any], *, listener: str, own_ca: bool) -> Act:
    return lambda line: line.stranger(*call, listener=listener, own_ca=own_ca)


CREDENTIALS = [
    OPERATOR(what="no operator token", act=lambda line: line.operator(*LIST_MODELS, token="")),
    OPERATOR(what="a wrong operator token", act=lambda line: line.operator(*LIST_MODELS, token="lso1.wrong")),
    OPERATOR(
        what="a join token as an operator's", act=lambda line: line.operator(*LIST_MODELS, token=line.tokens["good"])
    ),
    OPERATOR(
        what="no operator token at the bytes",
        act=lambda line: line.operator(*CREATE_UPLOAD, listener="operator_bytes", token=""),
    ),
    OPERATOR(
        what="a wrong operator token at the bytes",
        act=lambda line: line.operator(*READ_CONTENT, listener="operator_bytes", token="lso1.wrong"),
    ),
    OPERATOR(
        what="an agent's certificate instead of an operator token",
        act=lambda line: line.agent(*LIST_MODELS, listener="api"),
    ),
    Row(
        what="an operator's call at the fleet's listener",
        act=lambda line: line.agent(*LIST_MODELS),
        code="UNIMPLEMENTED",
        remedy="Method not found",
    ),
    *(
        Row(
            what=f"{what} at {listener}",
            act=present(call, listener=listener, own_ca=own_ca),
            # TLS refuses before gRPC begins: nothing can carry a reason or a remedy.
            code="UNAVAILABLE",
            remedy="failed to connect",
        )
        for what, own_ca in (("no client certificate", False), ("a certificate of another CA", True))
        for listener, call in (("fleet", REPORT), ("agent_bytes", read_blob()))
    ),
]

# --- agents against each other ----------------------------------------------------------------------

YOURS = partial(Row, code="PERMISSION_DENIED", reason="NOT_YOURS")


def result(**fields: Any) -> evidence_pb2.Result:
    message = evidence_pb2.Result(
        slot="m", model_version="models/m/versions/1", device="CPU", outcome=evidence_pb2.Result.OUTCOME_OK
    )
    message.infer_time.GetCurrentTime()
    message.MergeFrom(evidence_pb2.Result(**fields))
    return message


def report(*, results: Sequence[evidence_pb2.Result] = (), **fields: Any) -> Act:
    request = evidence_service_pb2.ReportEvidenceRequest(**({"batch": 1} | fields), results=results)
    return lambda line: line.agent(EVIDENCE, "ReportEvidence", request)


def window(**fields: Any) -> evidence_pb2.MetricWindow:
    made = evidence_pb2.MetricWindow(slot="m", model_version="models/m/versions/1", device="CPU", inference_count=1)
    made.start_time.GetCurrentTime()
    made.end_time.GetCurrentTime()
    made.MergeFrom(evidence_pb2.MetricWindow(**fields))
    return made


def sync(**fields: Any) -> Act:
    request = fleet_service_pb2.SyncRequest(**fields)
    return lambda line: line.agent(FLEET, "Sync", [request])


def upload_sample(*, sample_id: str = "s-raw-1", content: bytes = b"x", digest: str = "", **fields: Any) -> Act:
    def act(line: RefusedLine) -> Outcome:
        sample = sample_pb2.Sample(
            reason=sample_pb2.Sample.REASON_RANDOM,
            result=result(),
            content_type="application/x-npy",
            digest=digest or f"sha256:{hashlib.sha256(content).hexdigest()}",
            size_bytes=len(content),
        )
        sample.capture_time.GetCurrentTime()
        sample.MergeFrom(sample_pb2.Sample(**fields))
        request = sample_upload_service_pb2.UploadSampleRequest(sample_id=sample_id, sample=sample, content=content)
        return line.agent(SAMPLE_UPLOADS, "UploadSample", request, listener="agent_bytes")

    return act


def read(fact: str) -> Act:
    """Read a blob that is a version's, as a box that should not run it."""
    return lambda line: line.agent(*read_blob(line.facts[fact]), listener="agent_bytes")


def slots(*names: str) -> slot_pb2.ObservedState:
    return slot_pb2.ObservedState(slots=[slot_pb2.ObservedSlot(slot=name) for name in names])


AGENTS = [
    YOURS(
        what="results in another agent's name",
        act=report(results=[result(), result(agent="agents/st-1")]),
        field="results.agent",
        remedy="report as yourself",
    ),
    YOURS(
        what="a sample in another agent's name",
        act=upload_sample(agent="agents/st-1"),
        field="sample.agent",
        remedy="report as yourself",
    ),
    YOURS(
        what="a sample over another agent's",
        act=upload_sample(sample_id="of-raw-2"),
        field="sample_id",
        remedy="begin ids with",
    ),
    YOURS(
        what="a version that is another agent's",
        act=read("models/m/versions/1 blob"),
        field="digest",
        remedy="the desired state",
    ),
    YOURS(
        what="a blob that is nobody's",
        act=lambda line: line.agent(*read_blob(), listener="agent_bytes"),
        field="digest",
        remedy="the desired state",
    ),
    INVALID(
        what="a digest that is a path",
        act=lambda line: line.agent(*read_blob("sha256:../../pki/ca.key"), listener="agent_bytes"),
        field="digest",
        remedy="64 lower-case",
    ),
    INVALID(
        what="a sample id that is a path",
        act=upload_sample(sample_id="../../x"),
        field="sample_id",
        remedy="lower-case",
    ),
    Row(
        what="a sample of other bytes",
        act=upload_sample(digest=f"sha256:{'0' * 64}"),
        code="INVALID_ARGUMENT",
        reason="DIGEST_MISMATCH",
        field="sample.digest",
        remedy="nothing was kept",
    ),
    INVALID(
        what="a sample of no known type",
        act=upload_sample(content_type="text/html"),
        field="sample.content_type",
        remedy="image/png",
    ),
    INVALID(what="a slot twice", act=sync(observed_state=slots("m", "m")), field="observed_state.slots", remedy="once"),
    INVALID(what="a slot that is no name", act=sync(observed_state=slots("M/..")), field="slots.slot", remedy="lower"),
    INVALID(
        what="too many slots",
        act=sync(observed_state=slots(*(f"m{number}" for number in range(300)))),
        field="observed_state",
        remedy="at most 256",
    ),
    INVALID(
        what="too many devices",
        act=sync(host=agent_pb2.Host(), devices=[agent_pb2.Device(device=f"GPU.{n}") for n in range(100)]),
        field="devices",
        remedy="at most 64",
    ),
    INVALID(what="a negative batch", act=report(batch=-1), field="batch", remedy="count from 0"),
    INVALID(
        what="counts that contradict each other",
        act=report(windows=[window(error_count=9)]),
        field="windows",
        remedy="once",
    ),
    INVALID(
        what="a time outside of the calendar",
        act=report(results=[result(infer_time=Timestamp(seconds=1 << 60))]),
        field="infer_time",
        remedy="since 1970",
    ),
    INVALID(
        what="a version that is no version",
        act=report(results=[result(model_version="models/m")]),
        field="results.model_version",
        remedy="versions/{number}",
    ),
    INVALID(
        what="a renewal that asks for nothing",
        act=lambda line: line.agent(*RENEW),
        field="csr_der",
        remedy="P-256",
    ),
    Row(
        what="a message beyond the bound",
        act=report(results=[result(part_id="x" * (10 << 20))]),
        code="RESOURCE_EXHAUSTED",
        remedy="larger than max",
    ),
    Row(
        what="a sample beyond the message's bound",
        act=upload_sample(content=bytes(10 << 20)),
        code="RESOURCE_EXHAUSTED",
        remedy="larger than max",
    ),
    INVALID(
        what="a sample beyond its bound",
        act=upload_sample(content=bytes((8 << 20) + 1)),
        field="content",
        remedy="smaller",
    ),
]

# --- uploads ----------------------------------------------------------------------------------------

CONTENT = b"lineside" * 8
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def create_upload(**fields: Any) -> Act:
    request = upload_service_pb2.CreateUploadRequest(upload=upload_pb2.Upload(**fields))
    return lambda line: line.operator(UPLOADS, "CreateUpload", request, listener="operator_bytes")


def write_upload(*, data: bytes = CONTENT, **fields: Any) -> Act:
    """Begin an upload of CONTENT, then write `data`; afterwards clear away what was begun."""

    def act(line: RefusedLine) -> Outcome:
        begun = upload_service_pb2.CreateUploadRequest(
            upload=upload_pb2.Upload(digest=f"sha256:{DIGEST}", size_bytes=len(CONTENT))
        )
        line.accept(UPLOADS, "CreateUpload", begun, listener="operator_bytes")
        first = upload_service_pb2.WriteUploadRequest(**({"name": f"uploads/{DIGEST}"} | fields), data=data)
        told = line.operator(UPLOADS, "WriteUpload", [first], listener="operator_bytes")
        line.forget_uploads()
        return told

    return act


UPLOAD_ROWS = [
    Row(
        what="an upload of other bytes",
        act=write_upload(data=bytes(len(CONTENT))),
        code="INVALID_ARGUMENT",
        reason="DIGEST_MISMATCH",
        field="upload.digest",
        remedy="nothing was kept",
    ),
    Row(
        what="an upload that goes on elsewhere",
        act=write_upload(offset_bytes=5),
        code="FAILED_PRECONDITION",
        reason="UPLOAD_OFFSET",
        field="offset_bytes",
        remedy="from offset 0",
    ),
    INVALID(what="an upload of more than announced", act=write_upload(data=CONTENT * 2), field="data", remedy="real"),
    INVALID(what="an upload without a name", act=write_upload(name=""), field="name", remedy="uploads/"),
    INVALID(what="an upload by a path", act=write_upload(name="uploads/../../x"), field="name", remedy="64"),
    Row(
        what="an upload that was never begun",
        act=write_upload(name=f"uploads/{'1' * 64}"),
        code="NOT_FOUND",
        reason="RESOURCE_NOT_FOUND",
        field="name",
        remedy="create the upload",
    ),
    INVALID(what="a digest that is none", act=create_upload(digest="md5:0", size_bytes=1), field="digest", remedy="64"),
    INVALID(
        what="a negative size",
        act=create_upload(digest=f"sha256:{DIGEST}", size_bytes=-1),
        field="upload.size_bytes",
        remedy="size",
    ),
    INVALID(
        what="a blob beyond all stations",
        act=create_upload(digest=f"sha256:{DIGEST}", size_bytes=1 << 50),
        field="upload.size_bytes",
        remedy="split",
    ),
    Row(
        what="a piece beyond the message's bound",
        act=write_upload(data=bytes(10 << 20)),
        code="RESOURCE_EXHAUSTED",
        remedy="larger than max",
    ),
]
