"""The loop as people run it: labels come, a run begins by itself, its candidate is judged on what no trainer saw, a
person approves, and the version goes out to the station; through a kill of the controller in the middle of it."""

from pathlib import Path
from typing import Any

import pytest
from lineside.v1 import promotion_pb2

from tests.support.line import Line, wait_until
from tests.training.scratches import scratch_model, write_pictures

pytestmark = [pytest.mark.e2e, pytest.mark.openvino]
MODEL = "scratch"


def wait_judged(line: Line, count: int) -> list[dict[str, Any]]:
    """The judgements, newest first, once there are so many. Looks by the client: a command line takes a second."""
    with line.client() as client:
        wait_until(lambda: len(list(client.promotions.list(model=MODEL))) == count, what=f"{count} runs to be judged")
    found: list[dict[str, Any]] = line.json("training", "judgements", "--model", MODEL)
    return found


def add(line: Line, folder: Path, count: int, *, seed: int) -> None:
    labels = write_pictures(folder, count, seed=seed)
    done = line.lineside(
        "samples", "add", str(folder), "--model", MODEL, "--labels", str(labels), "--site", "suzhou", "--line", "3"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(500)
def test_what_is_labelled_becomes_the_next_version_once_somebody_approves(line: Line) -> None:
    line.publish(MODEL, scratch_model(line.folder / "v1"))
    line.deploy("d", MODEL, 1)
    line.start_agent("st-1")
    line.wait_serving("st-1", MODEL, 1)
    strategy = line.folder / "strategy.toml"
    strategy.write_text('waves = "100%"\nmin_inferences = 0\n')
    was_set = line.lineside(
        "training", "policy", "set", MODEL, "--trainer", "head", "--min-new-labels", "200", "--near", "0",
        "--class-budget", "0.2", "--min-parts", "20", "--deployment", "d", "--strategy", str(strategy),
    )  # fmt: skip
    assert was_set.returncode == 0, was_set.stderr
    add(line, line.folder / "pictures", 240, seed=1)

    (judged,) = wait_judged(line, 1)
    assert judged["state"] == "PROPOSED", judged["judgement"]["reasons"]
    overall = judged["judgement"]["overall"]
    assert overall["difference_low"] > 0
    assert overall["candidate"] > 0.9
    run = judged["name"].split("/")[1]
    shown = line.json("training", "show", run)
    assert (shown["state"], shown["reason"]) == ("SUCCEEDED", "PROPOSED")
    assert shown["creator"] == "rules/training-policy"

    approved = line.lineside("training", "approve", run, "--reason", "looked at ten of them")
    assert approved.returncode == 0, approved.stderr
    line.controller.kill()
    line.controller.start()
    line.wait_serving("st-1", MODEL, 2)
    done = promotion_pb2.Promotion.STATE_RELEASED
    with line.client() as client:
        wait_until(lambda: client.promotions.get(run).state == done, what="the promotion to end")
    (released,) = wait_judged(line, 1)
    assert released["model_version"] == f"models/{MODEL}/versions/2"
    assert len(line.json("rollouts", "list", "--deployment", "d")) == 1
    assert len(line.json("models", "show", MODEL)["versions"]) == 2
    again = line.lineside("training", "approve", run)
    assert again.returncode == 1
    assert "is RELEASED" in again.stderr

    lineage = line.json("models", "lineage", f"{MODEL}:2")
    made, base = lineage["ancestors"]
    assert made["training_run"] == f"trainingRuns/{run}"
    assert made["base_version"] == base["model_version"] == f"models/{MODEL}/versions/1"
    assert sum(made["items"].values()) == 240
    assert made["items_by_line"] == {"suzhou/3": 240}
    assert made["items_by_agent"] == {"": 240}
    assert made["decider"] == "operators/admin"
    assert [use["rollout"] for use in lineage["rollouts"]] == [released["rollout"]]
    assert [use["agent"] for use in lineage["agents"]] == ["agents/st-1"]
    text = line.lineside("models", "lineage", f"{MODEL}:2").stdout
    assert f"run {run} (head) from {MODEL}:1" in text

    policy = line.json("training", "policy", "show", MODEL)
    assert policy["triggers"]["new_labels"] == 0
    assert policy["triggers"]["trigger"] == ""
    assert len(line.json("training", "list")) == 1, "the same labels are not trained on twice"

    # The second round: the champion is what serves now, and the held-out pictures stay held out.
    add(line, line.folder / "more", 220, seed=2)
    newest = wait_judged(line, 2)[0]
    assert newest["judgement"]["champion_version"] == f"models/{MODEL}/versions/2"
    assert newest["judgement"]["parts"] > released["judgement"]["parts"]
