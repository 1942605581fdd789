"""Inference requests that are refused, by unmodified clients over gRPC and REST and by bare messages."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
import tritonclient.grpc as oip
import tritonclient.http as oip_http
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.e2e.refused_line import SECONDS_MAX, Act, Outcome, RefusedLine, Row, deep, outcome_of
from tests.support import models

SHAPE = (1, *models.IMAGE_SHAPE)
DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.uint8): "UINT8", np.dtype(np.float64): "FP64"}


def zeros(*shape: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    return np.zeros(shape or SHAPE, dtype)


def by_client(
    library: Any,
    *,
    model: str = "m",
    version: str = "",
    name: str = models.INPUT_NAME,
    value: npt.NDArray[Any] | None = None,
    output: str = "",
    **options: Any,
) -> Act:
    """Infer with tritonclient, right but for what is given."""

    def act(line: RefusedLine) -> Outcome:
        agent = line.line.agents["st-1"]
        client = library.InferenceServerClient(agent.grpc_address if library is oip else agent.http_address)
        image = zeros() if value is None else value
        tensor = library.InferInput(name, list(image.shape), DATATYPES[image.dtype])
        tensor.set_data_from_numpy(image)
        outputs = [library.InferRequestedOutput(output)] if output else None
        try:
            told = outcome_of(lambda: client.infer(model, [tensor], version, outputs, **options))
        finally:
            client.close()
        # Over REST tritonclient hands on the server's JSON as it is.
        return told if library is oip else _plain(told)

    return act


def _plain(told: Outcome) -> Outcome:
    start = told.text.find("{")
    if start < 0:
        return told
    document = json.loads(told.text[start:])
    return Outcome(code=told.code, text=document["error"])


def by_message(**fields: Any) -> Act:
    """Send a bare ModelInferRequest, right but for `fields`: the answer carries the reason apart."""

    def act(line: RefusedLine) -> Outcome:
        tensor = service_pb2.ModelInferRequest.InferInputTensor(name=models.INPUT_NAME, datatype="FP32", shape=SHAPE)
        right = {"model_name": "m", "inputs": [tensor], "raw_input_contents": [zeros().tobytes()]}
        request = service_pb2.ModelInferRequest(**(right | fields))
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(line.line.agents["st-1"].grpc_address, options=options) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            return outcome_of(lambda: stub.ModelInfer(request, timeout=SECONDS_MAX))

    return act


def part_id(text: str) -> dict[str, Any]:
    return {"parameters": {"part_id": service_pb2.InferParameter(string_param=text)}}


def by_body(path: str = "/v2/models/m/infer", *, body: bytes | None = None, **fields: Any) -> Act:
    """POST JSON, right but for `fields`, or `body` as it is."""
    tensor = {"name": models.INPUT_NAME, "datatype": "FP32", "shape": list(SHAPE), "data": [0.0] * 192}
    document = {"inputs": [tensor | fields.pop("tensor", {})]} | fields
    sent = json.dumps(document).encode() if body is None else body
    return lambda line: line.rest(path, sent)


INVALID = partial(Row, code="INVALID_ARGUMENT")
REASON = partial(INVALID, reason="INPUT_INVALID")
BODY = partial(Row, code="400", reason="INPUT_INVALID")


def both(make: Callable[[Any], Act], *, what: str, code: str, status: str, field: str, remedy: str) -> tuple[Row, Row]:
    """The same with tritonclient over gRPC and over REST."""
    return (
        Row(what=f"gRPC: {what}", act=make(oip), code=code, field=field, remedy=remedy),
        Row(what=f"REST: {what}", act=make(oip_http), code=status, field=field, remedy=remedy),
    )


BAD_INPUT = partial(both, code="INVALID_ARGUMENT", status="400")
NOT_HERE = partial(both, code="NOT_FOUND", status="404")

CLIENTS = [
    *NOT_HERE(lambda by: by_client(by, model="x"), what="unknown model", field="model_name", remedy="use one of: m"),
    *NOT_HERE(lambda by: by_client(by, version="9"), what="unknown version", field="model_version", remedy="ask for 2"),
    *BAD_INPUT(lambda by: by_client(by, version="two"), what="no version", field="model_version", remedy="empty"),
    *BAD_INPUT(
        lambda by: by_client(by, value=zeros(dtype=np.uint8)),
        what="wrong dtype",
        field="inputs[x].datatype",
        remedy="send FP32",
    ),
    *BAD_INPUT(
        lambda by: by_client(by, value=zeros(1, 8, 8, 3)),
        what="wrong shape",
        field="inputs[x].shape",
        remedy="send [-1, 3, 8, 8]",
    ),
    *BAD_INPUT(
        lambda by: by_client(by, value=zeros(3, 8, 8)), what="wrong rank", field="inputs[x].shape", remedy="send [-1"
    ),
    *BAD_INPUT(
        lambda by: by_client(by, value=zeros(2000, *models.IMAGE_SHAPE)),
        what="too many items",
        field="inputs[x].shape",
        remedy="at most 1024",
    ),
    *BAD_INPUT(lambda by: by_client(by, name="y"), what="wrong input", field="inputs", remedy="send 'x'"),
    *BAD_INPUT(lambda by: by_client(by, output="y"), what="wrong output", field="outputs", remedy="ask for 'scores'"),
    *BAD_INPUT(
        lambda by: by_client(by, parameters={"part_id": "p" * 257}),
        what="a part id that is too long",
        field="parameters[part_id]",
        remedy="at most 256",
    ),
    *BAD_INPUT(
        lambda by: by_client(by, parameters={"part_id": "p\0"}),
        what="a part id with NUL",
        field="parameters[part_id]",
        remedy="without NUL",
    ),
    *BAD_INPUT(
        lambda by: by_client(by, request_id="r" * 257), what="a long request id", field="id", remedy="at most 256"
    ),
    *BAD_INPUT(lambda by: by_client(by, request_id="r\0"), what="a request id with NUL", field="id", remedy="NUL"),
]

MESSAGES = [
    Row(
        what="message: unknown model",
        act=by_message(model_name="x"),
        code="NOT_FOUND",
        reason="MODEL_NOT_FOUND",
        field="model_name",
        remedy="use one of: m",
    ),
    Row(
        what="message: unknown version",
        act=by_message(model_version="9"),
        code="NOT_FOUND",
        reason="VERSION_NOT_LOADED",
        field="model_version",
        remedy="ask for 2",
    ),
    REASON(what="message: no inputs", act=by_message(inputs=[], raw_input_contents=[]), field="inputs", remedy="'x'"),
    REASON(
        what="message: too few bytes",
        act=by_message(raw_input_contents=[b"1234"]),
        field="inputs[x].data",
        remedy="send 768 bytes",
    ),
    REASON(
        what="message: more contents than inputs",
        act=by_message(raw_input_contents=[b"", b""]),
        field="raw_input_contents",
        remedy="one entry for each",
    ),
    REASON(what="message: long part id", act=by_message(**part_id("p" * 257)), field="part_id", remedy="at most 256"),
    REASON(what="message: NUL in the part id", act=by_message(**part_id("p\0")), field="part_id", remedy="NUL"),
    REASON(
        what="message: a part id that is a number",
        act=by_message(parameters={"part_id": service_pb2.InferParameter(int64_param=7)}),
        field="parameters[part_id]",
        remedy="send a string",
    ),
    REASON(what="message: NUL in the id", act=by_message(id="\0"), field="id", remedy="NUL"),
    REASON(
        what="message: a shape beyond all memory",
        act=by_message(
            inputs=[
                service_pb2.ModelInferRequest.InferInputTensor(
                    name="x", datatype="FP32", shape=[1 << 62, *models.IMAGE_SHAPE]
                )
            ]
        ),
        field="inputs[x].shape",
        remedy="at most 1024",
    ),
    Row(
        what="message: beyond the bound",
        act=by_message(raw_input_contents=[bytes(65 << 20)]),
        code="RESOURCE_EXHAUSTED",
        remedy="larger than max",
    ),
]

BODIES = [
    BODY(what="body: no JSON", act=by_body(body=b"{"), field="body", remedy="JSON object"),
    BODY(what="body: deep JSON", act=by_body(body=deep("json")), field="body", remedy="JSON object"),
    BODY(what="body: a list", act=by_body(body=b"[]"), field="body", remedy="JSON object"),
    BODY(what="body: no text", act=by_body(body=b"\xff\xfe"), field="body", remedy="JSON object"),
    BODY(what="body: no inputs", act=by_body(inputs=[]), field="inputs", remedy="send 'x'"),
    BODY(what="body: inputs that are none", act=by_body(inputs=7), field="inputs", remedy="list"),
    BODY(what="body: wrong dtype", act=by_body(tensor={"datatype": "FP64"}), field="datatype", remedy="FP32"),
    BODY(what="body: no dtype", act=by_body(tensor={"datatype": "STRING"}), field="datatype", remedy="FP32"),
    BODY(what="body: wrong shape", act=by_body(tensor={"shape": [1, 192]}), field="shape", remedy="send [-1"),
    BODY(what="body: a negative shape", act=by_body(tensor={"shape": [-1, 3, 8, 8]}), field="shape", remedy="whole"),
    BODY(what="body: a ragged list", act=by_body(tensor={"data": [[0], [0, 1]]}), field="data", remedy="flat list"),
    BODY(what="body: words for numbers", act=by_body(tensor={"data": ["a"] * 192}), field="data", remedy="FP32"),
    BODY(what="body: too few values", act=by_body(tensor={"data": [0.0]}), field="data", remedy="192"),
    BODY(what="body: wrong name", act=by_body(tensor={"name": "y"}), field="inputs", remedy="send 'x'"),
    BODY(what="body: an id that is a number", act=by_body(id=7), field="id", remedy="string"),
    BODY(what="body: half a pair in the id", act=by_body(id="\ud800"), field="id", remedy="Unicode"),
    BODY(what="body: half a pair in the name", act=by_body(tensor={"name": "\ud800"}), field="inputs", remedy="'x'"),
    BODY(what="body: NUL in the part id", act=by_body(parameters={"part_id": "\0"}), field="part_id", remedy="NUL"),
    BODY(
        what="body: half a pair in the part id",
        act=by_body(parameters={"part_id": "\udfff"}),
        field="part_id",
        remedy="Unicode",
    ),
    BODY(
        what="body: a header longer than the body",
        act=lambda line: line.rest("/v2/models/m/infer", b"{}", **{"Inference-Header-Content-Length": "99"}),
        field="Inference-Header-Content-Length",
        remedy="length in bytes",
    ),
    Row(
        what="body: unknown model",
        act=by_body("/v2/models/x/infer"),
        code="404",
        reason="MODEL_NOT_FOUND",
        field="model_name",
        remedy="use one of: m",
    ),
    Row(
        what="body: unknown version",
        act=by_body("/v2/models/m/versions/9/infer"),
        code="404",
        reason="VERSION_NOT_LOADED",
        field="model_version",
        remedy="ask for 2",
    ),
    Row(what="body: an unknown path", act=by_body("/v2/nothing"), code="404", remedy="/v2/nothing"),
    Row(what="body: beyond the bound", act=by_body(body=bytes(65 << 20)), code="413", remedy="send at most"),
]
