"""The TrainingRunner of this machine: a process group a job, watched over by a warden of its own.

What holds:
- A job's truth is its folder. Nothing is remembered here, so a controller that was killed finds its jobs as they are.
- A job with a marker is never started again; one whose warden is gone without a word is lost, and what is left of it is
  ended before anybody is told so.
- The trainer gets an environment of our own making, without anything of the controller's, and, where the kernel has
  Landlock, no file but its inputs, its output and the system's.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from controlplane import limits
from controlplane.app.ports_training import JobOutcome, JobOutput, JobReport, JobState, TrainingJob
from controlplane.domain.errors import StorageError
from controlplane.domain.ids import check_resource_id
from controlplane.training import landlock, processes
from controlplane.training.job_folder import CANCEL, LOG, Ended, Spec, Started, take_lock
from controlplane.training.output import read_output, read_progress
from controlplane.training.surroundings import environment_of, link_library, own_paths, system_paths

T = TypeVar("T")


class LocalRunner:
    """Implements `app.ports_training.TrainingRunner`. `folder` holds the jobs; `protected` is what no trainer may
    reach: the controller's folder, the database, the object store."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        protected: Iterable[Path] = (),
        landlock_version: Callable[[], int] | None = None,
    ) -> None:
        self._folder = folder
        self._name = name
        self._protected = tuple(path.absolute() for path in protected)
        self._landlock_version = landlock_version or landlock.version

    @property
    def name(self) -> str:
        return self._name

    async def start(self, job: TrainingJob) -> Sequence[str]:
        folder = self._of(job.id)
        if not await _apart((folder / "spec.json").exists):
            await _apart(lambda: self._prepare(job, folder))
        await self._start_warden(folder)
        return self._warnings(job)

    async def look(self, job_id: str) -> JobReport:
        return await _apart(lambda: _look(self._of(job_id)))

    async def cancel(self, job_id: str) -> None:
        folder = self._of(job_id)
        with suppress(FileNotFoundError):
            await _apart((folder / CANCEL).touch)

    async def collect(self, job_id: str) -> JobOutput:
        return await _apart(lambda: read_output(self._of(job_id) / "output"))

    async def read_log(self, job_id: str, *, offset_bytes: int, limit_bytes: int) -> bytes:
        return await _apart(lambda: _read_log(self._of(job_id) / LOG, offset_bytes, limit_bytes))

    async def forget(self, job_id: str) -> None:
        folder = self._of(job_id)

        def remove() -> None:
            if _look(folder).state is not JobState.RUNNING and folder.exists():
                _make_removable(folder)
                shutil.rmtree(folder)

        await _apart(remove)

    async def list_jobs(self) -> Sequence[str]:
        def names() -> list[str]:
            if not self._folder.exists():
                return []
            return sorted(path.name for path in self._folder.iterdir() if (path / "spec.json").exists())

        return await _apart(names)

    def _of(self, job_id: str) -> Path:
        return self._folder / check_resource_id(job_id, field="job_id")

    def _prepare(self, job: TrainingJob, folder: Path) -> None:
        """Everything but the spec, then the spec: only a folder with it is a job."""
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("output", "scratch", "lib"):
            (folder / name).mkdir(parents=True, mode=0o700)
        shutil.move(job.inputs, folder / "inputs")
        trainer, inputs = job.trainer, folder / "inputs"
        link_library(folder / "lib")
        Spec(
            command=(
                *trainer.command,
                *("--dataset", str(inputs / "dataset")),
                *("--base", str(inputs / "base")),
                *("--output", str(folder / "output")),
                *("--parameters", str(inputs / "parameters.json")),
            ),
            environment=environment_of(trainer, folder),
            time_limit_seconds=trainer.time_limit_seconds,
            memory_bytes_max=trainer.memory_bytes_max,
            output_bytes_max=trainer.output_bytes_max,
            log_bytes_max=limits.TRAINING_LOG_BYTES_MAX,
            log_tail_bytes=limits.TRAINING_LOG_TAIL_BYTES,
            read_paths=tuple(map(str, [*system_paths(), *own_paths(trainer), inputs, folder / "lib"])),
            write_paths=(str(folder / "output"), str(folder / "scratch")),
            network=trainer.network,
            grace_seconds=limits.TRAINING_GRACE_SECONDS,
            watch_seconds=limits.TRAINING_WATCH_SECONDS,
            measure_seconds=limits.TRAINING_MEASURE_SECONDS,
        ).write(folder)

    async def _start_warden(self, folder: Path) -> None:
        """A warden that finds the job started, or another warden at it, ends at once."""
        with (folder / "warden.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-m", "controlplane.training.warden", str(folder)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(limits.TRAINING_START_SECONDS):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            code = await child.wait()
        if code != 0 or await _apart(lambda: Started.read(folder)) is None:
            raise StorageError(
                f"the warden of {folder.name} did not come up", remedy=f"see {folder / 'warden.log'} on the controller"
            )

    def _warnings(self, job: TrainingJob) -> list[str]:
        if self._landlock_version() == 0:
            return ["this kernel has no Landlock: the trainer can read whatever the controller can"]
        allowed = [path.resolve() for path in (*system_paths(), *own_paths(job.trainer))]
        reached = [path for path in self._protected if any(path.resolve().is_relative_to(root) for root in allowed)]
        return [f"the trainer can read {path}: it lies within what trainers need" for path in reached]


def _look(folder: Path) -> JobReport:
    if not (folder / "spec.json").exists():
        return JobReport(state=JobState.LOST, message="there is no such job here")
    lock = take_lock(folder)
    if lock is None:
        return JobReport(state=JobState.RUNNING, progress=read_progress(folder / "output"))
    try:
        ended = Ended.read(folder)
        if ended is None:
            _end_leftovers(folder)
            return JobReport(state=JobState.LOST, message="its warden was killed, or the machine restarted")
    finally:
        os.close(lock)
    return JobReport(
        state=JobState.ENDED,
        outcome=JobOutcome(ended.outcome),
        message=ended.message[: limits.TRAINING_WORDS_CHARS_MAX],
        progress=read_progress(folder / "output"),
    )


def _end_leftovers(folder: Path) -> None:
    started = Started.read(folder)
    if started is not None and started.boot_id == processes.boot_id():
        processes.kill_session(started.trainer_pid, start_ticks=started.trainer_start_ticks)


def _read_log(path: Path, offset_bytes: int, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset_bytes)
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""


def _make_removable(folder: Path) -> None:
    """A trainer may have taken our right to its folders away."""
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(parent) / name
            if not path.is_symlink():
                path.chmod(0o700)


async def _apart(work: Callable[[], T]) -> T:
    """Do file work off the event loop."""
    return await asyncio.to_thread(work)
