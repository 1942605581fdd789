"""`python -m controlplane.training.warden FOLDER`: runs the job in FOLDER and writes down how it ended.

It detaches itself, so that the controller may end and start meanwhile; it returns once the trainer runs. It holds the
job's lock as long as it lives: a lock that is free without an `end.json` says that the job was lost. When the trainer's
first process ends, everything that it started is ended too.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from controlplane.training import processes
from controlplane.training.job_folder import CANCEL, LOG, Ended, Spec, Started, take_lock
from controlplane.training.log_file import LogFile

_PR_SET_CHILD_SUBREAPER = 36
_KILL_TRIES_MAX = 100
_LOCK_TRIES = 100
_READ_BYTES = 64 << 10


class Warden:
    """Watches over one trainer."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        self._folder = folder
        self._spec = spec
        self._log = LogFile(folder / LOG, bytes_max=spec.log_bytes_max, tail_bytes=spec.log_tail_bytes)
        self._deadline_seconds = time.monotonic() + spec.time_limit_seconds
        self._measure_seconds = 0.0

    def run(self, tell_started: Callable[[], None]) -> None:
        """Run the trainer to its end. `tell_started` is called once its marker is written."""
        # What the trainer starts and leaves behind becomes our child, not init's.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        with contextlib.closing(self._log):
            trainer, errors = self._launch()
            tell_started()
            stopped = self._watch(trainer)
            code = trainer.wait()
            self._end_everything()
            self._drain(trainer)
            with os.fdopen(errors, "rb") as pipe:
                refused = pipe.read().decode(errors="replace")
            self._log.finish()
            ended = stopped or (_not_started(refused) if refused else self._outcome(code))
        ended.write(self._folder)

    def _launch(self) -> tuple[subprocess.Popen[bytes], int]:
        errors, told = os.pipe()
        os.set_inheritable(told, True)
        trainer = subprocess.Popen(
            [sys.executable, "-I", "-m", "controlplane.training.launch", str(self._folder), str(told)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(told,),
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
        os.close(told)
        process = processes.find(trainer.pid)
        Started(
            warden_pid=os.getpid(),
            boot_id=processes.boot_id(),
            trainer_pid=trainer.pid,
            trainer_start_ticks=0 if process is None else process.start_ticks,
        ).write(self._folder)
        return trainer, errors

    def _watch(self, trainer: subprocess.Popen[bytes]) -> Ended | None:
        """Return when the trainer ended by itself, or why it was ended."""
        assert trainer.stdout is not None
        os.set_blocking(trainer.stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(trainer.stdout, selectors.EVENT_READ)
            while trainer.poll() is None:
                if selector.get_map():
                    for _ in selector.select(self._spec.watch_seconds):
                        if self._copy(trainer.stdout.fileno()) == 0:
                            selector.unregister(trainer.stdout)
                else:
                    # It closed its output and goes on.
                    time.sleep(self._spec.watch_seconds)
                stop = self._find_stop()
                if stop is not None:
                    self._stop(trainer, gently=stop.outcome in {"CANCELLED", "TIME_LIMIT"})
                    return stop
        return None

    def _find_stop(self) -> Ended | None:
        spec = self._spec
        if (self._folder / CANCEL).exists():
            return Ended(outcome="CANCELLED", message="it was cancelled")
        now_seconds = time.monotonic()
        if now_seconds >= self._deadline_seconds:
            return Ended(outcome="TIME_LIMIT", message=f"it took longer than {spec.time_limit_seconds:g} s")
        if now_seconds < self._measure_seconds:
            return None
        self._measure_seconds = now_seconds + spec.measure_seconds
        memory_bytes = sum(processes.own_memory_bytes(process.pid) for process in processes.descendants(os.getpid()))
        if memory_bytes > spec.memory_bytes_max:
            return Ended(
                outcome="MEMORY_LIMIT",
                message=f"it took {memory_bytes >> 20} MiB of memory; its limit is {spec.memory_bytes_max >> 20} MiB",
            )
        written_bytes = sum(_folder_bytes(self._folder / name) for name in ("output", "scratch"))
        if written_bytes > spec.output_bytes_max:
            return _too_much(written_bytes, spec)
        return None

    def _stop(self, trainer: subprocess.Popen[bytes], *, gently: bool) -> None:
        """Ask the trainer to end where there is time for it. Whether it does or not, nothing is left after it."""
        if gently:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(trainer.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                trainer.wait(self._spec.grace_seconds)
        self._end_everything()

    def _end_everything(self) -> None:
        for _ in range(_KILL_TRIES_MAX):
            left = processes.descendants(os.getpid())
            if not left:
                return
            processes.kill([process.pid for process in left])
            time.sleep(0.02)

    def _drain(self, trainer: subprocess.Popen[bytes]) -> None:
        assert trainer.stdout is not None
        with trainer.stdout as pipe:
            while self._copy(pipe.fileno()):
                pass

    def _copy(self, descriptor: int) -> int | None:
        """Copy a piece of output; return its size, 0 at the end, None where there is nothing yet."""
        try:
            piece = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return None
        self._log.write(piece)
        return len(piece)

    def _outcome(self, code: int) -> Ended:
        written_bytes = sum(_folder_bytes(self._folder / name) for name in ("output", "scratch"))
        if written_bytes > self._spec.output_bytes_max or code == -signal.SIGXFSZ:
            return _too_much(written_bytes, self._spec)
        if code == 0:
            return Ended(outcome="SUCCEEDED", message="")
        if code in {-signal.SIGKILL, -signal.SIGTERM}:
            return Ended(outcome="KILLED", message=f"somebody killed it ({signal.Signals(-code).name})")
        said = self._log.last_line()
        how = f"it crashed ({signal.Signals(-code).name})" if code < 0 else f"it exited with status {code}"
        return Ended(outcome="CRASHED", message=f"{how}: {said}" if said else how)


def _too_much(written_bytes: int, spec: Spec) -> Ended:
    return Ended(
        outcome="OUTPUT_LIMIT",
        message=f"it wrote {written_bytes >> 20} MiB; its limit is {spec.output_bytes_max >> 20} MiB",
    )


def _not_started(refused: str) -> Ended:
    return Ended(outcome="NOT_STARTED", message=f"its command cannot be executed: {refused}")


def _folder_bytes(folder: Path) -> int:
    """What the files take; those that come and go meanwhile are counted or not."""
    size_bytes, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        size_bytes += entry.stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
    return size_bytes


def main() -> None:
    folder = Path(sys.argv[1])
    lock = take_lock(folder, tries=_LOCK_TRIES)
    if lock is None or Started.read(folder) is not None or Ended.read(folder) is not None:
        return
    spec = Spec.read(folder)
    heard, told = os.pipe()
    if os.fork() > 0:
        # The lock belongs to both until this one ends.
        os.close(told)
        with os.fdopen(heard, "rb") as pipe:
            os._exit(0 if pipe.read() else 1)
    os.close(heard)
    os.setsid()

    def tell_started() -> None:
        with os.fdopen(told, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(b"started")

    Warden(folder, spec).run(tell_started)


if __name__ == "__main__":
    main()
