"""The demo's second half: the line turns to a product that the fielded version does not know, and the loop answers.

The drift is flagged, samples come back, labels come in, a candidate is trained, judged on what no trainer sees,
approved and rolled out, all by the product's public commands. The labels are the data set's own truth, brought by
`lineside samples import` as a person's would be. Cells that the summary judges by are never labelled.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from controlplane.client import Client
from examples.solar import data, picture, summary
from examples.solar.data import Cells, Product
from examples.solar.fleet import DemoError, Fleet
from examples.solar.line import DEPLOYMENT, FOLDER, LINE, MODEL, STATIONS, Cameras, each_its_own, say, wait_for
from examples.solar.summary import LABELS_MAX, Judged, LoopFacts

ARCHIVE = "archive"
"""Station under which the labelled cells stand that were there before."""
LABELS_MIN = 300
"""Of the new product, before a version is trained."""
STRATEGY = """
waves = "1,100%"
bake = "3s"
shadow = 40
shadow-agreement = "0%"
max-errors-per-mille = 50
"""
"""The candidate is to answer otherwise than the version in the field: the shadow run looks at errors and time alone."""
DRIFT_SECONDS = 90.0
SAMPLES_SECONDS = 90.0
TRAINING_SECONDS = 420.0
ROLLOUT_SECONDS = 120.0
COVER_SECONDS = 90.0
ROWS_A_PAGE = 10_000
PICTURE = FOLDER / "loop.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Labelled cells that were there before."""

    fitted: Cells
    """On which the first versions were fitted."""
    judging: Cells
    """On which nothing is ever fitted."""

    def __len__(self) -> int:
        return len(self.fitted) + len(self.judging)


@dataclass(slots=True, kw_only=True)
class Story:
    """What the demo knows beforehand, and when things happened."""

    held_out: Mapping[Product, Cells]
    """Shown at the stations, judged, and never labelled."""
    pool: Cells
    """Cells of the new product whose labels are given when a station sends them as samples."""
    before: int = 0
    """Version in the field when the line turned."""
    after: int = 0
    labelled: set[str] = field(default_factory=set)
    """Samples of the new product."""
    runs: list[str] = field(default_factory=list)
    """Training runs that were judged, the newest last."""
    events: dict[str, datetime] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.events[name] = datetime.now(UTC)


def prepare(fleet: Fleet, *, archive: Archive, held_out: Cells, new_labels: int = LABELS_MIN) -> Story:
    """Bring the archive with its labels, and say that a model is to be trained anew when inputs have drifted and there
    are `new_labels` beside those of the archive."""
    poly_training, poly_held_out = data.split(data.load_cells(Product.POLY), seed=data.SPLIT_SEED)
    for side, cells in (("training", archive.fitted), ("holdout", archive.judging)):
        folder = write_archive(side, cells)
        fleet.operate(
            *["samples", "add", str(folder), "--model", MODEL, "--labels", str(folder / "labels.csv")],
            *["--side", side, "--part-from-name", "--line", LINE, "--station", ARCHIVE],
        )
    say(
        f"brought the {len(archive)} labelled mono-crystalline cells of the archive as samples; "
        f"{len(archive.judging)} of them are left to judge candidates"
    )
    strategy = FOLDER / "strategy.toml"
    strategy.write_text(STRATEGY)
    fleet.operate(
        *["training", "policy", "set", MODEL, "--trainer", "head", "--on-drift"],
        *["--drift-min-new-labels", str(len(archive) + new_labels)],
        *["--class-budget", "0.05", "--deployment", DEPLOYMENT, "--strategy", str(strategy)],
    )
    return Story(
        held_out={Product.MONO: held_out, Product.POLY: poly_held_out},
        pool=poly_training,
    )


def train_on_labels(fleet: Fleet, count: int) -> None:
    """From now on train whenever there are so many new labels."""
    fleet.operate("training", "policy", "set", MODEL, "--no-on-drift", "--min-new-labels", str(count))


def await_reference(fleet: Fleet) -> None:
    """Wait until every station has learned what the version in the field sees."""

    def learned() -> bool:
        drifts = fleet.operate("drift", "list", "--model", MODEL)
        return len(drifts) == len(STATIONS) and all(drift["state"] != "LEARNING" for drift in drifts)

    wait_for("what the stations see to be learned", learned, fleet, seconds=DRIFT_SECONDS)


def write_archive(name: str, cells: Cells) -> Path:
    """One PNG a cell, and labels.csv beside them."""
    folder = FOLDER / "archive" / name
    folder.mkdir(parents=True)
    for part_id, image in zip(cells.part_ids, cells.images, strict=True):
        Image.fromarray(image[..., 0]).save(folder / f"{part_id}.png", compress_level=1)
    truth = zip(cells.part_ids, cells.defective, strict=True)
    _write_csv(folder / "labels.csv", ("file", "label"), [(f"{part_id}.png", label(bad)) for part_id, bad in truth])
    return folder


def close(fleet: Fleet, cameras: Cameras, story: Story) -> None:
    """Take the line from the new product to a version that knows it."""
    turn(fleet, cameras, story)
    import_labels(fleet, story)
    promotion = await_judgement(fleet, story)
    if promotion["state"] != "PROPOSED":
        raise DemoError(f"the candidate is not proposed: {'; '.join(promotion['judgement']['reasons'])}")
    approve(fleet, story)
    await_rollout(fleet, story)
    judge_held_out(fleet, cameras, story)


def turn(fleet: Fleet, cameras: Cameras, story: Story) -> None:
    """Show the new product at the stations, and wait until drift is flagged."""
    await_reference(fleet)
    story.before = story.after = _serving(fleet)
    cameras.stop()
    story.mark("the line turns to poly cells")
    show_new_product(cameras, story)
    say("the line turns to poly-crystalline cells, which no version has seen")
    wait_for("drift", lambda: bool(_drifted(fleet)), fleet, seconds=DRIFT_SECONDS)
    story.mark("drift is flagged")
    say(f"drift is flagged at {', '.join(_drifted(fleet))}")


def show_new_product(cameras: Cameras, story: Story) -> None:
    """Each cell passes one station, those that are held out among them."""
    cameras.start("poly", each_its_own(data.together(story.pool, story.held_out[Product.POLY])))


def judge_held_out(fleet: Fleet, cameras: Cameras, story: Story) -> None:
    """Let the newest version judge every held-out cell of both products once at least, then stop the cameras."""
    cameras.stop()
    both = each_its_own(data.together(*story.held_out.values()))
    cameras.start("both", both)

    def judged() -> bool:
        return all(cameras.judged(name, story.after) == len(both[name]) for name in STATIONS)

    wait_for(f"the held-out cells judged by version {story.after}", judged, fleet, seconds=COVER_SECONDS)
    say(f"the held-out cells of both products are judged by version {story.after}")
    cameras.stop()


def import_labels(fleet: Fleet, story: Story, *, least: int = LABELS_MIN, most: int = LABELS_MAX) -> None:
    """Label what the stations sent of the new product and nobody has labelled yet, at most `most` samples. Raises
    DemoError when fewer than `least` come."""
    truth = dict(zip(story.pool.part_ids, story.pool.defective.tolist(), strict=True))
    chosen: dict[str, bool] = {}

    def enough() -> bool:
        samples = fleet.operate("samples", "list", "--model", MODEL)
        own = [sample for sample in reversed(samples) if sample["agent"] and sample["result"]["part_id"] in truth]
        new = [sample for sample in own if sample["name"] not in story.labelled]
        chosen.clear()
        for sample in new[:most]:
            chosen[sample["name"]] = truth[sample["result"]["part_id"]]
        return len(chosen) == most

    try:
        wait_for(f"{most} samples of poly cells", enough, fleet, seconds=SAMPLES_SECONDS)
    except DemoError:
        if len(chosen) < least:
            raise
    file = FOLDER / "labels.csv"
    _write_csv(file, ("sample", "label"), [(summary.resource_id(name), label(bad)) for name, bad in chosen.items()])
    fleet.operate("samples", "import", str(file), "--model", MODEL, "--annotator", "elpv-dataset")
    story.labelled.update(chosen)
    story.mark("labels are imported")
    bad = sum(chosen.values())
    say(f"imported {len(chosen)} labels of samples ({bad} defective), which are the data set's own truth")


def await_judgement(fleet: Fleet, story: Story) -> Mapping[str, Any]:
    """Wait until the run that is triggered next has been judged; return its promotion."""
    known = set(story.runs)
    found: list[Mapping[str, Any]] = []

    def judged() -> bool:
        promotions = fleet.operate("training", "judgements", "--model", MODEL)
        found[:] = [promotion for promotion in promotions if _run_of(promotion) not in known]
        failed = [run for run in fleet.operate("training", "list", "--model", MODEL) if run["state"] == "FAILED"]
        if failed:
            raise DemoError(f"{failed[0]['name']} failed: {failed[0]['reason']}: {failed[0]['message']}")
        return bool(found)

    wait_for("a candidate", judged, fleet, seconds=TRAINING_SECONDS)
    promotion = found[0]
    story.runs.append(_run_of(promotion))
    overall = promotion["judgement"]["overall"]
    say(
        f"run {story.runs[-1]} made a candidate; on {overall['items']} cells of the holdout its {overall['metric']} is "
        f"{overall['candidate']:.3f}, that of the version in the field {overall['champion']:.3f}: "
        f"{promotion['judgement']['verdict']}"
    )
    story.mark("a candidate is judged")
    return promotion


def approve(fleet: Fleet, story: Story) -> None:
    """Let the candidate of the newest run go out, as a person would."""
    fleet.operate("training", "approve", story.runs[-1], "--reason", "a real gain on the new product")


def await_rollout(fleet: Fleet, story: Story) -> None:
    """Wait until what was approved serves everywhere."""
    rollout: list[str] = []

    def started() -> bool:
        rollout[:] = [summary.resource_id(fleet.operate("training", "judgement", story.runs[-1])["rollout"])]
        return rollout != [""]

    wait_for("the rollout of the candidate", started, fleet, seconds=ROLLOUT_SECONDS)
    last = list(fleet.watch("rollouts", "watch", rollout[0], seconds=ROLLOUT_SECONDS))[-1]
    if last["state"] != "SUCCEEDED":
        raise DemoError(f"rollout {rollout[0]} ended {last['state']}: {last['reason']}: {last['message']}")
    number = summary.version_number(last["target_version"])
    assert number is not None, "every rollout has a target"
    story.after = number
    story.mark(f"version {number} serves everywhere")
    say(f"rollout {rollout[0]} brought version {number} to every station, through shadow, canary and gates")


# --- what the controller holds in the end ---


def judged_cells(fleet: Fleet, story: Story) -> list[Judged]:
    """Every result of a held-out cell in the lake, oldest first."""
    truth = {
        part_id: (product, bool(bad))
        for product, cells in story.held_out.items()
        for part_id, bad in zip(cells.part_ids, cells.defective, strict=True)
    }
    found: list[Judged] = []
    with Client.from_config(fleet.operator_file) as client:
        after = "(TIMESTAMPTZ '1970-01-01', '', 0, 0)"
        while True:
            answer: Any = client.results.query(
                "SELECT version, part_id, epoch_us(infer_time) AS us, list_extract(scores, "
                f"list_position(labels, '{summary.DEFECT}')) AS score, agent, batch, index FROM results "
                f"WHERE (infer_time, agent, batch, index) > {after} ORDER BY infer_time, agent, batch, index",
                model=MODEL,
                row_limit=ROWS_A_PAGE,
            )
            for version, part_id, microseconds, score, agent, batch, index in answer.rows:
                after = f"(make_timestamptz({int(microseconds)}), '{agent}', {int(batch)}, {int(index)})"
                if part_id in truth:
                    product, bad = truth[part_id]
                    time = datetime.fromtimestamp(microseconds / 1e6, UTC)
                    cell = {"part_id": part_id, "product": product, "defective": bad}
                    found.append(Judged(time=time, version=int(version), score=score, **cell))
            if not answer.truncated:
                return found


def count_results(fleet: Fleet) -> int:
    answer = fleet.operate("results", "query", "SELECT count(*) FROM results", "--model", MODEL)
    return int(answer["rows"][0][0])


def loop_facts(fleet: Fleet, story: Story, judged: Sequence[Judged]) -> LoopFacts:
    """What the summary says of it; draws the picture too."""

    def auc(version: int, product: Product) -> float:
        return summary.quality(judged, version, product).auc

    promotion = fleet.operate("training", "judgement", story.runs[-1])
    flagged = sorted({agent for agent, _ in _flagged(fleet)})
    draw(fleet, story, judged)
    begin, end = story.events["drift is flagged"], story.events[f"version {story.after} serves everywhere"]
    return LoopFacts(
        auc_before=auc(story.before, Product.POLY),
        auc_after=auc(story.after, Product.POLY),
        auc_mono_before=auc(story.before, Product.MONO),
        auc_mono_after=auc(story.after, Product.MONO),
        labels=len(story.labelled),
        drift_flagged=tuple(flagged),
        minutes=round((end - begin).total_seconds() / 60, 2),
        judgement="; ".join(promotion["judgement"]["reasons"]),
        lineage=fleet.operate("models", "lineage", f"{MODEL}:{story.after}"),
    )


def draw(fleet: Fleet, story: Story, judged: Sequence[Judged]) -> None:
    distances, begin = [], min(each.time for each in judged)
    with Client.from_config(fleet.operator_file) as client:
        for name in STATIONS:
            for point in client.drifts.history(name, MODEL, start_time=begin, points=200).points:
                time = point.end_time.ToDatetime(tzinfo=UTC)
                furthest = max(point.distances.values(), default=0.0)
                distances.append(picture.Distance(time=time, station=name, distance=furthest))
    picture.draw(PICTURE, judged=judged, distances=distances, events=story.events)
    say(f"drew AUC, drift and version over time into {PICTURE.relative_to(FOLDER.parent)}")


def _flagged(fleet: Fleet) -> list[tuple[str, str]]:
    """Agents where drift was ever flagged, with the version."""
    drifts = fleet.operate("drift", "list", "--model", MODEL, "--all-versions")
    return [
        (summary.resource_id(drift["agent"]), drift["model_version"])
        for drift in drifts
        if int(drift["episode_count"]) > 0 or drift["state"] == "DRIFTED"
    ]


def _run_of(promotion: Mapping[str, Any]) -> str:
    """ "trainingRuns/r1/promotion" -> "r1"."""
    return str(promotion["name"]).split("/")[1]


def _drifted(fleet: Fleet) -> list[str]:
    drifts = fleet.operate("drift", "list", "--model", MODEL, "--state", "drifted")
    return [summary.resource_id(drift["agent"]) for drift in drifts]


def _serving(fleet: Fleet) -> int:
    """The version that every station serves."""
    slots = [slot for agent in fleet.operate("agents", "list") for slot in agent["slots"] if slot["slot"] == MODEL]
    (number,) = {summary.version_number(slot["serving_version"]) for slot in slots}
    assert number is not None, "something serves"
    return number


def label(defective: bool) -> str:
    return summary.DEFECT if defective else "ok"


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
