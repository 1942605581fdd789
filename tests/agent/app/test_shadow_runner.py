"""A shadow run beside the serving path: compares what it can, skips the rest, and never holds up an answer."""

import threading
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest

from agent import limits
from agent.app.ports import Tensor
from agent.app.serving import Serving
from agent.app.shadow_runner import ShadowRunner
from agent.app.shadowing import Shadows
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.domain.errors import DeviceHungError
from agent.domain.reconcile import candidate_slot
from agent.domain.slot import CandidateVersion, DesiredSlot, ShadowRun, ShadowState
from tests.agent.storage.test_result_log import result
from tests.support.serving import (
    SIGNATURE,
    FakeModel,
    MemoryComparisons,
    MemoryOffers,
    MemoryResults,
    NoSamples,
    RealClock,
    desired_slot,
)

WAIT_SECONDS = 20.0
INPUT = {"x": np.zeros((1, 3), np.float32)}


class Lane:
    """One run over a fake candidate."""

    def __init__(self) -> None:
        self.comparisons = MemoryComparisons()
        self.samples = NoSamples()
        self.traffic = Traffic()
        self.ended = threading.Event()
        self.runners: list[ShadowRunner] = []

    def run(self, model: FakeModel, *, comparisons_max: int = 1000, p99_ms_max: float = 0.0) -> ShadowRunner:
        version = CandidateVersion(version=2, artifact=desired_slot(2).artifact, signature=SIGNATURE)
        shadow = ShadowRun(candidate=version, comparisons_max=comparisons_max, serving_latency_ms_p99_max=p99_ms_max)
        runner = ShadowRunner(
            candidate_slot(desired_slot(1), version),
            shadow,
            model,
            compared=0,
            results=self.comparisons,
            samples=self.samples,
            traffic=self.traffic,
            clock=RealClock(),
            turn=threading.Lock(),
            on_end=self.ended.set,
        )
        self.runners.append(runner)
        runner.start()
        return runner


@pytest.fixture
def lane() -> Iterator[Lane]:
    found = Lane()
    yield found
    for runner in found.runners:
        runner.end()


def gate() -> tuple[threading.Event, threading.Event, Callable[[], None]]:
    """Entered, go on, and what a model does between them."""
    entered, go_on = threading.Event(), threading.Event()

    def during() -> None:
        entered.set()
        assert go_on.wait(WAIT_SECONDS)

    return entered, go_on, during


def test_a_run_is_complete_after_enough_comparisons_and_frees_the_candidate(lane: Lane) -> None:
    model = FakeModel(score=0.75)
    runner = lane.run(model, comparisons_max=3)
    while not lane.ended.is_set():
        runner.offer(INPUT, [result(score=0.95)])
        lane.ended.wait(0.01)
    runner.end()
    assert (runner.state, runner.compared) == (ShadowState.COMPLETE, 3)
    assert model.closed == 1
    assert [each.pair.candidate_version for each in lane.comparisons.comparisons] == [2] * 3
    first = lane.comparisons.comparisons[0]
    assert (first.agreed, first.failed) == (False, False), "ok against defect"
    assert first.score_distance == pytest.approx(0.7)
    runner.offer(INPUT, [result()])
    assert len(lane.comparisons.comparisons) == 3


def test_a_candidate_that_hangs_ends_the_run_and_says_so(lane: Lane) -> None:
    """It would keep the run, and the rollout that waits for it, for ever."""

    class Hanging(FakeModel):
        def infer(self, inputs: Mapping[str, Tensor], **bounds: object) -> Mapping[str, Tensor]:
            assert bounds["answer_seconds_max"], "nobody would ever look"
            raise DeviceHungError(f"no answer from FAKE within {bounds['answer_seconds_max']:g} s")

    model = Hanging()
    runner = lane.run(model)
    runner.offer(INPUT, [result()])
    assert lane.ended.wait(WAIT_SECONDS)
    runner.end()
    assert (runner.state, runner.compared, model.closed) == (ShadowState.FAILED, 0, 1)
    assert runner.message == "the candidate hangs: no answer from FAKE within 30 s; publish a mended version"


def test_what_finds_no_room_is_skipped_and_counted(lane: Lane) -> None:
    entered, go_on, during = gate()
    runner = lane.run(FakeModel(during=during))
    runner.offer(INPUT, [result()])
    assert entered.wait(WAIT_SECONDS)
    for _ in range(10):
        runner.offer(INPUT, [result()])
    go_on.set()
    runner.end()
    skipped = sum(count for _, count in lane.comparisons.skipped)
    assert skipped == 10 - limits.SHADOW_QUEUE_MAX
    assert len(lane.comparisons.comparisons) <= 1 + limits.SHADOW_QUEUE_MAX


def test_a_candidate_gets_nothing_while_somebody_waits_for_an_answer(lane: Lane) -> None:
    entered, go_on, during = gate()
    runner = lane.run(FakeModel(during=during))
    with lane.traffic.request():
        runner.offer(INPUT, [result()])
        assert not entered.wait(0.2)
    assert entered.wait(WAIT_SECONDS)
    go_on.set()


def test_a_run_stops_itself_when_the_serving_version_becomes_slow(lane: Lane) -> None:
    model = FakeModel()
    runner = lane.run(model, p99_ms_max=10.0)
    for _ in range(3):
        runner.offer(INPUT, [result(latency_us=50_000)])
    assert not lane.ended.wait(0.2), "three slow ones may be one in a hundred"
    runner.offer(INPUT, [result(latency_us=50_000)])
    assert lane.ended.wait(WAIT_SECONDS)
    runner.end()
    assert runner.state is ShadowState.STOPPED
    assert "more than 10 ms" in runner.message
    assert model.closed == 1


def test_inferences_that_fail_are_compared_and_agree_with_nothing(lane: Lane) -> None:
    runner = lane.run(FakeModel(fails=True), comparisons_max=1)
    runner.offer(INPUT, [result()])
    assert lane.ended.wait(WAIT_SECONDS)
    assert runner.state is ShadowState.COMPLETE
    assert runner.compared == 1, "else the run would be taken for unfinished and begun again"
    assert [each.failed for each in lane.comparisons.comparisons] == [True]


def test_a_candidate_that_fails_in_an_unknown_way_ends_its_run_alone(lane: Lane) -> None:
    def fail() -> None:
        raise MemoryError("of the candidate")

    model = FakeModel(during=fail)
    runner = lane.run(model)
    runner.offer(INPUT, [result()])
    assert lane.ended.wait(WAIT_SECONDS)
    runner.end()
    assert runner.state is ShadowState.FAILED
    assert "of the candidate" in runner.message
    assert model.closed == 1


def test_an_answer_is_given_while_the_candidate_hangs() -> None:
    """The whole way: Serving, Shadows and a candidate that takes for ever."""
    entered, go_on, during = gate()
    traffic, comparisons, results = Traffic(), MemoryComparisons(), MemoryResults()
    shadows = Shadows(results=comparisons, samples=NoSamples(), traffic=traffic, clock=RealClock())
    serving = Serving(
        clock=RealClock(), results=results, samples=MemoryOffers(results), shadows=shadows, traffic=traffic
    )
    serving.swap(desired_slot(1), FakeModel())
    wanted, version = desired_slot(1), desired_slot(2)
    shadow = ShadowRun(
        candidate=CandidateVersion(version=2, artifact=version.artifact, signature=SIGNATURE), comparisons_max=100
    )
    wanted = _shadowed(wanted, shadow)
    candidate = candidate_slot(wanted, shadow.candidate)
    shadows.begin(candidate)
    shadows.run(wanted, candidate, FakeModel(during=during), serving_signature=SIGNATURE)
    image = InputTensor(name="x", datatype="FP32", shape=(1, 3), data=np.zeros((1, 3), np.float32).tobytes())
    serving.infer("cells", None, [image])
    assert entered.wait(WAIT_SECONDS)
    for _ in range(20):
        assert serving.infer("cells", None, [image]).model.version == 1
    assert len(results.results) == 21
    go_on.set()
    observed = shadows.observed(wanted)
    assert observed is not None
    assert observed.state is ShadowState.RUNNING


def test_memory_that_may_be_used_again_is_copied(lane: Lane) -> None:
    """An application's buffer changes as soon as it is answered."""
    seen: list[float] = []
    buffer = np.ones((1, 3), np.float32)
    view = buffer.view()
    view.flags.writeable = False

    class Looking(FakeModel):
        def infer(self, inputs: Mapping[str, Tensor], **_: object) -> Mapping[str, Tensor]:
            seen.append(float(inputs["x"].sum()))
            return super().infer(inputs)

    runner = lane.run(Looking(), comparisons_max=1)
    with lane.traffic.request():
        runner.offer({"x": view}, [result()])
        buffer[:] = 9.0
    assert lane.ended.wait(WAIT_SECONDS)
    assert seen == [3.0]


def _shadowed(slot: DesiredSlot, shadow: ShadowRun) -> DesiredSlot:
    return DesiredSlot(
        slot=slot.slot,
        version=slot.version,
        deployment=slot.deployment,
        artifact=slot.artifact,
        signature=slot.signature,
        runtime_policy=slot.runtime_policy,
        sample_policy=slot.sample_policy,
        shadow=shadow,
    )
