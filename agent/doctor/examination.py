"""The whole examination, and how it is shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from agent.app.conditions import FALSE
from agent.config import AgentSettings
from agent.doctor.box import Box, check_box
from agent.doctor.finding import Finding, Grade, fail, well, worst
from agent.doctor.folder import Bounds, check_certificate, check_folder, read_enrolment
from agent.doctor.ports import check_ports
from agent.doctor.reach import check_reach
from agent.doctor.runtime import check_runtime
from agent.domain.errors import AgentError
from agent.live import read_live_status
from agent.storage.folder import AgentFolder
from agent.storage.identity import IdentityFiles

_COLOURS = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What is looked at."""

    folder: AgentFolder
    ports: Mapping[str, str]
    """Where `run` would listen, by listener."""
    bounds: Bounds = field(default_factory=Bounds)
    box: Box = field(default_factory=Box)

    def findings(self) -> Iterator[Finding]:
        """Every check, as it is made."""
        yield from check_box(self.box)
        yield from check_runtime(self.folder.compiled)
        live = read_live_status(self.folder)
        yield from check_folder(self.folder, bounds=self.bounds, running=live is not None)
        yield from check_ports(self.ports, live)
        yield from check_conditions(live)
        settings, enrolment = read_enrolment(self.folder)
        yield enrolment
        if settings is not None:
            yield from self._controller(settings)

    def _controller(self, settings: AgentSettings) -> Iterator[Finding]:
        now = datetime.now(UTC)
        yield check_certificate(self.folder, now=now)
        try:
            identity = IdentityFiles(self.folder.pki, agent=settings.agent).read()
        except AgentError as error:
            yield fail("identity", error.message, error.remedy)
            return
        yield from check_reach(settings.endpoints, identity, self.folder.pki, now=now)


def check_conditions(live: Mapping[str, Any] | None) -> Iterator[Finding]:
    """What the running agent says is wrong."""
    if live is None:
        return
    wrong = [each for each in live["conditions"] if each["state"] == FALSE]
    for each in wrong:
        message = str(each["message"] or each["reason"])
        yield fail(
            f"condition {each['type']}", message, "do what it says; it holds again by itself when the cause is gone"
        )
    if not wrong:
        yield well("conditions", "the running agent finds nothing wrong with itself")


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """One line a check, with the remedy below what is not well, and the sum of it."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        colour = _COLOURS[finding.grade]
        remedy = f"\n  -> {finding.remedy}" if finding.remedy else ""
        table.add_row(f"[{colour}]{finding.grade}[/]", finding.check, _plain(finding.message + remedy))
    console.print(table)
    counts = {grade: sum(finding.grade is grade for finding in findings) for grade in Grade}
    console.print(f"{worst(findings)}: " + ", ".join(f"{count} {grade}" for grade, count in counts.items()))


def _plain(text: str) -> str:
    """Without what Rich would take for markup."""
    return text.replace("[", "\\[")
