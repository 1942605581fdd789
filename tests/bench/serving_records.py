"""What measuring, result records and sample offers cost together, in throughput; prints the two rates as JSON.

The same Serving over the same compiled model, called by threads of this process with nothing between: once as the agent
has it, once with recorders that do nothing. Nowhere but here can it be had so.
"""

import argparse
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import openvino as ov

from agent.app import ports
from agent.app.conditions import Conditions
from agent.app.input_watch import InputWatch
from agent.app.ports import SampleOffers, ShadowOffers
from agent.app.sampling import SampleCollector
from agent.app.serving import Serving
from agent.app.shadowing import Shadows
from agent.app.tensors import NUMPY_TYPES, InputTensor
from agent.app.traffic import Traffic
from agent.clock import SystemClock
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.result import Result
from agent.domain.slot import SamplePolicy
from agent.runtime.infer import OpenVinoModel
from agent.storage.baseline_file import JsonBaselineFile
from agent.storage.result_log import DiskResultLog
from agent.storage.sample_spool import DiskSampleSpool
from tests.bench.serving_models import HINT, PRECISION, BenchModel, Tensor
from tests.support.serving import desired_slot

SAMPLES = SamplePolicy(random_fraction=0.001, confidence_below=0.0, budget_bytes_per_day=64 << 20)
"""One image in a thousand, as a station would have it."""


class Nothing:
    """A result log, and offers, that forget."""

    def append(self, results: Sequence[Result]) -> None:
        """Nothing."""

    def count_refused(self, slot: str, version: int) -> None:
        """Nothing."""

    def offer(self, inputs: Mapping[str, ports.Tensor], results: Sequence[Result], policy: object = None) -> None:
        """Nothing."""

    def offer_disagreement(
        self, inputs: Mapping[str, ports.Tensor], results: Sequence[Result], index: int, policy: object = None
    ) -> None:
        """Nothing."""


def run(model: BenchModel, *, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Inferences a second with and without, in turn."""
    compiled = ov.Core().compile_model(
        model.path,
        "CPU",
        {"PERFORMANCE_HINT": HINT, "INFERENCE_PRECISION_HINT": PRECISION, "ENABLE_CPU_PINNING": False},
    )
    signature = ModelSignature(entry_path=model.path.name, inputs=_specs(model.inputs), outputs=_specs(model.outputs))
    clock, traffic = SystemClock(), Traffic()
    with TemporaryDirectory(prefix="lineside-bench-") as folder:
        log = DiskResultLog(Path(folder) / "results", clock=clock)
        spool = DiskSampleSpool(Path(folder) / "samples", clock=clock)
        watch = InputWatch(log, JsonBaselineFile(Path(folder) / "samples"), clock=clock, rng=random.Random(1))
        collector = SampleCollector(spool, watch, conditions=Conditions(clock), clock=clock, rng=random.Random(0))
        collector.start()
        nothing = Nothing()
        shadows = Shadows(results=log, samples=collector, traffic=traffic, clock=clock)
        pairs: tuple[tuple[str, DiskResultLog | Nothing, SampleOffers, ShadowOffers], ...] = (
            ("with", log, collector, shadows),
            ("without", nothing, nothing, nothing),
        )
        servings = {}
        for name, results, samples, offers in pairs:
            served = Serving(clock=clock, results=results, samples=samples, shadows=offers, traffic=traffic)
            slot = replace(desired_slot(1, slot=model.name, signature=signature), sample_policy=SAMPLES)
            served.swap(slot, OpenVinoModel(compiled, device="CPU", signature=signature))
            servings[name] = served
        rates: dict[str, list[float]] = {name: [] for name in servings}
        for serving in servings.values():
            _rate(serving, model, seconds=0.5)
        for _ in range(rounds):
            for name, serving in servings.items():
                rates[name].append(_rate(serving, model, seconds=seconds))
        collector.stop()
        log.close()
    return rates


def _rate(serving: Serving, model: BenchModel, *, seconds: float) -> float:
    inputs = [
        InputTensor(
            name=each.name,
            datatype=each.datatype,
            shape=each.shape,
            data=np.full(each.shape, 0.5, NUMPY_TYPES[each.datatype]),
        )
        for each in model.inputs
    ]
    counts = [0, 0, 0]
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        while time.perf_counter() < end:
            serving.infer(model.name, None, inputs, application=str(number))
            counts[number] += 1

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(len(counts))]
    begin = time.perf_counter()
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    return sum(counts) / (time.perf_counter() - begin)


def _specs(tensors: Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=each.name, datatype=each.datatype, shape=each.shape) for each in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    model = BenchModel(name=options.model.parent.name, path=options.model)
    print(json.dumps(run(model, rounds=options.rounds, seconds=options.seconds)))


if __name__ == "__main__":
    main()
