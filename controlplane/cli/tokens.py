"""`lineside tokens`: create, list, revoke."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter
from lineside.v1 import join_token_pb2

from controlplane.cli.document import document_of
from controlplane.cli.output import Column
from controlplane.cli.quantity import DurationOption, labels_text, parse_labels, time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import short

app = resource_app("tokens", "Join tokens, with which boxes become agents.")


@app.command(help_epilogue="Example: lineside tokens create --uses 3 --ttl 1h --label line=3")
def create(
    *,
    uses: int = 1,
    ttl: DurationOption = timedelta(hours=1),
    label: Annotated[Sequence[str], Parameter(consume_multiple=True)] = (),
    session: SessionArgument,
) -> None:
    """Create a join token and print it. It is shown this once; whoever has it can enrol a box.

    Parameters
    ----------
    uses
        How many agents it can enrol.
    ttl
        How long it can be used: 10s, 5m, 1h, 2d, 1h30m.
    label
        KEY=VALUE that every agent enrolled with it gets; may be repeated.
    """
    try:
        labels = parse_labels(label)
    except ValueError as error:
        raise InvalidInputError(str(error), field="label") from error
    token = session.client.tokens.create(uses=uses, ttl=ttl, labels=labels)
    if session.printer.json:
        session.printer.document(document_of(token))
    else:
        session.printer.line(token.token)


@app.command(name="list", help_epilogue="Example: lineside tokens list")
def list_(*, limit: int | None = None, session: SessionArgument) -> None:
    """List join tokens without their secrets, newest first.

    Parameters
    ----------
    limit
        At most this many.
    """
    printer = session.printer
    tokens = session.client.tokens.list(limit=limit)
    printer.messages(tokens, _columns(printer.now), none="no join tokens; see `lineside tokens create --help`")


@app.command(help_epilogue="Example: lineside tokens revoke 4f1c9a")
def revoke(token: str, /, *, session: SessionArgument) -> None:
    """End a join token before its time; agents that it enrolled stay.

    Parameters
    ----------
    token
        The token's id, as `lineside tokens list` shows it.
    """
    printer, revoked = session.printer, session.client.tokens.revoke(token)
    if printer.json:
        printer.document(document_of(revoked))
        return
    columns = _columns(printer.now)
    printer.table(columns, [[column.cell(revoked) for column in columns]])


def _columns(now: datetime) -> Sequence[Column[join_token_pb2.JoinToken]]:
    return (
        Column(header="TOKEN", cell=lambda token: short(token.name), whole=True),
        Column(header="STATE", cell=lambda token: _state(token, now)),
        Column(header="USED", cell=lambda token: f"{token.used} of {token.uses}"),
        Column(header="EXPIRES", cell=lambda token: time_text(token.expire_time, now=now)),
        Column(header="CREATED", cell=lambda token: time_text(token.create_time, now=now)),
        Column(header="LABELS", cell=lambda token: labels_text(token.labels.items())),
    )


def _state(token: join_token_pb2.JoinToken, now: datetime) -> str:
    if token.revoked:
        return "revoked"
    if token.expire_time.ToDatetime(tzinfo=UTC) <= now:
        return "expired"
    return "usable" if token.used < token.uses else "used up"
