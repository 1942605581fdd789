"""Deliveries: each batch and sample exactly once, in order, whatever the controller does."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.app.conditions import DELIVERY_ACCEPTED, Conditions
from agent.app.ports import EvidenceBatch, SpooledSample
from agent.app.reporting import Delivery, evidence_delivery, sample_delivery, seal_regularly
from agent.domain.errors import ControllerError, Reason
from agent.storage.result_log import DiskResultLog
from agent.storage.sample_spool import DiskSampleSpool
from tests.agent.storage.test_result_log import result
from tests.support.clock import InlineExecutor, LoopClock
from tests.support.fake_controller import FakeController


class Desk:
    """A result log on disk with its delivery, restartable as by a kill."""

    def __init__(self, folder: Path, controller: FakeController) -> None:
        self.folder = folder
        self.controller = controller
        self.clock = LoopClock()
        self.conditions = Conditions(self.clock)
        self.tasks: list[asyncio.Task[None]] = []
        self.log = self._opened()
        self.delivery = self._delivery()

    def _opened(self) -> DiskResultLog:
        return DiskResultLog(self.folder, clock=self.clock, segment_bytes=1000)

    def _delivery(self) -> Delivery[int]:
        return evidence_delivery(
            self.log, self.controller, conditions=self.conditions, clock=self.clock, rng=random.Random(1)
        )

    def start(self) -> None:
        self.tasks = [
            asyncio.create_task(seal_regularly(self.log, self.clock)),
            asyncio.create_task(self.delivery.run()),
        ]

    async def kill(self) -> None:
        """End the loops where they are and start anew on the files."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.log = self._opened()
        self.delivery = self._delivery()

    def delivered(self) -> list[str]:
        return [
            each.part_id
            for number in sorted(self.controller.batches)
            for each in self.controller.batches[number].results
        ]


@pytest.fixture
def controller() -> FakeController:
    return FakeController()


@pytest.fixture
async def desk(tmp_path: Path, controller: FakeController) -> AsyncIterator[Desk]:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    found = Desk(tmp_path, controller)
    yield found
    await found.kill()


async def test_results_arrive_in_order_and_leave_the_disk(desk: Desk) -> None:
    desk.start()
    for n in range(50):
        desk.log.append([result(f"p{n:02d}")])
    await desk.clock.run_until(lambda: len(desk.delivered()) == 50, seconds_max=10)
    assert desk.delivered() == [f"p{n:02d}" for n in range(50)]
    await desk.clock.advance(1)
    assert list(desk.folder.glob("*.seg")) == []


async def test_a_lost_acknowledgement_doubles_nothing(desk: Desk, controller: FakeController) -> None:
    controller.lost_acknowledgements = 3
    desk.start()
    for n in range(20):
        desk.log.append([result(f"p{n:02d}")])
    await desk.clock.run_until(lambda: len(controller.deliveries) > len(controller.batches), seconds_max=60)
    await desk.clock.run_until(lambda: not desk.log.pending() and len(desk.delivered()) == 20, seconds_max=60)
    assert desk.delivered() == [f"p{n:02d}" for n in range(20)]


@pytest.mark.parametrize("seed", range(5))
async def test_kills_lost_acknowledgements_and_outages_lose_and_double_nothing(
    desk: Desk, controller: FakeController, seed: int
) -> None:
    rng = random.Random(seed)
    sent = 0
    desk.start()
    for _ in range(40):
        for _ in range(rng.randrange(4)):
            desk.log.append([result(f"p{sent:04d}")])
            sent += 1
        match rng.randrange(5):
            case 0:
                await desk.kill()
                desk.start()
            case 1:
                controller.lost_acknowledgements += 1
            case 2:
                controller.away()
            case 3:
                controller.back()
            case _:
                pass
        await desk.clock.advance(rng.random() * 3)
    controller.back()
    controller.lost_acknowledgements = 0
    await desk.clock.run_until(lambda: len(desk.delivered()) >= sent, seconds_max=300)
    await desk.clock.advance(60)
    assert desk.delivered() == [f"p{n:04d}" for n in range(sent)]
    assert desk.log.pending() == []


async def test_everything_waits_while_the_controller_is_away(desk: Desk, controller: FakeController) -> None:
    controller.away()
    desk.start()
    for n in range(100):
        desk.log.append([result(f"p{n:03d}")])
        await desk.clock.advance(10)
    assert controller.batches == {}
    controller.back()
    desk.delivery.hurry()
    await desk.clock.run_until(lambda: len(desk.delivered()) == 100, seconds_max=120)


async def test_a_refused_batch_stays_and_holds_up_no_other(desk: Desk, controller: FakeController) -> None:
    desk.log.append([result("poison")])
    desk.log.seal(force=True)
    (poison,) = desk.log.pending()
    report = controller.report_evidence

    async def refusing(batch: EvidenceBatch) -> None:
        if batch.number == poison:
            raise ControllerError("no", reason=Reason.CONTROLLER_REFUSED)
        await report(batch)

    controller.report_evidence = refusing  # type: ignore[method-assign]
    desk.start()
    desk.log.append([result("fine")])
    await desk.clock.run_until(lambda: desk.delivered() == ["fine"], seconds_max=30)
    assert desk.log.pending() == [poison]
    (condition,) = [each for each in desk.conditions.all() if each.type == DELIVERY_ACCEPTED]
    assert condition.state == "FALSE"


async def test_a_last_flush_delivers_what_is_open(desk: Desk) -> None:
    desk.log.append([result("last")])
    desk.log.seal(force=True)
    await desk.delivery.flush()
    assert desk.delivered() == ["last"]


async def test_samples_are_delivered_once_and_leave_the_disk(tmp_path: Path, controller: FakeController) -> None:
    asyncio.get_running_loop().set_default_executor(InlineExecutor())
    clock = LoopClock()
    spool = DiskSampleSpool(tmp_path, clock=clock)
    for n in range(5):
        spool.add(SpooledSample(id=f"s{n}", sample=b"d", content=b"c"))
    controller.lost_acknowledgements = 2
    delivery = sample_delivery(spool, controller, conditions=Conditions(clock), clock=clock, rng=random.Random(1))
    task = asyncio.create_task(delivery.run())
    await clock.run_until(lambda: not spool.pending(), seconds_max=60)
    assert sorted(controller.samples) == [f"s{n}" for n in range(5)]
    assert list(tmp_path.glob("*.sample")) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
