"""Who has the turn, in parts: what reports and jobs wait for, and that they never wait for long."""

import asyncio

import pytest

from controlplane import limits
from controlplane.app.telling import Telling

SOON_SECONDS = 10.0


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch) -> Telling:
    monkeypatch.setattr(limits, "TELLING_STREAMS_MIN", 2)
    return Telling()


def ask(telling: Telling) -> "asyncio.Task[None]":
    """What reports it from its first turn on."""
    return asyncio.create_task(telling.wait())


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_report_waits_for_a_decision_and_for_the_many_that_are_told_of_it(telling: Telling) -> None:
    with telling.deciding():
        report = ask(telling)
        await turns()
        assert not report.done()
        for stream in "ab":
            telling.begin(stream)
    await turns()
    telling.end("a")
    await turns()
    assert not report.done()
    telling.end("b")
    async with asyncio.timeout(SOON_SECONDS):
        await report


@pytest.mark.parametrize("told", ["", "a"])
async def test_a_decision_that_concerns_few_is_waited_for_alone(telling: Telling, told: str) -> None:
    with telling.deciding():
        report = ask(telling)
        await turns()
        for stream in told:
            telling.begin(stream)
    await turns()
    assert report.done()
    assert telling.report_jitter_seconds == 0.0


async def test_a_decision_that_fails_is_over_too(telling: Telling) -> None:
    with pytest.raises(OSError, match="full"), telling.deciding():
        raise OSError("the disk is full")
    async with asyncio.timeout(SOON_SECONDS):
        await telling.wait()


async def test_of_two_decisions_the_last_is_waited_for(telling: Telling) -> None:
    with telling.deciding():
        with telling.deciding():
            report = ask(telling)
            await turns()
        telling.begin("a")
        telling.end("a")
        await turns()
        assert not report.done()
    await turns()
    assert report.done()


async def test_a_decision_that_stalls_holds_up_reports_for_a_moment_only(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TELLING_SECONDS_MAX", 0.2)
    with telling.deciding():
        report = ask(telling)
        await turns()
        assert not report.done()
        async with asyncio.timeout(SOON_SECONDS):
            await report
    assert not telling.report_jitter_seconds


async def test_what_is_told_may_take_as_long_again_as_its_decision(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TELLING_SECONDS_MAX", 1.0)
    loop = asyncio.get_running_loop()
    with telling.deciding():
        await asyncio.sleep(0.5)
        begin = loop.time()
        for stream in "ab":
            telling.begin(stream)
    async with asyncio.timeout(SOON_SECONDS):
        await telling.wait()
    assert loop.time() - begin >= 0.9, "that many are told begins anew"


async def test_the_jitter_is_of_the_most_that_were_told_together(
    telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOLD_REPORTS_PER_SECOND", 10)
    for stream in "abc":
        telling.begin(stream)
    telling.end("a")
    assert telling.report_jitter_seconds == 0.3
    telling.end("b")
    telling.end("c")
    assert telling.report_jitter_seconds == 0.0
