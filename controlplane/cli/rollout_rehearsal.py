"""What goes wrong in a rehearsal, as options, and how its report is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from cyclopts import Group, Parameter
from cyclopts.validators import Number
from lineside.v1 import rollout_service_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import BytesOption, DurationOption, bytes_text, duration_text

_ASSUMPTIONS = Group("Assumptions", sort_key=30)
PerMille = Annotated[int, Parameter(validator=Number(gte=0, lte=1000))]
Rate = Annotated[float, Parameter(validator=Number(gte=0))]


@Parameter(name="*", group=_ASSUMPTIONS)
@dataclass(frozen=True, slots=True, kw_only=True)
class AssumptionOptions:
    """Without any of these nothing goes wrong."""

    loss: PerMille = 0
    """Messages lost, of 1,000."""
    offline: PerMille = 0
    """Agents out of reach at a time, of 1,000."""
    outage: DurationOption = timedelta(minutes=10)
    """How long an agent stays out of reach, on average."""
    restarts_per_day: Rate = 0.0
    """Restarts of an agent in a day, on average."""
    install_failures: PerMille = 0
    """Installs that fail, of 1,000."""
    errors: PerMille = 0
    """Inferences of the version that fail, of 1,000."""
    errors_device_class: str = ""
    """Only on agents whose device class contains this text: GPU."""
    inferences_per_second: Rate = 0.0
    """Inferences a second of an agent; else as measured in the last hour."""
    fetch_bytes_per_second: BytesOption = 0
    """Bytes a second that an agent fetches: 10MB, which is so unless it is said."""


NOTHING_WRONG = AssumptionOptions()


def assumptions_of(options: AssumptionOptions) -> rollout_service_pb2.RehearsalAssumptions:
    """Return the assumptions that the options state."""
    assumptions = rollout_service_pb2.RehearsalAssumptions(
        message_loss_per_mille=options.loss,
        offline_per_mille=options.offline,
        restarts_per_day=options.restarts_per_day,
        install_failures_per_mille=options.install_failures,
        errors_per_mille=options.errors,
        errors_device_class=options.errors_device_class,
        inferences_per_second=options.inferences_per_second,
        fetch_bytes_per_second=options.fetch_bytes_per_second,
    )
    assumptions.outage.FromTimedelta(options.outage)
    return assumptions


def show_report(printer: Printer, report: rollout_service_pb2.RehearsalReport) -> None:
    """Show how plays ended and how their numbers were spread."""
    if printer.json:
        printer.document(document_of(report))
        return
    total = sum(report.outcomes.values())
    printer.pairs(
        [
            *((name, f"{report.outcomes[name]} of {total} plays") for name in sorted(report.outcomes)),
            *(
                (f"stopped in wave {index + 1}", f"{report.stopped_in_wave[index]} plays")
                for index in sorted(report.stopped_in_wave)
            ),
            ("cut off after", duration_text(report.horizon.ToTimedelta())),
        ]
    )
    printer.line("")
    rows = [
        _row("time to the end", report.seconds, lambda seconds: duration_text(timedelta(seconds=seconds))),
        _row("agents exposed at once", report.exposed_agents, lambda count: f"{count:g}"),
        _row("failed inferences", report.failed_inferences, lambda count: f"{count:g}"),
        _row("bytes fetched", report.fetch_bytes, lambda size: bytes_text(round(size))),
    ]
    printer.table(_SPREADS, rows)


def _row(name: str, spread: rollout_service_pb2.Spread, text: Callable[[float], str]) -> Sequence[str]:
    return [name, *map(text, (spread.min, spread.p50, spread.p95, spread.max))]


_SPREADS: Sequence[Column[rollout_service_pb2.RehearsalReport]] = tuple(
    Column(header=header, cell=lambda _: "", whole=True, number=header != "OF ALL PLAYS")
    for header in ("OF ALL PLAYS", "LEAST", "MEDIAN", "95 OF 100", "MOST")
)
