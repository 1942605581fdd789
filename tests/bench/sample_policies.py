"""What a label is worth by who picked it: `python -m tests.bench.sample_policies`; numbers and a picture in .bench.

A line makes mono-crystalline solar cells, on which its model was fitted, and then turns to a mix of mono and poly. The
agent's own code (SampleCollector, InputWatch, the domain below them) keeps as many inputs of the mix as the day's
budget allows, by each policy in turn. They get the data set's labels, the head is fitted again on the first labels and
these, and cells of both products that nobody has seen tell the AUC. The policies are
- default: what a deployment gets that says nothing, as the controller sends it, with the budget;
- random: a uniform share of the mix, as large as the budget;
- least confidence: the results below the confidence that as many of the mix are below, which no agent could know.
Differences are paired: each seed gives all policies the same cells in the same order. The default's numbers were chosen
on seeds from 100 on, after those below 20 had shown that an earlier choice was no better than chance; the seeds that
are reported had been looked at for neither.
"""

import argparse
import hashlib
import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lineside.v1 import evidence_pb2, sample_pb2
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from agent.app.conditions import Conditions
from agent.app.input_watch import BaselineKey, InputWatch
from agent.app.ports import SpooledSample
from agent.app.sampling import SampleCollector
from agent.domain.baseline import Baseline
from agent.domain.day_budget import DayBudget
from agent.domain.interpretation import Reading, Scoring, interpret
from agent.domain.result import Outcome, Result
from agent.domain.slot import SamplePolicy
from agent.rpc.convert import sample_policy
from controlplane.domain.deployment import SamplePolicy as ControllersPolicy
from controlplane.rpc.convert.sample_policies import sample_policy_to_proto
from examples.solar.data import BACKBONE_SHA256, Flags, Images, Product, fetch_backbone, load_cells
from examples.solar.model import REGULARISATION, Floats, extract_features, feature_model
from tests.bench.report import FOLDER, ROOT
from tests.support.clock import LoopClock

CACHE = ROOT / ".cache"
SEEDS = tuple(range(20, 32))
BUDGETS = (50, 100, 200)
MONO_FIRST, MONO_MIXED, POLY_MIXED = 200, 300, 300
"""Cells of the line: mono alone, as many as a baseline takes, and then the mix, half and half."""
NEW_LABELS_WEIGHT = 4.0
"""Of a label from the line beside one of the first training set."""
READING = Reading(output="defect_probability", scoring=Scoring.SINGLE, labels=("ok", "defect"))
PLENTY_BYTES = 1 << 40
SPAN_MIN = 1e-12
"""Least share of the largest square of a direction that the rows span."""
SPARE = 1.15
"""Of what chance picks, so that the budget ends it and it has as many labels as the others."""

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All cells of both products with their features, mono first."""

    images: Images
    features: Floats
    defective: Flags
    mono: int
    """How many of them are mono."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Rows of the pool as one seed deals them. None is in two places."""

    trained: Rows
    first: Rows
    mix: Rows
    held_out: Mapping[Product, Rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """One policy with one budget on one seed."""

    policy: str
    seed: int
    budget: int
    labels: int
    poly_share: float
    auc_poly: float
    auc_mono: float


# --- the cells ---


def load_pool(cache: Path = CACHE) -> Pool:
    """Features are computed once and kept in `cache`."""
    parts = {product: load_cells(product) for product in Product}
    features = [_features(product, parts[product].images, cache) for product in Product]
    return Pool(
        images=np.concatenate([part.images for part in parts.values()]),
        features=np.concatenate(features),
        defective=np.concatenate([part.defective for part in parts.values()]),
        mono=len(parts[Product.MONO]),
    )


def _features(product: Product, images: Images, cache: Path) -> Floats:
    key = hashlib.sha256(f"{BACKBONE_SHA256} {product} {images.shape}".encode()).hexdigest()[:16]
    path = cache / f"features-{product}-{key}.npy"
    if not path.exists():
        found = extract_features(feature_model(fetch_backbone(cache)), images)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, found)
        partial.replace(path)
    loaded: Floats = np.load(path)
    return loaded


def deal(pool: Pool, *, seed: int) -> Line:
    """A quarter of either product is held out; the rest is trained on, or comes down the line."""
    draw = np.random.default_rng(seed)
    mono, poly = draw.permutation(pool.mono), pool.mono + draw.permutation(len(pool.defective) - pool.mono)
    held_mono, held_poly = len(mono) // 4, len(poly) // 4
    line = mono[held_mono:]
    mixed = np.concatenate([line[MONO_FIRST:][:MONO_MIXED], poly[held_poly:][:POLY_MIXED]])
    return Line(
        trained=line[MONO_FIRST + MONO_MIXED :],
        first=line[:MONO_FIRST],
        mix=draw.permutation(mixed),
        held_out={Product.MONO: mono[:held_mono], Product.POLY: poly[:held_poly]},
    )


# --- the agent ---


class MemorySpool:
    """`agent.app.ports.SampleSpool` that keeps everything."""

    def __init__(self, clock: LoopClock) -> None:
        self._clock = clock
        self._kept: dict[str, SpooledSample] = {}
        self._budget = DayBudget(day=clock.now().date())
        self.dropped = 0
        self.size_bytes = 0

    def add(self, sample: SpooledSample) -> bool:
        self._kept[sample.id] = sample
        return True

    def pending(self) -> Sequence[str]:
        return tuple(self._kept)

    def read(self, sample_id: str) -> SpooledSample | None:
        return self._kept.get(sample_id)

    def discard(self, sample_id: str) -> None:
        del self._kept[sample_id]

    def budget(self, slot: str) -> DayBudget:
        self._budget = self._budget.on(self._clock.now().date(), now_seconds=self._clock.monotonic())
        return self._budget

    def spend(self, slot: str, size_bytes: int, label: str) -> None:
        self._budget = self.budget(slot).spend(size_bytes, label)


class Forgetful:
    """A log and a file of baselines that keep nothing."""

    def append_inputs(self, window: evidence_pb2.MetricWindow) -> None:
        """Nothing."""

    def read(self) -> Mapping[BaselineKey, Baseline]:
        return {}

    def write(self, baselines: Mapping[BaselineKey, Baseline]) -> None:
        """Nothing."""


class SteppedCollector(SampleCollector):
    """Attends to what was picked when it is told to, so that no queue is ever full."""

    def settle(self) -> None:
        while not self._queue.empty():
            picked = self._queue.get_nowait()
            assert picked is not None
            self._attend(picked)


def keep(
    pool: Pool, line: Line, scores: Floats, policy: SamplePolicy, *, seed: int
) -> tuple[list[int], Mapping[str, int]]:
    """Rows of the mix that the agent keeps, and how many by reason. The first cells come the day before."""
    clock = LoopClock()
    spool, nothing = MemorySpool(clock), Forgetful()
    rng = random.Random(seed)
    collector = SteppedCollector(
        spool, InputWatch(nothing, nothing, clock=clock, rng=rng), conditions=Conditions(clock), clock=clock, rng=rng
    )
    quiet = replace(policy, budget_bytes_per_day=0)
    for day, (rows, asked) in enumerate(((line.first, quiet), (line.mix, policy))):
        clock.move(day * 86_400.0)
        for row in rows:
            clock.move(1.0)
            result = _result(int(row), float(scores[row]), clock.now())
            collector.offer({"image": pool.images[row : row + 1]}, [result], asked)
            collector.settle()
    kept = [sample_pb2.Sample.FromString(spool.read(name).sample) for name in spool.pending()]  # type: ignore[union-attr]
    return [int(sample.result.part_id) for sample in kept], collector.counts().kept


def _result(row: int, score: float, time: datetime) -> Result:
    return Result(
        slot="solar",
        version=1,
        device="CPU",
        infer_time=time.astimezone(UTC),
        part_id=str(row),
        request_id="",
        outcome=Outcome.OK,
        labels=interpret(READING, [score]),
        latency_us=0,
    )


# --- the policies ---

Maker = Callable[[Floats, int], SamplePolicy]
"""Of the scores of the mix, and the budget."""


def default_policy(_: Floats, budget: int) -> SamplePolicy:
    policy = ControllersPolicy(budget_bytes_per_day=PLENTY_BYTES, budget_images_per_day=budget)
    return sample_policy(sample_policy_to_proto(policy))


def random_policy(mix: Floats, budget: int) -> SamplePolicy:
    return _bare(budget, random_fraction=min(1.0, SPARE * budget / len(mix)))


def least_confidence_policy(mix: Floats, budget: int) -> SamplePolicy:
    confidences = np.sort(np.maximum(mix, 1.0 - mix))
    return _bare(budget, confidence_below=float(confidences[min(budget, len(confidences) - 1)]))


def _bare(budget: int, *, random_fraction: float = 0.0, confidence_below: float = 0.0) -> SamplePolicy:
    return SamplePolicy(
        random_fraction=random_fraction,
        confidence_below=confidence_below,
        budget_bytes_per_day=PLENTY_BYTES,
        budget_images_per_day=budget,
    )


POLICIES: Mapping[str, Maker] = {
    "default": default_policy,
    "random": random_policy,
    "least confidence": least_confidence_policy,
}


# --- the head ---


def scores_of(pool: Pool, rows: Rows, weights: npt.NDArray[np.float64]) -> Floats:
    """Defect probabilities of the whole pool by a head that is fitted on `rows`, as examples/solar/model.py fits it:
    but in the space that the rows span, where the solution lies anyway, which is ten times as quick."""
    scaler = StandardScaler().fit(pool.features[rows], sample_weight=weights)
    scaled = scaler.transform(pool.features[rows]).astype(np.float64)
    squares, axes = np.linalg.eigh(scaled @ scaled.T)
    spanned = squares > squares[-1] * SPAN_MIN
    sizes = np.sqrt(squares[spanned])
    head = LogisticRegression(C=REGULARISATION, solver="newton-cholesky")
    head.fit(axes[:, spanned] * sizes, pool.defective[rows], sample_weight=weights)
    direction = scaled.T @ (axes[:, spanned] @ (head.coef_[0] / sizes)) / scaler.scale_
    logits = pool.features @ direction.astype(np.float32) + (head.intercept_[0] - scaler.mean_ @ direction)
    found: Floats = 1.0 / (1.0 + np.exp(-logits))
    return found


def refit(pool: Pool, line: Line, kept: Sequence[int]) -> Mapping[Product, float]:
    """AUC on what is held out of each product, after the kept cells were labelled."""
    rows = np.concatenate([line.trained, np.asarray(kept, dtype=np.intp)])
    weights = np.concatenate([np.ones(len(line.trained)), np.full(len(kept), NEW_LABELS_WEIGHT)])
    scores = scores_of(pool, rows, weights)
    return {
        product: float(roc_auc_score(pool.defective[held], scores[held])) for product, held in line.held_out.items()
    }


def measure(
    pool: Pool, seeds: Sequence[int], *, policies: Mapping[str, Maker] = POLICIES, budgets: Sequence[int] = BUDGETS
) -> list[Outcomes]:
    found: list[Outcomes] = []
    for seed in seeds:
        line = deal(pool, seed=seed)
        fielded = scores_of(pool, line.trained, np.ones(len(line.trained)))
        for name, maker in {"none": random_policy, **policies}.items():
            for budget in budgets if name != "none" else (0,):
                policy = maker(fielded[line.mix], budget)
                kept = keep(pool, line, fielded, policy, seed=seed)[0] if budget else []
                auc = refit(pool, line, kept)
                found.append(
                    Outcomes(
                        policy=name,
                        seed=seed,
                        budget=budget,
                        labels=len(kept),
                        poly_share=float(np.mean([row >= pool.mono for row in kept])) if kept else 0.0,
                        auc_poly=auc[Product.POLY],
                        auc_mono=auc[Product.MONO],
                    )
                )
    return found


# --- the report ---


def summarise(found: Sequence[Outcomes], *, seeds: Sequence[int]) -> dict[str, Any]:
    """Means over the seeds, and the differences from random by seed with their 95 % interval (normal)."""
    rows: list[dict[str, Any]] = []
    for policy in dict.fromkeys(one.policy for one in found):
        for budget in sorted({one.budget for one in found if one.policy == policy}):
            own = _by_seed(found, policy, budget)
            others = _by_seed(found, "random", budget)
            differences = [own[seed].auc_poly - others[seed].auc_poly for seed in own if seed in others]
            rows.append(
                {
                    "policy": policy,
                    "budget": budget,
                    "labels": round(statistics.fmean(one.labels for one in own.values()), 1),
                    "poly_share": round(statistics.fmean(one.poly_share for one in own.values()), 3),
                    "auc_poly": round(statistics.fmean(one.auc_poly for one in own.values()), 4),
                    "auc_poly_deviation": round(_deviation([one.auc_poly for one in own.values()]), 4),
                    "auc_mono": round(statistics.fmean(one.auc_mono for one in own.values()), 4),
                    "above_random": round(statistics.fmean(differences), 4) if differences else None,
                    "above_random_interval": [round(end, 4) for end in _interval(differences)] if differences else None,
                    "seeds_above_random": sum(each > 0 for each in differences),
                }
            )
    return {"seeds": list(seeds), "rows": rows, "outcomes": [asdict(one) for one in found]}


def _by_seed(found: Sequence[Outcomes], policy: str, budget: int) -> dict[int, Outcomes]:
    return {one.seed: one for one in found if (one.policy, one.budget) == (policy, budget)}


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    mean, half = statistics.fmean(differences), 1.96 * _deviation(differences) / len(differences) ** 0.5
    return mean - half, mean + half


def draw(found: Sequence[Outcomes], path: Path) -> None:
    """AUC on held-out cells against labels, with a standard error; poly left, mono right."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for axis, product, field in ((axes[0], "poly", "auc_poly"), (axes[1], "mono", "auc_mono")):
        (start,) = {statistics.fmean(getattr(one, field) for one in found if one.policy == "none")}
        axis.axhline(start, color="grey", linestyle=":", label="before")
        for policy in POLICIES:
            points = [
                [(one.labels, getattr(one, field)) for one in found if (one.policy, one.budget) == (policy, budget)]
                for budget in sorted({one.budget for one in found if one.policy == policy})
            ]
            axis.errorbar(
                [statistics.fmean(labels for labels, _ in point) for point in points],
                [statistics.fmean(auc for _, auc in point) for point in points],
                yerr=[_deviation([auc for _, auc in point]) / len(point) ** 0.5 for point in points],
                marker="o",
                capsize=3,
                label=policy,
            )
        axis.set(xlabel="labels", ylabel="AUC", title=f"held-out {product} cells")
        axis.grid(visible=True, alpha=0.3)
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def run(*, seeds: Sequence[int] = SEEDS, folder: Path = FOLDER, cache: Path = CACHE) -> dict[str, Any]:
    """Measure, print, and write `folder`/sample_policies.json and .png. Returns what the JSON says."""
    found = measure(load_pool(cache), seeds)
    summary = summarise(found, seeds=seeds)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sample_policies.json").write_text(json.dumps(summary, indent=1))
    draw(found, folder / "sample_policies.png")
    table = Table(
        "policy", "budget", "labels", "of poly", "AUC poly", "AUC mono", "above random (95 %)", title="labels"
    )
    for row in summary["rows"]:
        above = "" if row["above_random"] is None else f"{row['above_random']:+.4f} {row['above_random_interval']}"
        table.add_row(
            *(str(row[name]) for name in ("policy", "budget", "labels", "poly_share", "auc_poly", "auc_mono")), above
        )
    Console().print(table)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sample_policies", description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many, from 20")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where numbers and picture go")
    asked = parser.parse_args()
    run(seeds=tuple(range(SEEDS[0], SEEDS[0] + asked.seeds)), folder=asked.folder)


if __name__ == "__main__":
    main()
