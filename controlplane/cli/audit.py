"""`lineside audit`: list."""

from collections.abc import Sequence
from datetime import UTC

from lineside.v1 import audit_pb2

from controlplane.cli.output import Column
from controlplane.cli.quantity import DurationOption
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import operator_name

app = resource_app("audit", "Who or which rule decided what, and on what evidence.")
_LIMIT_DEFAULT = 100
"""Decisions that a person who names no limit gets."""


@app.command(name="list", help_epilogue="Example: lineside audit list --resource rollouts/r1 --since 2h --oldest-first")
def list_(
    *,
    resource: str = "",
    actor: str = "",
    action: str = "",
    since: DurationOption | None = None,
    oldest_first: bool = False,
    limit: int | None = None,
    session: SessionArgument,
) -> None:
    """List decisions, the newest 100 first.

    Parameters
    ----------
    resource
        Only those on or related to this: rollouts/r1, agents/st-1, deployments/line-3, models/solar.
    actor
        Only those by this operator, by name, or rule: rules/gate.
    action
        Only these: wave.admit, or all that begin so: rollout.
    since
        Only those of this last time: 10s, 5m, 1h, 2d.
    oldest_first
        In the order in which they were taken.
    limit
        At most this many.
    """
    if resource and "/" not in resource:
        raise InvalidInputError(
            f"{resource!r} says not what it is", field="resource", remedy=f"write rollouts/{resource}, or agents/..."
        )
    printer, bound = session.printer, _LIMIT_DEFAULT if limit is None else limit
    events = session.client.audit.list(
        resource=resource,
        actor=actor if "/" in actor or not actor else operator_name(actor),
        action=action if "." in action or not action else f"{action}.",
        start_time=None if since is None else printer.now - since,
        oldest_first=oldest_first,
        limit=bound,
    )
    count = printer.messages(events, _COLUMNS, none="no such decisions")
    if limit is None and count == bound:
        printer.note(f"the first {count}; --limit lists more")


def _why(event: audit_pb2.AuditEvent) -> str:
    return ": ".join(filter(None, (event.reason, event.message)))


def _time(event: audit_pb2.AuditEvent) -> str:
    return f"{event.create_time.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M:%S}"


_COLUMNS: Sequence[Column[audit_pb2.AuditEvent]] = (
    Column(header="TIME (UTC)", cell=_time, whole=True),
    Column(header="ACTOR", cell=lambda event: event.actor.removeprefix("operators/"), whole=True),
    Column(header="ACTION", cell=lambda event: event.action, whole=True),
    Column(header="RESOURCE", cell=lambda event: event.resource, whole=True),
    Column(header="WHY", cell=_why),
)
