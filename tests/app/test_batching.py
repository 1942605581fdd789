"""Reads that many callers share."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from controlplane import limits
from controlplane.app.batching import SharedReads
from controlplane.domain.errors import StorageError


class Rows:
    """A table whose reads wait for `open`."""

    def __init__(self) -> None:
        self.values = {1: "one", 2: "two"}
        self.reads: list[set[int]] = []
        self.open = asyncio.Event()
        self.broken = False

    async def read(self, keys: Collection[int]) -> Mapping[int, str]:
        self.reads.append(set(keys))
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.open.wait()
        if self.broken:
            raise StorageError("the disk is gone")
        return found


async def test_those_who_ask_during_a_read_share_the_next() -> None:
    rows = Rows()
    reads: SharedReads[int, str] = SharedReads(rows.read)
    first = asyncio.create_task(reads.find(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rows.values[1] = "changed"
    others = [asyncio.create_task(reads.find(key)) for key in (1, 2, 2, 3)]
    await asyncio.sleep(0)
    rows.open.set()
    assert await first == "one"
    assert await asyncio.gather(*others) == ["changed", "two", "two", None]
    assert rows.reads == [{1}, {1, 2, 3}]


async def test_a_failure_reaches_every_caller_and_the_next_read_is_a_new_one() -> None:
    rows = Rows()
    rows.broken = True
    rows.open.set()
    reads: SharedReads[int, str] = SharedReads(rows.read)
    outcomes = await asyncio.gather(reads.find(1), reads.find(2), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StorageError, StorageError]
    rows.broken = False
    assert await reads.find(1) == "one"


async def test_a_caller_that_gives_up_takes_nothing_from_the_others() -> None:
    rows = Rows()
    reads: SharedReads[int, str] = SharedReads(rows.read)
    impatient, patient = asyncio.create_task(reads.find(1)), asyncio.create_task(reads.find(1))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    rows.open.set()
    assert await patient == "one"


async def test_a_broadcast_gives_others_their_turn() -> None:
    rows = Rows()
    rows.open.set()
    reads: SharedReads[int, str] = SharedReads(rows.read)
    streams = [asyncio.create_task(reads.find(key)) for key in range(3 * limits.ANSWERED_A_TURN)]
    await asyncio.sleep(0)
    counts = set()
    while not all(stream.done() for stream in streams):
        counts.add(sum(stream.done() for stream in streams))
        await asyncio.sleep(0)
    assert counts & set(range(1, len(streams)))
    assert rows.reads == [set(range(len(streams)))]
