"""What operators ask for wrongly: names, intent, etags, pages, model files."""

import base64
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.duration_pb2 import Duration
from lineside.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    artifact_pb2,
    artifact_service_pb2_grpc,
    deployment_pb2,
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    evidence_service_pb2_grpc,
    fleet_service_pb2_grpc,
    join_token_pb2,
    join_token_service_pb2,
    join_token_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    result_service_pb2,
    result_service_pb2_grpc,
    rollout_pb2,
    rollout_service_pb2,
    rollout_service_pb2_grpc,
    sample_service_pb2,
    sample_service_pb2_grpc,
    sample_upload_service_pb2_grpc,
    slot_pb2,
    upload_service_pb2_grpc,
)

from tests.e2e.refused_line import Act, Outcome, RefusedLine, Row, deep
from tests.inspection.protobuf_bytes import onnx_model
from tests.support import models

MODELS = model_service_pb2_grpc.ModelServiceStub
DEPLOYMENTS = deployment_service_pb2_grpc.DeploymentServiceStub
ROLLOUTS = rollout_service_pb2_grpc.RolloutServiceStub
RESULTS = result_service_pb2_grpc.ResultServiceStub
SAMPLES = sample_service_pb2_grpc.SampleServiceStub
TOKENS = join_token_service_pb2_grpc.JoinTokenServiceStub
AGENTS = agent_service_pb2_grpc.AgentServiceStub
UPLOADS = upload_service_pb2_grpc.UploadServiceStub
EVIDENCE = evidence_service_pb2_grpc.EvidenceServiceStub
FLEET = fleet_service_pb2_grpc.FleetServiceStub
ARTIFACTS = artifact_service_pb2_grpc.ArtifactServiceStub
SAMPLE_UPLOADS = sample_upload_service_pb2_grpc.SampleUploadServiceStub
V2 = "models/m/versions/2"
REFUSE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_REFUSE


# --- names that are unknown, and requests that cannot be right -------------------------------------


def get_model(name: str) -> Act:
    return lambda line: line.operator(MODELS, "GetModel", model_service_pb2.GetModelRequest(name=name))


def get_version(name: str) -> Act:
    return lambda line: line.operator(MODELS, "GetModelVersion", model_service_pb2.GetModelVersionRequest(name=name))


def deploy(**fields: Any) -> Act:
    """Create a deployment, right but for `fields`."""
    deployment_id = fields.pop("deployment_id", "new")
    wanted = {"model": "models/n", "model_version": "models/n/versions/1", "selector": "line=3"} | fields
    request = deployment_service_pb2.CreateDeploymentRequest(
        deployment_id=deployment_id, deployment=deployment_pb2.Deployment(**wanted)
    )
    return lambda line: line.operator(DEPLOYMENTS, "CreateDeployment", request)


def roll_out(
    *,
    deployment: str = "line-3",
    version: str = V2,
    waves: str = "1,100%",
    bake: float = 0.0,
    **gate: Any,
) -> Act:
    whole, part = divmod(bake, 1)
    strategy = rollout_pb2.RolloutStrategy(
        waves=waves.split(","),
        bake=Duration(seconds=int(whole), nanos=int(part * 1e9)),
        gate=rollout_pb2.GatePolicy(**gate),
    )
    request = rollout_service_pb2.CreateRolloutRequest(
        rollout=rollout_pb2.Rollout(deployment=f"deployments/{deployment}", target_version=version, strategy=strategy),
        when_active=REFUSE,
    )
    return lambda line: line.operator(ROLLOUTS, "CreateRollout", request)


def token(**fields: Any) -> Act:
    ttl = Duration(seconds=fields.pop("ttl", 60))
    request = join_token_service_pb2.CreateJoinTokenRequest(
        join_token=join_token_pb2.JoinToken(**({"uses": 1} | fields), ttl=ttl)
    )
    return lambda line: line.operator(TOKENS, "CreateJoinToken", request)


NOT_FOUND = partial(Row, code="NOT_FOUND", reason="RESOURCE_NOT_FOUND")
INVALID = partial(Row, code="INVALID_ARGUMENT", reason="FIELD_INVALID")
SELECTOR = partial(INVALID, reason="SELECTOR_INVALID", field="deployment.selector")
PRECONDITION = partial(Row, code="FAILED_PRECONDITION")

INTENT = [
    NOT_FOUND(what="unknown model", act=get_model("models/x"), field="name", remedy="list the models"),
    NOT_FOUND(what="unknown version", act=get_version("models/m/versions/9"), field="name", remedy="list the versions"),
    INVALID(what="no model's name", act=get_model("m"), field="name", remedy="models/{model}"),
    INVALID(what="version 0", act=get_version("models/m/versions/0"), field="name", remedy="versions/{number}"),
    INVALID(what="huge version", act=get_version(f"models/m/versions/{'9' * 40}"), field="name", remedy="versions"),
    NOT_FOUND(
        what="deploy an unknown model",
        act=deploy(model="models/x", model_version=""),
        field="deployment.model",
        remedy="publish the model first",
    ),
    NOT_FOUND(
        what="deploy an unknown version",
        act=deploy(model_version="models/n/versions/9"),
        field="deployment.model_version",
        remedy="publish it first",
    ),
    INVALID(
        what="deploy another model's version",
        act=deploy(model_version="models/m/versions/1"),
        field="deployment.model_version",
        remedy="a version of the deployment's model",
    ),
    NOT_FOUND(
        what="roll out an unknown version",
        act=roll_out(version="models/m/versions/9"),
        field="rollout.target_version",
        remedy="publish it first",
    ),
    NOT_FOUND(
        what="roll out an unknown deployment",
        act=roll_out(deployment="x"),
        field="rollout.deployment",
        remedy="ListDeployments",
    ),
    INVALID(
        what="roll out another model's version",
        act=roll_out(version="models/n/versions/1"),
        field="rollout.target_version",
        remedy="the deployment's model",
    ),
    Row(
        what="show an unknown version by the command line",
        act=lambda line: line.command("models", "show", "m:9"),
        code="1",
        field="name",
        remedy="list",
    ),
    Row(
        what="deploy an unknown model by the command line",
        act=lambda line: line.command("deployments", "create", "new", "--model", "x:1", "--selector", "line=3"),
        code="1",
        field="deployment.model",
        remedy="publish the model first",
    ),
    SELECTOR(what="selector: empty", act=deploy(selector=""), remedy="line=3"),
    SELECTOR(what="selector: no value list", act=deploy(selector="line in 3"), remedy="parentheses"),
    SELECTOR(what="selector: open list", act=deploy(selector="line in (3,4"), remedy="close the list"),
    SELECTOR(what="selector: no sign of ours", act=deploy(selector="line=3;drop"), remedy="operators"),
    SELECTOR(what="selector: NUL", act=deploy(selector="line=3\0"), remedy="operators"),
    SELECTOR(what="selector: two words", act=deploy(selector="line station"), remedy="comma"),
    SELECTOR(what="selector: dangling comma", act=deploy(selector="line=3,"), remedy="name a label"),
    SELECTOR(what="selector: long", act=deploy(selector=",".join(["line=3"] * 200)), remedy="1024"),
    Row(
        what="selector by the command line",
        act=lambda line: line.command("agents", "list", "--selector", "line in"),
        code="1",
        field="selector",
        remedy="parentheses",
    ),
    PRECONDITION(
        what="empty selection",
        act=deploy(selector="line=99"),
        reason="SELECTION_EMPTY",
        field="deployment.selector",
        remedy="allow_empty",
    ),
    PRECONDITION(
        what="overlapping deployments",
        act=deploy(model="models/m", model_version="models/m/versions/1", selector="line in (3,4)"),
        reason="DEPLOYMENT_OVERLAP",
        field="deployment.selector",
        remedy="deployments/line-3",
    ),
    Row(
        what="a deployment's name that is taken",
        act=deploy(deployment_id="line-4"),
        code="ALREADY_EXISTS",
        reason="RESOURCE_EXISTS",
        field="deployment_id",
        remedy="another name",
    ),
    INVALID(what="a deployment's name that is none", act=deploy(deployment_id="Line 3"), field="id", remedy="lower"),
    INVALID(
        what="a device that is none",
        act=deploy(runtime_policy=slot_pb2.RuntimePolicy(devices=["../GPU"])),
        field="deployment.runtime_policy.devices",
        remedy="GPU.0",
    ),
    INVALID(
        what="a precision that is none",
        act=deploy(runtime_policy=slot_pb2.RuntimePolicy(inference_precision="f31")),
        field="inference_precision",
        remedy="f32",
    ),
    INVALID(
        what="a sample share above 1",
        act=deploy(sample_policy=slot_pb2.SamplePolicy(random_fraction=1.5)),
        field="random_fraction",
        remedy="0",
    ),
    INVALID(
        what="a sample share that is no number",
        act=deploy(sample_policy=slot_pb2.SamplePolicy(random_fraction=float("nan"))),
        field="random_fraction",
        remedy="0",
    ),
    INVALID(what="waves: none", act=roll_out(waves=""), field="rollout.strategy.waves", remedy="1"),
    INVALID(what="waves: 0", act=roll_out(waves="0,100%"), field="rollout.strategy.waves", remedy="1%"),
    INVALID(what="waves: 101%", act=roll_out(waves="101%"), field="rollout.strategy.waves", remedy="1% to 100%"),
    INVALID(what="waves: falling", act=roll_out(waves="50%,20%,100%"), field="waves", remedy="grow"),
    INVALID(what="waves: no end", act=roll_out(waves="1,50%"), field="waves", remedy="100%"),
    INVALID(what="waves: too many", act=roll_out(waves=",".join(map(str, range(1, 99)))), field="waves", remedy="50"),
    INVALID(what="bake: negative", act=roll_out(bake=-5), field="rollout.strategy.bake", remedy="0"),
    INVALID(what="bake: a century", act=roll_out(bake=3e9), field="rollout.strategy.bake", remedy="2592000 s"),
    INVALID(what="gate: negative", act=roll_out(min_inferences=-1), field="gate.min_inferences", remedy="0"),
    INVALID(what="gate: per mille", act=roll_out(max_errors_per_mille=1001), field="per_mille", remedy="1000"),
    INVALID(what="gate: installs", act=roll_out(max_failed_installs=-1), field="installs", remedy="0"),
    PRECONDITION(
        what="a second rollout while one is active",
        act=roll_out(),
        reason="ROLLOUT_ACTIVE",
        field="rollout.deployment",
        remedy="abort it",
    ),
    PRECONDITION(
        what="end a deployment that a rollout moves",
        act=lambda line: line.operator(
            DEPLOYMENTS,
            "DeleteDeployment",
            deployment_service_pb2.DeleteDeploymentRequest(name="deployments/line-3"),
        ),
        reason="ROLLOUT_ACTIVE",
        field="name",
        remedy="abort it",
    ),
    PRECONDITION(
        what="pause what is paused",
        act=lambda line: line.operator(
            ROLLOUTS, "PauseRollout", rollout_service_pb2.PauseRolloutRequest(name=line.facts["rollout"])
        ),
        reason="ROLLOUT_STATE",
        field="name",
        remedy="resume",
    ),
    INVALID(what="token: no use", act=token(uses=0), field="join_token.uses", remedy="1 to"),
    INVALID(what="token: no life", act=token(ttl=0), field="join_token.ttl", remedy="more than 0"),
    INVALID(what="token: bad label", act=token(labels={"li ne": "3"}), field="join_token.labels", remedy="letters"),
    INVALID(what="token: a fact as label", act=token(labels={"os": "x"}), field="join_token.labels", remedy="another"),
    INVALID(
        what="request id that is no UUID",
        act=lambda line: line.operator(
            MODELS, "CreateModel", model_service_pb2.CreateModelRequest(model_id="new", request_id="1\0")
        ),
        field="request_id",
        remedy="UUID",
    ),
]


# --- etags and pages -------------------------------------------------------------------------------

STALE = partial(Row, code="ABORTED", reason="STALE_WRITE", field="etag", remedy="again")
PAGE = partial(Row, code="INVALID_ARGUMENT", reason="PAGE_TOKEN_INVALID", field="page_token", remedy="unchanged")


def encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


PAGE_TOKENS = {
    "text": "x",
    "no base64": "é!",
    "no JSON": encoded(b"{"),
    "other kinds": encoded(b"[1.5,null]"),
    "too many parts": encoded(b'["a","b","c"]'),
    "huge number": encoded(b"[" + b"9" * 30 + b"]"),
    "digits without end": encoded(b"[" + b"9" * 6000 + b"]"),
    "deep": encoded(deep("json")),
    "half a pair": encoded(b'["\\ud800"]'),
    "NUL": encoded(b'["a\\u0000"]'),
}
LISTS: dict[str, tuple[Any, str, Any]] = {
    "models": (MODELS, "ListModels", model_service_pb2.ListModelsRequest()),
    "versions": (MODELS, "ListModelVersions", model_service_pb2.ListModelVersionsRequest(parent="models/m")),
    "agents": (AGENTS, "ListAgents", agent_service_pb2.ListAgentsRequest()),
    "deployments": (DEPLOYMENTS, "ListDeployments", deployment_service_pb2.ListDeploymentsRequest()),
    "rollouts": (ROLLOUTS, "ListRollouts", rollout_service_pb2.ListRolloutsRequest()),
    "tokens": (TOKENS, "ListJoinTokens", join_token_service_pb2.ListJoinTokensRequest()),
    "results": (RESULTS, "ListResults", result_service_pb2.ListResultsRequest()),
    "samples": (SAMPLES, "ListSamples", sample_service_pb2.ListSamplesRequest()),
}


def listed(kind: str, **fields: Any) -> Act:
    stub, method, request = LISTS[kind]
    asked = type(request)()
    asked.CopyFrom(request)
    asked.MergeFrom(type(request)(**fields))
    return lambda line: line.operator(stub, method, asked)


PAGES = [
    STALE(
        what="a wrong etag of a rollout",
        act=lambda line: line.operator(
            ROLLOUTS, "ResumeRollout", rollout_service_pb2.ResumeRolloutRequest(name=line.facts["rollout"], etag="99")
        ),
    ),
    STALE(
        what="an etag that never was",
        act=lambda line: line.operator(
            ROLLOUTS, "AbortRollout", rollout_service_pb2.AbortRolloutRequest(name=line.facts["rollout"], etag="W/x")
        ),
    ),
    STALE(
        what="a wrong etag of a deployment",
        act=lambda line: line.operator(
            DEPLOYMENTS,
            "DeleteDeployment",
            deployment_service_pb2.DeleteDeploymentRequest(name="deployments/line-4", etag="99"),
        ),
    ),
    STALE(
        what="a wrong etag of an agent",
        act=lambda line: line.operator(
            AGENTS, "RevokeAgent", agent_service_pb2.RevokeAgentRequest(name="agents/raw-2", etag="99")
        ),
    ),
    *(PAGE(what=f"page token: {what}", act=listed("versions", page_token=text)) for what, text in PAGE_TOKENS.items()),
    *(PAGE(what=f"page token of {kind}", act=listed(kind, page_token=PAGE_TOKENS["text"])) for kind in LISTS),
    PAGE(what="page token of results: huge", act=listed("results", page_token=PAGE_TOKENS["huge number"])),
    PAGE(what="page token of models: half a pair", act=listed("models", page_token=PAGE_TOKENS["half a pair"])),
    INVALID(what="a negative page", act=listed("agents", page_size=-1), field="page_size", remedy="0"),
    SELECTOR(what="a list's selector", act=listed("agents", selector="line in ("), field="selector", remedy="')'"),
]


# --- models ----------------------------------------------------------------------------------------


def ir(folder_name: str, *, spoil: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> Act:
    """Publish an IR of which `spoil` has changed description and weights."""

    def act(line: RefusedLine) -> Outcome:
        path = models.classifier_ir(line.line.folder / "good" / folder_name)
        xml, weights = spoil(path.read_bytes(), path.with_suffix(".bin").read_bytes())
        return line.publish({"model.xml": xml, "model.bin": weights})

    return act


def publish(**files: bytes) -> Act:
    return lambda line: line.publish({name.replace("_", "."): content for name, content in files.items()})


def publish_at(*paths: str, digest: str = "", size_bytes: int = -1) -> Act:
    """Publish a version whose files, all of known bytes, are to lie at these paths."""

    def act(line: RefusedLine) -> Outcome:
        known = line.client.models.get_version("m", 1).artifact.files[0]
        files = [
            artifact_pb2.ArtifactFile(
                path=path,
                digest=digest or known.digest,
                size_bytes=known.size_bytes if size_bytes < 0 else size_bytes,
            )
            for path in paths
        ]
        request = model_service_pb2.PublishModelVersionRequest(
            parent="models/m", artifact=artifact_pb2.Artifact(files=files)
        )
        return line.operator(MODELS, "PublishModelVersion", request)

    return act


UNREADABLE = partial(
    Row, code="INVALID_ARGUMENT", reason="MODEL_UNREADABLE", field="artifact", remedy="open the files with OpenVINO"
)
PATH = partial(INVALID, field="artifact.files.path", remedy="use ")
NOISE = random.Random(3)

MODEL_FILES = [
    UNREADABLE(what="IR: garbage", act=publish(model_xml=NOISE.randbytes(4000), model_bin=b"")),
    UNREADABLE(what="IR: an empty file", act=publish(model_xml=b"", model_bin=b"")),
    UNREADABLE(what="IR: truncated description", act=ir("cut", spoil=lambda xml, weights: (xml[:-300], weights))),
    UNREADABLE(what="IR: truncated weights", act=ir("bin", spoil=lambda xml, weights: (xml, weights[:64]))),
    UNREADABLE(
        what="IR: a constant beyond all memory",
        act=ir("huge", spoil=lambda xml, weights: (xml.replace(b'size="8"', b'size="17592186044416"'), weights)),
    ),
    UNREADABLE(
        what="IR: an unknown operation",
        act=ir("op", spoil=lambda xml, weights: (xml.replace(b'"SoftMax"', b'"NoSuchOperation"'), weights)),
        remedy="with another opset",
    ),
    UNREADABLE(what="IR: deep enough to end the reader", act=publish(model_xml=deep("xml"), model_bin=b"")),
    UNREADABLE(
        what="IR: an entity that reads a file",
        act=publish(
            model_xml=b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><net name="&a;" version="11"/>',
            model_bin=b"",
        ),
        remedy="inputs and outputs",
    ),
    UNREADABLE(what="ONNX: garbage", act=publish(net_onnx=NOISE.randbytes(4000))),
    UNREADABLE(what="ONNX: an empty file", act=publish(net_onnx=b"")),
    UNREADABLE(what="ONNX: truncated", act=publish(net_onnx=onnx_model()[:-25])),
    UNREADABLE(
        what="ONNX: weights outside",
        act=publish(net_onnx=onnx_model(weights_at="../../../../../../etc/hostname", weights_bytes=8)),
    ),
    UNREADABLE(
        what="ONNX: weights in /proc",
        act=publish(net_onnx=onnx_model(weights_at="/proc/self/environ", weights_bytes=8)),
    ),
    UNREADABLE(what="TFLite: garbage", act=publish(net_tflite=b"\x18\0\0\0TFL3" + NOISE.randbytes(4000))),
    Row(
        what="no model at all",
        act=publish(notes_txt=b"hello"),
        code="",
        reason="INPUT_INVALID",
        field="path",
        remedy=".onnx",
    ),
    UNREADABLE(what="two models", act=publish(a_onnx=onnx_model(), b_onnx=onnx_model()), remedy="of its own"),
    Row(
        what="no such path by the command line",
        act=lambda line: line.command("models", "publish", "m", str(line.line.folder / "nothing")),
        code="2",
        field="path",
        remedy=".onnx",
    ),
    *(
        PATH(what=f"path: {path!r}", act=publish_at(path))
        for path in ("../x.xml", "/etc/x.xml", "a/../x.xml", "a//x.xml", "./x.xml", "", "x\0.xml", "a\n.xml", "é" * 200)
    ),
    PATH(what="path: a file within a file", act=publish_at("a.xml", "a.xml/b")),
    INVALID(what="a path twice", act=publish_at("a.xml", "a.xml"), field="artifact.files", remedy="once"),
    INVALID(what="no files", act=publish_at(), field="artifact.files", remedy="each file"),
    INVALID(what="a wrong size", act=publish_at("a.xml", size_bytes=1), field="size_bytes", remedy="size"),
    INVALID(what="no digest", act=publish_at("a.xml", digest="sha256:XYZ"), field="digest", remedy="64"),
    PRECONDITION(
        what="bytes that were never uploaded",
        act=publish_at("a.xml", digest=f"sha256:{'0' * 64}"),
        reason="ARTIFACT_INCOMPLETE",
        field="artifact.files",
        remedy="upload them",
    ),
]
