"""How a judgement and what became of it are shown."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from lineside.v1 import promotion_pb2

from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import time_text
from controlplane.client.names import short

Promotion = promotion_pb2.Promotion
Comparison = promotion_pb2.PairedComparison


def run_of(promotion: Promotion) -> str:
    """Return the id of the run."""
    return promotion.name.split("/")[1]


def promotion_columns(now: datetime) -> Sequence[Column[Promotion]]:
    """Return how promotions are listed."""
    return (
        Column(header="RUN", cell=run_of, whole=True),
        Column(header="MODEL", cell=lambda one: short(one.model), whole=True),
        Column(header="VERDICT", cell=lambda one: word(one.judgement, "verdict"), whole=True),
        Column(header="STATE", cell=lambda one: word(one, "state"), whole=True),
        Column(header="GAIN", cell=lambda one: change_text(one.judgement.overall)),
        Column(header="VERSION", cell=lambda one: short(one.model_version) or "-"),
        Column(header="JUDGED", cell=lambda one: time_text(one.create_time, now=now)),
    )


def show_promotion(printer: Printer, promotion: Promotion) -> None:
    """Show the whole promotion."""
    if printer.json:
        printer.document(document_of(promotion))
        return
    printer.pairs([("run", run_of(promotion)), ("model", short(promotion.model)), *promotion_pairs(printer, promotion)])
    measures = [promotion.judgement.overall, *promotion.judgement.classes, *promotion.judgement.lines]
    printer.section("measures", _MEASURES, measures)


def promotion_pairs(printer: Printer, promotion: Promotion) -> Iterable[tuple[str, str]]:
    """Return the facts of a promotion, one a line."""
    judgement = promotion.judgement
    skipped = f", {judgement.skipped_items} left out" if judgement.skipped_items else ""
    yield "verdict", word(judgement, "verdict")
    yield "because", "\n".join(judgement.reasons)
    yield "champion", short(judgement.champion_version)
    yield "holdout", f"{judgement.items} items of {judgement.parts} parts in {short(promotion.dataset)}{skipped}"
    yield "state", word(promotion, "state")
    if promotion.decider:
        yield "decided by", f"{promotion.decider}, {time_text(promotion.decide_time, now=printer.now)}"
    if promotion.message:
        yield "message", promotion.message
    if promotion.model_version:
        yield "version", short(promotion.model_version)
    if promotion.deployment:
        yield "deployment", short(promotion.deployment)
    if promotion.rollout:
        yield "rollout", short(promotion.rollout)


def change_text(one: Comparison) -> str:
    """Return a difference with its interval: `+0.042 (+0.010 to +0.071)`."""
    if not one.measured:
        return "-"
    if one.difference_low == one.difference_high:
        return f"{one.difference:+.3f}"
    return f"{one.difference:+.3f} ({one.difference_low:+.3f} to {one.difference_high:+.3f})"


def _value(measured: bool, value: float) -> str:
    return f"{value:.3f}" if measured else "-"


_MEASURES: Sequence[Column[Comparison]] = (
    Column(header="OF", cell=lambda one: one.subject or "all"),
    Column(header="METRIC", cell=lambda one: one.metric),
    Column(header="ITEMS", cell=lambda one: str(one.items), number=True),
    Column(header="PARTS", cell=lambda one: str(one.parts), number=True),
    Column(header="CHAMPION", cell=lambda one: _value(one.measured, one.champion), number=True),
    Column(header="CANDIDATE", cell=lambda one: _value(one.measured, one.candidate), number=True),
    Column(header="CHANGE", cell=change_text),
)
