"""A line on which everything is refused, and how a refusal is told on each of its transports.

The line: a controller; agents `st-1` (line 3, serves `m`) and `st-2` (line 4, serves `n`) as processes; boxes `raw` and
`raw-2`, enrolled and played by the test itself; a paused rollout of `line-3`; join tokens of every sad kind.
"""

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from lineside.v1 import (
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    evidence_pb2,
    sample_pb2,
    sample_upload_service_pb2,
    sample_upload_service_pb2_grpc,
)
from tritonclient.utils import InferenceServerException

from controlplane.app import credentials
from controlplane.client import Client, ClientError
from controlplane.domain.ids import JoinTokenId
from tests.client.certificates import make_identity
from tests.support import models
from tests.support.line import Line, wait_until
from tests.support.wire import Box, bearer, refusal_of

SECONDS_MAX = 60
_OPTIONS = (
    ("grpc.ssl_target_name_override", "controlplane.lineside.internal"),
    ("grpc.max_send_message_length", -1),
    # Each call connects anew and is told at once, not after the back-off of a channel that failed before.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a refusal is told: `code` is a gRPC code's name, an HTTP status or an exit status. What a transport does not
    carry apart (tritonclient, a process) is empty, and stands in `text` alone."""

    code: str
    text: str
    reason: str = ""
    field: str = ""
    remedy: str = ""


@dataclass(slots=True, kw_only=True)
class RefusedLine:
    """`tokens` are texts by what is sad about them."""

    line: Line
    client: Client
    boxes: dict[str, Box]
    tokens: dict[str, str] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    """Names and digests that rows refer to."""

    @property
    def ca_certificate(self) -> bytes:
        return self.line.controller.ca_certificate

    # --- calls that are refused ---

    def operator(
        self, stub: Any, method: str, request: Any, *, listener: str = "api", token: str | None = None
    ) -> Outcome:
        """Call as an operator; `token` "" sends none."""
        sent = self.line.controller.operator_token if token is None else token
        credentials = grpc.ssl_channel_credentials(self.ca_certificate)
        return self._call(listener, credentials, stub, method, request, metadata=bearer(sent) if sent else ())

    def agent(self, stub: Any, method: str, request: Any, *, listener: str = "fleet", box: str = "raw") -> Outcome:
        """Call with a box's certificate."""
        return self._call(listener, self.identity_of(box), stub, method, request)

    def stranger(self, stub: Any, method: str, request: Any, *, listener: str = "fleet", own_ca: bool) -> Outcome:
        """Call without a client certificate, or with one that another CA signed."""
        if own_ca:
            other = make_identity(server_name="st-1")
            pair = (other.key.encode(), other.certificate.encode())
            return self._call(listener, grpc.ssl_channel_credentials(self.ca_certificate, *pair), stub, method, request)
        return self._call(listener, grpc.ssl_channel_credentials(self.ca_certificate), stub, method, request)

    def enroll(self, token: str, *, name: str = "new", box: Box | None = None, **labels: str) -> Outcome:
        """Ask for a certificate by a join token's text."""
        asking = box or Box(name=name, ca_certificate=self.ca_certificate)
        request = enrollment_service_pb2.EnrollAgentRequest(
            token=token, agent_id=name, labels=labels, csr_der=asking.csr()
        )
        stub = enrollment_service_pb2_grpc.EnrollmentServiceStub
        return self._call("api", grpc.ssl_channel_credentials(self.ca_certificate), stub, "EnrollAgent", request)

    def publish(self, files: Mapping[str, bytes], *, model: str = "m") -> Outcome:
        """Publish a folder with these files as people do."""
        folder = self.line.folder / f"hostile-{len(list(self.line.folder.iterdir()))}"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            version = self.client.models.publish(model, folder)
        except ClientError as error:
            return Outcome(
                code=error.code, text=str(error), reason=error.reason, field=error.field, remedy=error.remedy
            )
        raise AssertionError(f"it was published: {version.name}")

    def rest(self, path: str, body: bytes, **headers: str) -> Outcome:
        """POST to st-1's inference server."""
        url = f"http://{self.line.agents['st-1'].http_address}{path}"
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_MAX) as answer:
                raise AssertionError(f"it was answered: {answer.read()[:200]!r}")
        except urllib.error.HTTPError as error:
            with error:
                told = json.loads(error.read())
            return Outcome(
                code=str(error.code),
                text=told["error"],
                reason=told.get("reason", ""),
                field=told.get("field", ""),
                remedy=told.get("remedy", ""),
            )

    def accept(self, stub: Any, method: str, request: Any, *, listener: str, box: str = "") -> None:
        """Call, with a box's certificate or as an operator, what is to be answered."""
        identity = self.identity_of(box) if box else grpc.ssl_channel_credentials(self.ca_certificate)
        metadata = () if box else bearer(self.line.controller.operator_token)
        with self.channel(listener, identity) as channel:
            getattr(stub(channel), method)(request, metadata=metadata, timeout=SECONDS_MAX)

    def forget_uploads(self) -> None:
        """Clear away what an upload that was begun has left: it would wait for a week."""
        for path in (self.line.controller.folder / "uploads").iterdir():
            path.unlink()

    def command(self, *arguments: str) -> Outcome:
        """Run the operator's command line."""
        done = self.line.lineside(*arguments)
        return Outcome(code=str(done.returncode), text=done.stderr)

    def identity_of(self, box: str) -> grpc.ChannelCredentials:
        """TLS with the certificate that this box was given."""
        own = self.boxes[box]
        return grpc.ssl_channel_credentials(self.ca_certificate, own.key_pem(), own.certificate)

    def channel(self, listener: str, credentials: grpc.ChannelCredentials) -> grpc.Channel:
        """A channel to a listener of the controller."""
        return grpc.secure_channel(self.line.controller.addresses[listener], credentials, options=_OPTIONS)

    def _call(
        self, listener: str, credentials: Any, stub: Any, method: str, request: Any, *, metadata: Any = ()
    ) -> Outcome:
        with self.channel(listener, credentials) as channel:
            call = getattr(stub(channel), method)
            sent = iter(request) if isinstance(request, list) else request
            return outcome_of(lambda: call(sent, metadata=metadata, timeout=SECONDS_MAX))

    # --- what must not change ---

    def snapshot(self) -> dict[str, Any]:
        """Everything that the API lists, and what waits in folders, but for what moves by itself: heartbeats and
        conditions, and blobs of refused publishes, which are nobody's."""
        client = self.client
        model_names = [model.name for model in client.models.list()]
        uploads = self.line.controller.folder / "uploads"
        return {
            "models": [str(model) for model in client.models.list()],
            "versions": [str(version) for name in model_names for version in client.models.list_versions(name)],
            "agents": [_standing(agent) for agent in client.agents.list()],
            "deployments": [_intent(deployment) for deployment in client.deployments.list()],
            "rollouts": [str(rollout) for rollout in client.rollouts.list()],
            "operators": [str(operator) for operator in client.operators.list()],
            "decisions": [event.name for event in client.audit.list(limit=20)],
            "tokens": [str(token) for token in client.tokens.list()],
            "samples": sorted(sample.name for sample in client.samples.list()),
            "results": sorted(result.name for result in client.results.list()),
            "uploads": sorted((path.name, path.stat().st_size) for path in uploads.iterdir()),
        }


def outcome_of(call: Any) -> Outcome:
    """Make a call, of gRPC or of tritonclient, that must be refused."""
    try:
        answer = call()
        if isinstance(answer, Iterable):
            answer = list(answer)
    except grpc.RpcError as error:
        told = refusal_of(error)  # type: ignore[arg-type]  # the same readers as on grpc.aio
        return Outcome(code=told.code.name, text=told.message, reason=told.reason, field=told.field, remedy=told.remedy)
    except InferenceServerException as error:
        return Outcome(code=str(error.status()).removeprefix("StatusCode."), text=error.message() or "")
    raise AssertionError(f"it was answered: {answer}")


def _standing(agent: Any) -> tuple[object, ...]:
    slots = [(slot.slot, slot.serving_version, slot.target_version, slot.state) for slot in agent.slots]
    return (agent.name, agent.uid, agent.etag, str(agent.labels), agent.desired_generation, slots)


def _intent(deployment: Any) -> str:
    asked = type(deployment)()
    asked.CopyFrom(deployment)
    asked.ClearField("conditions")
    return str(asked)


# --- making it ------------------------------------------------------------------------------------


def make_refused_line(line: Line) -> RefusedLine:
    """Start and fill a line. Close `line` and `client` afterwards."""
    line.start_controller()
    client = Client.from_config(line.controller.operator_file)
    made = RefusedLine(line=line, client=client, boxes={})
    made.tokens["expired"] = client.tokens.create(uses=1, ttl=timedelta(milliseconds=1)).token
    _enroll_boxes(made)
    for model, bias in (("m", 1.0), ("m", 2.0), ("n", 1.0)):
        version = client.models.publish(model, models.classifier_ir(line.folder / f"{model}-{bias}", bias=bias))
        made.facts[f"{version.name} blob"] = version.artifact.files[0].digest
    for name, labels in (("st-1", ["line=3"]), ("st-2", ["line=4"])):
        line.start_agent(name, labels=labels)
    line.deploy("line-3", "m", 1)
    line.deploy("line-4", "n", 1, selector="line=4")
    line.wait_serving("st-1", "m", 1)
    line.wait_serving("st-2", "n", 1)
    rollout = client.rollouts.start("line-3", model="m", version=2, waves=["100%"], bake=timedelta(hours=1)).name
    line.wait_serving("st-1", "m", 2)
    client.rollouts.pause(rollout)
    # Nothing moves by itself from here on: the gate has seen the install, and its bake time is long.
    wait_until(lambda: client.rollouts.get(rollout).waves[0].verdict.installed == 1, what="the gate to see the install")
    made.facts["rollout"] = rollout
    _add_sample(made)
    return made


def _add_sample(made: RefusedLine) -> None:
    """A sample of `raw-2`."""
    sample = sample_pb2.Sample(
        reason=sample_pb2.Sample.REASON_RANDOM,
        result=evidence_pb2.Result(
            model_version="models/m/versions/1", outcome=evidence_pb2.Result.OUTCOME_OK, infer_time=Timestamp(seconds=1)
        ),
        content_type="application/x-npy",
        digest=f"sha256:{hashlib.sha256(b'x').hexdigest()}",
        size_bytes=1,
        capture_time=Timestamp(seconds=1),
    )
    request = sample_upload_service_pb2.UploadSampleRequest(sample_id="of-raw-2", sample=sample, content=b"x")
    stub = sample_upload_service_pb2_grpc.SampleUploadServiceStub
    made.accept(stub, "UploadSample", request, listener="agent_bytes", box="raw-2")


def _enroll_boxes(made: RefusedLine) -> None:
    ca = credentials.parse_join_token(made.tokens["expired"]).ca_certificate_der
    for name in ("raw", "raw-2"):
        box = made.boxes[name] = Box(name=name, ca_certificate=made.ca_certificate)
        token = made.client.tokens.create(uses=1, ttl=timedelta(hours=1)).token
        with made.channel("api", grpc.ssl_channel_credentials(made.ca_certificate)) as channel:
            stub: Any = enrollment_service_pb2_grpc.EnrollmentServiceStub(channel)
            request = enrollment_service_pb2.EnrollAgentRequest(token=token, agent_id=name, csr_der=box.csr())
            box.certificate = stub.EnrollAgent(request, timeout=SECONDS_MAX).certificate_pem.encode()
        made.tokens["used up"] = token
    made.tokens["good"] = made.client.tokens.create(uses=5, ttl=timedelta(hours=1)).token
    good = credentials.parse_join_token(made.tokens["good"])
    revoked = made.client.tokens.create(uses=5, ttl=timedelta(hours=1))
    made.client.tokens.revoke(revoked.name)
    made.tokens["revoked"] = revoked.token
    forged = {
        "forged": credentials.JoinTokenText(id=good.id, secret="A" * 43, ca_certificate_der=ca),
        "of nobody": credentials.JoinTokenText(
            id=JoinTokenId(good.id[::-1]), secret=good.secret, ca_certificate_der=ca
        ),
        "with NUL": credentials.JoinTokenText(id=JoinTokenId("a\0"), secret=good.secret, ca_certificate_der=ca),
        "with half a pair": credentials.JoinTokenText(id=good.id, secret="\ud800", ca_certificate_der=ca),
    }
    made.tokens |= {name: credentials.encode_join_token(text) for name, text in forged.items()}
    other = make_identity().ca
    made.tokens["of another CA"] = credentials.encode_join_token(
        credentials.JoinTokenText(id=good.id, secret=good.secret, ca_certificate_der=_der(other))
    )


def _der(pem: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def deep(kind: str, levels: int = 100_000) -> bytes:
    """Brackets within brackets."""
    return {"json": b"[" * levels, "xml": b'<net name="x" version="11">' + b"<a>" * levels}[kind]


Act = Callable[[RefusedLine], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is done, and how it is refused. `remedy` and `field` are parts of what is told; where the transport has one
    text for all, they are parts of that."""

    what: str
    act: Act
    code: str
    reason: str = ""
    field: str = ""
    remedy: str = ""
