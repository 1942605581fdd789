"""Exit statuses and errors: one line for people, one object for programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from controlplane.client import limits
from tests.cli.conftest import Lineside
from tests.client.fake_controller import FakeController, Refusal

REFUSAL = Refusal(
    code=grpc.StatusCode.INVALID_ARGUMENT,
    reason="SELECTOR_INVALID",
    message="'line=' has no value",
    field="deployment.selector",
    remedy="write KEY=VALUE",
)


def test_a_refusal_is_told_with_field_and_remedy(lineside: Lineside, fake: FakeController) -> None:
    fake.refusals["ListAgents"].append(REFUSAL)
    outcome = lineside("agents", "list", "--selector", "line=")
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err == "error: deployment.selector: 'line=' has no value; write KEY=VALUE\n"


def test_a_refusal_is_an_object_for_programs(lineside: Lineside, fake: FakeController) -> None:
    fake.refusals["GetAgent"].append(REFUSAL)
    outcome = lineside("agents", "show", "st-1", "--output", "json")
    assert outcome.status == 1
    assert outcome.out == ""
    assert json.loads(outcome.err) == {
        "error": {
            "code": "INVALID_ARGUMENT",
            "reason": "SELECTOR_INVALID",
            "field": "deployment.selector",
            "message": "'line=' has no value",
            "remedy": "write KEY=VALUE",
        }
    }


@pytest.mark.parametrize(
    "words",
    [
        ("agents", "lst"),
        ("agents", "list", "--selectr", "a"),
        ("agents", "show"),
        ("agents", "list", "--limit", "many"),
        ("agents", "list", "--limit", "0"),
        ("tokens", "create", "--ttl", "soon"),
        ("tokens", "create", "--label", "line"),
        ("rollouts", "start", "line-3"),
        ("rollouts", "start", "line-3", "--version", "zero"),
        ("rollouts", "start", "line-3", "--version", "0"),
        ("models", "publish", "solar", "no/such/file.onnx"),
        ("models", "show", "solar:latest"),
        ("--controller", "nowhere", "agents", "list"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_right_is_usage(lineside: Lineside, fake: FakeController, words: tuple[str, ...]) -> None:
    outcome = lineside(*words)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    as_json = lineside(*words, "--output", "json")
    assert as_json.status == 2
    assert json.loads(as_json.err)["error"]["message"]
    assert fake.calls == []


def test_a_controller_out_of_reach_is_told_with_its_address(
    lineside: Lineside, fake: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CALL_RETRY_SECONDS", 0.1)
    address = fake.config.controller
    fake.stop()
    outcome = lineside("agents", "list")
    assert outcome.status == 4
    assert f"no answer from {address}" in outcome.err
    assert "--controller" in outcome.err
    error = json.loads(lineside("agents", "list", "--output", "json").err)["error"]
    assert (error["code"], error["reason"], error["field"]) == ("UNAVAILABLE", "UNREACHABLE", "controller")


def test_the_controller_may_be_named_on_the_command_line(
    lineside: Lineside, fake: FakeController, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINESIDE_CONTROLLER", "127.0.0.1:1")
    outcome = lineside("agents", "list", "--config", str(config), "--controller", fake.config.controller)
    assert outcome.status == 0


def test_version_is_printed(lineside: Lineside) -> None:
    assert lineside("--version").out.strip()[0].isdigit()


def test_ctrl_c_is_told_by_the_status(
    lineside: Lineside, fake: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("controlplane.client.agents.Agents.list", interrupt)
    assert lineside("agents", "list").status == 128 + signal.SIGINT


def test_the_script_works_as_a_process(fake: FakeController, config: Path, tmp_path: Path) -> None:
    (tmp_path / "solar.onnx").write_bytes(b"onnx")
    command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(config)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LINESIDE_")}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, *words], capture_output=True, text=True, env=environment, timeout=60)  # noqa: PLW1510

    published = run("models", "publish", "solar", str(tmp_path / "solar.onnx"), "--wait")
    assert (published.returncode, published.stdout, published.stderr) == (0, "solar:1\n", "")
    missing = run("models", "show", "other")
    assert missing.returncode == 1
    assert missing.stderr == "error: name: models/other does not exist; list what there is\n"


def test_a_reader_that_has_seen_enough_is_no_failure(fake: FakeController, config: Path) -> None:
    from tests.cli.test_commands import add_result

    for number in range(2000):
        add_result(fake, f"part-{number}")
    command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(config)]
    words = ["results", "list", "--model", "solar", "--all", "--output", "json"]
    with subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "[\n"
        process.stdout.close()
        complaints = process.stderr.read()
        assert process.wait(60) == 0
    assert complaints == ""
