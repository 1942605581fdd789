"""`lineside rollouts`: start, watch, look, and take part by hand."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum

from lineside.v1 import rollout_pb2

from controlplane.cli import exits
from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.progress import RolloutTeller
from controlplane.cli.quantity import DurationOption, duration_text, time_text
from controlplane.cli.session import Session, SessionArgument, resource_app
from controlplane.client.names import parse_number, parse_reference, short

app = resource_app("rollouts", "Move a deployment to another version in waves.")
Rollout = rollout_pb2.Rollout


class FailureAction(Enum):
    """What a failed gate does."""

    ROLLBACK = rollout_pb2.GatePolicy.FAILURE_ACTION_ROLLBACK
    PAUSE = rollout_pb2.GatePolicy.FAILURE_ACTION_PAUSE


@app.command(help_epilogue="Example: lineside rollouts start line-3 --version 2 --waves 1,50%,100% --bake 10s --wait")
def start(
    deployment: str,
    /,
    *,
    version: str,
    waves: str = "100%",
    bake: DurationOption = timedelta(),
    min_inferences: int | None = None,
    max_errors_per_mille: int | None = None,
    max_failed_installs: int | None = None,
    on_failure: FailureAction = FailureAction.ROLLBACK,
    wait: bool = False,
    timeout: DurationOption | None = None,
    session: SessionArgument,
) -> int:
    """Start a rollout and print its id. With --wait, exit with 0 only when it has succeeded, else with 3.

    Parameters
    ----------
    deployment
        The deployment's id.
    version
        Version to move to: a number, or NAME:NUMBER.
    waves
        Cumulative sizes, counts or percentages, the last 100%.
    bake
        Least age of a wave before its gate may pass: 10s, 5m, 1h.
    min_inferences
        Inferences by the new version that a gate wants to see; else the controller's default.
    max_errors_per_mille
        Most failed inferences in 1,000; else the controller's default.
    max_failed_installs
        Most agents where the new version may fail to install; else none.
    on_failure
        What a failed gate does.
    wait
        Wait until it has ended, showing progress on stderr.
    timeout
        Wait no longer than this; the rollout goes on.
    """
    number, model = _target(session, deployment, version)
    gate = rollout_pb2.GatePolicy(
        min_inferences=min_inferences,
        max_errors_per_mille=max_errors_per_mille,
        max_failed_installs=max_failed_installs,
        on_failure=on_failure.value,
    )
    sizes = [size.strip() for size in waves.split(",")]
    started = session.client.rollouts.start(deployment, model=model, version=number, waves=sizes, bake=bake, gate=gate)
    if not session.printer.json:
        session.printer.line(short(started.name))
    elif not wait:
        session.printer.document(document_of(started))
    return _wait(session, started, timeout) if wait else exits.OK


@app.command(name="list", help_epilogue="Example: lineside rollouts list --deployment line-3 --limit 5")
def list_(*, deployment: str = "", limit: int | None = None, session: SessionArgument) -> None:
    """List rollouts, newest first.

    Parameters
    ----------
    deployment
        Only those of this deployment.
    limit
        At most this many.
    """
    printer = session.printer
    rollouts = session.client.rollouts.list(deployment=deployment, limit=limit)
    printer.messages(rollouts, _columns(printer.now), none="no rollouts; see `lineside rollouts start --help`")


@app.command(help_epilogue="Example: lineside rollouts show r1")
def show(rollout: str, /, *, session: SessionArgument) -> None:
    """Show a rollout: its state and why, its waves and what their gates said.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    _show(session.printer, session.client.rollouts.get(rollout))


@app.command(help_epilogue="Example: lineside rollouts watch r1 --timeout 10m")
def watch(rollout: str, /, *, timeout: DurationOption | None = None, session: SessionArgument) -> int:
    """Follow a rollout until it has ended. Exits with 0 when it succeeded, else with 3.

    With --output json every change is one JSON object on a line of its own.

    Parameters
    ----------
    rollout
        The rollout's id.
    timeout
        Watch no longer than this.
    """
    printer, last = session.printer, None
    teller = RolloutTeller(printer.line)
    for last in session.client.rollouts.watch(rollout, timeout_seconds=_seconds(timeout)):
        if printer.json:
            printer.compact(document_of(last))
        else:
            teller.tell(last)
    return _status(last)


@app.command(help_epilogue="Example: lineside rollouts pause r1")
def pause(rollout: str, /, *, session: SessionArgument) -> None:
    """Admit no further wave until the rollout is resumed.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    _show(session.printer, session.client.rollouts.pause(rollout))


@app.command(help_epilogue="Example: lineside rollouts resume r1")
def resume(rollout: str, /, *, session: SessionArgument) -> None:
    """Go on after a pause.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    _show(session.printer, session.client.rollouts.resume(rollout))


@app.command(help_epilogue="Example: lineside rollouts abort r1")
def abort(rollout: str, /, *, session: SessionArgument) -> None:
    """End a rollout; its targets return to the version before.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    _show(session.printer, session.client.rollouts.abort(rollout))


@app.command(help_epilogue="Example: lineside rollouts rollback r1")
def rollback(rollout: str, /, *, session: SessionArgument) -> None:
    """Return every target to the version before, and track it to the end.

    Parameters
    ----------
    rollout
        The rollout's id, which may be the deployment's last succeeded one.
    """
    _show(session.printer, session.client.rollouts.rollback(rollout))


@app.command(help_epilogue="Example: lineside rollouts retry r1")
def retry(rollout: str, /, *, session: SessionArgument) -> None:
    """Offer the version again to agents where its install failed.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    _show(session.printer, session.client.rollouts.retry(rollout))


def _target(session: Session, deployment: str, version: str) -> tuple[int, str]:
    """Return the number and the model of the version that was asked for; a bare number is of the deployment's model."""
    if not version.isdecimal():
        model, number = parse_reference(version, field="version")
        return number or parse_number(version, field="version"), model
    return parse_number(version, field="version"), session.client.deployments.get(deployment).model


def _wait(session: Session, started: Rollout, timeout: timedelta | None) -> int:
    teller = RolloutTeller(session.printer.note)
    last = session.client.rollouts.wait(short(started.name), timeout_seconds=_seconds(timeout), changed=teller.tell)
    if session.printer.json:
        session.printer.document(document_of(last))
    return _status(last)


def _status(last: Rollout | None) -> int:
    return exits.OK if last is not None and last.state == Rollout.STATE_SUCCEEDED else exits.UNFINISHED


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()


def _waves_text(rollout: Rollout) -> str:
    passed = sum(wave.state == rollout_pb2.Wave.STATE_PASSED for wave in rollout.waves)
    return f"{passed} of {len(rollout.waves)} passed"


def _columns(now: datetime) -> Sequence[Column[Rollout]]:
    return (
        Column(header="ROLLOUT", cell=lambda rollout: short(rollout.name), whole=True),
        Column(header="DEPLOYMENT", cell=lambda rollout: short(rollout.deployment), whole=True),
        Column(header="TO", cell=lambda rollout: short(rollout.target_version), whole=True),
        Column(header="STATE", cell=lambda rollout: word(rollout, "state")),
        Column(header="WAVES", cell=_waves_text),
        Column(header="STARTED", cell=lambda rollout: time_text(rollout.create_time, now=now)),
        Column(header="REASON", cell=lambda rollout: rollout.reason),
    )


def _show(printer: Printer, rollout: Rollout) -> None:
    if printer.json:
        printer.document(document_of(rollout))
        return
    strategy, now = rollout.strategy, printer.now
    gate = strategy.gate
    limits = [
        f"{gate.min_inferences} inferences" if gate.HasField("min_inferences") else "",
        f"at most {gate.max_errors_per_mille}/1000 errors" if gate.HasField("max_errors_per_mille") else "",
        f"at most {gate.max_failed_installs} failed installs",
        f"on failure {word(gate, 'on_failure')}",
    ]
    printer.pairs(
        [
            ("rollout", short(rollout.name)),
            ("deployment", short(rollout.deployment)),
            ("from", short(rollout.previous_version)),
            ("to", short(rollout.target_version)),
            ("state", word(rollout, "state")),
            ("reason", f"{rollout.reason}: {rollout.message}" if rollout.reason else rollout.message),
            ("waves", ", ".join(strategy.waves)),
            ("bake", duration_text(strategy.bake.ToTimedelta())),
            ("gate", ", ".join(filter(None, limits))),
            ("started", time_text(rollout.create_time, now=now)),
            ("ended", time_text(rollout.end_time, now=now)),
        ]
    )
    printer.section("waves", _wave_columns(now), rollout.waves)


def _wave_columns(now: datetime) -> Sequence[Column[rollout_pb2.Wave]]:
    return (
        Column(header="WAVE", cell=lambda wave: str(wave.index + 1)),
        Column(header="SIZE", cell=lambda wave: wave.size),
        Column(header="STATE", cell=lambda wave: word(wave, "state")),
        Column(header="ADMITTED", cell=lambda wave: time_text(wave.admit_time, now=now)),
        Column(header="AGENTS", cell=lambda wave: "\n".join(map(short, wave.agents))),
        Column(header="GATE", cell=lambda wave: word(wave.verdict, "outcome") if wave.HasField("verdict") else "-"),
        Column(header="WHY", cell=lambda wave: wave.verdict.message),
    )
