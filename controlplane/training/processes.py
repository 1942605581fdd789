"""Processes as /proc shows them. A process that ends while it is looked at is left out."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process."""

    pid: int
    parent: int
    session: int
    start_ticks: int
    """Since boot."""
    state: str
    """One letter; Z is a process that ended and was not waited for."""


def boot_id() -> str:
    """Changes with every start of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def find(pid: int) -> Process | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything, so fields are counted from behind it.
    fields = text[text.rindex(")") + 2 :].split()
    return Process(pid=pid, state=fields[0], parent=int(fields[1]), session=int(fields[3]), start_ticks=int(fields[19]))


def every() -> Iterator[Process]:
    """Every process of the machine that we may see."""
    for name in os.listdir(_PROC):
        if name.isdigit() and (process := find(int(name))) is not None:
            yield process


def descendants(pid: int) -> list[Process]:
    """Children, their children and so on, without those that ended."""
    children: dict[int, list[Process]] = {}
    for process in every():
        children.setdefault(process.parent, []).append(process)
    found, next_parents = [], [pid]
    while next_parents:
        generation = [child for parent in next_parents for child in children.get(parent, ())]
        found += [process for process in generation if process.state != "Z"]
        next_parents = [process.pid for process in generation]
    return found


def own_memory_bytes(pid: int) -> int:
    """Memory that the process shares with no file: what it would give back by ending."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    wanted = ("RssAnon:", "RssShmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(wanted))


def kill(pids: Iterator[int] | list[int]) -> None:
    """End them by force; those that ended already are as good."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_session(session: int, *, start_ticks: int) -> None:
    """End what is left of a session whose first process had this start time. A later process of the same number has
    another one, and then nothing of the session is left."""
    leader = find(session)
    if leader is not None and leader.start_ticks != start_ticks:
        return
    kill([process.pid for process in every() if process.session == session])
