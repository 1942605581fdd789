"""What every command is given: how to reach the controller and how to show the answer."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

from cyclopts import App, Parameter

from controlplane.cli.output import Printer
from controlplane.client import Client


@dataclass(kw_only=True)
class Session:
    """One run of the command line. Connects when a command first asks for the client; closes at the end of a `with`."""

    printer: Printer
    config: Path | None = None
    controller: str | None = None

    @cached_property
    def client(self) -> Client:
        return Client.from_config(self.config, controller=self.controller)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if "client" in self.__dict__:
            self.client.close()


SessionArgument = Annotated[Session, Parameter(parse=False)]
"""A command's parameter that is handed in, not parsed."""


def resource_app(name: str, help: str) -> App:
    """Return the app of one resource's commands; `--version` there is an option of commands, not ours."""
    return App(
        name=name,
        help=help,
        help_format="plaintext",
        version_flags=[],
        default_parameter=Parameter(negative=()),
    )
