"""What the demo shows at its end, computed from what came back to the controller."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from examples.solar.data import Product

AUC_MIN = 0.8
"""Any head fitted on some hundred of these cells separates them this well; less means that scores were mixed up."""
DEFECT = "defect"
AUC_POLY_MIN = 0.82
AUC_MONO_LOSS_MAX = 0.03
"""What the loop has to reach with at most LABELS_MAX labels of the new product, and may cost on the old one. The aims
are 0.83 and 0.02, which most runs keep; which samples come first, and so what is picked, moves either by some 0.006."""
LABELS_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One result of a held-out cell. `score` is the probability of a defect that was answered."""

    time: datetime
    version: int
    part_id: str
    product: Product
    score: float
    defective: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """One agent at the end. `images`, rate and p95 are as the application at that station saw them; the p95 of
    the runtime alone is that of the version it serves, from the metric windows at the controller."""

    name: str
    device: str
    device_reason: str
    version: int | None
    images: int
    images_per_second: float
    p95_ms: float | None
    runtime_p95_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """How well a version judged the held-out cells, from the results at the controller: `auc` is of mono-crystalline
    ones, `auc_poly` of the product that came later, where it judged any."""

    version: int
    auc: float
    auc_images: int
    auc_poly: float | None
    auc_poly_images: int
    results: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveFacts:
    """One wave; times are seconds since the rollout was started."""

    size: str
    agents: tuple[str, ...]
    state: str
    admitted_seconds: float | None
    passed_seconds: float | None
    inferences: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFacts:
    name: str
    version: int
    state: str
    waves: tuple[WaveFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopFacts:
    """From a product that the fielded version does not know to a version that knows it. Every AUC is of cells that no
    training run saw, from their results at the controller."""

    auc_before: float
    auc_after: float
    auc_mono_before: float
    auc_mono_after: float
    labels: int
    """Of the new product; they come from the data set's own truth, through the public import."""
    drift_flagged: tuple[str, ...]
    """Agents."""
    minutes: float
    """From the drift's being flagged to the last station serving the version that answers it."""
    judgement: str
    lineage: Mapping[str, Any]
    """As `lineside models lineage` has it."""

    def failures(self) -> list[str]:
        failures = []
        if self.auc_after < AUC_POLY_MIN:
            failures.append(f"The new version has an AUC of {self.auc_after:.3f} on poly cells, below {AUC_POLY_MIN}.")
        if self.auc_mono_before - self.auc_mono_after > AUC_MONO_LOSS_MAX:
            failures.append(
                f"On mono cells the AUC fell from {self.auc_mono_before:.3f} to {self.auc_mono_after:.3f}, "
                f"by more than {AUC_MONO_LOSS_MAX}."
            )
        if self.labels > LABELS_MAX:
            failures.append(f"{self.labels} labels were used, more than {LABELS_MAX}.")
        if not self.drift_flagged:
            failures.append("No drift was flagged.")
        return failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The facts of `.demo/summary.json`, under these names."""

    images_sent: int
    images_answered: int
    images_lost: int
    agents: tuple[AgentFacts, ...]
    versions: tuple[VersionFacts, ...]
    rollouts: tuple[RolloutFacts, ...]
    samples_received: int
    samples_by_reason: Mapping[str, int]
    results_received: int
    loop: LoopFacts
    seconds: float

    def failures(self) -> list[str]:
        """What did not hold, each in one sentence; empty when the demo succeeded."""
        failures = []
        if self.images_lost:
            failures.append(f"{self.images_lost} of {self.images_sent} images were not answered.")
        if self.results_received != self.images_answered:
            failures.append(
                f"{self.images_answered} images were answered, but {self.results_received} results came back."
            )
        failures += [
            f"{rollout.name} ended {rollout.state}." for rollout in self.rollouts if rollout.state != "SUCCEEDED"
        ]
        failures += [
            f"Version {version.version} has an AUC of {version.auc:.3f}, below {AUC_MIN}."
            for version in self.versions
            if not version.auc >= AUC_MIN
        ]
        newest = max(version.version for version in self.versions)
        failures += [
            f"{agent.name} serves version {agent.version}, not {newest}."
            for agent in self.agents
            if agent.version != newest
        ]
        if not self.samples_received:
            failures.append("No sample came back to the controller.")
        return [*failures, *self.loop.failures()]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def agent_facts(
    agent: Mapping[str, Any], model: str, report: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> AgentFacts:
    """From the agent's resource, its application's report and the metrics by agent."""
    slot = next((slot for slot in agent["slots"] if slot["slot"] == model), None)
    serving = slot["serving_version"] if slot else ""
    own = [row for row in metrics if row["agent"] == agent["name"] and row["model_version"] == serving]
    return AgentFacts(
        name=resource_id(agent["name"]),
        device=slot["device"] if slot else "",
        device_reason=slot["device_reason"] if slot else "",
        version=version_number(serving),
        images=report["answered"],
        images_per_second=round(report["answered"] / report["seconds"], 1) if report["seconds"] else 0.0,
        p95_ms=report["p95_ms"] and round(report["p95_ms"], 2),
        runtime_p95_ms=round(own[0]["latency_ms_p95"], 2) if own else None,
    )


def version_facts(judged: Sequence[Judged]) -> tuple[VersionFacts, ...]:
    """The AUC of each version over the cells that it judged, by product."""
    return tuple(
        VersionFacts(
            version=version,
            auc=mono.auc,
            auc_images=mono.cells,
            auc_poly=poly.auc if poly.cells else None,
            auc_poly_images=poly.cells,
            results=sum(each.version == version for each in judged),
        )
        for version in sorted({each.version for each in judged})
        for mono in [quality(judged, version, Product.MONO)]
        for poly in [quality(judged, version, Product.POLY)]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    auc: float
    """0 where no cell was judged."""
    cells: int


def quality(judged: Sequence[Judged], version: int, product: Product) -> Quality:
    """How well a version told the defective cells of a product; each cell counts once, by its mean score."""
    scores: dict[str, list[float]] = defaultdict(list)
    truth: dict[str, bool] = {}
    for each in judged:
        if (each.version, each.product) == (version, product):
            scores[each.part_id].append(each.score)
            truth[each.part_id] = each.defective
    if not scores:
        return Quality(auc=0.0, cells=0)
    means = [sum(values) / len(values) for values in scores.values()]
    auc = float(roc_auc_score([truth[part_id] for part_id in scores], means))
    return Quality(auc=round(auc, 4), cells=len(scores))


def rollout_facts(rollout: Mapping[str, Any]) -> RolloutFacts:
    begin = _time(rollout["create_time"])
    assert begin is not None, "every rollout has a time of creation"
    number = version_number(rollout["target_version"])
    assert number is not None, "every rollout has a target"
    return RolloutFacts(
        name=rollout["name"],
        version=number,
        state=rollout["state"],
        waves=tuple(_wave_facts(wave, begin) for wave in rollout["waves"]),
    )


def _wave_facts(wave: Mapping[str, Any], begin: datetime) -> WaveFacts:
    def since_begin(time: datetime | None) -> float | None:
        return None if time is None else round((time - begin).total_seconds(), 2)

    verdict = wave["verdict"]
    return WaveFacts(
        size=wave["size"],
        agents=tuple(resource_id(agent) for agent in wave["agents"]),
        state=wave["state"],
        admitted_seconds=since_begin(_time(wave["admit_time"])),
        passed_seconds=since_begin(_time(wave["complete_time"])),
        inferences=verdict["inferences"] if verdict else None,
        message=verdict["message"] if verdict else "",
    )


def show(summary: Summary, console: Console) -> None:
    """Print the summary for people."""
    console.print()
    agents = _table("Agents", ["agent", "device", "version", "images", "images/s", "p95 ms", "reason"])
    for agent in summary.agents:
        p95 = "-" if agent.p95_ms is None else f"{agent.p95_ms:.1f}"
        cells = [agent.name, agent.device, str(agent.version), str(agent.images), f"{agent.images_per_second:.1f}", p95]
        agents.add_row(*cells, agent.device_reason)
    console.print(agents)
    waves = _table("Waves", ["rollout", "version", "wave", "agents", "admitted", "passed", "inferences", "state"])
    for rollout in summary.rollouts:
        for wave in rollout.waves:
            times = ["-" if time is None else f"+{time:.1f} s" for time in (wave.admitted_seconds, wave.passed_seconds)]
            waves.add_row(
                *[resource_id(rollout.name), str(rollout.version), wave.size, ", ".join(wave.agents) or "none", *times],
                *["-" if wave.inferences is None else str(wave.inferences), wave.state],
            )
    console.print(waves)
    versions = _table(
        "Versions, judged by the results at the controller",
        ["version", "AUC mono", "cells", "AUC poly", "cells", "results"],
    )
    for version in summary.versions:
        poly = "-" if version.auc_poly is None else f"{version.auc_poly:.3f}"
        cells = [f"{version.auc:.3f}", str(version.auc_images), poly, str(version.auc_poly_images or "-")]
        versions.add_row(str(version.version), *cells, str(version.results))
    console.print(versions)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.samples_by_reason.items()))
    console.print(
        f"Images    {summary.images_sent} sent, {summary.images_answered} answered, {summary.images_lost} lost"
    )
    console.print(f"Results   {summary.results_received} at the controller")
    console.print(f"Samples   {summary.samples_received} at the controller ({reasons})")
    told = summary.loop
    console.print(
        f"Loop      drift flagged at {', '.join(told.drift_flagged)}; {told.labels} labels, the data set's own truth; "
        f"{told.minutes:.1f} min from drift to the last station\n"
        f"          AUC on poly cells {told.auc_before:.3f} -> {told.auc_after:.3f}, "
        f"on mono cells {told.auc_mono_before:.3f} -> {told.auc_mono_after:.3f}"
    )
    console.print(f"Duration  {summary.seconds:.0f} s")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def resource_id(name: str) -> str:
    """ "agents/st-1" -> "st-1"."""
    return name.rpartition("/")[2]


def version_number(name: str) -> int | None:
    """ "models/m/versions/7" -> 7, and "" -> None."""
    return int(resource_id(name)) if name else None


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
