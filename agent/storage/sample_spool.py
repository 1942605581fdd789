"""Samples that wait for the controller: one file each, within a bound of bytes, and the day's budgets.

    <id>.sample    length (u32, little-endian) of the description, a serialized lineside.v1.Sample, the content
    budget.json    {slot: {"day": ISO date, "spent_bytes": n}}

A file appears by one rename, so that it is whole; ids sort by time, so that the oldest go first when room is short.
"""

import json
import struct
import threading
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from agent import limits
from agent.app.ports import Clock, SpooledSample
from agent.domain.errors import Reason, StateError
from agent.domain.sampling import DayBudget
from agent.storage import durable

_LENGTH = struct.Struct("<I")
_SUFFIX = ".sample"


class DiskSampleSpool:
    """`app.ports.SampleSpool` in a folder that this process alone uses."""

    def __init__(self, folder: Path, *, clock: Clock, bytes_max: int = limits.SPOOL_BYTES_MAX) -> None:
        self._folder = folder
        self._clock = clock
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        """By id, oldest first: ids sort by time and are added in order."""
        self._held_bytes = 0
        self._dropped = 0
        self._budgets: dict[str, DayBudget] = {}
        self._recover()

    @property
    def dropped(self) -> int:
        """Samples dropped since the start because the bound asked for room."""
        with self._lock:
            return self._dropped

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return self._held_bytes

    def add(self, sample: SpooledSample) -> None:
        content = _LENGTH.pack(len(sample.sample)) + sample.sample + sample.content
        with self._lock:
            if len(content) > self._bytes_max:
                self._dropped += 1
                return
            while self._held_bytes + len(content) > self._bytes_max:
                self._remove(next(iter(self._sizes)))
                self._dropped += 1
            try:
                durable.replace_file(self._path(sample.id), content)
            except OSError as error:
                raise _unwritable(self._folder, error) from error
            self._sizes[sample.id] = len(content)
            self._held_bytes += len(content)

    def pending(self) -> Sequence[str]:
        with self._lock:
            return tuple(self._sizes)

    def read(self, sample_id: str) -> SpooledSample | None:
        try:
            content = self._path(sample_id).read_bytes()
            (length,) = _LENGTH.unpack_from(content)
        except (OSError, struct.error):
            return None
        body = content[_LENGTH.size :]
        if len(body) < length:
            return None
        return SpooledSample(id=sample_id, sample=body[:length], content=body[length:])

    def discard(self, sample_id: str) -> None:
        with self._lock:
            if sample_id in self._sizes:
                self._remove(sample_id)

    def take_budget(self, slot: str, size_bytes: int, limit_bytes: int) -> bool:
        with self._lock:
            spent = self._budget(slot).spend(size_bytes, limit_bytes)
            if spent is None:
                return False
            budgets = {**self._budgets, slot: spent}
            try:
                self._write_budgets(budgets)
            except OSError as error:
                raise _unwritable(self._folder, error) from error
            self._budgets = budgets
            return True

    def budget_left(self, slot: str, limit_bytes: int) -> int:
        with self._lock:
            return self._budget(slot).left_bytes(limit_bytes)

    def _budget(self, slot: str) -> DayBudget:
        """Call with the lock held. What time has changed about a budget is remembered, and written when it is spent."""
        today, now_seconds = self._clock.now().date(), self._clock.monotonic()
        known = self._budgets.get(slot, DayBudget(day=today))
        self._budgets[slot] = known.on(today, now_seconds=now_seconds)
        return self._budgets[slot]

    def _remove(self, sample_id: str) -> None:
        self._held_bytes -= self._sizes.pop(sample_id)
        try:
            self._path(sample_id).unlink(missing_ok=True)
        except OSError:
            # It is offered again after a restart; the controller knows its id by then or takes it.
            return

    def _write_budgets(self, budgets: Mapping[str, DayBudget]) -> None:
        content = {
            slot: {"day": budget.day.isoformat(), "spent_bytes": budget.spent_bytes} for slot, budget in budgets.items()
        }
        durable.replace_file(self._folder / "budget.json", json.dumps(content, sort_keys=True).encode())

    def _recover(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
                self._sizes[path.stem] = path.stat().st_size
            self._held_bytes = sum(self._sizes.values())
            value = json.loads((self._folder / "budget.json").read_bytes())
            self._budgets = {
                slot: DayBudget(day=date.fromisoformat(item["day"]), spent_bytes=int(item["spent_bytes"]))
                for slot, item in value.items()
            }
        except (OSError, ValueError, KeyError, TypeError):
            # No budget was written yet, or it cannot be read: the day begins anew; adding says whether the disk works.
            return

    def _path(self, sample_id: str) -> Path:
        return self._folder / f"{sample_id}{_SUFFIX}"


def _unwritable(folder: Path, error: OSError) -> StateError:
    return StateError(
        f"cannot write in {folder}: {error.strerror}",
        field="spool",
        remedy="free some disk and make the agent's folder writable; samples are dropped meanwhile",
        reason=Reason.STATE_UNWRITABLE,
    )
