"""`lineside results`: list."""

from collections.abc import Sequence
from datetime import datetime

from lineside.v1 import evidence_pb2

from controlplane.cli.document import word
from controlplane.cli.output import Column
from controlplane.cli.quantity import time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import parse_number, parse_reference, short

app = resource_app("results", "Every inference's outcome.")
_LIMIT_DEFAULT = 100
"""Results that a person who names no limit gets: a line makes thousands an hour."""


@app.command(name="list", help_epilogue="Example: lineside results list --model solar --version 2 --all --output json")
def list_(
    *,
    model: str,
    version: str = "",
    agent: str = "",
    part: str = "",
    limit: int | None = None,
    all: bool = False,
    session: SessionArgument,
) -> None:
    """List results, the newest 100 first; with --all every one, in the order of arrival.

    Parameters
    ----------
    model
        Results of this model, NAME or NAME:VERSION.
    version
        Only those of this version, a number or NAME:NUMBER.
    agent
        Only those of this agent.
    part
        Only those of this part id.
    limit
        At most this many, newest first.
    all
        Every one.
    """
    if all and limit is not None:
        raise InvalidInputError("--all and --limit exclude each other", field="limit", remedy="leave one out")
    bound = None if all else limit or _LIMIT_DEFAULT
    model_id, number = parse_reference(model, field="model")
    results = session.client.results.list(
        model=model_id,
        version=_number(version, model_id) or number or 0,
        agent=agent,
        part_id=part,
        newest_first=not all,
        limit=bound,
    )
    count = session.printer.messages(results, _columns(session.printer.now), none=f"no results of {model}")
    if limit is None and count == bound:
        session.printer.note(f"the newest {count}; --all lists every one")


def label_text(result: evidence_pb2.Result) -> str:
    """Return the best label with its score, or the failure."""
    if result.outcome == evidence_pb2.Result.OUTCOME_ERROR:
        return f"error: {result.error}"
    return f"{result.labels[0].label} {result.labels[0].score:.3f}" if result.labels else "-"


def _number(version: str, model: str) -> int | None:
    """Return the number of `7` or `NAME:7`, None for nothing. Raises InvalidInputError for another model's."""
    if not version or version.isdecimal():
        return parse_number(version, field="version") if version else None
    named, number = parse_reference(version, field="version")
    if number is None or named != model:
        raise InvalidInputError(f"{version!r} is no version of {model}", field="version", remedy="write its number")
    return number


def _columns(now: datetime) -> Sequence[Column[evidence_pb2.Result]]:
    return (
        Column(header="TIME", cell=lambda result: time_text(result.infer_time, now=now)),
        Column(header="AGENT", cell=lambda result: short(result.agent), whole=True),
        Column(header="VERSION", cell=lambda result: short(result.model_version), whole=True),
        Column(header="DEVICE", cell=lambda result: result.device),
        Column(header="PART", cell=lambda result: result.part_id or "-", whole=True),
        Column(header="OUTCOME", cell=lambda result: word(result, "outcome")),
        Column(header="RESULT", cell=label_text),
        Column(header="MS", cell=lambda result: f"{result.latency_us / 1000:.1f}", number=True),
    )
