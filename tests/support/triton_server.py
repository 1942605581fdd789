"""Real Triton, from the package that carries its binary, with one model that answers as `FakeModel` does.

The package's own way to serve needs an interpreter that matches its stub to the patch release; Triton's Python backend
alone does not.
"""

import http.client
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.line import wait_until
from tests.support.tool_venvs import TRITON, python_of

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30

_MODEL = """
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, images):
        scores = np.tile(np.array([0.25, 0.75], np.float32), (len(images), 1))
        return utils.InferenceResponse([utils.Tensor("scores", scores)])
"""
_CONFIG = """
name: "cells"
backend: "python"
max_batch_size: 1024
version_policy: { specific: { versions: [3] } }
input: [{ name: "x", data_type: TYPE_FP32, dims: [3] }]
output: [{ name: "scores", data_type: TYPE_FP32, dims: [2] }]
instance_group: [{ kind: KIND_CPU, count: 1 }]
"""


@dataclass(frozen=True, kw_only=True)
class TritonServer:
    grpc_url: str
    http_url: str


@contextmanager
def running_triton(
    folder: Path, *, python: Path | None = None, write_models: Callable[[Path], None] | None = None
) -> Iterator[TritonServer]:
    """Serves "cells" version 3, or what `write_models` puts into the repository, with the packages of `python`; skips
    where Triton cannot be fetched, fails where it does not start."""
    python = python or python_of("triton", TRITON)
    (package,) = python.parents[1].glob("lib/python3.*/site-packages/pytriton")
    (write_models or _write_cells)(folder / "models")
    _link_backend(package / "tritonserver", folder / "backends" / "python")
    grpc_port, http_port = _free_ports(2)
    log = folder / "triton.log"
    options = {
        "model-repository": folder / "models",
        "backend-directory": folder / "backends",
        "grpc-address": "127.0.0.1",
        "grpc-port": grpc_port,
        "http-address": "127.0.0.1",
        "http-port": http_port,
        "allow-metrics": "false",
        # One store for each server on this box: its processes meet in shared memory under the name.
        "backend-config": f"python,shm-region-prefix-name=parity-{os.getpid()}-",
    }
    with log.open("w") as sink:
        process = subprocess.Popen(
            [
                package / "tritonserver" / "bin" / "tritonserver",
                *(f"--{key}={value}" for key, value in options.items()),
            ],
            stdout=sink,
            stderr=sink,
            env={
                **os.environ,
                "PATH": f"{python.parent}:{os.environ['PATH']}",
                "LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs"),
            },
        )
    try:
        wait_until(
            lambda: process.poll() is not None or _ready(http_port), what="Triton", seconds_max=START_SECONDS_MAX
        )
        assert process.poll() is None, log.read_text()[-3000:]
        yield TritonServer(grpc_url=f"127.0.0.1:{grpc_port}", http_url=f"127.0.0.1:{http_port}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()


def _write_cells(models: Path) -> None:
    folder = models / "cells"
    (folder / "3").mkdir(parents=True)
    (folder / "3" / "model.py").write_text(_MODEL)
    (folder / "config.pbtxt").write_text(_CONFIG)


def _link_backend(server: Path, folder: Path) -> None:
    """The backend beside the stub for the environment's Python: both must lie in one folder."""
    folder.mkdir(parents=True)
    stub = (
        server / "python_backend_stubs" / server.parents[2].name.removeprefix("python") / "triton_python_backend_stub"
    )
    for path in (*(server / "backends" / "python").glob("*.*"), stub):
        (folder / path.name).symlink_to(path)


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    """Free a moment ago: Triton takes no port 0."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
