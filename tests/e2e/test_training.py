"""A model is trained by a real controller: pictures in, a judged candidate out, through kills of whoever is at work."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.training.job_folder import Started
from tests.support.controller import ControllerProcess
from tests.training.scratches import scratch_model, write_pictures

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]

SLOW = """
import pathlib, runpy, sys, time
output = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
(output / "progress.jsonl").write_text('{"fraction": 0.1, "message": "waiting"}\\n')
print("waiting", flush=True)
while not (output / "go").exists():
    time.sleep(0.05)
runpy.run_module("controlplane.trainers.head", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerProcess]:
    folder = tmp_path_factory.mktemp("training")
    controller = ControllerProcess(folder=folder / "controller")
    assert controller.init().returncode == 0
    command = json.dumps([sys.executable, "-c", SLOW])
    (controller.folder / "trainers.toml").write_text(
        f'[trainers.slow-head]\ncommand = {command}\n[trainers.liar]\ncommand = ["/bin/sh", "-c", "exit 0", "sh"]\n'
    )
    controller.start()
    scratch_model(folder / "model")
    assert lineside(controller, "models", "publish", "scratch", str(folder / "model" / "model.xml"), "--wait") == (
        "scratch:1\n"
    )
    labels = write_pictures(folder / "pictures", 240, seed=1)
    lineside(controller, "samples", "add", str(labels.parent), "--model", "scratch", "--labels", str(labels))
    lineside(controller, "datasets", "freeze", "scratch", "--id", "scratch-1", "--near", "0")
    yield controller
    controller.kill()


def lineside(controller: ControllerProcess, *words: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(controller.operator_file), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def start(controller: ControllerProcess, *words: str, status: int = 0) -> dict[str, Any]:
    command = ("training", "start", "scratch", "--dataset", "scratch-1", "--output", "json", *words)
    run: dict[str, Any] = json.loads(lineside(controller, *command, status=status))
    return run


def show(controller: ControllerProcess, run: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(lineside(controller, "training", "show", run["name"], "--output", "json"))
    return shown


def id_of(run: dict[str, Any]) -> str:
    return str(run["name"]).removeprefix("trainingRuns/")


def test_a_head_is_refitted_and_its_candidate_judged(controller: ControllerProcess) -> None:
    run = start(controller, "--wait", "--timeout", "60s")
    assert run["state"] == "SUCCEEDED", run
    assert run["reason"] in {"PROPOSED", "REJECTED", "INCONCLUSIVE"}
    assert run["reported_metrics"]["validation_auc/defect"] > 0.9
    assert [file["path"] for file in run["candidate"]["files"]] == ["model.bin", "model.xml"]
    assert run["warnings"] == []
    log = lineside(controller, "training", "log", id_of(run))
    assert "fitting 24 features" in log
    assert not any((controller.folder / "training").glob(f"{id_of(run)}*"))


def test_a_run_outlives_a_controller_that_is_killed(controller: ControllerProcess) -> None:
    run = start(controller, "--trainer", "slow-head")
    follow = [sys.executable, "-m", "controlplane.cli.main", "--config", str(controller.operator_file)]
    with subprocess.Popen([*follow, "training", "log", id_of(run), "--follow"], stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"waiting\n"
        controller.kill()
        job = controller.folder / "training" / f"{id_of(run)}-1"
        (job / "output" / "go").touch()
        controller.start()
        rest = follower.stdout.read().decode()
    assert "fitting 24 features" in rest
    lineside(controller, "training", "log", id_of(run), "--follow")
    ended = json.loads(
        lineside(controller, "training", "start", "scratch", "--dataset", "scratch-1", "--wait", "--output", "json")
    )
    assert ended["state"] == "SUCCEEDED"
    found = show(controller, run)
    assert (found["state"], found["attempt"]) == ("SUCCEEDED", 1), found


def test_a_run_whose_trainer_is_killed_is_tried_again(controller: ControllerProcess) -> None:
    run = start(controller, "--trainer", "slow-head")
    for attempt in (1, 2, 3):
        job = controller.folder / "training" / f"{id_of(run)}-{attempt}"
        lines = follow_until_waiting(controller, run)
        assert lines
        started = Started.read(job)
        assert started is not None
        subprocess.run(["kill", "-9", str(started.warden_pid)], check=True)
        await_attempt(controller, run, attempt + 1)
    found = show(controller, run)
    assert (found["state"], found["reason"], found["attempt"]) == ("FAILED", "LOST", 3)
    assert len(found["warnings"]) == 2


def follow_until_waiting(controller: ControllerProcess, run: dict[str, Any]) -> bytes:
    command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(controller.operator_file)]
    with subprocess.Popen([*command, "training", "log", id_of(run), "--follow"], stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        line = follower.stdout.readline()
        follower.kill()
    return line


def await_attempt(controller: ControllerProcess, run: dict[str, Any], attempt: int) -> None:
    for _ in range(60):
        found = show(controller, run)
        if found["attempt"] >= attempt or found["state"] == "FAILED":
            return
    raise AssertionError(found)


def test_a_trainer_that_writes_nothing_fails_and_a_cancelled_one_ends(controller: ControllerProcess) -> None:
    failed = start(controller, "--trainer", "liar", "--wait", status=3)
    assert (failed["state"], failed["reason"]) == ("FAILED", "OUTPUT_INVALID")
    assert "wrote none" in failed["message"]
    run = start(controller, "--trainer", "slow-head")
    follow_until_waiting(controller, run)
    lineside(controller, "training", "cancel", id_of(run))
    lineside(controller, "training", "log", id_of(run), "--follow")
    ended = show(controller, run)
    assert (ended["state"], ended["reason"]) == ("CANCELLED", "CANCELLED")
    assert json.loads(lineside(controller, "training", "list", "--output", "json"))[0]["name"] == run["name"]
    lineside(controller, "training", "cancel", id_of(failed), status=1)
