"""In the child: compile a model, check it, and measure briefly. The compile cache is warm afterwards."""

import math
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import psutil

from agent import limits
from agent.domain.device import Configuration, Parity, PerformanceHint
from agent.runtime.compile import CompileTarget, compile_target, request_count, streams_used
from agent.runtime.golden import Agreement, check, read_golden

_MEASURED_MIN = 3
"""Inferences measured even where one takes longer than the measurement should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Milliseconds of one request after another, and inferences a second with every InferRequest busy."""

    compile_seconds: float
    latency_ms_p50: float
    latency_ms_p99: float
    throughput_per_second: float
    memory_bytes: int
    streams_used: int
    parity: Parity
    difference: float
    mismatch: str


def measure(core: ov.Core, request: dict[str, Any]) -> dict[str, Any]:
    """Compile, first-infer and check against golden files; with `seconds` above 0 measure too, unless the check failed.
    Raises RuntimeError of OpenVINO, ValueError where the golden files are no such."""
    target = CompileTarget(
        model=Path(request["model"]),
        configuration=Configuration(
            device=request["device"], streams=request["streams"], precision=request["precision"]
        ),
        hint=PerformanceHint(request["hint"]),
        cache=Path(request["cache"]),
    )
    before_bytes = _resident_bytes()
    begun = time.perf_counter()
    compiled = compile_target(core, target)
    compile_seconds = time.perf_counter() - begun
    inputs = example_inputs(compiled)
    compiled.create_infer_request().infer(inputs, share_inputs=True)
    parity, agreement = _parity(compiled, request)
    seconds = 0.0 if parity is Parity.FAILED else float(request["seconds"])
    latencies_ms = _latencies_ms(compiled, inputs, seconds) if seconds else [0.0]
    measured = Measured(
        compile_seconds=compile_seconds,
        latency_ms_p50=_percentile(latencies_ms, 0.5),
        latency_ms_p99=_percentile(latencies_ms, 0.99),
        throughput_per_second=_throughput_per_second(compiled, inputs, seconds) if seconds else 0.0,
        memory_bytes=max(0, _resident_bytes() - before_bytes),
        streams_used=streams_used(compiled),
        parity=parity,
        difference=agreement.difference,
        mismatch=agreement.failure,
    )
    return asdict(measured)


def _parity(compiled: Any, request: dict[str, Any]) -> tuple[Parity, Agreement]:
    if not request["golden"]:
        return Parity.NOT_CHECKED, Agreement(difference=0.0)
    golden = read_golden(Path(request["golden"]))
    agreement = check(compiled, golden, inputs=request["inputs"], outputs=request["outputs"])
    return (Parity.FAILED if agreement.failure else Parity.PASSED), agreement


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def _percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def example_inputs(compiled: Any) -> dict[int, Any]:
    """One item a model: a fixed noise for floats, zeros for integers (they may be indices)."""
    rng = np.random.default_rng(0)
    return {index: _example(port, rng) for index, port in enumerate(compiled.inputs)}


def _example(port: Any, rng: np.random.Generator) -> Any:
    shape = [_size(dimension, first=place == 0) for place, dimension in enumerate(port.partial_shape)]
    kind = port.element_type
    if kind.is_real():
        values = rng.random(shape, dtype=np.float32)
        tensor = ov.Tensor(kind, ov.Shape(shape))
        if kind.get_type_name() == "bf16":
            return ov.Tensor((values.view(np.uint32) >> 16).astype(np.uint16), ov.Shape(shape), kind)
        tensor.data[...] = values
        return tensor
    return ov.Tensor(np.zeros(shape, kind.to_dtype()))


def _size(dimension: Any, *, first: bool) -> int:
    if dimension.is_static:
        return int(dimension.get_length())
    wanted = 1 if first else limits.DYNAMIC_DIMENSION_MEASURED
    lowest, highest = int(dimension.get_min_length()), int(dimension.get_max_length())
    return max(lowest, min(wanted, highest) if highest > 0 else wanted, 1)


def _latencies_ms(compiled: Any, inputs: dict[int, Any], seconds: float) -> list[float]:
    request = compiled.create_infer_request()
    request.infer(inputs, share_inputs=True)
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(taken) < _MEASURED_MIN or (time.perf_counter() < deadline and len(taken) < limits.MEASURE_INFERENCES_MAX):
        begun = time.perf_counter()
        request.infer(inputs, share_inputs=True)
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def _throughput_per_second(compiled: Any, inputs: dict[int, Any], seconds: float) -> float:
    """Inferences a second of one thread an InferRequest, each with its first inference already done."""
    requests = [compiled.create_infer_request() for _ in range(request_count(compiled))]
    for request in requests:
        request.infer(inputs, share_inputs=True)
    counts = [0] * len(requests)
    failures: list[BaseException] = []
    deadline = time.perf_counter() + seconds

    def work(place: int) -> None:
        try:
            while counts[place] < _MEASURED_MIN or (
                time.perf_counter() < deadline and counts[place] < limits.MEASURE_INFERENCES_MAX
            ):
                requests[place].infer(inputs, share_inputs=True)
                counts[place] += 1
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(requests))]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - begun)
