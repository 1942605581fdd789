"""kill -9 of either side in the middle of things: each restarts, goes on where it stopped, and loses nothing."""

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lineside.v1 import rollout_pb2

from controlplane.client import Client, ClientError
from controlplane.client.rollouts import Rollout
from tests.support import models
from tests.support.line import Line, Load, large_model, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.openvino, pytest.mark.slow]

PADDING_BYTES = 384 << 20
"""Long enough under way that a kill finds it there."""


def size_of(folder: Path, pattern: str) -> int:
    """Bytes of the one growing file, 0 before it exists or after it has been moved."""
    try:
        return max((path.stat().st_size for path in folder.glob(pattern) if path.is_file()), default=0)
    except FileNotFoundError:
        return 0


def events(log: str, event: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line for line in lines if line.get("event") == event]


def test_the_controller_is_killed_in_mid_upload(line: Line) -> None:
    source = large_model(line.folder / "v1", padding_bytes=PADDING_BYTES)
    uploads = line.controller.folder / "uploads"
    steps: list[int] = []
    published: list[int] = []

    def publish() -> None:
        with Client.from_config(line.controller.operator_file) as client:
            version = client.models.publish("m", source, progress=lambda step: steps.append(step.done_bytes))
            published.append(version.number)

    publisher = threading.Thread(target=publish)
    publisher.start()
    held = wait_until(lambda: size_of(uploads, "*.part") > PADDING_BYTES // 4, what="a quarter to be uploaded")
    line.controller.kill()
    held = size_of(uploads, "*.part")
    assert PADDING_BYTES // 4 < held < PADDING_BYTES
    line.controller.start()
    publisher.join(timeout=120)
    assert published == [1], "the same call ended, and it is the first version"
    with line.client() as client:
        assert client.models.get("m").latest_version == 1
    resumed = [event for event in events(line.controller.log(), "upload_resumed") if event["offset_bytes"]]
    assert [event["offset_bytes"] for event in resumed] == [held], "bytes already sent are not sent again"
    assert not list(uploads.glob("*.part"))


def test_the_controller_is_killed_in_mid_download(line: Line) -> None:
    line.publish("m", large_model(line.folder / "v1", padding_bytes=PADDING_BYTES))
    agent = line.start_agent("st-1")
    line.deploy("d", "m", 1)
    partial = agent.folder / "partial"
    wait_until(lambda: size_of(partial, "*") > PADDING_BYTES // 4, what="a quarter to be downloaded")
    line.controller.kill()
    held = size_of(partial, "*")
    line.controller.start()
    line.wait_serving("st-1", "m", 1)
    resumed = events(agent.log(), "download_resumed")
    assert resumed
    assert all(int(str(event["offset_bytes"])) >= min(held, PADDING_BYTES // 4) for event in resumed)


def test_the_controller_is_killed_in_mid_wave(line: Line) -> None:
    for number, bias in enumerate((1.0, 3.0), start=1):
        line.publish("m", models.classifier_ir(line.folder / f"v{number}", bias=bias))
    agents = [line.start_agent(name) for name in ("st-1", "st-2")]
    line.deploy("d", "m", 1)
    for agent in agents:
        line.wait_serving(agent.name, "m", 1)
    with Load(agents[0].grpc_address, "m", "a") as one, Load(agents[1].grpc_address, "m", "b") as two:
        started = line.lineside("rollouts", "start", "d", "--version", "2", "--waves", "1,100%", "--bake", "3s")
        rollout = started.stdout.strip()
        line.controller.kill()
        line.controller.start()
        done = line.lineside("rollouts", "watch", rollout)
        assert done.returncode == 0, done.stderr
        assert line.json("rollouts", "show", rollout)["state"] == "SUCCEEDED"
    assert not one.failures
    assert not two.failures
    answered = one.answered | two.answered
    wait_until(lambda: len(line.results("m")) >= len(answered), what="every result to come back")
    parts = [result.part_id for result in line.results("m")]
    assert sorted(parts) == sorted(answered), "no result is lost or doubled"


@pytest.mark.parametrize("delay_seconds", [0.01, 0.03, 0.1])
def test_the_controller_is_killed_around_commands_on_a_rollout(line: Line, delay_seconds: float) -> None:
    """Each is done whole or not at all, with its entry in the log, and can be given again."""
    for number, bias in enumerate((1.0, 3.0), start=1):
        line.publish("m", models.classifier_ir(line.folder / f"v{number}", bias=bias))
    line.enroll("st-1")  # a target that is out of reach: nothing moves but by commands
    line.deploy("d", "m", 1)
    strategy = rollout_pb2.RolloutStrategy(
        waves=["100%"], approval=rollout_pb2.ApprovalPolicy(scope=rollout_pb2.ApprovalPolicy.SCOPE_EVERY_WAVE)
    )

    def through_a_kill(action: str, command: Callable[[Client], Rollout]) -> Rollout:
        """Give the command, kill the controller meanwhile, and give it again where it was not done."""
        caller = threading.Thread(target=try_command, args=(line, command))
        caller.start()
        threading.Event().wait(delay_seconds)
        line.controller.kill()
        line.controller.start()
        caller.join(timeout=120)
        with line.client() as client:
            for _ in range(2):
                done = [event for event in client.audit.list() if event.action == action]
                if done:
                    break
                command(client)
            assert len(done) == 1, f"{action} is done once"
            (rollout,) = client.rollouts.list()
        return rollout

    rollout = through_a_kill(
        "rollout.start", lambda client: client.rollouts.start("d", model="m", version=2, strategy=strategy)
    )
    assert [list(wave.agents) for wave in rollout.waves] == [["agents/st-1"]]
    name = rollout.name
    rollout = through_a_kill("wave.approve", lambda client: client.rollouts.approve(name))
    assert rollout.waves[0].approver
    rollout = through_a_kill("rollout.abort", lambda client: client.rollouts.abort(name))
    assert rollout.state == rollout_pb2.Rollout.STATE_ABORTED
    with line.client() as client:
        assert client.deployments.get("d").model_version == "models/m/versions/1"
        client.deployments.delete("d")


def try_command(line: Line, command: Callable[[Client], Rollout]) -> None:
    """Give it once; that the controller ends meanwhile is no failure."""
    with line.client() as client, contextlib.suppress(ClientError):
        command(client)


def test_the_agent_is_killed_in_mid_download(line: Line) -> None:
    line.publish("m", large_model(line.folder / "v1", padding_bytes=PADDING_BYTES))
    agent = line.start_agent("st-1")
    line.deploy("d", "m", 1)
    partial = agent.folder / "partial"
    wait_until(lambda: size_of(partial, "*") > PADDING_BYTES // 4, what="a quarter to be downloaded")
    agent.kill()
    held = size_of(partial, "*")
    assert PADDING_BYTES // 4 < held < PADDING_BYTES
    agent.start()
    line.wait_serving("st-1", "m", 1)
    resumed = events(agent.log(), "download_resumed")
    assert [event["offset_bytes"] for event in resumed] == [held], "bytes already sent are not sent again"


def test_the_agent_is_killed_in_mid_compile(line: Line) -> None:
    agent = line.enroll("st-1")
    line.publish("m", models.classifier_ir(line.folder / "v1", bias=1.0))
    line.publish("m", models.small_convnet_ir(line.folder / "v2", size=128, width=96, depth=8))
    agent.start()
    line.deploy("d", "m", 1)
    line.wait_serving("st-1", "m", 1)
    with line.client() as client:
        rollout = client.rollouts.start("d", model="m", version=2, waves=["100%"]).name
    wait_until(lambda: list((agent.folder / "compiled").glob("*.partial*")), what="the compile to begin")
    agent.kill()
    agent.start()
    line.wait_serving("st-1", "m", 2)
    assert not list((agent.folder / "compiled").glob("*.partial*")), "what the kill left is cleared away"
    with line.client() as client:
        client.rollouts.abort(rollout)


def test_the_agent_is_killed_while_serving(line: Line) -> None:
    agent = line.start_agent("st-1")
    line.publish("m", models.classifier_ir(line.folder / "v1"))
    line.deploy("d", "m", 1, keep_samples=True)
    line.wait_serving("st-1", "m", 1)
    with Load(agent.grpc_address, "m", "a", tolerate_absence=True) as load:
        for _ in range(2):
            load.wait_answers(100)
            agent.kill()
            agent.start()
        load.wait_answers(50)
    assert not load.failures
    wait_until(
        lambda: set(load.answered) <= {result.part_id for result in line.results("m")}, what="every result to come back"
    )
    results = line.results("m")
    assert len({result.name for result in results}) == len(results)
    parts = [result.part_id for result in results]
    assert len(set(parts)) == len(parts), "no result is doubled"
    unanswered = set(parts) - set(load.answered)
    assert len(unanswered) <= 2 * load.threads, (
        "at most the calls under way at each kill were recorded and not answered"
    )
    with line.client() as client:
        samples = list(client.samples.list(model="m"))
    assert samples
    assert len({sample.result.part_id for sample in samples}) == len(samples), "no sample is doubled"
