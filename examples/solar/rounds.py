"""`make loop ROUNDS=5`: the loop, round after round, on one line, and what each further label is worth.

The line turns to poly-crystalline cells. In each round the stations' samples bring some more labels, which trigger a
run; its candidate goes out when it is a real gain, and else the version in the field stays. After each round every
held-out cell is judged anew. Then how samples are chosen is compared at equal numbers of labels: our default policy,
chance, and least confidence alone, over several seeds. The exit status is 0 only when no round lost anything.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from rich.table import Table

from examples.solar import loop, summary
from examples.solar.data import Product
from examples.solar.demo import build_models, create_deployment, publish, roll_out, start_agents
from examples.solar.fleet import DemoError, Fleet, stop_left_over
from examples.solar.line import BEGIN, FOLDER, STATIONS, Cameras, console, say

LABELS_A_ROUND = 80
LABELS_MIN = 60
NOISE = 0.02
"""The AUC of 517 cells moves by so much when nothing but chance does: a round that falls by less holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What stood at the end of one round. AUCs are of held-out cells, from the results at the controller."""

    number: int
    labels: int
    verdict: str
    reasons: tuple[str, ...]
    version: int
    auc_poly: float
    auc_mono: float
    seconds: float


def run_rounds(fleet: Fleet, count: int) -> list[Round]:
    archive, held_out = build_models(only=2)
    fleet.start_controller()
    cameras = Cameras(fleet, start_agents(fleet))
    publish(fleet, 1)
    create_deployment(fleet)
    story = loop.prepare(fleet, archive=archive, held_out=held_out, new_labels=LABELS_MIN)
    cameras.start("mono", dict.fromkeys(STATIONS, held_out))
    roll_out(fleet, 1)
    loop.turn(fleet, cameras, story)
    rounds: list[Round] = []
    for number in range(1, count + 1):
        begin = time.monotonic()
        if number > 1:
            loop.show_new_product(cameras, story)
        loop.import_labels(fleet, story, least=LABELS_MIN, most=LABELS_A_ROUND)
        promotion = loop.await_judgement(fleet, story)
        if number == 1:
            loop.train_on_labels(fleet, LABELS_MIN)
        verdict = promotion["judgement"]["verdict"]
        if promotion["state"] == "PROPOSED":
            loop.approve(fleet, story)
            loop.await_rollout(fleet, story)
        loop.judge_held_out(fleet, cameras, story)
        judged = loop.judged_cells(fleet, story)
        rounds.append(
            Round(
                number=number,
                labels=len(story.labelled),
                verdict=verdict,
                reasons=tuple(promotion["judgement"]["reasons"]),
                version=story.after,
                auc_poly=summary.quality(judged, story.after, Product.POLY).auc,
                auc_mono=summary.quality(judged, story.after, Product.MONO).auc,
                seconds=round(time.monotonic() - begin, 1),
            )
        )
        auc = rounds[-1].auc_poly
        say(f"round {number}: {len(story.labelled)} labels, {verdict}, version {story.after}, AUC on poly {auc:.3f}")
    return rounds


def losses(rounds: Sequence[Round]) -> list[str]:
    """What a round lost, each in one sentence; empty when every one improved or held."""
    found = [
        f"Round {later.number} fell from {earlier.auc_poly:.3f} to {later.auc_poly:.3f} on poly cells."
        for earlier, later in pairwise(rounds)
        if later.auc_poly < earlier.auc_poly - NOISE
    ]
    if not any(each.verdict == "PROPOSED" for each in rounds):
        found.append("No round brought a better version.")
    return found


def show(rounds: Sequence[Round]) -> None:
    table = Table(title="Rounds", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("round", "labels", "verdict", "version", "AUC poly", "AUC mono", "seconds"):
        table.add_column(column)
    for each in rounds:
        cells = [each.number, each.labels, each.verdict, each.version, f"{each.auc_poly:.3f}", f"{each.auc_mono:.3f}"]
        table.add_row(*map(str, cells), f"{each.seconds:.0f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.solar.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    stop_left_over(FOLDER)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    fleet = Fleet(folder=FOLDER)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # both raise KeyboardInterrupt
    try:
        rounds = run_rounds(fleet, options.rounds)
    except (DemoError, KeyboardInterrupt) as error:
        console.print(f"\n[red]The loop failed:[/red] {str(error) or 'interrupted'}", markup=True)
        sys.exit(1)
    finally:
        fleet.stop()
    write(rounds, FOLDER / "rounds.json")
    show(rounds)
    console.print(f"Duration  {time.monotonic() - BEGIN:.0f} s; the facts are in .demo/rounds.json")
    if failures := losses(rounds):
        console.print("\n".join(failures))
        sys.exit(1)


def write(rounds: Sequence[Round], path: Path) -> None:
    path.write_text(json.dumps([asdict(each) for each in rounds], indent=2) + "\n")


if __name__ == "__main__":
    main()
