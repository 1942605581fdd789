"""Reads and writes that many callers share."""

import asyncio
from collections.abc import Collection, Mapping, Sequence

import pytest

from controlplane import limits
from controlplane.app.batching import SharedReads, SharedWrites
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


class Log:
    """Writes that wait for `open`; a group with a "bad" item fails whole."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.written: list[str] = []
        self.open = asyncio.Event()

    async def write(self, items: Sequence[str]) -> Sequence[int]:
        self.groups.append(list(items))
        await self.open.wait()
        if "bad" in items:
            raise StorageError("bad is refused")
        first = len(self.written)
        self.written += items
        return range(first, len(self.written))


def sharing(log: Log, *, at_once_max: int = 10) -> SharedWrites[str, int]:
    return SharedWrites(log.write, at_once_max=at_once_max)


async def test_what_comes_during_a_write_shares_the_next_within_its_bound() -> None:
    log = Log()
    writes = sharing(log, at_once_max=2)
    callers = []
    for item in "abcd":
        callers.append(asyncio.create_task(writes.write(item)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    log.open.set()
    assert await asyncio.gather(*callers) == [0, 1, 2, 3]
    assert log.groups == [["a"], ["b", "c"], ["d"]]


async def test_none_fails_for_the_sake_of_another() -> None:
    log = Log()
    log.open.set()
    writes = sharing(log)
    outcomes = await asyncio.gather(*map(writes.write, ["a", "bad", "b"]), return_exceptions=True)
    assert [outcomes[0], type(outcomes[1]), outcomes[2]] == [0, StorageError, 1]
    assert log.written == ["a", "b"]
    assert log.groups == [["a", "bad", "b"], ["a"], ["bad"], ["b"]]
    assert await writes.write("c") == 2


async def test_a_writer_that_gives_up_takes_nothing_from_the_others() -> None:
    log = Log()
    writes = sharing(log)
    impatient, patient = asyncio.create_task(writes.write("a")), asyncio.create_task(writes.write("b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    log.open.set()
    assert await patient == 1
