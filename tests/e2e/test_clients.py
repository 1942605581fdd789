"""Other people's clients, unmodified, against a real agent that serves a real model: PP-LCNet, which sorts pages by
their orientation.

Each client runs in an environment of its own, fetched at run time, and prints what it got as JSON.
"""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as oip

from controlplane.client.preprocessing import InputPreprocessing, Preprocessing
from tests.support.agent_process import AgentProcess
from tests.support.line import Line
from tests.support.packages import ORIENTATION, unpack
from tests.support.tool_venvs import KSERVE, MODEL_API, perf_analyzer, python_of

pytestmark = [pytest.mark.peers, pytest.mark.e2e, pytest.mark.openvino, pytest.mark.slow]

MODEL = "orientation"
INPUT, OUTPUT = "x", "fetch_name_0"
LABELS = ["0", "90", "180", "270"]
PREPROCESSING = Preprocessing(
    inputs={
        "": InputPreprocessing(
            layout="NHWC", model_layout="NCHW", element_type="u8", resize="linear", scale=(255.0, 255.0, 255.0)
        )
    },
    model_info={"model_type": "Classification", "labels": " ".join(LABELS), "topk": "1", "output_raw_scores": "False"},
)
CLIENT_SECONDS_MAX = 120
IMAGE = np.random.default_rng(3).random((1, 3, 224, 224), dtype=np.float32)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "image.npy"
    np.save(path, IMAGE)
    return path


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """Serves the model; shared memory may begin with the names that perf_analyzer gives its regions."""
    folder = tmp_path_factory.mktemp("clients")
    model = next(unpack(ORIENTATION, folder / "package").rglob("*.onnx"))
    line = Line(folder)
    try:
        line.start_controller()
        line.publish(MODEL, model)
        line.deploy("raw", MODEL, 1)
        with line.client() as client:
            client.models.publish("pages", model, preprocessing=PREPROCESSING)
        line.deploy("pages", "pages", 1)
        found = line.enroll("st-1")
        found.start("--shared-memory", f"{INPUT}_,{OUTPUT}")
        line.wait_serving("st-1", MODEL, 1)
        line.wait_serving("st-1", "pages", 1)
        yield found
    finally:
        line.close()


def run(python: Path, program: str, *arguments: str) -> Any:
    """What the program printed, as JSON."""
    done = subprocess.run(
        [str(python), "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def expected(agent: AgentProcess) -> list[float]:
    """The model's scores by the client that the other tests use."""
    tensor = oip.InferInput(INPUT, list(IMAGE.shape), "FP32")
    tensor.set_data_from_numpy(IMAGE)
    with oip.InferenceServerClient(agent.grpc_address) as client:
        scores: list[float] = client.infer(MODEL, [tensor]).as_numpy(OUTPUT)[0].tolist()
    return scores


MODEL_API_PROGRAM = """
import json, sys
import numpy as np
from model_api.adapters import OVMSAdapter
from model_api.models import Model

raw = OVMSAdapter(f"{sys.argv[1]}/v2/models/orientation/versions/1")
image = np.load(sys.argv[2])
pages = Model.create_model(f"{sys.argv[1]}/v2/models/pages")
picture = (image[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
result = pages(picture)
print(json.dumps({
    "raw": raw.infer_sync({"x": image})["fetch_name_0"][0].tolist(),
    "shape": list(raw.get_input_layers()["x"].shape),
    "wrapper": type(pages).__name__,
    "labels": [[label.name, float(label.confidence)] for label in result.top_labels],
}))
"""


def test_model_apis_remote_adapter(agent: AgentProcess, image: Path) -> None:
    """The pipeline of OpenVINO's Model API, its model at the agent instead of in the process: what the wrapper needs
    to know comes with the metadata, and the preprocessing was embedded at publish."""
    python = python_of("model-api", MODEL_API)
    got = run(python, MODEL_API_PROGRAM, agent.http_address, str(image))
    scores = expected(agent)
    assert got["raw"] == pytest.approx(scores, abs=1e-5)
    assert got["shape"] == [-1, 3, 224, 224]
    assert got["wrapper"] == "ClassificationModel"
    ((label, confidence),) = got["labels"]
    assert label == LABELS[int(np.argmax(scores))]
    assert confidence == pytest.approx(max(scores), abs=0.02)


KSERVE_PROGRAM = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig

image = np.load(sys.argv[3])

def request(binary):
    tensor = InferInput("x", list(image.shape), "FP32")
    tensor.set_data_from_numpy(image, binary_data=binary)
    return InferRequest(
        model_name="orientation", infer_inputs=[tensor], request_id="k1", parameters={"part_id": "K7"}
    )

async def main():
    got = {}
    base = f"http://{sys.argv[1]}"
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as rest:
        got["rest ready"] = [
            await rest.is_server_live(base), await rest.is_server_ready(base),
            await rest.is_model_ready(base, "orientation"), await rest.is_model_ready(base, "nuts"),
        ]
        for binary in (False, True):
            answer = await rest.infer(base, request(binary), model_name="orientation")
            got[f"rest {binary}"] = answer.outputs[0].as_numpy().reshape(-1).tolist()
            got["id"] = answer.id
    async with InferenceGRPCClient(url=sys.argv[2]) as client:
        got["grpc ready"] = [
            await client.is_server_live(), await client.is_server_ready(),
            await client.is_model_ready("orientation"), await client.is_model_ready("nuts"),
        ]
        for binary in (False, True):
            answer = await client.infer(request(binary))
            got[f"grpc {binary}"] = answer.outputs[0].as_numpy().reshape(-1).tolist()
    print(json.dumps(got))

asyncio.run(main())
"""


def test_kserves_clients(agent: AgentProcess, image: Path) -> None:
    python = python_of("kserve", KSERVE)
    got = run(python, KSERVE_PROGRAM, agent.http_address, agent.grpc_address, str(image))
    scores = pytest.approx(expected(agent), abs=1e-5)
    assert got["rest ready"] == got["grpc ready"] == [True, True, True, False]
    assert got["id"] == "k1"
    for way in ("rest False", "rest True", "grpc False", "grpc True"):
        assert got[way] == scores, way


@pytest.mark.parametrize("memory", ["none", "system"])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_perf_analyzer(agent: AgentProcess, tmp_path: Path, protocol: str, memory: str) -> None:
    program, libraries = perf_analyzer()
    address = agent.grpc_address if protocol == "grpc" else agent.http_address
    report = tmp_path / "report.csv"
    options = {
        "-m": MODEL,
        "-i": protocol,
        "-u": address,
        "--shape": f"{INPUT}:3,224,224",
        "--shared-memory": memory,
        "--output-shared-memory-size": "64",
        "--concurrency-range": "2",
        "--measurement-mode": "count_windows",
        "--measurement-request-count": "40",
        "--stability-percentage": "999",
        "--max-trials": "3",
        "-f": str(report),
    }
    done = subprocess.run(
        [str(program), *(word for option in options.items() for word in option)],
        capture_output=True,
        text=True,
        timeout=CLIENT_SECONDS_MAX,
        check=False,
        env={"LD_LIBRARY_PATH": libraries},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (row,) = csv.DictReader(report.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) > 0, "it read our statistics"
