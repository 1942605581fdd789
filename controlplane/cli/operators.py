"""`lineside operators`: create, list, revoke, whoami."""

from collections.abc import Sequence
from datetime import datetime

from lineside.v1 import operator_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client.names import short

app = resource_app("operators", "Who may use this command line.")


@app.command(help_epilogue="Example: lineside operators create anna --description 'night shift'")
def create(name: str, /, *, description: str = "", session: SessionArgument) -> None:
    """Create an operator and print the bearer token. It is shown this once; it goes into an operator.toml.

    Parameters
    ----------
    name
        Id of the operator, as the audit will name it.
    description
        Who or what it is.
    """
    created = session.client.operators.create(name, description=description)
    if session.printer.json:
        session.printer.document(document_of(created))
    else:
        session.printer.line(created.token)


@app.command(name="list", help_epilogue="Example: lineside operators list")
def list_(*, limit: int | None = None, session: SessionArgument) -> None:
    """List operators without their tokens, by name.

    Parameters
    ----------
    limit
        At most this many.
    """
    printer = session.printer
    printer.messages(session.client.operators.list(limit=limit), _columns(printer.now), none="no operators")


@app.command(help_epilogue="Example: lineside operators revoke anna")
def revoke(operator: str, /, *, session: SessionArgument) -> None:
    """Refuse an operator's token for good. The last one cannot be revoked.

    Parameters
    ----------
    operator
        The operator's id.
    """
    _show(session.printer, session.client.operators.revoke(operator))


@app.command(help_epilogue="Example: lineside operators whoami")
def whoami(*, session: SessionArgument) -> None:
    """Show the operator whose token is used here."""
    _show(session.printer, session.client.operators.current())


def _show(printer: Printer, operator: operator_pb2.Operator) -> None:
    if printer.json:
        printer.document(document_of(operator))
        return
    columns = _columns(printer.now)
    printer.table(columns, [[column.cell(operator) for column in columns]])


def _columns(now: datetime) -> Sequence[Column[operator_pb2.Operator]]:
    return (
        Column(header="OPERATOR", cell=lambda operator: short(operator.name), whole=True),
        Column(header="STATE", cell=lambda operator: "revoked" if operator.revoked else "active"),
        Column(header="CREATED", cell=lambda operator: time_text(operator.create_time, now=now)),
        Column(header="DESCRIPTION", cell=lambda operator: operator.description),
    )
