"""A log of bounded size: its beginning as it came, and, where more came, the end of it."""

from collections import deque
from pathlib import Path


class LogFile:
    """Appends to a file up to `bytes_max`; of what follows the last `tail_bytes` are added when it is finished."""

    def __init__(self, path: Path, *, bytes_max: int, tail_bytes: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._room_bytes = bytes_max
        self._tail_bytes = tail_bytes
        self._tail: deque[bytes] = deque()
        self._held_bytes = 0
        self._left_out_bytes = 0
        self._last = b""

    def write(self, piece: bytes) -> None:
        """Take what the trainer wrote."""
        if not piece:
            return
        self._last = (self._last + piece)[-4096:]
        kept, rest = piece[: self._room_bytes], piece[self._room_bytes :]
        self._file.write(kept)
        self._room_bytes -= len(kept)
        if rest:
            self._hold(rest)

    def finish(self) -> None:
        """Add the end of what had no room."""
        if self._left_out_bytes:
            self._file.write(f"\n... {self._left_out_bytes} bytes left out ...\n".encode())
        for piece in self._tail:
            self._file.write(piece)
        self._tail.clear()

    def last_line(self) -> str:
        """The last line that says something."""
        lines = [line.strip() for line in self._last.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def close(self) -> None:
        self._file.close()

    def _hold(self, piece: bytes) -> None:
        self._tail.append(piece)
        self._held_bytes += len(piece)
        while self._held_bytes > self._tail_bytes:
            oldest = self._tail.popleft()
            over_bytes = self._held_bytes - self._tail_bytes
            kept = oldest[over_bytes:]
            if kept:
                self._tail.appendleft(kept)
            self._held_bytes -= len(oldest) - len(kept)
            self._left_out_bytes += len(oldest) - len(kept)
