"""Versions change under real clients, a real OpenVINO and load from several threads, and no request fails."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from agent.domain.device import Configuration, PerformanceHint, RuntimePolicy
from agent.domain.slot import DesiredSlot
from agent.runtime.infer import OpenVinoModel
from agent.runtime.openvino_runtime import OpenVinoRuntime
from tests.support.inference_servers import running_servers
from tests.support.models import classifier_ir, positive_score, signature_of
from tests.support.serving import desired_slot

pytestmark = pytest.mark.openvino

POLICY = RuntimePolicy(hint=PerformanceHint.THROUGHPUT, inference_precision="f32")
VERSIONS = 4
ANSWERS_PER_VERSION = 60
IMAGE = np.zeros((1, 3, 8, 8), np.float32)


def bias(version: int) -> float:
    return version / 2


def send_until(done: threading.Event, module: Any, url: str, who: str) -> list[tuple[str, str]]:
    """Part id and version of every answer; any refusal ends the test."""
    seen: list[tuple[str, str]] = []
    with module.InferenceServerClient(url) as client:
        while not done.is_set():
            tensor = module.InferInput("x", list(IMAGE.shape), "FP32")
            tensor.set_data_from_numpy(IMAGE)
            part_id = f"{who}-{len(seen)}"
            answer = client.infer("cells", [tensor], parameters={"part_id": part_id})
            response = answer.get_response()
            version = response["model_version"] if isinstance(response, dict) else response.model_version
            score = float(answer.as_numpy("scores")[0, 1])
            assert score == pytest.approx(positive_score(bias(int(version))), abs=1e-4)
            seen.append((part_id, version))
    return seen


async def loaded_versions(runtime: OpenVinoRuntime, folder: Path) -> list[tuple[DesiredSlot, OpenVinoModel]]:
    loaded = []
    for version in range(1, VERSIONS + 1):
        path = classifier_ir(folder / str(version), bias=bias(version))
        signature = signature_of(path)
        model = await runtime.load(path.parent, signature, POLICY, Configuration(device="CPU"))
        loaded.append((desired_slot(version, signature=signature), model))
    return loaded


async def test_swapping_versions_under_load_fails_no_request(tmp_path: Path) -> None:
    first, *others = await loaded_versions(OpenVinoRuntime(compiled_folder=tmp_path / "compiled"), tmp_path)
    done = threading.Event()
    async with running_servers() as servers:
        servers.serving.swap(*first)
        with ThreadPoolExecutor(4) as pool:
            clients = [(triton_grpc, servers.grpc_url), (triton_http, servers.http_url)] * 2
            running = [
                pool.submit(send_until, done, module, url, f"c{place}") for place, (module, url) in enumerate(clients)
            ]
            try:
                for slot, model in others:
                    await asyncio.to_thread(servers.results.wait_for_more, ANSWERS_PER_VERSION)
                    servers.serving.swap(slot, model)
                await asyncio.to_thread(servers.results.wait_for_more, ANSWERS_PER_VERSION)
            finally:
                done.set()
            answers = [answer for each in running for answer in await asyncio.wrap_future(each)]
    kept = Counter((result.part_id, str(result.version)) for result in servers.results.results)
    assert kept == Counter(answers)
    assert {version for _, version in answers} == {str(version) for version in range(1, VERSIONS + 1)}
    assert servers.results.refused == []
