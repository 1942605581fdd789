"""The folder of a job: what lies where, and how the files look.

    spec.json      what to run, written before anything runs
    lock           held by the warden as long as it lives
    state.json     written by the warden when the trainer starts: a job with it is never started again
    cancel         made by whoever wants the job ended
    end.json       how it ended, written once, atomically
    log            what the trainer wrote to standard output and standard error
    inputs/        dataset/, base/, parameters.json
    output/        the trainer's
    scratch/       the trainer's, as its home and for temporary files
    lib/           links to what an editable installation has elsewhere

Standard library only: the warden imports it and should be up at once.
"""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOCK = "lock"
CANCEL = "cancel"
LOG = "log"
_LOCK_TRY_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a warden is to run. `command` comes with its arguments, `environment` is all that it gets."""

    command: tuple[str, ...]
    environment: dict[str, str]
    time_limit_seconds: float
    memory_bytes_max: int
    output_bytes_max: int
    log_bytes_max: int
    log_tail_bytes: int
    read_paths: tuple[str, ...]
    write_paths: tuple[str, ...]
    network: bool
    grace_seconds: float
    watch_seconds: float
    measure_seconds: float

    @classmethod
    def read(cls, folder: Path) -> "Spec":
        values = json.loads((folder / "spec.json").read_text())
        for name in ("command", "read_paths", "write_paths"):
            values[name] = tuple(values[name])
        return cls(**values)

    def write(self, folder: Path) -> None:
        write_json(folder / "spec.json", asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The marker of a job that was started: whom to look for when its warden is gone."""

    warden_pid: int
    boot_id: str
    trainer_pid: int
    """Also the session of everything that it starts."""
    trainer_start_ticks: int
    """Since boot: tells the process from a later one of the same number."""

    @classmethod
    def read(cls, folder: Path) -> "Started | None":
        values = read_json(folder / "state.json")
        return None if values is None else cls(**values)

    def write(self, folder: Path) -> None:
        write_json(folder / "state.json", asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended; `outcome` is a word of `JobOutcome`."""

    outcome: str
    message: str

    @classmethod
    def read(cls, folder: Path) -> "Ended | None":
        values = read_json(folder / "end.json")
        return None if values is None else cls(**values)

    def write(self, folder: Path) -> None:
        write_json(folder / "end.json", asdict(self))


def take_lock(folder: Path, *, tries: int = 1) -> int | None:
    """Return the open, locked file, or None while another process holds it. The lock goes with its last holder. Who
    looks whether there is a warden holds it for a moment: a warden tries more than once."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(_LOCK_TRY_SECONDS)
        else:
            return descriptor
    os.close(descriptor)
    return None


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Put the file there whole and durable, or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("w") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file."""
    try:
        values: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return values
