"""How an explanation is shown: for each slot what it runs, why, and what would change it."""

from collections.abc import Sequence

from lineside.v1 import agent_service_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column, Printer
from controlplane.client.names import short

_FACTS: Sequence[Column[agent_service_pb2.Explanation]] = (
    Column(header="REASON", cell=lambda fact: fact.reason, whole=True),
    Column(header="IN WORDS", cell=lambda fact: fact.message),
)


def show_explanation(printer: Printer, explanation: agent_service_pb2.AgentExplanation) -> None:
    """Show why the agent runs what it runs."""
    if printer.json:
        printer.document(document_of(explanation))
        return
    if not explanation.slots:
        printer.note(f"{short(explanation.agent)} has no slot, and no deployment matches it")
    for slot in explanation.slots:
        printer.pairs(
            [
                (f"slot {slot.slot}", f"runs {short(slot.serving_version) or 'nothing'}"),
                ("should run", short(slot.desired_version) or "nothing"),
                ("deployment", short(slot.deployment)),
                ("rollout", short(slot.rollout)),
            ]
        )
        printer.section("because", _FACTS, slot.because)
        printer.section("would change it", _FACTS, slot.would_change)
        printer.line("")
