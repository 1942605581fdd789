"""How a version's lineage is shown."""

from collections.abc import Mapping, Sequence

from lineside.v1 import lineage_service_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import time_text
from controlplane.client.names import short

Lineage = lineage_service_pb2.Lineage


def show_lineage(printer: Printer, lineage: Lineage) -> None:
    """Show the version, each version before it, and where it went."""
    if printer.json:
        printer.document(document_of(lineage))
        return
    for ancestor in lineage.ancestors:
        printer.pairs(_facts(printer, ancestor))
        printer.note("")
    if lineage.truncated:
        printer.note("there are more versions before these")
    rollouts: Sequence[Column[lineage_service_pb2.Lineage.RolloutUse]] = (
        Column(header="ROLLOUT", cell=lambda use: short(use.rollout), whole=True),
        Column(header="DEPLOYMENT", cell=lambda use: short(use.deployment), whole=True),
        Column(header="STATE", cell=lambda use: use.state),
        Column(header="STARTED", cell=lambda use: time_text(use.create_time, now=printer.now)),
    )
    printer.section("rollouts", rollouts, lineage.rollouts)
    agents: Sequence[Column[lineage_service_pb2.Lineage.AgentUse]] = (
        Column(header="AGENT", cell=lambda use: short(use.agent), whole=True),
        Column(header="PLACE", cell=lambda use: use.place or "-"),
        Column(header="CONNECTED", cell=lambda use: "yes" if use.connected else "no"),
    )
    printer.section("serves at", agents, lineage.agents)


def _facts(printer: Printer, ancestor: lineage_service_pb2.Lineage.Ancestor) -> list[tuple[str, str]]:
    facts = [
        ("version", short(ancestor.model_version)),
        ("published", time_text(ancestor.create_time, now=printer.now)),
    ]
    if not ancestor.training_run:
        return [*facts, ("made", "elsewhere, published by hand")]
    return [
        *facts,
        ("made by", f"run {short(ancestor.training_run)} ({ancestor.trainer}) from {short(ancestor.base_version)}"),
        ("dataset", f"{short(ancestor.dataset)}: {_counts(ancestor.items)}"),
        ("classes", _counts(ancestor.items_by_label)),
        ("lines", _counts(ancestor.items_by_line, nameless="place not known")),
        ("agents", _counts(ancestor.items_by_agent, nameless="imported")),
        ("labelled by", _counts(ancestor.labels_by_annotator)),
        ("judgement", ancestor.judgement),
        ("approved by", ancestor.decider),
    ]


def _counts(counts: Mapping[str, int], *, nameless: str = "?") -> str:
    """The most first."""
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{short(name) if name else nameless} {count}" for name, count in ordered)
