"""The child of a bench: loads the version once, then serves it or runs it bare, as it is told a line of JSON at a time.

It answers each line with one of its own, and ends when its standard input does.
"""

import asyncio
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from agent.app.conditions import Conditions
from agent.app.input_watch import InputWatch
from agent.app.ports import Tensor
from agent.app.sampling import SampleCollector
from agent.app.serving import Serving
from agent.app.shadowing import Shadows
from agent.app.traffic import Traffic
from agent.benchmark.example import example_inputs
from agent.clock import SystemClock
from agent.domain.device import Configuration
from agent.observability import configure_logging
from agent.rpc.inference_grpc import start_grpc_server
from agent.rpc.shared_memory import SharedMemory
from agent.runtime.infer import OpenVinoModel
from agent.runtime.openvino_runtime import OpenVinoRuntime
from agent.storage import state_codec
from agent.storage.baseline_file import JsonBaselineFile
from agent.storage.result_log import DiskResultLog
from agent.storage.sample_spool import DiskSampleSpool


def main() -> None:
    """Arguments: the state file, the slot, the artifact's folder, a folder of the bench's own, the prefix of keys."""
    configure_logging(level="ERROR")
    state, slot, artifact, work, prefix = sys.argv[1:]
    record = next(each for each in state_codec.decode(Path(state).read_bytes()).serving if each.desired.slot == slot)
    runtime = OpenVinoRuntime(compiled_folder=Path(work) / "compiled")
    configuration: Configuration = record.choice.configuration
    desired = record.desired
    loaded = asyncio.run(runtime.load(Path(artifact), desired.signature, desired.runtime_policy, configuration))
    clock = SystemClock()
    results = DiskResultLog(Path(work) / "results", clock=clock)
    traffic = Traffic()
    spool = DiskSampleSpool(Path(work) / "samples", clock=clock)
    rng = random.Random(0)  # noqa: S311 - sampling, no secrets
    watch = InputWatch(results, JsonBaselineFile(Path(work) / "samples"), clock=clock, rng=rng)
    samples = SampleCollector(spool, watch, conditions=Conditions(clock), clock=clock, rng=rng)
    serving = Serving(
        clock=clock,
        results=results,
        samples=samples,
        shadows=Shadows(results=results, samples=samples, traffic=traffic, clock=clock),
        traffic=traffic,
    )
    serving.swap(desired, loaded)
    shared = SharedMemory(prefix)
    server, port = start_grpc_server(serving, "127.0.0.1:0", shared=shared)
    _say({"address": f"127.0.0.1:{port}", "device": loaded.device, "requests": loaded.optimal_requests})
    inputs = example_inputs(desired.signature)
    for line in sys.stdin:
        order = json.loads(line)
        _say(run_bare(loaded, inputs, seconds=order["seconds"], in_flight=order["in_flight"]))
    server.stop(1).wait()
    serving.close()
    shared.close()
    results.close()


def run_bare(model: OpenVinoModel, inputs: dict[str, Tensor], *, seconds: float, in_flight: int) -> dict[str, Any]:
    """OpenVINO alone, as many threads as requests in flight, each waiting for an InferRequest as requests do."""
    deadline = time.perf_counter() + seconds

    def work(_: int) -> list[float]:
        taken = []
        while time.perf_counter() < deadline:
            begun = time.perf_counter()
            model.infer(inputs)
            taken.append(time.perf_counter() - begun)
        return taken

    begun = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as threads:
        taken = [each for part in threads.map(work, range(in_flight)) for each in part]
    return summary(taken, time.perf_counter() - begun)


def summary(taken: list[float], seconds: float) -> dict[str, float]:
    """Of the times of every inference within `seconds`."""
    return {
        "per_second": len(taken) / seconds,
        "p50_ms": float(np.percentile(taken, 50)) * 1e3 if taken else 0.0,
        "p99_ms": float(np.percentile(taken, 99)) * 1e3 if taken else 0.0,
    }


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
