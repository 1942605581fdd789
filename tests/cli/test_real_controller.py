"""The command line and the client against a real controller: what the fake in memory may have wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.client import Client, Progress, Stage, limits
from tests.support.controller import ControllerProcess
from tests.support.models import classifier_ir

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerProcess]:
    controller = ControllerProcess(folder=tmp_path_factory.mktemp("real") / "controller")
    assert controller.init().returncode == 0
    controller.start()
    yield controller
    controller.kill()


def lineside(controller: ControllerProcess, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "controlplane.cli.main", "--config", str(controller.operator_file), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)  # noqa: PLW1510


def test_a_model_is_published_read_and_deployed(controller: ControllerProcess, tmp_path: Path) -> None:
    model = classifier_ir(tmp_path, bias=1.0)
    published = lineside(controller, "models", "publish", "parts", str(model), "--wait", "--notes", "first")
    assert (published.returncode, published.stdout, published.stderr) == (0, "parts:1\n", "")
    assert lineside(controller, "models", "publish", "parts", str(model)).stdout == "parts:1\n"

    version = json.loads(lineside(controller, "models", "show", "parts:1", "--output", "json").stdout)
    assert version["number"] == 1
    assert version["signature"]["format"] == "ir"
    assert [spec["name"] for spec in version["signature"]["inputs"]] == ["x"]
    assert version["notes"] == "first"

    words = ("deployments", "create", "parts", "--model", "parts:1", "--selector", "line=3")
    empty = lineside(controller, *words)
    assert empty.returncode == 1
    assert empty.stderr.startswith("error: ")
    assert lineside(controller, *words, "--allow-empty").stdout == "parts\n"
    (deployment,) = json.loads(lineside(controller, "deployments", "list", "--output", "json").stdout)
    assert (deployment["model_version"], deployment["selector"]) == ("models/parts/versions/1", "line=3")
    assert lineside(controller, "rollouts", "list", "--output", "json").stdout == "[]\n"
    assert lineside(controller, "deployments", "delete", "parts").returncode == 0


def test_tokens_are_created_listed_and_revoked(controller: ControllerProcess) -> None:
    created = lineside(controller, "tokens", "create", "--uses", "3", "--ttl", "1h", "--label", "line=3")
    assert created.stdout.startswith("lsj1.")
    assert created.stdout.count("\n") == 1
    (token,) = json.loads(lineside(controller, "tokens", "list", "--output", "json").stdout)
    assert (token["uses"], token["used"], token["labels"], token["token"]) == (3, 0, {"line": "3"}, "")
    revoked = lineside(controller, "tokens", "revoke", token["name"], "--output", "json")
    assert json.loads(revoked.stdout)["revoked"] is True


def test_an_operator_is_made_and_the_log_names_who_did_what(controller: ControllerProcess) -> None:
    created = lineside(controller, "operators", "create", "bea", "--description", "night shift")
    assert created.stdout.startswith("lso1.")
    me = json.loads(lineside(controller, "operators", "whoami", "--output", "json").stdout)["name"]
    listed = lineside(controller, "audit", "list", "--resource", "operators/bea", "--output", "json")
    (event,) = json.loads(listed.stdout)
    assert (event["actor"], event["action"], event["resource"]) == (me, "operator.create", "operators/bea")
    assert json.loads(lineside(controller, "operators", "revoke", "bea", "--output", "json").stdout)["revoked"]
    last = lineside(controller, "operators", "revoke", me, "--output", "json")
    assert (last.returncode, json.loads(last.stderr)["error"]["reason"]) == (1, "LAST_OPERATOR")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("models", "show", "nothing"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("rollouts", "pause", "none"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("rollouts", "approve", "none"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("rollouts", "plan", "none", "--version", "m:1"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("rollouts", "rehearse", "none", "--version", "m:1"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("agents", "explain", "none"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("agents", "pin", "none", "m:1", "--reason", "r"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("models", "yank", "none:1", "--reason", "r"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("operators", "create", "No Id"), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (("samples", "get", "none"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("rollouts", "start", "none", "--version", "m:1"), "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        (("agents", "list", "--selector", "line in ("), "INVALID_ARGUMENT", "SELECTOR_INVALID"),
        (("tokens", "create", "--uses", "0", "--ttl", "1h"), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (("deployments", "create", "No Id", "--model", "m", "--selector", "a=b"), "INVALID_ARGUMENT", "FIELD_INVALID"),
    ],
)
def test_refusals_arrive_whole(controller: ControllerProcess, words: tuple[str, ...], code: str, reason: str) -> None:
    refused = lineside(controller, *words, "--output", "json")
    assert refused.returncode == 1
    error = json.loads(refused.stderr)["error"]
    assert (error["code"], error["reason"]) == (code, reason)
    assert error["message"]
    if code == "INVALID_ARGUMENT":
        assert error["field"]
        assert error["remedy"]


def test_a_publication_outlives_the_controllers_end(tmp_path: Path) -> None:
    controller = ControllerProcess(folder=tmp_path / "controller")
    assert controller.init().returncode == 0
    controller.start()
    model = classifier_ir(tmp_path)
    with model.with_suffix(".bin").open("ab") as weights:
        weights.write(os.urandom(32 * limits.CHUNK_BYTES))
    told: list[int] = []
    kills: list[int] = []

    def kill_in_the_middle(progress: Progress) -> None:
        if progress.stage is not Stage.UPLOAD:
            return
        if not kills and progress.done_bytes > progress.total_bytes // 2:
            kills.append(len(told))
            controller.kill()
            controller.start()
        told.append(progress.done_bytes)

    try:
        with Client.from_config(controller.operator_file) as client:
            assert client.models.publish("parts", model, progress=kill_in_the_middle).number == 1
    finally:
        controller.kill()
    (killed_at,) = kills
    resumed_at = min(told[killed_at + 1 :])
    assert resumed_at > 8 * limits.CHUNK_BYTES, "the bytes that were held were sent again"
