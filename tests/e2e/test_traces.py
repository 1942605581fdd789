"""One trace from the camera's application over the agent to the controller, received by a real OTLP receiver."""

import json
import os
import urllib.request
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
import tritonclient.grpc as oip
from tritonclient.utils import InferenceServerException

from tests.support import models, otlp
from tests.support.agent_process import AgentProcess
from tests.support.line import Line, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]

TRACE, APPLICATION = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{APPLICATION}-01"}
INPUT = np.zeros((1, *models.IMAGE_SHAPE), np.float32)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[otlp.Receiver]:
    """Where every process that the test starts sends its spans."""
    with otlp.receiving() as (found, url):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        yield found


def infer(agent: AgentProcess, image: np.ndarray) -> None:
    with oip.InferenceServerClient(agent.grpc_address) as client:
        tensor = oip.InferInput("x", list(image.shape), "FP32")
        tensor.set_data_from_numpy(image)
        client.infer("m", [tensor], headers=PARENT, parameters={"part_id": "part-7"})


def infer_over_rest(agent: AgentProcess) -> None:
    body = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": list(INPUT.shape), "data": INPUT.ravel().tolist()}],
        "parameters": {"part_id": "part-8"},
    }
    request = urllib.request.Request(
        f"http://{agent.http_address}/v2/models/m/infer", json.dumps(body).encode(), PARENT, method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as response:
        assert response.status == 200


def test_an_inference_is_below_its_application_and_the_controller_below_the_agent(
    receiver: otlp.Receiver, line: Line
) -> None:
    assert os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
    agent = line.start_agent("st-1")
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    infer(agent, INPUT)
    infer_over_rest(agent)
    with pytest.raises(InferenceServerException):
        infer(agent, np.zeros((1, 1, 1, 1), np.float32))
    wait_until(lambda: len(receiver.find("inference", trace_id=TRACE)) == 3, what="the three inferences")
    found = receiver.find("inference", trace_id=TRACE)
    assert {(span.parent_id, span.service) for span in found} == {(APPLICATION, "lineside-agent")}
    answered = {span.attributes["lineside.part_id"]: span for span in found if not span.failed}
    assert set(answered) == {"part-7", "part-8"}
    for span in answered.values():
        assert span.attributes["lineside.slot"] == "m"
        assert span.attributes["lineside.version"] == 1
        assert span.attributes["lineside.device"] == "CPU"
    (refused,) = [span for span in found if span.failed]
    assert refused.attributes["lineside.reason"] == "INPUT_INVALID"
    for name in ("EvidenceService/ReportEvidence", "FleetService/Sync"):
        wait_until(partial(joined, receiver, name), what=f"{name} in one trace")


def joined(receiver: otlp.Receiver, name: str) -> bool:
    """Whether a call of the agent and the controller's answering of it are one below the other."""
    spans = receiver.find(name)
    asked = {(span.trace_id, span.span_id) for span in spans if span.service == "lineside-agent"}
    answered = {(span.trace_id, span.parent_id) for span in spans if span.service == "lineside-controlplane"}
    return bool(asked & answered)
