"""Paced downloads: never more than the rate in a second, over broken and repeated downloads too."""

import asyncio
from pathlib import Path

import pytest

from agent.domain.errors import ControllerError
from agent.storage.artifact_cache import DiskArtifactCache
from tests.agent.storage.test_artifact_cache import offer
from tests.support.clock import LoopClock, settle
from tests.support.fake_controller import CHUNK, FakeController


class TimedController(FakeController):
    """Notes when each chunk was taken."""

    def __init__(self, clock: LoopClock) -> None:
        super().__init__()
        self.clock = clock
        self.taken: list[float] = []

    async def read_blob(self, digest: str, *, offset_bytes: int):  # type: ignore[no-untyped-def]
        async for chunk in super().read_blob(digest, offset_bytes=offset_bytes):
            self.taken.append(self.clock.monotonic())
            yield chunk


async def finished(clock: LoopClock, task: "asyncio.Task[Path]") -> None:
    """Let virtual time pass, and real time for the thread that writes, until the task is done."""
    while not task.done():
        clock._wake_next(float("inf"))
        await settle()
        await asyncio.to_thread(lambda: None)


@pytest.mark.parametrize("rate", [CHUNK, 10 * CHUNK, 33_333])
async def test_no_second_brings_more_than_the_rate_and_a_chunk(tmp_path: Path, rate: int) -> None:
    clock = LoopClock()
    controller = TimedController(clock)
    artifact = offer(controller, a_bin=b"a" * 60_000, b_bin=b"b" * 60_000)
    cache = DiskArtifactCache(tmp_path, clock=clock, reserve_bytes=0)
    controller.break_after_bytes = 10 * CHUNK
    for breaks in (True, False):
        task = asyncio.create_task(cache.fetch(artifact, controller, bytes_per_second_max=rate))
        await asyncio.wait_for(finished(clock, task), 30)
        assert isinstance(task.exception(), ControllerError) == breaks
    assert cache.folder(artifact) is not None
    for start in controller.taken:
        within = sum(CHUNK for time in controller.taken if start <= time < start + 1.0)
        assert within <= rate + CHUNK
    assert clock.monotonic() >= (120_000 - CHUNK) / rate * 0.99


async def test_without_a_bound_nothing_waits(tmp_path: Path) -> None:
    clock = LoopClock()
    controller = FakeController()
    artifact = offer(controller, a_bin=b"a" * 60_000)
    await DiskArtifactCache(tmp_path, clock=clock, reserve_bytes=0).fetch(artifact, controller)
    assert clock.monotonic() == 0
