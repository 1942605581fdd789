"""What a person sees while a command takes its time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lineside.v1 import rollout_pb2
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from controlplane.cli.document import word
from controlplane.cli.output import Printer
from controlplane.client import Progress, Stage

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


class RolloutTeller:
    """Tells a rollout's course in lines: its state, and each admitted wave with its gate's verdict, as they change."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, str] = {}

    def tell(self, rollout: rollout_pb2.Rollout) -> None:
        """Say what is new in `rollout`."""
        for wave in rollout.waves:
            if wave.state not in {rollout_pb2.Wave.STATE_UNSPECIFIED, rollout_pb2.Wave.STATE_PENDING}:
                self._line(f"wave {wave.index + 1} of {len(rollout.waves)}, {wave.size}", _wave_text(wave))
        reason = f", {rollout.message}" if rollout.message else ""
        self._line("rollout", f"{word(rollout, 'state')}{reason}")

    def _line(self, subject: str, text: str) -> None:
        if self._told.get(subject) != text:
            self._told[subject] = text
            self._say(f"{subject}: {text}")


def _wave_text(wave: rollout_pb2.Wave) -> str:
    if not wave.HasField("verdict"):
        return word(wave, "state")
    reason = f", {wave.verdict.message}" if wave.verdict.message else ""
    return f"{word(wave, 'state')}, gate {word(wave.verdict, 'outcome')}{reason}"
