"""The local runner with real processes: trainers that keep the contract, and trainers that do their worst."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.app.ports_training import JobOutcome, JobReport, JobState, TrainingJob
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.trainer import Trainer
from controlplane.training import landlock, processes
from controlplane.training.job_folder import LOCK, Started
from controlplane.training.local_runner import LocalRunner
from tests.training.trainers import GOOD, trainer

needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")


def job(tmp_path: Path, what: Trainer, *, job_id: str = "run-1") -> TrainingJob:
    inputs = tmp_path / f"inputs-{job_id}"
    for name in ("dataset", "base"):
        (inputs / name).mkdir(parents=True)
    (inputs / "dataset" / "dataset.json").write_text("{}")
    (inputs / "base" / "model.xml").write_text("<net/>")
    (inputs / "parameters.json").write_text("{}")
    return TrainingJob(id=job_id, trainer=what, inputs=inputs)


@pytest.fixture
def runner(tmp_path: Path) -> LocalRunner:
    return LocalRunner(tmp_path / "jobs", name="here", protected=[tmp_path / "secret"])


async def until(runner: LocalRunner, holds: Callable[[JobReport], bool], job_id: str = "run-1") -> JobReport:
    async with asyncio.timeout(40):
        while not holds(report := await runner.look(job_id)):
            await asyncio.to_thread(os.sched_yield)
    return report


async def to_the_end(runner: LocalRunner, job_id: str = "run-1") -> JobReport:
    """Wait for the job's lock, which its warden lets go of at its end."""

    def wait() -> None:
        with (runner._folder / job_id / LOCK).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    async with asyncio.timeout(60):
        await asyncio.to_thread(wait)
    return await runner.look(job_id)


async def log_of(runner: LocalRunner) -> str:
    return (await runner.read_log("run-1", offset_bytes=0, limit_bytes=1 << 24)).decode()


async def test_a_trainer_is_run_and_its_output_collected(runner: LocalRunner, tmp_path: Path) -> None:
    await runner.start(job(tmp_path, trainer(GOOD)))
    report = await to_the_end(runner)
    assert (report.state, report.outcome) == (JobState.ENDED, JobOutcome.SUCCEEDED), await log_of(runner)
    assert report.progress is not None
    assert (report.progress.fraction, report.progress.message) == (0.5, "half")
    output = await runner.collect("run-1")
    assert dict(output.metrics) == {"auc": 0.9}
    assert [path.name for path in output.model_folder.iterdir()] == ["model.xml"]
    assert await log_of(runner) == "reading 1\ndone\n"
    assert await runner.list_jobs() == ["run-1"]
    await runner.forget("run-1")
    assert await runner.list_jobs() == []
    assert not (tmp_path / "jobs" / "run-1").exists()


@pytest.mark.parametrize(
    ("body", "limits", "outcome", "said"),
    [
        ('raise ValueError("no such column")', {}, JobOutcome.CRASHED, "status 1: ValueError: no such column"),
        ("os.abort()", {}, JobOutcome.CRASHED, "SIGABRT"),
        ("os.kill(os.getpid(), 9)", {}, JobOutcome.KILLED, "SIGKILL"),
        ("time.sleep(600)", {"time_limit_seconds": 1.0}, JobOutcome.TIME_LIMIT, "longer than 1 s"),
        (
            "import signal; signal.signal(15, signal.SIG_IGN); os.close(1); os.close(2)\nwhile True: pass",
            {"time_limit_seconds": 1.0},
            JobOutcome.TIME_LIMIT,
            "longer than 1 s",
        ),
        (
            "held = []\nwhile True:\n    held.append(bytearray(os.urandom(1 << 20))); time.sleep(0.005)",
            {"memory_bytes_max": 150 << 20},
            JobOutcome.MEMORY_LIMIT,
            "its limit is 150 MiB",
        ),
        (
            "for part in range(4):\n    if os.fork() == 0: held = os.urandom(6 << 23); time.sleep(99)\ntime.sleep(99)",
            {"memory_bytes_max": 150 << 20},
            JobOutcome.MEMORY_LIMIT,
            "its limit is 150 MiB",
        ),
        ("held = bytearray(1 << 34)", {}, JobOutcome.CRASHED, "MemoryError"),
        (
            "for part in range(1000):\n    (output / str(part)).write_bytes(bytes(1 << 20)); time.sleep(0.01)",
            {"output_bytes_max": 20 << 20},
            JobOutcome.OUTPUT_LIMIT,
            "its limit is 20 MiB",
        ),
        (
            'with open(output / "big", "wb") as file:\n    while True: file.write(bytes(1 << 20))',
            {"output_bytes_max": 5 << 20},
            JobOutcome.CRASHED,
            "File too large",
        ),
    ],
)
async def test_a_trainer_that_misbehaves_ends_with_the_reason(
    runner: LocalRunner, tmp_path: Path, *, body: str, limits: dict[str, Any], outcome: JobOutcome, said: str
) -> None:
    await runner.start(job(tmp_path, trainer(body, **limits)))
    report = await to_the_end(runner)
    assert report.outcome is outcome, (report, await log_of(runner))
    assert said in report.message
    assert leftovers(tmp_path) == []


def leftovers(tmp_path: Path) -> list[int]:
    """Processes that still run in the job's folders."""
    found = []
    for process in processes.every():
        try:
            if os.readlink(f"/proc/{process.pid}/cwd").startswith(str(tmp_path)) and process.state != "Z":
                found.append(process.pid)
        except OSError:
            continue
    return found


async def test_a_command_that_does_not_exist_is_told(runner: LocalRunner, tmp_path: Path) -> None:
    what = Trainer(
        id="test",
        command=("/nowhere/train",),
        time_limit_seconds=10.0,
        memory_bytes_max=1 << 30,
        output_bytes_max=1 << 20,
    )
    await runner.start(job(tmp_path, what))
    report = await to_the_end(runner)
    assert report.outcome is JobOutcome.NOT_STARTED
    assert "No such file" in report.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pass", "wrote none"),
        ('(output / "metrics.json").write_text("{}")', "no folder"),
        ('(output / "model").mkdir(); (output / "metrics.json").write_text("{}")', "empty"),
        ('deliver(auc=float("nan"))', "finite"),
        ('deliver(auc="0.99")', "finite"),
        ('deliver(); (output / "metrics.json").write_text("[" * 60000)', "not JSON"),
        ('deliver(); (output / "model" / "link").symlink_to("/etc/passwd")', "neither a file"),
        ('deliver(); os.mkfifo(output / "model" / "pipe")', "neither a file"),
        ('deliver(); os.unlink(output / "metrics.json"); os.mkfifo(output / "metrics.json")', "not a file"),
        ('deliver(); os.unlink(output / "metrics.json"); os.symlink("/etc/hosts", output / "metrics.json")', "read"),
    ],
)
async def test_output_that_is_not_as_the_contract_says_is_refused(
    runner: LocalRunner, tmp_path: Path, body: str, said: str
) -> None:
    await runner.start(job(tmp_path, trainer(body)))
    report = await to_the_end(runner)
    assert report.outcome is JobOutcome.SUCCEEDED, (report, await log_of(runner))
    with pytest.raises(FieldInvalidError, match=said):
        await runner.collect("run-1")


async def test_a_trainer_may_decline(runner: LocalRunner, tmp_path: Path) -> None:
    await runner.start(job(tmp_path, trainer('(output / "declined.json").write_text(\'{"message": "no gain"}\')')))
    await to_the_end(runner)
    assert (await runner.collect("run-1")).declined == "no gain"


async def test_progress_that_is_no_progress_is_passed_over(runner: LocalRunner, tmp_path: Path) -> None:
    body = (
        'progress(0.25, "a\\x1b[2Jb"); open(output / "progress.jsonl", "a").write(\'[]\\n{"fraction": 7}\\nx\\n{"fr\')'
    )
    await runner.start(job(tmp_path, trainer(body)))
    report = await to_the_end(runner)
    assert report.progress is not None
    assert (report.progress.fraction, report.progress.message) == (0.25, "a [2Jb")


async def test_a_flood_of_output_keeps_its_bound_and_its_end(runner: LocalRunner, tmp_path: Path) -> None:
    await runner.start(job(tmp_path, trainer('for n in range(400): print("x" * 65536)\nprint("the end")')))
    report = await to_the_end(runner)
    assert report.outcome is JobOutcome.SUCCEEDED
    log = await log_of(runner)
    assert len(log) < 5 << 20
    assert "bytes left out" in log
    assert log.endswith("the end\n")


async def test_what_a_trainer_leaves_behind_is_ended(runner: LocalRunner, tmp_path: Path) -> None:
    body = (
        "import subprocess\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True, cwd=output)\ndeliver()"
    )
    await runner.start(job(tmp_path, trainer(body)))
    report = await to_the_end(runner)
    assert report.outcome is JobOutcome.SUCCEEDED
    assert leftovers(tmp_path) == []


async def test_a_job_is_started_once(runner: LocalRunner, tmp_path: Path) -> None:
    body = 'open(output / "starts", "a").write("x"); progress(1.0); time.sleep(0.5)'
    what = trainer(body)
    await runner.start(job(tmp_path, what))
    again = TrainingJob(id="run-1", trainer=what, inputs=tmp_path / "nothing")
    await runner.start(again)
    await to_the_end(runner)
    await runner.start(again)
    assert (tmp_path / "jobs" / "run-1" / "output" / "starts").read_text() == "x"


async def test_a_cancelled_job_ends(runner: LocalRunner, tmp_path: Path) -> None:
    await runner.start(job(tmp_path, trainer('progress(0.1, "on it"); time.sleep(600)')))
    await until(runner, lambda report: report.progress is not None)
    await runner.cancel("run-1")
    report = await to_the_end(runner)
    assert report.outcome is JobOutcome.CANCELLED
    assert leftovers(tmp_path) == []
    await runner.cancel("run-2")
    assert (await runner.look("run-2")).state is JobState.LOST


async def test_a_job_outlives_whoever_started_it_and_is_found_again(tmp_path: Path) -> None:
    """The starter is killed with SIGKILL while its trainer works."""
    job(tmp_path, trainer("pass"))
    program = f"""
import asyncio, pathlib
from controlplane.app.ports_training import TrainingJob
from controlplane.training.local_runner import LocalRunner
from tests.training.trainers import trainer
async def main():
    folder = pathlib.Path({str(tmp_path)!r})
    what = trainer('progress(0.1)\\nwhile not (output / "go").exists(): time.sleep(0.01)\\ndeliver()')
    await LocalRunner(folder / "jobs", name="there").start(
        TrainingJob(id="run-1", trainer=what, inputs=folder / "inputs-run-1"))
    print("started", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert starter.stdout is not None
    assert await starter.stdout.readline() == b"started\n"
    os.killpg(starter.pid, signal.SIGKILL)
    assert await starter.wait() == -signal.SIGKILL
    found = LocalRunner(tmp_path / "jobs", name="here")
    assert (await found.look("run-1")).state is JobState.RUNNING
    (tmp_path / "jobs" / "run-1" / "output" / "go").touch()
    report = await to_the_end(found)
    assert report.outcome is JobOutcome.SUCCEEDED
    assert (await found.collect("run-1")).metrics == {}


async def test_a_job_whose_warden_was_killed_is_lost_and_nothing_of_it_runs(
    runner: LocalRunner, tmp_path: Path
) -> None:
    body = 'open(output / "starts", "a").write("x")\nif os.fork() == 0: time.sleep(600)\nprogress(0.1); time.sleep(600)'
    lost = job(tmp_path, trainer(body))
    await runner.start(lost)
    await until(runner, lambda report: report.progress is not None)
    started = Started.read(tmp_path / "jobs" / "run-1")
    assert started is not None
    os.kill(started.warden_pid, signal.SIGKILL)
    report = await to_the_end(runner)
    assert report.state is JobState.LOST
    async with asyncio.timeout(10):
        while leftovers(tmp_path):
            await asyncio.to_thread(os.sched_yield)
    await runner.start(lost)
    assert (await runner.look("run-1")).state is JobState.LOST
    assert (tmp_path / "jobs" / "run-1" / "output" / "starts").read_text() == "x"


@needs_landlock
@pytest.mark.parametrize(
    "body",
    [
        'open("{secret}/lineside.db").read()',
        'os.listdir("{secret}")',
        'open("{secret}/new", "w")',
        'os.link("{secret}/lineside.db", output / "stolen")',
        'open(dataset / "dataset.json", "w")',
        'os.rename(output, output.parent / "elsewhere")',
        'open("/proc/{pid}/environ").read()',
        "os.kill({pid}, 0)",
        'open("/etc/lineside-planted", "w")',
        'os.listdir("/etc")',
        'os.listdir("/proc/{pid}/fd")',
    ],
)
async def test_a_trainer_reaches_nothing_but_what_it_was_given(runner: LocalRunner, tmp_path: Path, body: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "lineside.db").write_text("holdout")
    attempt = body.format(secret=secret, pid=os.getpid())
    what = trainer(
        f"try:\n    {attempt}\nexcept OSError as e:\n    print('refused' if e.errno in (1, 13, 18) else e)\n"
        "else:\n    print('reached')"
    )
    assert await runner.start(job(tmp_path, what)) == []
    await to_the_end(runner)
    assert await log_of(runner) == "refused\n"


@needs_landlock
@pytest.mark.parametrize(("network", "said"), [(False, "PermissionError"), (True, "connected")])
async def test_a_trainer_has_the_network_only_where_it_was_given(
    runner: LocalRunner, tmp_path: Path, network: bool, said: str
) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    body = f"import socket; socket.create_connection(('127.0.0.1', {port})).close(); print('connected')"
    await runner.start(job(tmp_path, trainer(body, network=network)))
    await to_the_end(runner)
    assert said in await log_of(runner)
    server.close()


async def test_a_trainer_is_given_no_environment_of_the_controllers(
    runner: LocalRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("LINESIDE_DATABASE_URL", "planted")
    await runner.start(job(tmp_path, trainer("print(sorted(os.environ)); print(os.environ)")))
    await to_the_end(runner)
    log = await log_of(runner)
    assert "HOME" in log
    assert "planted" not in log


async def test_limits_that_cannot_be_held_are_warned_of(tmp_path: Path) -> None:
    what = trainer("pass", read_paths=(tmp_path,))
    runner = LocalRunner(tmp_path / "jobs", name="here", protected=[tmp_path / "artifacts"])
    (warning,) = await runner.start(job(tmp_path, what))
    await to_the_end(runner)
    assert "artifacts" in warning
    old_kernel = LocalRunner(tmp_path / "jobs", name="here", landlock_version=lambda: 0)
    (warning,) = await old_kernel.start(job(tmp_path, trainer("pass"), job_id="run-2"))
    await to_the_end(old_kernel, "run-2")
    assert "no Landlock" in warning


async def test_our_own_package_is_importable_where_the_rest_of_its_folder_is_not(
    runner: LocalRunner, tmp_path: Path
) -> None:
    await runner.start(job(tmp_path, trainer("import controlplane.trainers, numpy; print('imported')")))
    await to_the_end(runner)
    assert await log_of(runner) == "imported\n"
