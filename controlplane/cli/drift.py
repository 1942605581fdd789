"""`lineside drift`: list, show, plot, watch, relearn."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path

from lineside.v1 import audit_pb2, drift_pb2

from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import DurationOption, labels_text, time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client.names import parse_reference, short

app = resource_app("drift", "Stations whose inputs or answers are no longer what they were.")
Drift = drift_pb2.Drift


class State(Enum):
    """What is known of a slot."""

    LEARNING = Drift.STATE_LEARNING
    STEADY = Drift.STATE_STEADY
    DRIFTED = Drift.STATE_DRIFTED


@app.command(name="list", help_epilogue="Example: lineside drift list --model solar --state drifted")
def list_(
    *,
    model: str = "",
    agent: str = "",
    state: State | None = None,
    all_versions: bool = False,
    limit: int | None = None,
    session: SessionArgument,
) -> None:
    """List how far each slot is from what its version saw first, by agent, then model.

    Parameters
    ----------
    model
        Only slots of this model.
    agent
        Only slots of this agent.
    state
        Only those in this state.
    all_versions
        Versions that served before, too.
    limit
        At most this many.
    """
    wanted = Drift.STATE_UNSPECIFIED if state is None else state.value
    drifts = session.client.drifts.list(model=model, agent=agent, state=wanted, all_versions=all_versions, limit=limit)
    session.printer.messages(drifts, _columns(session.printer.now), none="no slot has inferred anything yet")


@app.command(help_epilogue="Example: lineside drift show st-1 solar")
def show(agent: str, model: str, /, *, session: SessionArgument) -> None:
    """Show what a slot sees and answers beside its reference.

    Parameters
    ----------
    agent
        The agent's id.
    model
        Model of the slot; NAME:VERSION for a version that served before.
    """
    name, number = parse_reference(model, field="model")
    _show(session.printer, session.client.drifts.get(agent, name, version=number or 0))


@app.command(help_epilogue="Example: lineside drift plot st-1 solar --since 4h --out drift.png")
def plot(
    agent: str,
    model: str,
    /,
    *,
    since: DurationOption | None = None,
    out: Path | None = None,
    session: SessionArgument,
) -> None:
    """Draw how far a slot was from its reference over time, and both beside each other; print the name of the file.

    Parameters
    ----------
    agent
        The agent's id.
    model
        Model of the slot.
    since
        How far back: 10s, 5m, 1h, 2d; without it, 24h.
    out
        File to write, .png, .svg or .pdf; else AGENT-MODEL-drift.png in the working folder.
    """
    from controlplane.cli.drift_plot import draw

    printer = session.printer
    name, _ = parse_reference(model, field="model")
    found = session.client.drifts.get(agent, name)
    start_time = None if since is None else printer.now - since
    history = session.client.drifts.history(agent, name, start_time=start_time)
    target = out or Path(f"{short(found.agent)}-{name}-drift.png")
    draw(found, history, target)
    if printer.json:
        printer.document(document_of(history) | {"file": str(target)})
    else:
        printer.line(str(target))


@app.command(help_epilogue="Example: lineside drift watch --model solar --timeout 10m")
def watch(*, model: str = "", timeout: DurationOption | None = None, session: SessionArgument) -> None:
    """Tell which slots have drifted, then each drift that begins or ends.

    With --output json every message is one JSON object on a line of its own.

    Parameters
    ----------
    model
        Only slots of this model.
    timeout
        Watch no longer than this; without it, until it is ended.
    """
    printer = session.printer
    seconds = None if timeout is None else timeout.total_seconds()
    for news in session.client.drifts.watch(model=model, timeout_seconds=seconds):
        if printer.json:
            printer.compact(document_of(news))
            continue
        told = {event.resource for event in news.events}
        for drift in news.drifts:
            if drift.name not in told:
                since = time_text(drift.transition_time, now=printer.now)
                printer.line(f"{_slot(drift)} has drifted, since {since}: {drift.message}")
        for event in news.events:
            printer.line(_event(event, printer.now))


@app.command(help_epilogue="Example: lineside drift relearn st-1 solar --reason 'new lamp, looked at'")
def relearn(agent: str, model: str, /, *, reason: str, session: SessionArgument) -> None:
    """Take what a slot sees from now on as its reference, and end its drift.

    Parameters
    ----------
    agent
        The agent's id.
    model
        Model of the slot.
    reason
        Why what is seen now is right; whoever asks later is told.
    """
    name, number = parse_reference(model, field="model")
    _show(session.printer, session.client.drifts.relearn(agent, name, version=number or 0, reason=reason))


def _columns(now: datetime) -> Sequence[Column[Drift]]:
    return (
        Column(header="AGENT", cell=lambda drift: short(drift.agent), whole=True),
        Column(header="VERSION", cell=lambda drift: short(drift.model_version), whole=True),
        Column(header="STATE", cell=lambda drift: word(drift, "state")),
        Column(header="SINCE", cell=lambda drift: time_text(drift.transition_time, now=now)),
        Column(header="INFERENCES", cell=lambda drift: str(drift.inference_count), number=True),
        Column(header="FURTHEST", cell=_furthest),
        Column(header="LABELS", cell=lambda drift: labels_text(drift.labels.items())),
    )


def _statistic_columns() -> Sequence[Column[drift_pb2.DriftStatistic]]:
    return (
        Column(header="STATISTIC", cell=lambda one: one.name, whole=True),
        Column(header="DISTANCE", cell=lambda one: f"{one.distance:.3f}", number=True),
        Column(header="EXPLAINED", cell=lambda one: f"{one.tolerated:.3f}", number=True),
        Column(header="EVIDENCE", cell=lambda one: f"1e{one.evidence_log10:+.1f}", number=True),
        Column(header="FLAGGED", cell=lambda one: "yes" if one.drifted else ""),
        Column(header="REFERENCE", cell=lambda one: str(one.reference_count), number=True),
        Column(header="RECENT", cell=lambda one: str(one.recent_count), number=True),
    )


def _furthest(drift: Drift) -> str:
    """The statistic with the most evidence, which is the first."""
    if not drift.statistics or not drift.statistics[0].recent_count:
        return ""
    one = drift.statistics[0]
    return f"{one.name} {one.distance:.2f} of {one.tolerated:.2f}"


def _show(printer: Printer, drift: Drift) -> None:
    if printer.json:
        printer.document(document_of(drift))
        return
    now = printer.now
    needed = f"1e{drift.statistics[0].evidence_needed_log10:+.1f}" if drift.statistics else ""
    printer.pairs(
        [
            ("slot", _slot(drift)),
            ("labels", labels_text(drift.labels.items())),
            ("state", word(drift, "state") + ("" if drift.serving else ", another version serves")),
            ("since", time_text(drift.transition_time, now=now)),
            ("message", drift.message),
            ("inferences", f"{drift.inference_count}, the last {time_text(drift.last_inference_time, now=now)}"),
            ("reference", f"{drift.reference_count} of {drift.reference_wanted} inferences"),
            ("reference from", time_text(drift.reference_start_time, now=now)),
            ("flagged before", f"{drift.episode_count} times"),
            ("flagged at", f"evidence of {needed}" if needed else ""),
        ]
    )
    printer.section("statistics", _statistic_columns(), drift.statistics)


def _slot(drift: Drift) -> str:
    return f"{short(drift.agent)} {short(drift.model_version)}"


def _event(event: audit_pb2.AuditEvent, now: datetime) -> str:
    when = time_text(event.create_time, now=now)
    return f"{when} {event.action} {event.resource} by {event.actor}: {event.message}"
