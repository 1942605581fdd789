"""`lineside labels`: list, conflicts."""

from collections.abc import Sequence

from lineside.v1 import label_pb2

from controlplane.cli.output import Column
from controlplane.cli.quantity import time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client.names import short

app = resource_app("labels", "What people say of samples, and where they do not agree.")


@app.command(name="list", help_epilogue="Example: lineside labels list --model solar --annotator anna --limit 20")
def list_(
    *,
    model: str = "",
    sample: str = "",
    annotator: str = "",
    limit: int | None = None,
    session: SessionArgument,
) -> None:
    """List labels, newest first.

    Parameters
    ----------
    model
        Only those of this model's samples.
    sample
        Only those of this sample.
    annotator
        Only those of this annotator.
    limit
        At most this many.
    """
    now = session.printer.now
    columns: Sequence[Column[label_pb2.Label]] = (
        Column(header="SAMPLE", cell=lambda label: short(label.sample), whole=True),
        Column(header="LABEL", cell=lambda label: label.label, whole=True),
        Column(header="ANNOTATOR", cell=lambda label: label.annotator, whole=True),
        Column(header="REGIONS", cell=lambda label: str(len(label.regions) or "-"), number=True),
        Column(header="ADJUDICATES", cell=lambda label: "yes" if label.adjudicates else "-"),
        Column(header="SOURCE", cell=lambda label: label.source),
        Column(header="CREATED", cell=lambda label: time_text(label.create_time, now=now)),
    )
    labels = session.client.labels.list(model=model, sample=sample, annotator=annotator, limit=limit)
    session.printer.messages(labels, columns, none="no labels; see `lineside samples import --help`")


@app.command(help_epilogue="Example: lineside labels conflicts --model solar")
def conflicts(*, model: str, limit: int | None = None, session: SessionArgument) -> None:
    """List samples whose annotators do not agree; `lineside samples label SAMPLE LABEL --adjudicate` ends a conflict.

    Parameters
    ----------
    model
        Whose samples.
    limit
        At most this many.
    """
    columns: Sequence[Column[label_pb2.Consensus]] = (
        Column(header="SAMPLE", cell=lambda consensus: short(consensus.sample), whole=True),
        Column(header="OPINIONS", cell=_opinions),
    )
    found = session.client.labels.consensus(model, state=label_pb2.Consensus.STATE_CONFLICT, limit=limit)
    session.printer.messages(found, columns, none="no conflicts")


def _opinions(consensus: label_pb2.Consensus) -> str:
    return ", ".join(f"{opinion.annotator}: {opinion.label}" for opinion in consensus.opinions)
