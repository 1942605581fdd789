"""A device that dies under a version: the next best answers, and no request is lost."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from agent import limits
from agent.app import conditions
from agent.app.conditions import Conditions
from agent.app.device_watch import DeviceWatch
from agent.app.fallback import FallbackModel, Fallbacks
from agent.app.ports import Tensor
from agent.app.serving import Serving
from agent.app.tensors import InputTensor
from agent.app.traffic import Traffic
from agent.clock import SystemClock
from agent.domain.artifact import ModelSignature, TensorSpec
from agent.domain.device import Configuration, DeviceChoice, DeviceMeasurement, PerformanceHint, RuntimePolicy
from agent.domain.device_choice import choose
from agent.domain.errors import BehindHungError, DeviceHungError, PrepareError, Reason, RequestError
from agent.domain.slot import DesiredSlot
from tests.support.agent_core import FakeRuntime, wanted
from tests.support.serving import MemoryOffers, MemoryResults, NoShadows, RealClock

SIGNATURE = ModelSignature(
    entry_path="m.xml",
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
)
GOOD = {"x": np.ones((1, 2), np.float32)}
BAD = {"x": np.full((1, 2), -1, np.float32)}
"""An input that no device takes."""
ENDLESS = 7.0
SLOW = {"x": np.full((1, 2), ENDLESS, np.float32)}
"""An input on which no device comes to an end."""


@dataclass(slots=True)
class MortalModel:
    """Answers with its device's number, as long as the device lives."""

    device: str
    signature: ModelSignature = SIGNATURE
    optimal_requests: int = 1
    dead: threading.Event = field(default_factory=threading.Event)
    hung: threading.Event = field(default_factory=threading.Event)
    """No inference ends, as it says as soon as it is asked how long it may take."""
    begins: bool = True
    """What does not end had begun; else it waits for others."""
    allowed: list[float | None] = field(default_factory=list)
    closed: int = 0
    answered: int = 0

    def infer(
        self,
        inputs: Mapping[str, Tensor],
        *,
        begin_seconds: Callable[[], float] | None = None,
        answer_seconds_max: float | None = None,
    ) -> Mapping[str, Tensor]:
        assert not self.closed, "an inference on a closed model"
        self.allowed.append(answer_seconds_max)
        if answer_seconds_max is not None and (self.hung.is_set() or float(inputs["x"].max()) == ENDLESS):
            raise (DeviceHungError if self.begins else BehindHungError)("no answer")
        if self.dead.is_set() or float(inputs["x"].min()) < 0:
            raise RequestError("device lost", reason=Reason.INFERENCE_FAILED)
        self.answered += 1
        return {"y": np.full(inputs["x"].shape, len(self.device), np.float32)}

    def close(self) -> None:
        self.closed += 1


class MortalRuntime(FakeRuntime):
    """Loads mortal models, but not on what is in `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.models: list[MortalModel] = []
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(  # type: ignore[override]
        self, folder: Path, signature: ModelSignature, policy: RuntimePolicy, configuration: Configuration
    ) -> MortalModel:
        await self.gate.wait()
        if configuration.device in self.broken:
            raise PrepareError("no such device", reason=Reason.LOAD_FAILED)
        self.models.append(MortalModel(configuration.device))
        return self.models[-1]


def measured(device: str, latency: float, **changes: object) -> DeviceMeasurement:
    found = DeviceMeasurement(device=device, ok=True, latency_ms_p50=latency, throughput_per_second=1.0)
    return replace(found, **changes)  # type: ignore[arg-type]


CHOICE = choose(
    [
        measured("GPU.0", 1.0),
        measured("AUTO:GPU.0,CPU", 1.5),
        measured("CPU", 2.0),
        measured("NPU", 4.0),
        measured("WRONG", 0.1, ok=False, failure=Reason.PARITY_FAILED),
    ],
    PerformanceHint.LATENCY,
)
WANTED = replace(wanted(1), signature=SIGNATURE)


@dataclass(slots=True)
class World:
    runtime: MortalRuntime
    watch: DeviceWatch
    told: Conditions
    fallbacks: Fallbacks
    taken: list[FallbackModel]
    still_serves: bool = True

    def condition(self) -> str:
        return next((each.message for each in self.told.all() if each.type == conditions.DEVICES_ANSWER), "")


@pytest.fixture
async def world() -> World:
    clock, runtime = SystemClock(), MortalRuntime()
    watch, told, taken = DeviceWatch(runtime=runtime, clock=clock, on_change=lambda: None), Conditions(clock), []

    def took_over(slot: DesiredSlot, lost: DeviceChoice, successor: FallbackModel) -> bool:
        taken.append(successor)
        return found.still_serves

    found = World(runtime, watch, told, Fallbacks(runtime=runtime, watch=watch, told=told, took_over=took_over), taken)
    return found


async def test_every_request_is_answered_when_the_device_dies_under_many(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(8) as pool:
        world.runtime.gate.clear()
        before = [loop.run_in_executor(pool, model.infer, GOOD) for _ in range(20)]
        await asyncio.gather(*before)
        world.runtime.models[0].dead.set()
        during = [loop.run_in_executor(pool, model.infer, GOOD) for _ in range(40)]
        world.runtime.gate.set()
        answers = await asyncio.gather(*during)
    assert {float(answer["y"][0, 0]) for answer in answers} == {len("CPU")}
    (successor,) = world.taken
    assert (model.device, successor.device) == ("CPU", "CPU")
    assert successor.choice.configuration == Configuration(device="CPU")
    assert "GPU.0 was lost: device lost" in successor.choice.reason
    assert "CPU answers instead" in world.condition()
    assert world.watch.lost == {"GPU.0"}


async def test_an_input_that_no_device_takes_loses_nothing(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    for _ in range(10):
        with pytest.raises(RequestError):
            await asyncio.to_thread(model.infer, BAD)
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("GPU.0")
    assert world.taken == []
    assert world.watch.lost == frozenset()


async def test_a_second_device_may_die_too_and_the_last_has_no_successor(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    for expected in ("CPU", "NPU"):
        world.runtime.models[-1].dead.set()
        assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len(expected)
        assert model.device == expected
    world.runtime.models[-1].dead.set()
    with pytest.raises(RequestError) as caught:
        await asyncio.to_thread(model.infer, GOOD)
    assert caught.value.reason is Reason.INFERENCE_FAILED
    assert "nothing answers instead" in world.condition()
    world.runtime.models[-1].dead.clear()
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("NPU"), "the device is back"


def test_a_successor_that_is_refused_at_once_costs_the_request_its_own_error() -> None:
    """The answer may be there before anyone waits for it."""
    lost = MortalModel("GPU.0")
    asked: list[str] = []

    def nothing(model: FallbackModel, why: str) -> "Future[FallbackModel | None]":
        asked.append(why)
        done: Future[FallbackModel | None] = Future()
        done.set_result(None)
        return done

    model = FallbackModel(lost, CHOICE, nothing)
    lost.dead.set()
    for _ in range(2):
        with pytest.raises(RequestError, match="device lost"):
            model.infer(GOOD)
    assert asked == ["device lost", "device lost"], "each failure looks again"


async def test_a_slow_successor_costs_the_request_and_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FALLBACK_WAIT_SECONDS_MAX", 0.05)
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    world.runtime.gate.clear()
    world.runtime.models[0].dead.set()
    with pytest.raises(RequestError, match="device lost"):
        await asyncio.to_thread(model.infer, GOOD)
    world.runtime.gate.set()
    monkeypatch.setattr(limits, "FALLBACK_WAIT_SECONDS_MAX", 5.0)
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("CPU")


async def test_a_request_that_waits_for_a_successor_ends_at_its_deadline(world: World) -> None:
    """Whether the successor is late, or the deadline was over before it was looked for."""
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    world.runtime.gate.clear()
    world.runtime.models[0].dead.set()
    for left_seconds in (0.05, -0.1):
        with pytest.raises(RequestError) as caught:
            await asyncio.to_thread(model.infer, GOOD, begin_seconds=partial(float, left_seconds))
        assert caught.value.reason is Reason.DEADLINE_EXCEEDED
        assert caught.value.remedy
    world.runtime.gate.set()
    answered = await asyncio.to_thread(model.infer, GOOD, begin_seconds=lambda: 20.0)
    assert answered["y"][0, 0] == len("CPU"), "the device counts as lost all the same"


def test_a_successor_that_is_there_at_once_begins_nothing_after_the_deadline() -> None:
    lost, heir = MortalModel("GPU.0"), MortalModel("CPU")
    done: Future[FallbackModel | None] = Future()
    model = FallbackModel(lost, CHOICE, lambda model, why: done)
    done.set_result(FallbackModel(heir, CHOICE, lambda model, why: done))
    lost.dead.set()
    answered = heir.answered
    with pytest.raises(RequestError) as caught:
        model.infer(GOOD, begin_seconds=lambda: -0.1)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert heir.answered == answered


async def test_a_deadline_holds_in_serving_while_a_device_is_replaced(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    results = MemoryResults()
    serving = Serving(
        clock=RealClock(), results=results, samples=MemoryOffers(results), shadows=NoShadows(), traffic=Traffic()
    )
    serving.swap(WANTED, model)
    world.runtime.gate.clear()
    world.runtime.models[0].dead.set()
    image = InputTensor(name="x", datatype="FP32", shape=(1, 2), data=GOOD["x"].tobytes())
    with pytest.raises(RequestError) as caught:
        await asyncio.to_thread(serving.infer, WANTED.slot, None, [image], deadline_seconds=0.1)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert results.refused == [(WANTED.slot, 1)]
    assert results.results == [], "refused, not failed"
    world.runtime.gate.set()
    answer = await asyncio.to_thread(serving.infer, WANTED.slot, None, [image], deadline_seconds=20)
    assert answer.outputs["y"][0, 0] == len("CPU")
    serving.close()


async def test_what_cannot_be_loaded_is_passed_over(world: World) -> None:
    world.runtime.broken = {"GPU.0", "CPU"}
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    assert model.device == "AUTO:GPU.0,CPU", "nothing was lost: it did not load"
    world.runtime.models[-1].dead.set()
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("NPU")
    world.runtime.broken = {each.device for each in CHOICE.measurements}
    with pytest.raises(PrepareError):
        await world.fallbacks.load(WANTED, CHOICE, Path("m"))


async def test_a_successor_is_closed_only_after_the_requests_that_came_to_it(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    world.runtime.models[0].dead.set()
    await asyncio.to_thread(model.infer, GOOD)
    (successor,) = world.taken
    successor.enter()
    successor.close()
    assert world.runtime.models[1].closed == 0
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("CPU")
    successor.leave()
    assert world.runtime.models[1].closed == 1
    with pytest.raises(RequestError) as caught:
        await asyncio.to_thread(model.infer, GOOD)
    assert caught.value.reason is Reason.MODEL_NOT_READY
    model.close()
    assert [each.closed for each in world.runtime.models] == [1, 1]


async def test_a_model_that_takes_no_example_is_judged_by_failures_in_a_row(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    model._example = None
    for _ in range(limits.LOST_AFTER_FAILURES - 1):
        with pytest.raises(RequestError):
            await asyncio.to_thread(model.infer, BAD)
    await asyncio.to_thread(model.infer, GOOD)
    assert world.taken == []
    world.runtime.models[0].dead.set()
    for _ in range(limits.LOST_AFTER_FAILURES - 1):
        with pytest.raises(RequestError):
            await asyncio.to_thread(model.infer, GOOD)
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("CPU")


async def test_a_device_that_hangs_is_left_and_only_what_hung_in_it_fails(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    world.runtime.models[0].hung.set()
    world.runtime.gate.clear()
    with pytest.raises(DeviceHungError) as caught:
        await asyncio.to_thread(model.infer, GOOD)
    assert caught.value.reason is Reason.INFERENCE_FAILED
    asked = len(world.runtime.models[0].allowed)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(4) as pool:
        waiting = [loop.run_in_executor(pool, model.infer, GOOD) for _ in range(20)]
        world.runtime.gate.set()
        answers = await asyncio.gather(*waiting)
    assert {float(answer["y"][0, 0]) for answer in answers} == {len("CPU")}
    assert len(world.runtime.models[0].allowed) == asked, "nobody else is sent to a device that hangs"
    assert world.watch.lost == {"GPU.0"}
    assert "no answer" in world.condition()


async def test_what_waited_for_one_that_hangs_is_answered_by_the_successor(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    (device,) = world.runtime.models
    device.hung.set()
    device.begins = False
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("CPU")
    assert world.watch.lost == {"GPU.0"}


async def test_what_waited_where_nothing_is_lost_fails(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    (device,) = world.runtime.models
    device.begins = False
    with pytest.raises(BehindHungError):
        await asyncio.to_thread(model.infer, SLOW)
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("GPU.0")
    assert world.watch.lost == frozenset()


async def test_an_input_that_never_ends_loses_no_device(world: World) -> None:
    """Else one application would take the box's devices down, one after the other."""
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    for _ in range(5):
        with pytest.raises(DeviceHungError):
            await asyncio.to_thread(model.infer, SLOW)
    assert (await asyncio.to_thread(model.infer, GOOD))["y"][0, 0] == len("GPU.0")
    assert world.watch.lost == frozenset()


async def test_a_deadline_holds_while_a_device_that_hangs_is_replaced(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    world.runtime.models[0].hung.set()
    world.runtime.gate.clear()
    with pytest.raises(DeviceHungError):
        await asyncio.to_thread(model.infer, GOOD)
    with pytest.raises(RequestError) as caught:
        await asyncio.to_thread(model.infer, GOOD, begin_seconds=partial(float, 0.05))
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED


async def test_a_device_that_hangs_and_has_no_successor_is_tried_again(world: World) -> None:
    model = await world.fallbacks.load(WANTED, CHOICE, Path("m"))
    world.runtime.broken = {each.device for each in CHOICE.measurements}
    (device,) = world.runtime.models
    device.hung.set()
    for _ in range(3):
        with pytest.raises(RequestError) as caught:
            await asyncio.to_thread(model.infer, GOOD)
        assert caught.value.reason is Reason.INFERENCE_FAILED
    device.hung.clear()

    async def answered() -> float:
        while True:
            try:
                return float((await asyncio.to_thread(model.infer, GOOD))["y"][0, 0])
            except RequestError:
                continue  # the search for another, which is in vain, is not over

    assert await asyncio.wait_for(answered(), 20) == len("GPU.0")


@pytest.mark.parametrize(
    ("latency_ms", "items", "familiar", "seconds"),
    [
        (1.0, 1, True, limits.HANG_SECONDS_MIN),
        (50.0, 1, True, 0.05 * limits.HANG_LATENCY_FACTOR),
        (50.0, 8, True, 8 * 0.05 * limits.HANG_LATENCY_FACTOR),
        (1.0, 2, False, limits.HANG_FIRST_SECONDS_MIN),
        (500.0, 1, False, 0.5 * limits.HANG_LATENCY_FACTOR),
        (None, 1, True, limits.HANG_FIRST_SECONDS_MIN),
    ],
)
def test_how_long_an_inference_may_take_follows_what_was_measured(
    latency_ms: float | None, items: int, familiar: bool, seconds: float
) -> None:
    measurements = [] if latency_ms is None else [measured("GPU.0", 0.1, latency_ms_p99=latency_ms)]
    choice = DeviceChoice(device="GPU.0", reason="measured", measurements=tuple(measurements))
    device = MortalModel("GPU.0")
    model = FallbackModel(device, choice, lambda model, why: Future())
    inputs = {"x": np.ones((items, 2), np.float32)}
    device.allowed.clear()
    model.infer(inputs)
    model.infer(inputs)
    assert device.allowed[int(familiar)] == pytest.approx(seconds)
