"""One command's run: a session, the command, the exit status."""

from collections.abc import Callable
from pathlib import Path

from controlplane.cli import exits
from controlplane.cli.failure import tell
from controlplane.cli.output import Printer
from controlplane.cli.output_format import OutputFormat
from controlplane.cli.session import Session
from controlplane.client import ClientError


def run(
    action: Callable[[Session], int | None],
    *,
    config: Path | None,
    controller: str | None,
    output: OutputFormat,
) -> int:
    """Run `action` with a session and return its exit status; a command that returns None went well."""
    session = Session(printer=Printer.of_process(output), config=config, controller=controller)
    try:
        with session:
            return action(session) or exits.OK
    except ClientError as error:
        return tell(error, as_json=output is OutputFormat.JSON)
