"""`lineside rollouts`: plan, rehearse, start, watch, look, and take part by hand."""

from datetime import timedelta
from enum import Enum

from lineside.v1 import rollout_pb2, rollout_service_pb2

from controlplane.cli import exits
from controlplane.cli.document import document_of
from controlplane.cli.progress import RolloutTeller, playing
from controlplane.cli.quantity import CountOption, DurationOption
from controlplane.cli.rollout_plan import show_plan
from controlplane.cli.rollout_rehearsal import NOTHING_WRONG, AssumptionOptions, assumptions_of, show_report
from controlplane.cli.rollout_strategy import UNSAID, StrategyOptions, strategy_of
from controlplane.cli.rollout_view import rollout_columns, show_rollout
from controlplane.cli.session import Session, SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import parse_number, parse_reference, short

app = resource_app("rollouts", "Move a deployment to another version in waves.")
Rollout = rollout_pb2.Rollout


class WhenActive(Enum):
    """What becomes of a rollout that moves the deployment already."""

    RULE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_UNSPECIFIED
    REFUSE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_REFUSE
    QUEUE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_QUEUE
    SUPERSEDE = rollout_service_pb2.CreateRolloutRequest.WHEN_ACTIVE_SUPERSEDE


@app.command(
    help_epilogue="Example: lineside rollouts plan line-3 --version 2 --waves 1,50%,100% --agents-per-minute 10"
)
def plan(deployment: str, /, *, version: str, options: StrategyOptions = UNSAID, session: SessionArgument) -> None:
    """Say what such a rollout would do on the fleet as it is: waves, bytes, windows, who is left out. Changes nothing.

    Parameters
    ----------
    deployment
        The deployment's id.
    version
        Version to move to: a number, or NAME:NUMBER.
    """
    strategy = strategy_of(options)
    number, model = _target(session, deployment, version)
    show_plan(session.printer, session.client.rollouts.plan(deployment, model=model, version=number, strategy=strategy))


@app.command(help_epilogue="Example: lineside rollouts rehearse line-3 --version 2 --plays 100 --loss 200 --errors 20")
def rehearse(
    deployment: str,
    /,
    *,
    version: str,
    plays: CountOption = 0,
    first_seed: int = 0,
    assumptions: AssumptionOptions = NOTHING_WRONG,
    options: StrategyOptions = UNSAID,
    session: SessionArgument,
) -> None:
    """Play such a rollout many times on a simulated copy of the fleet, under stated failures. Changes nothing.

    Parameters
    ----------
    deployment
        The deployment's id.
    version
        Version to move to: a number, or NAME:NUMBER.
    plays
        How often to play it; else the controller's default.
    first_seed
        Seed of the first play; the same seeds on the same fleet give the same report.
    """
    strategy = strategy_of(options)
    number, model = _target(session, deployment, version)
    with playing(session.printer) as progress:
        report = session.client.rollouts.rehearse(
            deployment,
            model=model,
            version=number,
            strategy=strategy,
            assumptions=assumptions_of(assumptions),
            plays=plays,
            first_seed=first_seed,
            progress=progress,
        )
    show_report(session.printer, report)


@app.command(help_epilogue="Example: lineside rollouts start line-3 --version 2 --waves 1,50%,100% --bake 10s --wait")
def start(
    deployment: str,
    /,
    *,
    version: str,
    options: StrategyOptions = UNSAID,
    when_active: WhenActive = WhenActive.RULE,
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
    when_active
        Where another rollout moves the deployment: refuse this one, queue it, or supersede the other; by the rule
        it queues behind one that runs and supersedes one that is paused or queued.
    wait
        Wait until it has ended, showing progress on stderr.
    timeout
        Wait no longer than this; the rollout goes on.
    """
    strategy = strategy_of(options)
    number, model = _target(session, deployment, version)
    started = session.client.rollouts.start(
        deployment, model=model, version=number, strategy=strategy, when_active=when_active.value
    )
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
    printer.messages(rollouts, rollout_columns(printer.now), none="no rollouts; see `lineside rollouts start --help`")


@app.command(help_epilogue="Example: lineside rollouts show r1")
def show(rollout: str, /, *, session: SessionArgument) -> None:
    """Show a rollout: its state and why, its waves and what their gates said.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    show_rollout(session.printer, session.client.rollouts.get(rollout))


@app.command(help_epilogue="Example: lineside rollouts watch r1 --timeout 10m")
def watch(rollout: str, /, *, timeout: DurationOption | None = None, session: SessionArgument) -> int:
    """Follow a rollout until it has ended: its waves, what it waits for, and each decision with who or which rule took
    it. Exits with 0 when it succeeded, else with 3.

    With --output json every change is one JSON object on a line of its own, with what was decided in `events`.

    Parameters
    ----------
    rollout
        The rollout's id.
    timeout
        Watch no longer than this.
    """
    printer, last = session.printer, None
    teller = RolloutTeller(printer.line)
    for change in session.client.rollouts.watch(rollout, timeout_seconds=_seconds(timeout)):
        last = change.rollout
        if printer.json:
            printer.compact(document_of(last) | {"events": [document_of(event) for event in change.events]})
        else:
            teller.tell(change)
    return _status(last)


@app.command(help_epilogue="Example: lineside rollouts pause r1")
def pause(rollout: str, /, *, session: SessionArgument) -> None:
    """Admit no further wave until the rollout is resumed.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    show_rollout(session.printer, session.client.rollouts.pause(rollout))


@app.command(help_epilogue="Example: lineside rollouts resume r1")
def resume(rollout: str, /, *, session: SessionArgument) -> None:
    """Go on after a pause.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    show_rollout(session.printer, session.client.rollouts.resume(rollout))


@app.command(help_epilogue="Example: lineside rollouts approve r1 --wave 2")
def approve(rollout: str, /, *, wave: int | None = None, session: SessionArgument) -> None:
    """Approve the next wave that waits for it.

    Parameters
    ----------
    rollout
        The rollout's id.
    wave
        Number of the wave that is meant, from 1; refused when another is next.
    """
    if wave is not None and wave < 1:
        raise InvalidInputError(f"{wave} is no wave", field="wave", remedy="count waves from 1")
    index = None if wave is None else wave - 1
    show_rollout(session.printer, session.client.rollouts.approve(rollout, wave=index))


@app.command(help_epilogue="Example: lineside rollouts abort r1 --keep")
def abort(rollout: str, /, *, keep: bool = False, revert: bool = False, session: SessionArgument) -> None:
    """End a rollout; its targets return to the version before, or keep what they have.

    Parameters
    ----------
    rollout
        The rollout's id.
    keep
        Targets keep the version that they have until a later rollout moves them.
    revert
        Targets return to the version before; so unless --keep is said.
    """
    if keep and revert:
        raise InvalidInputError("--keep and --revert exclude each other", field="keep", remedy="leave one out")
    show_rollout(session.printer, session.client.rollouts.abort(rollout, keep=keep))


@app.command(help_epilogue="Example: lineside rollouts rollback r1")
def rollback(rollout: str, /, *, session: SessionArgument) -> None:
    """Return every target to the version before, and track it to the end.

    Parameters
    ----------
    rollout
        The rollout's id, which may be the deployment's last succeeded one.
    """
    show_rollout(session.printer, session.client.rollouts.rollback(rollout))


@app.command(help_epilogue="Example: lineside rollouts retry r1")
def retry(rollout: str, /, *, session: SessionArgument) -> None:
    """Offer the version again to agents where its install failed.

    Parameters
    ----------
    rollout
        The rollout's id.
    """
    show_rollout(session.printer, session.client.rollouts.retry(rollout))


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
