"""What a person sees while a command takes its time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lineside.v1 import audit_pb2, rollout_pb2, rollout_service_pb2
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from controlplane.cli.document import word
from controlplane.cli.output import Printer
from controlplane.client import Progress, Stage
from controlplane.client.names import short

_STAGES = {Stage.HASH: "reading", Stage.UPLOAD: "uploading", Stage.INSPECT: "the controller reads the model"}


@contextmanager
def publishing(printer: Printer) -> Iterator[Callable[[Progress], None]]:
    """Give what publishing reports to: a bar on stderr when that is a terminal, nothing otherwise."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=printer.err, transient=True, disable=not printer.err.is_terminal) as bars:
        tasks = {stage: bars.add_task(text, total=None, visible=False) for stage, text in _STAGES.items()}

        def report(progress: Progress) -> None:
            total = None if progress.stage is Stage.INSPECT else progress.total_bytes
            bars.update(tasks[progress.stage], completed=progress.done_bytes, total=total, visible=True)

        yield report


@contextmanager
def counting(printer: Printer, text: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give what many files report to: a bar on stderr when that is a terminal, nothing otherwise."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=printer.err, transient=True, disable=not printer.err.is_terminal) as bars:
        task = bars.add_task(text, total=total)

        def report(done: int) -> None:
            bars.update(task, completed=done)

        yield report


@contextmanager
def playing(printer: Printer) -> Iterator[Callable[[int, int], None]]:
    """Give what a rehearsal reports to: a bar on stderr when that is a terminal, nothing otherwise."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, console=printer.err, transient=True, disable=not printer.err.is_terminal) as bars:
        task = bars.add_task("playing", total=None)

        def report(done: int, plays: int) -> None:
            bars.update(task, completed=done, total=plays)

        yield report


class RolloutTeller:
    """Tells a rollout's course in lines: each decision, each wave that began with what its gate and its checks say,
    and the state with what is waited for, as they change."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, str] = {}

    def tell(self, change: rollout_service_pb2.WatchRolloutResponse) -> None:
        """Say what is new."""
        for event in change.events:
            self._say(_event_text(event))
        rollout = change.rollout
        for wave in rollout.waves:
            if wave.state not in {rollout_pb2.Wave.STATE_UNSPECIFIED, rollout_pb2.Wave.STATE_PENDING}:
                subject = f"wave {wave.index + 1} of {len(rollout.waves)}, {wave.size}"
                self._line(subject, _wave_text(wave))
                self._checks(subject, wave.verdict)
        reason = f", {rollout.message}" if rollout.message else ""
        self._line("rollout", f"{word(rollout, 'state')}{reason}")

    def _checks(self, subject: str, verdict: rollout_pb2.GateVerdict) -> None:
        """Say the checks whose outcome changed; their numbers change all the time."""
        for check in verdict.checks:
            of_class = f" on {check.device_class}" if check.device_class else ""
            self._line(
                f"{subject}, {check.name}{of_class}",
                word(check, "outcome"),
                more=check.message and f", {check.message}",
            )

    def _line(self, subject: str, text: str, *, more: str = "") -> None:
        """Say it once; `more` is said with it and does not count as a change."""
        if self._told.get(subject) != text:
            self._told[subject] = text
            self._say(f"{subject}: {text}{more}")


def _event_text(event: audit_pb2.AuditEvent) -> str:
    time = event.create_time.ToDatetime().strftime("%H:%M:%SZ")
    why = ", ".join(filter(None, (event.reason, event.message)))
    return f"{time} {event.actor}: {event.action} {short(event.resource)}" + (f", {why}" if why else "")


def _wave_text(wave: rollout_pb2.Wave) -> str:
    if not wave.HasField("verdict"):
        return word(wave, "state")
    reason = f", {wave.verdict.message}" if wave.verdict.message else ""
    return f"{word(wave, 'state')}, gate {word(wave.verdict, 'outcome')}{reason}"
