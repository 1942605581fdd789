"""`lineside samples`: list, get; `sample_labels` has the rest."""

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from tempfile import NamedTemporaryFile

from lineside.v1 import sample_pb2

from controlplane.cli import sample_labels
from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column
from controlplane.cli.quantity import bytes_text, time_text
from controlplane.cli.results import label_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.names import short

app = resource_app("samples", "Inputs that agents kept for training, and what people say of them.")
for _name, _run, _example in (
    ("add", sample_labels.add, "samples add cells/ --model solar --labels cells.csv --line 3"),
    ("label", sample_labels.label, "samples label st-1-000042 crack"),
    ("import", sample_labels.import_, "samples import labels.csv --model solar --dry-run"),
    ("export", sample_labels.export, "samples export --model solar --format label-studio --out to-label --unlabelled"),
):
    app.command(_run, name=_name, help_epilogue=f"Example: lineside {_example}")
_SUFFIX = {"image/png": ".png", "application/x-npy": ".npy"}


class Reason(Enum):
    """Why an input was kept."""

    RANDOM = sample_pb2.Sample.REASON_RANDOM
    LEAST_CONFIDENCE = sample_pb2.Sample.REASON_LEAST_CONFIDENCE
    MARGIN = sample_pb2.Sample.REASON_MARGIN
    ENTROPY = sample_pb2.Sample.REASON_ENTROPY
    CLASS_QUOTA = sample_pb2.Sample.REASON_CLASS_QUOTA
    OUTLIER = sample_pb2.Sample.REASON_OUTLIER
    SHADOW_DISAGREEMENT = sample_pb2.Sample.REASON_SHADOW_DISAGREEMENT
    IMPORTED = sample_pb2.Sample.REASON_IMPORTED


@app.command(name="list", help_epilogue="Example: lineside samples list --model solar --reason least-confidence")
def list_(
    *,
    model: str = "",
    agent: str = "",
    reason: Reason | None = None,
    limit: int | None = None,
    session: SessionArgument,
) -> None:
    """List samples, newest first.

    Parameters
    ----------
    model
        Only those of this model.
    agent
        Only those of this agent.
    reason
        Only those kept for this reason.
    limit
        At most this many.
    """
    wanted = sample_pb2.Sample.REASON_UNSPECIFIED if reason is None else reason.value
    samples = session.client.samples.list(model=model, agent=agent, reason=wanted, limit=limit)
    session.printer.messages(samples, _columns(session.printer.now), none="no samples")


@app.command(help_epilogue="Example: lineside samples get st-1-000042 --out cell.png")
def get(sample: str, /, *, out: Path | None = None, session: SessionArgument) -> None:
    """Fetch a sample's content, verified, and print the name of the file.

    Parameters
    ----------
    sample
        The sample's id.
    out
        File to write, - for stdout; else the sample's id in the working folder.
    """
    printer = session.printer
    found = session.client.samples.get(sample)
    content = session.client.samples.content(found)
    if out == Path("-"):
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    target = out or Path(short(found.name) + _SUFFIX.get(found.content_type, ".bin"))
    _write(target, content)
    if printer.json:
        printer.document(document_of(found) | {"file": str(target)})
    else:
        printer.line(str(target))


def _write(target: Path, content: bytes) -> None:
    """Put the content at `target`, whole or not at all."""
    try:
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            file.write(content)
        os.replace(file.name, target)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {target}: {error.strerror}", field="out", remedy="name a file in a folder that you may write"
        ) from error


def _columns(now: datetime) -> Sequence[Column[sample_pb2.Sample]]:
    return (
        Column(header="SAMPLE", cell=lambda sample: short(sample.name), whole=True),
        Column(header="AGENT", cell=lambda sample: short(sample.agent), whole=True),
        Column(header="VERSION", cell=lambda sample: short(sample.result.model_version), whole=True),
        Column(header="REASON", cell=lambda sample: word(sample, "reason")),
        Column(header="RESULT", cell=lambda sample: label_text(sample.result)),
        Column(header="SIZE", cell=lambda sample: bytes_text(sample.size_bytes), number=True),
        Column(header="CAPTURED", cell=lambda sample: time_text(sample.capture_time, now=now)),
    )
