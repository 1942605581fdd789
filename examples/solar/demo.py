"""`make demo`: the whole of Lineside in its smallest form, from nothing, with real processes, images and models.

A controller, two stations and a line server start in `.demo/`. Version 1 of a solar-cell classifier is rolled out,
real held-out images are replayed at every station, and version 2 follows in waves while the images keep flowing.
The end is a summary, on the screen and in `.demo/summary.json`. The exit status is 0 only when everything held.
"""

import argparse
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from examples.solar import data, loop, model, summary
from examples.solar.fleet import Agent, DemoError, Fleet, stop_left_over
from examples.solar.line import (
    BEGIN,
    CACHE,
    DEPLOYMENT,
    FOLDER,
    LINE,
    MODEL,
    ROOT,
    STATIONS,
    Cameras,
    console,
    say,
    wait_for,
)

TRAINING_CELLS = {1: 120, 2: 540}
"""Cells that each version is fitted on, of the 716 that are not held out. The others of the archive are left to judge
candidates: whoever wants to know whether one is better needs cells that the version in the field was not fitted on."""
WAVES = {1: "1,100%", 2: "1,50%,100%"}
STRATEGY = ("--bake", "3s", "--max-errors-per-mille", "50")
"""116 images without an error show at 99 % that fewer than 50 of 1,000 fail: five seconds of one station."""
ROLLOUT_SECONDS = 120.0
COVER_SECONDS = 60.0
DELIVERY_SECONDS = 60.0


def build_models(*, only: int | None = None) -> tuple[loop.Archive, data.Cells]:
    """Write both versions below FOLDER, or only one as version 1; return the archive of mono cells, and those that are
    held out from all."""
    cells = data.load_cells(data.Product.MONO)
    training, held_out = data.split(cells, seed=data.SPLIT_SEED)
    backbone = data.fetch_backbone(CACHE)
    versions = TRAINING_CELLS if only is None else {1: TRAINING_CELLS[only]}
    for version, count in versions.items():
        used = training.take(range(count))
        model.build_version(backbone, used, FOLDER / "models" / f"v{version}")
        say(f"version {version}: head fitted on {len(used)} of {len(cells)} mono-crystalline cells")
    fitted = max(TRAINING_CELLS.values())
    archive = loop.Archive(fitted=training.take(range(fitted)), judging=training.take(range(fitted, len(training))))
    return archive, held_out


def start_agents(fleet: Fleet) -> dict[str, Agent]:
    token = fleet.operate_text(
        "tokens", "create", "--uses", str(len(STATIONS)), "--ttl", "1h", "--label", f"line={LINE}"
    )
    agents = {}
    for name, label in STATIONS.items():
        agents[name] = fleet.start_agent(name, token=token.strip(), label=label)
        say(f"agent {name} serves gRPC at {agents[name].grpc} and REST at {agents[name].http}")
    return agents


def create_deployment(fleet: Fleet) -> None:
    selector = ["--model", MODEL, "--selector", f"line={LINE}"]
    fleet.operate("deployments", "create", DEPLOYMENT, *selector, "--hint", "THROUGHPUT")


def publish(fleet: Fleet, version: int) -> None:
    name = fleet.operate_text("models", "publish", MODEL, str(FOLDER / "models" / f"v{version}"), "--wait").strip()
    if name != f"{MODEL}:{version}":
        raise DemoError(f"published {name}, expected {MODEL}:{version}")
    say(f"published {name}")


def roll_out(fleet: Fleet, version: int) -> None:
    """Start a rollout and say what it does until it has ended. Raises DemoError when it does not succeed."""
    started = fleet.operate(
        *["rollouts", "start", DEPLOYMENT, "--version", str(version), "--waves", WAVES[version], *STRATEGY]
    )
    name = summary.resource_id(started["name"])
    say(f"rollout {name} to version {version} in waves of {WAVES[version]}")
    last, told = started, set[str]()
    for last in fleet.watch("rollouts", "watch", name, seconds=ROLLOUT_SECONDS):
        texts = [wave_text(wave) for wave in last["waves"] if wave["state"] != "PENDING"]
        for text in [text for text in texts if text not in told]:
            told.add(text)
            say(f"rollout {name}: {text}")
    if last["state"] != "SUCCEEDED":
        raise DemoError(f"rollout {name} ended {last['state']}: {last['reason']}: {last['message']}")


def wave_text(wave: Mapping[str, Any]) -> str:
    agents = ", ".join(map(summary.resource_id, wave["agents"])) or "nobody"
    return f"wave {wave['size']} ({agents}) is {wave['state']}"


def wait_until_judged(fleet: Fleet, cameras: Cameras, version: int, cells: int) -> None:
    """Wait until every station has sent every held-out cell to the version."""

    def judged() -> bool:
        return all(cameras.judged(name, version) == cells for name in STATIONS)

    wait_for(f"every station's {cells} cells judged by version {version}", judged, fleet, seconds=COVER_SECONDS)
    say(f"every station has had its {cells} held-out cells judged by version {version}")


def collect(fleet: Fleet, cameras: Cameras, story: loop.Story) -> summary.Summary:
    """Wait until everything has come back to the controller, and compute the summary from it."""
    reports = cameras.reports()
    sent, answered = (sum(int(seen[key]) for seen in reports.values()) for key in ("sent", "answered"))
    for name, seen in reports.items():
        for error in seen["errors"]:
            say(f"[red]{name} lost an image:[/red] {error}")

    def delivered() -> bool:
        return sum(int(row["inference_count"]) for row in metrics(fleet)) >= answered

    wait_for(f"the results of {answered} images at the controller", delivered, fleet, seconds=DELIVERY_SECONDS)
    samples = settled_samples(fleet)
    by_agent = metrics(fleet, "--by-agent")
    agents = {summary.resource_id(agent["name"]): agent for agent in fleet.operate("agents", "list")}
    rollouts = sorted(fleet.operate("rollouts", "list"), key=lambda rollout: str(rollout["create_time"]))
    judged = loop.judged_cells(fleet, story)
    return summary.Summary(
        images_sent=sent,
        images_answered=answered,
        images_lost=sent - answered,
        agents=tuple(summary.agent_facts(agents[name], MODEL, reports[name], by_agent) for name in STATIONS),
        versions=summary.version_facts(judged),
        rollouts=tuple(summary.rollout_facts(rollout) for rollout in rollouts),
        samples_received=len(samples),
        samples_by_reason=dict(Counter(sample["reason"] for sample in samples)),
        results_received=loop.count_results(fleet),
        loop=loop.loop_facts(fleet, story, judged),
        seconds=round(time.monotonic() - BEGIN, 1),
    )


def metrics(fleet: Fleet, *options: str) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = fleet.operate("metrics", "show", "--model", MODEL, *options)
    return rows


def settled_samples(fleet: Fleet) -> Sequence[Mapping[str, Any]]:
    """The samples at the controller, once none has come between two looks; how many are chosen is up to the agents."""
    seen: list[Sequence[Mapping[str, Any]]] = [[]]

    def settled() -> bool:
        seen.append(fleet.operate("samples", "list", "--model", MODEL))
        return 0 < len(seen[-1]) == len(seen[-2])

    wait_for("samples at the controller", settled, fleet, seconds=DELIVERY_SECONDS)
    return seen[-1]


def run_demo(fleet: Fleet) -> summary.Summary:
    archive, held_out = build_models()
    fleet.start_controller()
    say(f"controller at {fleet.controller}")
    agents = start_agents(fleet)
    cameras = Cameras(fleet, agents)
    publish(fleet, 1)
    create_deployment(fleet)
    story = loop.prepare(fleet, archive=archive, held_out=held_out)
    cameras.start("mono", dict.fromkeys(STATIONS, held_out))
    for version in TRAINING_CELLS:
        if version > 1:
            publish(fleet, version)
        roll_out(fleet, version)
        wait_until_judged(fleet, cameras, version, len(held_out))
    loop.close(fleet, cameras, story)
    say("images stopped; waiting for what is still on its way to the controller")
    return collect(fleet, cameras, story)


def keep_running(fleet: Fleet) -> None:
    """Say how to look around in what is left running."""
    operate = f".venv/bin/lineside --config {fleet.operator_file.relative_to(ROOT)}"
    console.print("\nThe controller and the agents keep running. Look around:")
    for command in ("agents list", "rollouts list", f"metrics show --model {MODEL}", f"samples list --model {MODEL}"):
        console.print(f"  {operate} {command}")
    console.print("End them:\n  make demo-stop")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.solar.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the controller and the agents running")
    parser.add_argument("--stop", action="store_true", help="only end what an earlier run left running")
    options = parser.parse_args()
    for name in stop_left_over(FOLDER):
        say(f"ended {name}, which an earlier run had left running")
    if options.stop:
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    fleet = Fleet(folder=FOLDER)
    kept = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # both raise KeyboardInterrupt
    try:
        facts = run_demo(fleet)
        facts.write(FOLDER / "summary.json")
        summary.show(facts, console)
        if failures := facts.failures():
            raise DemoError("\n".join(failures))
        kept = options.keep
    except (DemoError, KeyboardInterrupt) as error:
        console.print(f"\n[red]The demo failed:[/red] {str(error) or 'interrupted'}", markup=True)
        sys.exit(1)
    finally:
        if not kept:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave processes behind
            fleet.stop()
    if kept:
        keep_running(fleet)
    else:
        console.print("Everything held. The processes are stopped; the facts are in .demo/summary.json.")


if __name__ == "__main__":
    main()
