"""`lineside training`: start runs of trainers, look at them, follow their logs, end them."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from lineside.v1 import training_run_pb2

from controlplane.cli import exits, training_decisions
from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column, Printer
from controlplane.cli.quantity import DurationOption, bytes_text, duration_text, time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.cli.training_policy import app as policy_app
from controlplane.client import InvalidInputError
from controlplane.client.names import parse_reference, short

app = resource_app("training", "Train candidates from what came back.")
app.command(policy_app)
training_decisions.add_to(app)
TrainingRun = training_run_pb2.TrainingRun


@app.command(help_epilogue="Example: lineside training start solar --dataset solar-2 --trainer head --wait")
def start(
    base: str,
    /,
    *,
    dataset: str,
    trainer: str = "head",
    parameter: Sequence[str] = (),
    wait: bool = False,
    timeout: DurationOption | None = None,
    session: SessionArgument,
) -> int:
    """Queue a run of a trainer.

    Parameters
    ----------
    base
        Version to start from: NAME:NUMBER, or NAME for the newest.
    dataset
        Frozen dataset to train on.
    trainer
        One of `lineside training trainers`.
    parameter
        NAME=VALUE that the trainer is told, any number of times; values are JSON, or else texts.
    wait
        Wait until it has ended; exit with 3 when it did not succeed.
    timeout
        With --wait: at most this long, and exit with 3 then.
    """
    model, version = parse_reference(base, field="base")
    run = session.client.training.start(
        model, version=version, dataset=dataset, trainer=trainer, parameters=_parameters(parameter)
    )
    if wait:
        return _wait(session.printer, session, run, timeout)
    show_run(session.printer, run)
    return exits.OK


@app.command(name="list", help_epilogue="Example: lineside training list --model solar")
def list_(*, model: str = "", limit: int | None = None, session: SessionArgument) -> None:
    """List runs, newest first.

    Parameters
    ----------
    model
        Only those of this model.
    limit
        At most this many.
    """
    runs = session.client.training.list(model=model, limit=limit)
    session.printer.messages(runs, _columns(session.printer.now), none="no training runs")


@app.command(help_epilogue="Example: lineside training show k3x9")
def show(run: str, /, *, session: SessionArgument) -> None:
    """Show a run: where it stands and why, what its trainer says of itself.

    Parameters
    ----------
    run
        The run's id.
    """
    show_run(session.printer, session.client.training.get(run))


@app.command(help_epilogue="Example: lineside training log k3x9 --follow")
def log(run: str, /, *, follow: bool = False, session: SessionArgument) -> None:
    """Print what the trainer wrote, as it is.

    Parameters
    ----------
    run
        The run's id.
    follow
        Go on as it grows, until the trainer has ended.
    """
    for piece in session.client.training.log(run, follow=follow):
        if session.printer.json:
            session.printer.compact({"text": piece.decode(errors="replace")})
        else:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


@app.command(help_epilogue="Example: lineside training cancel k3x9")
def cancel(run: str, /, *, session: SessionArgument) -> None:
    """End a run that has not ended.

    Parameters
    ----------
    run
        The run's id.
    """
    show_run(session.printer, session.client.training.cancel(run))


@app.command(help_epilogue="Example: lineside training retry k3x9")
def retry(run: str, /, *, session: SessionArgument) -> None:
    """Queue a failed or cancelled run again, as another attempt.

    Parameters
    ----------
    run
        The run's id.
    """
    show_run(session.printer, session.client.training.retry(run))


@app.command(help_epilogue="Example: lineside training trainers")
def trainers(*, limit: int | None = None, session: SessionArgument) -> None:
    """List the trainers that the controller has.

    Parameters
    ----------
    limit
        At most this many.
    """
    session.printer.messages(session.client.training.trainers(limit=limit), _TRAINERS, none="no trainers")


def show_run(printer: Printer, run: TrainingRun) -> None:
    """Show the whole run."""
    if printer.json:
        printer.document(document_of(run))
        return
    now = printer.now
    parameters = document_of(run)["parameters"] or {}
    printer.pairs(
        [
            ("run", short(run.name)),
            ("model", short(run.model)),
            ("base", short(run.base_version)),
            ("dataset", short(run.dataset)),
            ("trainer", run.trainer),
            ("parameters", ", ".join(f"{name}={json.dumps(value)}" for name, value in sorted(parameters.items()))),
            ("state", word(run, "state") + (", cancelling" if run.cancelling else "")),
            ("reason", ": ".join(words for words in (run.reason, run.message) if words)),
            ("progress", _progress_text(run)),
            ("attempt", str(run.attempt)),
            *(("warning", warning) for warning in run.warnings),
            ("asked by", run.creator),
            ("candidate", run.candidate.digest),
            ("asked", time_text(run.create_time, now=now)),
            ("started", time_text(run.start_time, now=now)),
            ("ended", time_text(run.end_time, now=now)),
            *((f"claims {name}", f"{run.reported_metrics[name]:.4g}") for name in sorted(run.reported_metrics)),
        ]
    )


def _wait(printer: Printer, session: Any, run: TrainingRun, timeout: timedelta | None) -> int:
    last = session.client.training.wait(
        short(run.name),
        timeout_seconds=None if timeout is None else timeout.total_seconds(),
        changed=lambda found: printer.note(
            "  ".join(filter(None, (short(found.name), word(found, "state"), _progress_text(found), found.message)))
        ),
    )
    if printer.json:
        printer.document(document_of(last))
    return exits.OK if last.state == TrainingRun.STATE_SUCCEEDED else exits.UNFINISHED


def _parameters(written: Sequence[str]) -> dict[str, Any]:
    parameters = {}
    for words in written:
        name, equals, value = words.partition("=")
        if not (name and equals):
            raise InvalidInputError(f"{words!r} is no parameter", field="parameter", remedy="write NAME=VALUE")
        try:
            parameters[name] = json.loads(value)
        except ValueError:
            parameters[name] = value
    return parameters


def _progress_text(run: TrainingRun) -> str:
    if not run.HasField("progress"):
        return ""
    return f"{run.progress.fraction:.0%} {run.progress.message}".strip()


def _columns(now: datetime) -> Sequence[Column[TrainingRun]]:
    return (
        Column(header="RUN", cell=lambda run: short(run.name), whole=True),
        Column(header="BASE", cell=lambda run: short(run.base_version), whole=True),
        Column(header="DATASET", cell=lambda run: short(run.dataset), whole=True),
        Column(header="TRAINER", cell=lambda run: run.trainer),
        Column(header="STATE", cell=lambda run: word(run, "state")),
        Column(header="REASON", cell=lambda run: run.reason),
        Column(header="PROGRESS", cell=_progress_text),
        Column(header="ASKED", cell=lambda run: time_text(run.create_time, now=now)),
    )


_TRAINERS: Sequence[Column[training_run_pb2.Trainer]] = (
    Column(header="TRAINER", cell=lambda trainer: trainer.id, whole=True),
    Column(header="TIME", cell=lambda trainer: duration_text(trainer.time_limit.ToTimedelta())),
    Column(header="MEMORY", cell=lambda trainer: bytes_text(trainer.memory_bytes_max), number=True),
    Column(header="DESCRIPTION", cell=lambda trainer: trainer.description),
)
