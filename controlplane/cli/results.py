"""`lineside results`: list, query, trace, rejudge."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from google.protobuf import json_format
from google.protobuf.message import Message
from lineside.v1 import evidence_pb2, result_service_pb2

from controlplane.cli.document import word
from controlplane.cli.output import Column
from controlplane.cli.quantity import DurationOption, bytes_text, time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import parse_number, parse_reference, short, version_name

Traced: TypeAlias = result_service_pb2.TracedResult
Rejudged: TypeAlias = result_service_pb2.RejudgedPart
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


@app.command(
    help_epilogue="Example: lineside results query "
    "\"SELECT line, avg((label = 'defect')::int) FROM results WHERE day = '2026-03-01' GROUP BY line\""
)
def query(
    sql: str,
    /,
    *,
    model: str = "",
    since: DurationOption | None = None,
    limit: int | None = None,
    session: SessionArgument,
) -> None:
    """Answer a question in SQL over the table results. It reads and changes nothing.

    Parameters
    ----------
    sql
        One SELECT in DuckDB's dialect; "DESCRIBE results" shows the columns.
    model
        Look only into files with results of this model.
    since
        Look only into files with results of this last time: 10s, 5m, 1h, 2d.
    limit
        At most this many rows; without it 1000.
    """
    printer = session.printer
    start_time = None if since is None else printer.now - since
    answer = session.client.results.query(sql, model=model, start_time=start_time, row_limit=limit or 0)
    rows = [json_format.MessageToDict(row) for row in answer.rows]
    if printer.json:
        columns = [{"name": column.name, "type": column.type} for column in answer.columns]
        printer.document({"columns": columns, "rows": rows, "truncated": answer.truncated})
        return
    shown: list[Column[Message]] = [Column(header=column.name, cell=str) for column in answer.columns]
    printer.table(shown, [[_cell(value) for value in row] for row in rows])
    read = f"{answer.file_count} files of {bytes_text(answer.file_bytes)}"
    more = "; there are more rows: --limit gives another number" if answer.truncated else ""
    printer.note(f"{len(rows)} rows from {read}{more}")


@app.command(help_epilogue="Example: lineside results trace --part cell-000042")
def trace(*, part: str, session: SessionArgument) -> None:
    """Show every judgement of a part: which version on which device, with what scores, and the sample if one was kept.

    Parameters
    ----------
    part
        The part's id, as the line's application gave it.
    """
    printer = session.printer
    columns: Sequence[Column[Traced]] = (
        Column(header="TIME", cell=lambda traced: traced.result.infer_time.ToJsonString()),
        Column(header="PLACE", cell=_place, whole=True),
        Column(header="AGENT", cell=lambda traced: short(traced.result.agent), whole=True),
        Column(header="VERSION", cell=lambda traced: short(traced.result.model_version), whole=True),
        Column(header="DEVICE", cell=lambda traced: traced.result.device),
        Column(header="RESULT", cell=lambda traced: scores_text(traced.result)),
        Column(header="SAMPLE", cell=lambda traced: short(traced.sample) or "-", whole=True),
    )
    printer.messages(session.client.results.trace(part), columns, none=f"no result of {part}")


@app.command(help_epilogue="Example: lineside results rejudge --version solar:3 --with solar:4 --good good --since 30d")
def rejudge(
    *,
    version: str,
    with_: Annotated[str, Parameter(name="--with")],
    good: Annotated[list[str] | None, Parameter(negative="")] = None,
    since: DurationOption | None = None,
    session: SessionArgument,
) -> None:
    """List the parts that a version passed and another version judges otherwise.

    Parameters
    ----------
    version
        The version that passed them, NAME:VERSION.
    with_
        The version that judges again, NAME:VERSION.
    good
        A label that passes a part; give it once for each. Without it, "good".
    since
        Only parts that were passed in this last time: 10s, 5m, 1h, 2d.
    """
    printer = session.printer
    counts = {"passed": 0, "judged": 0}

    def counted(passed: int, judged: int) -> None:
        counts.update(passed=passed, judged=judged)

    parts = session.client.results.rejudge(
        _version_name(version, field="version"),
        _version_name(with_, field="with"),
        good_labels=good or ["good"],
        start_time=None if since is None else printer.now - since,
        counted=counted,
    )
    columns: Sequence[Column[Rejudged]] = (
        Column(header="PART", cell=lambda part: part.part_id, whole=True),
        Column(header="AGENT", cell=lambda part: short(part.passed.agent), whole=True),
        Column(header="PASSED", cell=lambda part: part.passed.infer_time.ToJsonString()),
        Column(header=version.upper(), cell=lambda part: scores_text(part.passed)),
        Column(header=with_.upper(), cell=lambda part: scores_text(part.judged)),
        Column(header="FROM", cell=lambda part: word(part, "source")),
    )
    printer.messages(parts, columns, none=f"no part that {version} passed is judged otherwise by {with_}")
    printer.note(f"{version} passed {counts['passed']} parts, of which {with_} has judged {counts['judged']}")


def scores_text(result: evidence_pb2.Result) -> str:
    """Return every label with its score, or the failure."""
    if result.outcome == evidence_pb2.Result.OUTCOME_ERROR:
        return f"error: {result.error}"
    return ", ".join(f"{label.label} {label.score:.3f}" for label in result.labels) or "-"


def label_text(result: evidence_pb2.Result) -> str:
    """Return the best label with its score, or the failure."""
    if result.outcome == evidence_pb2.Result.OUTCOME_ERROR:
        return f"error: {result.error}"
    return f"{result.labels[0].label} {result.labels[0].score:.3f}" if result.labels else "-"


def _place(traced: Traced) -> str:
    return "/".join(each or "-" for each in (traced.site, traced.line, traced.station))


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:.0f}" if value.is_integer() else f"{value:g}"
        case list() | dict():
            return json.dumps(value)
        case _:
            return str(value)


def _version_name(written: str, *, field: str) -> str:
    """Return the resource name of NAME:VERSION. Raises InvalidInputError."""
    model, number = parse_reference(written, field=field)
    if number is None:
        raise InvalidInputError(f"{written!r} names no version", field=field, remedy="write NAME:VERSION")
    return version_name(model, number)


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
