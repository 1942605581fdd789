"""Samples that wait for the controller: one file each, within a bound of bytes, and the day's budgets.

    <id>.<value>.sample    length (u32, little-endian) of the description, a serialized lineside.v1.Sample, the content
    budget.json            see sample_budgets

A file appears by one rename, so that it is whole. Ids sort by time. The value, 0000 to 1000, is in the name so that a
start knows without reading a gigabyte what goes first where room is short: the least valuable, of those the oldest.
"""

import heapq
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import limits
from agent.app.ports import Clock, SpooledSample
from agent.domain.day_budget import DayBudget
from agent.domain.errors import Reason, StateError
from agent.storage import durable
from agent.storage.sample_budgets import DiskSampleBudgets

_LENGTH = struct.Struct("<I")
_SUFFIX = ".sample"
_VALUE_MAX = 1000


@dataclass(frozen=True, slots=True)
class _Held:
    size_bytes: int
    value: int
    name: str


class DiskSampleSpool:
    """`app.ports.SampleSpool` in a folder that this process alone uses."""

    def __init__(self, folder: Path, *, clock: Clock, bytes_max: int = limits.SPOOL_BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        """By id, oldest first: ids sort by time and are added in order."""
        self._least: list[tuple[int, str]] = []
        """A heap of (value, id), with some that are gone."""
        self._held_bytes = 0
        self._dropped = 0
        self._recover()
        self._budgets = DiskSampleBudgets(folder, clock=clock)

    @property
    def dropped(self) -> int:
        """Samples dropped since the start because the bound asked for room."""
        with self._lock:
            return self._dropped

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return self._held_bytes

    def add(self, sample: SpooledSample) -> bool:
        content = _LENGTH.pack(len(sample.sample)) + sample.sample + sample.content
        value = min(_VALUE_MAX, max(0, round(sample.value * _VALUE_MAX)))
        with self._lock:
            if not self._make_room(len(content), value):
                self._dropped += 1
                return False
            held = _Held(len(content), value, f"{sample.id}.{value:04d}{_SUFFIX}")
            try:
                durable.replace_file(self._folder / held.name, content)
            except OSError as error:
                raise _unwritable(self._folder, error) from error
            self._note(sample.id, held)
            return True

    def pending(self) -> Sequence[str]:
        with self._lock:
            return tuple(self._held)

    def read(self, sample_id: str) -> SpooledSample | None:
        with self._lock:
            held = self._held.get(sample_id)
        if held is None:
            return None
        try:
            content = (self._folder / held.name).read_bytes()
            (length,) = _LENGTH.unpack_from(content)
        except (FileNotFoundError, struct.error):
            return None
        except OSError as error:
            # It may be whole: what cannot be read now stays, rather than being discarded unsent.
            raise _unreadable(self._folder / held.name, error) from error
        body = content[_LENGTH.size :]
        if len(body) < length:
            return None
        return SpooledSample(id=sample_id, sample=body[:length], content=body[length:], value=held.value / _VALUE_MAX)

    def discard(self, sample_id: str) -> None:
        with self._lock:
            if sample_id in self._held:
                self._remove(sample_id)

    def budget(self, slot: str) -> DayBudget:
        return self._budgets.today(slot)

    def spend(self, slot: str, size_bytes: int, label: str) -> None:
        try:
            self._budgets.spend(slot, size_bytes, label)
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def _make_room(self, size_bytes: int, value: int) -> bool:
        """Drop what is worth least until there is room; False, and nothing dropped, where that is the new one."""
        if size_bytes > self._bytes_max:
            return False
        going: list[str] = []
        room = self._bytes_max - self._held_bytes
        while room < size_bytes:
            least, sample_id = heapq.heappop(self._least)
            if sample_id not in self._held:
                continue
            if least > value:
                heapq.heappush(self._least, (least, sample_id))
                break
            going.append(sample_id)
            room += self._held[sample_id].size_bytes
        if room < size_bytes:
            for sample_id in going:
                heapq.heappush(self._least, (self._held[sample_id].value, sample_id))
            return False
        for sample_id in going:
            self._remove(sample_id)
            self._dropped += 1
        return True

    def _note(self, sample_id: str, held: _Held) -> None:
        self._held[sample_id] = held
        self._held_bytes += held.size_bytes
        heapq.heappush(self._least, (held.value, sample_id))
        if len(self._least) > 2 * len(self._held) + limits.SAMPLE_QUEUE_MAX:
            self._least = [(each.value, each_id) for each_id, each in self._held.items()]
            heapq.heapify(self._least)

    def _remove(self, sample_id: str) -> None:
        held = self._held.pop(sample_id)
        self._held_bytes -= held.size_bytes
        try:
            (self._folder / held.name).unlink(missing_ok=True)
        except OSError:
            # It is offered again after a restart; the controller knows its id by then or takes it.
            return

    def _recover(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._folder.glob(f".*{_SUFFIX}.tmp"):
                # A kill in mid-write left it; its name never comes again, so nothing would overwrite it.
                path.unlink()
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                sample_id, _, value = path.stem.partition(".")
                # Files of the first agents have no value: the middle.
                worth = int(value) if value.isdecimal() else _VALUE_MAX // 2
                self._note(sample_id, _Held(path.stat().st_size, worth, path.name))
        except OSError:
            # Adding says whether the disk works.
            return


def _unreadable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot read {path}: {error.strerror}",
        field="spool",
        remedy="look at the disk and restart the agent; the sample waits meanwhile",
        reason=Reason.STATE_UNREADABLE,
    )


def _unwritable(folder: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot write in {folder}: {error.strerror}",
        field="spool",
        remedy="free some disk and make the agent's folder writable; samples are dropped meanwhile",
        reason=Reason.STATE_UNWRITABLE,
    )
