"""The result log: what the serving path appends, and what waits to be reported, in segments on disk.

Rules kept here:
- A result is in the file (write(2)) when `append` returns: killing the process loses nothing.
- A sealed segment is a batch, its number the batch's: exactly once follows from the controller storing a number once.
- A number is used once for good, over restarts, lost counters, a new folder for the same agent, and folders restored
  from an old image or copied: each start goes on at a random distance above all that its folder knows of.
- The bytes on disk are bounded: over the bound the oldest segments lose their results and keep their windows, and
  last of all whole files go.
- A disk that cannot be written never fails an inference: metrics go on in memory under a reserved number, and the
  results are counted as dropped.
"""

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lineside.v1 import evidence_pb2

from agent import limits
from agent.app.evidence import NANOSECONDS_PER_SECOND, Windows, version_name
from agent.app.ports import Clock, EvidenceBatch
from agent.app.shadow_evidence import ShadowWindows, encode_comparison, encode_skipped
from agent.domain.errors import Reason, StateError
from agent.domain.result import Result
from agent.domain.shadow import Comparison, ShadowPair
from agent.storage import durable, result_record, segment

_COUNTER = "next"


@dataclass(slots=True)
class _Open:
    """The segment that is being written. Its descriptor takes whole records only."""

    number: int
    descriptor: int
    size_bytes: int
    open_seconds: float


@dataclass(slots=True)
class _Unwritten:
    """What could not be written: metrics without results."""

    windows: Windows = field(default_factory=Windows)
    shadow: ShadowWindows = field(default_factory=ShadowWindows)
    results: int = 0


class DiskResultLog:
    """`app.ports.ResultLog` and `app.ports.EvidenceSpool` in a folder that this process alone uses."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        bytes_max: int = limits.SPOOL_BYTES_MAX,
        segment_bytes: int = limits.SEGMENT_BYTES_MAX,
        on_writable: Callable[[str], None] = lambda _: None,
        new_distance: Callable[[], int] = lambda: secrets.randbits(limits.BATCH_DISTANCE_BITS),
    ) -> None:
        """`on_writable` is told, from any thread, the error's words when writing begins to fail, "" when it works.
        `new_distance` gives how far above the numbers that the folder knows of this process begins."""
        self._folder = folder
        self._clock = clock
        self._bytes_max = bytes_max
        self._segment_bytes = segment_bytes
        self._on_writable = on_writable
        self._new_distance = new_distance
        self._lock = threading.Lock()
        """Guards everything below; held for one write at most, never for reading a segment."""
        self._open: _Open | None = None
        self._sealed: dict[int, int] = {}
        """Sizes in bytes by number."""
        self._sealed_bytes = 0
        self._memory: dict[int, EvidenceBatch] = {}
        self._unwritten = _Unwritten()
        self._error = ""
        self._dropped = 0
        self._next = 0
        self._reserved = 0
        self._recover()

    # --- the serving path ---

    def append(self, results: Sequence[Result]) -> None:
        content = b"".join([segment.frame(segment.Kind.RESULT, result_record.encode(result)) for result in results])
        with self._lock:
            if not self._write(content):
                self._unwritten.results += len(results)
                self._dropped += len(results)
                for result in results:
                    self._unwritten.windows.add(result)

    def count_refused(self, slot: str, version: int) -> None:
        name = version_name(slot, version)
        with self._lock:
            if not self._write(segment.frame_refused(slot, name, 1)):
                self._unwritten.windows.add_refused(slot, name, 1)

    # --- statistics of inputs ---

    def append_inputs(self, window: evidence_pb2.MetricWindow) -> None:
        with self._lock:
            if not self._write(segment.frame(segment.Kind.INPUTS, window.SerializeToString())):
                self._unwritten.windows.add_inputs(window)

    # --- shadow runs ---

    def append_comparisons(self, comparisons: Sequence[Comparison]) -> None:
        content = b"".join(segment.frame(segment.Kind.COMPARISON, encode_comparison(each)) for each in comparisons)
        with self._lock:
            if not self._write(content):
                for comparison in comparisons:
                    self._unwritten.shadow.add(comparison)

    def count_skipped(self, pair: ShadowPair, time: datetime, count: int) -> None:
        with self._lock:
            if not self._write(segment.frame(segment.Kind.SKIPPED, encode_skipped(pair, time, count))):
                self._unwritten.shadow.add_skipped(pair, time, count)

    # --- reporting ---

    def seal(self, *, force: bool = False) -> None:
        with self._lock:
            if self._open is not None and (force or self._open_is_old(self._open)):
                self._seal_open()
            self._seal_unwritten()
            self._write_memory()
        self._hold_bound()

    def pending(self) -> Sequence[int]:
        with self._lock:
            return sorted([*self._sealed, *self._memory])

    def read(self, number: int) -> EvidenceBatch:
        """Raises StateError (STATE_UNREADABLE) when the file is gone or the disk fails."""
        with self._lock:
            held = self._memory.get(number)
        if held is not None:
            return held
        try:
            content = self._path(number).read_bytes()
        except OSError as error:
            raise StateError(
                f"cannot read {self._path(number)}: {error.strerror}",
                field="spool",
                remedy="look after the disk; the batch is tried again",
                reason=Reason.STATE_UNREADABLE,
            ) from error
        return segment.Segment.parse(content).batch(number, otherwise_ns=self._now_ns())

    def discard(self, number: int) -> None:
        with self._lock:
            if self._memory.pop(number, None) is None:
                # A file that cannot be removed is offered again after a restart; its number makes that harmless.
                with contextlib.suppress(OSError):
                    self._path(number).unlink(missing_ok=True)
                self._forget_sealed(number)

    def close(self) -> None:
        """Seal what is open. The log takes no results afterwards."""
        with self._lock:
            if self._open is not None:
                self._seal_open()

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return self._held_bytes()

    @property
    def dropped(self) -> int:
        """Results that were counted and not kept, since the start: no disk, or the bound asked for their room."""
        with self._lock:
            return self._dropped

    # --- within ---

    def _write(self, content: bytes) -> bool:
        """Whether all of `content` is in the file; nothing of it is when not."""
        try:
            if self._held_bytes() + len(content) > self._bytes_max + limits.SPOOL_OVERRUN_BYTES_MAX:
                raise OSError(f"the spool holds its {self._bytes_max} bytes")
            opened = self._open or self._begin()
            written = os.write(opened.descriptor, content)
            if written < len(content):
                os.ftruncate(opened.descriptor, opened.size_bytes)
                raise OSError("the disk took only a part of a record")
        except OSError as error:
            self._tell(error.strerror or str(error))
            return False
        opened.size_bytes += len(content)
        if opened.size_bytes >= self._segment_bytes:
            self._seal_open()
        self._tell("")
        return True

    def _tell(self, error: str) -> None:
        if error != self._error:
            self._error = error
            self._on_writable(error)

    def _begin(self) -> _Open:
        number = self._take_number()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path(number), flags, 0o600)
        self._open = _Open(number, descriptor, 0, self._clock.monotonic())
        return self._open

    def _open_is_old(self, opened: _Open) -> bool:
        waiting = len(self._sealed) >= limits.SEGMENT_BACKLOG_MANY
        age_seconds = limits.SEGMENT_AGE_OFFLINE_SECONDS if waiting else limits.SEGMENT_AGE_SECONDS
        return self._clock.monotonic() - opened.open_seconds >= age_seconds

    def _seal_open(self) -> None:
        assert self._open is not None
        opened, self._open = self._open, None
        os.close(opened.descriptor)
        if opened.size_bytes:
            self._note_sealed(opened.number, opened.size_bytes)
        else:
            self._path(opened.number).unlink(missing_ok=True)

    def _seal_unwritten(self) -> None:
        """Make what could not be written a batch in memory. Without a number, or while enough such batches wait, it
        goes on growing where it is: windows of any length take the same room."""
        empty = not self._unwritten.windows and not self._unwritten.shadow
        if empty or len(self._memory) >= limits.MEMORY_BATCHES_MAX:
            return
        try:
            number = self._take_number()
        except OSError:
            return
        kept, self._unwritten = self._unwritten, _Unwritten()
        windows = kept.windows.messages(otherwise_ns=self._now_ns())
        self._memory[number] = EvidenceBatch(
            number=number,
            windows=tuple(window.SerializeToString() for window in windows),
            results=(),
            dropped_results=kept.results,
            shadow_windows=kept.shadow.serialized(),
        )

    def _write_memory(self) -> None:
        """Once the disk takes records again, it takes what waits in memory too."""
        while self._memory and not self._error:
            number = min(self._memory)
            content = segment.encode_without_results(self._memory[number])
            try:
                durable.replace_file(self._path(number), content)
            except OSError as error:
                self._tell(error.strerror or str(error))
                return
            del self._memory[number]
            self._note_sealed(number, len(content))

    def _hold_bound(self) -> None:
        """Oldest first: drop results, keep windows; when nothing but windows is left, drop files."""
        for drop in (self._drop_results, self.discard):
            for number in self._sealed_numbers():
                with self._lock:
                    if self._held_bytes() <= self._bytes_max:
                        return
                drop(number)

    def _drop_results(self, number: int) -> None:
        try:
            batch = self.read(number)
            if not batch.results:
                return
            content = segment.encode_without_results(batch)
            durable.replace_file(self._path(number), content)
        except (OSError, StateError):
            self.discard(number)  # a file that can be neither read nor replaced must not hold the bound's bytes
            return
        with self._lock:
            self._dropped += len(batch.results)
            if number in self._sealed:
                self._note_sealed(number, len(content))
            else:  # acknowledged meanwhile
                self._path(number).unlink(missing_ok=True)

    def _sealed_numbers(self) -> Sequence[int]:
        with self._lock:
            return sorted(self._sealed)

    def _held_bytes(self) -> int:
        return self._sealed_bytes + (self._open.size_bytes if self._open is not None else 0)

    def _note_sealed(self, number: int, size_bytes: int) -> None:
        self._sealed_bytes += size_bytes - self._sealed.get(number, 0)
        self._sealed[number] = size_bytes

    def _forget_sealed(self, number: int) -> None:
        self._sealed_bytes -= self._sealed.pop(number, 0)

    def _take_number(self) -> int:
        """The next number. Raises OSError when no more can be reserved."""
        if self._next >= self._reserved:
            reserved = self._next + limits.BATCH_NUMBERS_RESERVED
            durable.write_durably(self._folder / _COUNTER, str(reserved).encode())
            self._reserved = reserved
        number, self._next = self._next, self._next + 1
        return number

    def _recover(self) -> None:
        """Seal what an earlier process left, cutting a torn tail; go on numbering above all that was ever used."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(self._folder.glob("*.seg")):
                if path.stem.isdigit():
                    self._note_sealed(int(path.stem), path.stat().st_size)
            if self._sealed:
                self._cut_torn_tail(max(self._sealed))
            counter = self._read_counter()
        except OSError as error:
            self._tell(error.strerror or str(error))
            counter = None
        # A new folder of the same agent knows of no number at all: it begins at the clock's milliseconds, where only a
        # folder that was as new at the same time would begin as well, and even these two are a random distance apart.
        first = self._now_ns() // 1_000_000 if counter is None else counter
        known = max([first, *(number + 1 for number in self._sealed)])
        # The folder may be an old image, or one of two copies: another process has used numbers that it does not know
        # of, and the controller would take ours for duplicates of those. Two random distances do not meet.
        jumped = known + 1 + self._new_distance()
        self._next = self._reserved = jumped if jumped <= limits.BATCH_NUMBER_JUMPED_MAX else known

    def _cut_torn_tail(self, number: int) -> None:
        path = self._path(number)
        whole_bytes = segment.whole_bytes(path.read_bytes())
        if whole_bytes == 0:
            path.unlink()
            self._forget_sealed(number)
        elif whole_bytes < self._sealed[number]:
            os.truncate(path, whole_bytes)
            self._note_sealed(number, whole_bytes)

    def _read_counter(self) -> int | None:
        try:
            return int((self._folder / _COUNTER).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}.seg"

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * NANOSECONDS_PER_SECOND)
