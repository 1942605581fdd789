"""Who stands beside us: real Triton, and grpcio alone. The same model, the same OpenVINO, the same load generator.

The package nvidia-pytriton carries Triton's binary with its Python backend; a model of that backend calls OpenVINO.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openvino as ov
import pytest

from tests.bench.missing import MissingToolError
from tests.bench.serving_models import HINT, PRECISION, BenchModel
from tests.support.tool_venvs import TRITON, python_of
from tests.support.triton_server import running_triton

INSTANCES = os.cpu_count() or 1
"""Triton's Python backend runs one request at a time in each of its processes: as many as THROUGHPUT has streams."""
_TYPES = {"FP32": "TYPE_FP32", "UINT8": "TYPE_UINT8"}

_MODEL = """
import openvino as ov
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        core = ov.Core()
        model = core.read_model({path!r})
        compiled = core.compile_model(model, "CPU", {{
            "PERFORMANCE_HINT": {hint!r}, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1,
            "INFERENCE_PRECISION_HINT": {precision!r}, "ENABLE_CPU_PINNING": False,
        }})
        self.request = compiled.create_infer_request()
        self.inputs, self.outputs = {inputs!r}, {outputs!r}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        inputs = [utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs]
        found = self.request.infer(dict(enumerate(inputs)), share_inputs=True)
        return utils.InferenceResponse(
            [utils.Tensor(name, found[index]) for index, name in enumerate(self.outputs)]
        )
"""


@contextmanager
def triton(model: BenchModel, folder: Path) -> Iterator[str]:
    """Its gRPC address. Raises MissingToolError where it cannot be had."""
    version = ov.__version__.split("-", maxsplit=1)[0]
    try:
        python = python_of("triton-openvino", (*TRITON, f"openvino=={version}"))
    except pytest.skip.Exception as error:
        raise MissingToolError(f"Triton: {error}") from error
    with running_triton(folder, python=python, write_models=lambda models: _write(models, model)) as server:
        yield server.grpc_url


@contextmanager
def bare_server(model: BenchModel) -> Iterator[tuple[str, int]]:
    """The address of `bare_server` in a process of its own, and the process."""
    command = [sys.executable, "-m", "tests.bench.bare_server", "--model", str(model.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def _write(models: Path, model: BenchModel) -> None:
    folder = models / model.name
    (folder / "1").mkdir(parents=True)
    inputs, outputs = ([each.name for each in tensors] for tensors in (model.inputs, model.outputs))
    source = _MODEL.format(path=str(model.path), hint=HINT, precision=PRECISION, inputs=inputs, outputs=outputs)
    (folder / "1" / "model.py").write_text(source)
    ports = "\n".join(
        f'{kind}: [{{ name: "{each.name}", data_type: {_TYPES[each.datatype]}, dims: {list(each.shape)} }}]'
        for kind, tensors in (("input", model.inputs), ("output", model.outputs))
        for each in tensors
    )
    group = f"instance_group: [{{ kind: KIND_CPU, count: {INSTANCES} }}]"
    (folder / "config.pbtxt").write_text(f'name: "{model.name}"\nbackend: "python"\n{ports}\n{group}\n')
