"""Prefetch and shadow with everything real but the controller: OpenVINO, disk, result log, serving path."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.conditions import Conditions
from agent.app.executor import Executor
from agent.app.serving import Serving
from agent.app.shadowing import Shadows
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.clock import SystemClock
from agent.domain.device import RuntimePolicy
from agent.domain.slot import CandidateVersion, DesiredSlot, DesiredState, SamplePolicy, ShadowRun, ShadowState
from agent.runtime.openvino_runtime import OpenVinoRuntime
from agent.storage.artifact_cache import DiskArtifactCache
from agent.storage.result_log import DiskResultLog
from agent.storage.state_file import JsonStateFile
from tests.support.fake_controller import FakeController
from tests.support.models import artifact_of, classifier_ir, signature_of
from tests.support.serving import MemoryOffers, MemoryResults, NoSamples

pytestmark = pytest.mark.openvino

IMAGE = InputTensor(name="x", datatype="FP32", shape=(1, 3, 8, 8), data=np.zeros((1, 3, 8, 8), np.float32).tobytes())
WAIT_SECONDS = 60


class Box:
    """An agent's core in a folder."""

    def __init__(self, root: Path, controller: FakeController) -> None:
        clock, traffic = SystemClock(), Traffic()
        self.log = DiskResultLog(root / "spool", clock=clock)
        shadows = Shadows(results=self.log, samples=NoSamples(), traffic=traffic, clock=clock)
        self.serving = Serving(
            clock=clock, results=self.log, samples=MemoryOffers(MemoryResults()), shadows=shadows, traffic=traffic
        )
        self.runtime = OpenVinoRuntime(compiled_folder=root / "compiled")
        self.executor = Executor(
            runtime=self.runtime,
            serving=self.serving,
            cache=DiskArtifactCache(root, clock=clock, reserve_bytes=0),
            controller=controller,
            state_file=JsonStateFile(root / "state.json"),
            shadows=shadows,
            conditions=Conditions(clock),
            clock=clock,
            rng=random.Random(1),
        )
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.executor.subscribe(self._wake)

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self.changed.set)

    async def reach(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    def shadow_state(self) -> ShadowState | None:
        (slot,) = self.executor.observed()
        return slot.shadow.state if slot.shadow is not None else None

    def prefetched(self) -> int:
        return next((slot.prefetched_version for slot in self.executor.observed()), 0)

    def serves(self) -> int:
        return next((model.version for model in self.serving.models()), 0)


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEASURE_SECONDS", 0.05)


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    found = Box(tmp_path / "agent", FakeController())
    await found.executor.start()
    task = asyncio.create_task(found.executor.run())
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    found.serving.close()


def version(root: Path, box: Box, number: int, *, bias: float) -> CandidateVersion:
    path = classifier_ir(root / f"v{number}", bias=bias)
    artifact = artifact_of(path.parent)
    controller = box.executor._controller
    assert isinstance(controller, FakeController)
    controller.blobs.update({file.digest: (path.parent / file.path).read_bytes() for file in artifact.files})
    return CandidateVersion(version=number, artifact=artifact, signature=signature_of(path))


def desired(version: CandidateVersion) -> DesiredSlot:
    return DesiredSlot(
        slot="cells",
        version=version.version,
        deployment="deployments/all",
        artifact=version.artifact,
        signature=version.signature,
        runtime_policy=RuntimePolicy(inference_precision="f32"),
        sample_policy=SamplePolicy(random_fraction=0.0, confidence_below=0.0, budget_bytes_per_day=0),
    )


async def test_the_swap_to_a_prefetched_version_compiles_nothing(box: Box, tmp_path: Path) -> None:
    one, two = version(tmp_path, box, 1, bias=0.7), version(tmp_path, box, 2, bias=-0.7)
    await box.executor.desire(DesiredState(generation=1, slots=(replace(desired(one), prefetch=two),)))
    await box.reach(lambda: box.prefetched() == 2)
    assert box.serves() == 1
    box.runtime._child_command = ("a-child-that-cannot-be-started",)
    await box.executor.desire(DesiredState(generation=2, slots=(desired(two),)))
    await box.reach(lambda: box.serves() == 2)
    ((served),) = box.serving._slots.values()
    loaded = served.loaded
    assert loaded._loaded._compiled.get_property("LOADED_FROM_CACHE")  # type: ignore[attr-defined]


async def test_a_candidate_in_shadow_is_compared_on_what_applications_ask(box: Box, tmp_path: Path) -> None:
    one, two = version(tmp_path, box, 1, bias=0.7), version(tmp_path, box, 2, bias=-0.7)
    shadow = ShadowRun(candidate=two, comparisons_max=5)
    await box.executor.desire(DesiredState(generation=1, slots=(replace(desired(one), shadow=shadow),)))
    await box.reach(lambda: box.shadow_state() is ShadowState.RUNNING)
    while box.shadow_state() is ShadowState.RUNNING:
        answer = await asyncio.to_thread(box.serving.infer, "cells", None, [IMAGE])
        assert answer.model.version == 1
    assert box.shadow_state() is ShadowState.COMPLETE
    box.log.seal(force=True)
    batches = [box.log.read(number) for number in box.log.pending()]
    windows = [evidence_pb2.ShadowWindow.FromString(each) for batch in batches for each in batch.shadow_windows]
    assert sum(window.compared_count for window in windows) == 5
    assert sum(window.agreed_count for window in windows) == 0, "their biases differ in sign"
    assert sum(window.error_count for window in windows) == 0
    assert sum(window.candidate_latency.count for window in windows) == 5
    results = sum(len(batch.results) for batch in batches)
    assert sum(window.compared_count + window.skipped_count for window in windows) <= results
