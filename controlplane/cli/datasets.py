"""`lineside datasets`: freeze, list, show, export, sheet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from lineside.v1 import dataset_pb2

from controlplane.cli.document import document_of, word
from controlplane.cli.output import Column
from controlplane.cli.quantity import time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.exports import DatasetFormat, export_dataset
from controlplane.client.names import short

app = resource_app("datasets", "Labelled samples, frozen and split for training.")
_SPLIT = dataset_pb2.DatasetItem


@app.command(help_epilogue="Example: lineside datasets freeze solar --weight line=poly:4")
def freeze(
    model: str,
    /,
    *,
    id: str = "",
    description: str = "",
    holdout: int | None = None,
    validation: int | None = None,
    near: int | None = None,
    agreement: int | None = None,
    weight: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    session: SessionArgument,
) -> None:
    """Freeze what is labelled now, and print the dataset's id.

    Samples keep their side for good: what was once held out is never trained on, and the other way round. The same
    samples, labels and rule are the dataset that they were.

    Parameters
    ----------
    model
        Whose samples.
    id
        Name of the dataset; else the model's and a number.
    description
        What it is for.
    holdout
        Percent of the parts to hold out; 20 by default.
    validation
        Percent of the parts to validate with; 10 by default.
    near
        Pictures that differ in at most so many of 256 bits of their difference hashes stay together; 10 by default.
    agreement
        Percent of a sample's annotators that must agree; 66 by default.
    weight
        KEY=VALUE:WEIGHT: items that match count so much more in training; KEY is site, line, station, agent or label.
    """
    rule = dataset_pb2.DatasetRule(
        holdout_percent=holdout,
        validation_percent=validation,
        near_duplicate_distance=near,
        agreement_percent=agreement,
        weights=[_weight(written) for written in weight],
    )
    dataset = session.client.datasets.freeze(model, rule=rule, dataset_id=id, description=description)
    if session.printer.json:
        session.printer.document(document_of(dataset))
    else:
        session.printer.line(short(dataset.name))


@app.command(name="list", help_epilogue="Example: lineside datasets list --model solar")
def list_(*, model: str = "", limit: int | None = None, session: SessionArgument) -> None:
    """List datasets, newest first.

    Parameters
    ----------
    model
        Only those of this model.
    limit
        At most this many.
    """
    now = session.printer.now
    columns: Sequence[Column[dataset_pb2.Dataset]] = (
        Column(header="DATASET", cell=lambda dataset: short(dataset.name), whole=True),
        Column(header="MODEL", cell=lambda dataset: short(dataset.model), whole=True),
        Column(header="TRAIN", cell=_counter(_SPLIT.SPLIT_TRAIN), number=True),
        Column(header="VALIDATION", cell=_counter(_SPLIT.SPLIT_VALIDATION), number=True),
        Column(header="HOLDOUT", cell=_counter(_SPLIT.SPLIT_HOLDOUT), number=True),
        Column(header="CREATED", cell=lambda dataset: time_text(dataset.create_time, now=now)),
        Column(header="DESCRIPTION", cell=lambda dataset: dataset.description),
    )
    datasets = session.client.datasets.list(model=model, limit=limit)
    session.printer.messages(datasets, columns, none="no datasets; see `lineside datasets freeze --help`")


@app.command(help_epilogue="Example: lineside datasets show solar-1")
def show(dataset: str, /, *, session: SessionArgument) -> None:
    """Show a dataset with its counts by split, class and line.

    Parameters
    ----------
    dataset
        The dataset's id.
    """
    printer, found = session.printer, session.client.datasets.get(dataset)
    if printer.json:
        printer.document(document_of(found))
        return
    left_out = ", ".join(f"{found.left_out[reason]} {reason}" for reason in sorted(found.left_out))
    printer.pairs(
        [
            ("dataset", short(found.name)),
            ("model", short(found.model)),
            ("description", found.description),
            ("created", f"{time_text(found.create_time, now=printer.now)} by {short(found.creator)}"),
            ("digest", found.digest),
            ("left out", left_out),
        ]
    )
    columns: Sequence[Column[dataset_pb2.DatasetCount]] = (
        Column(header="SPLIT", cell=lambda count: word(count, "split")),
        Column(header="LABEL", cell=lambda count: count.label, whole=True),
        Column(header="LINE", cell=lambda count: count.line or "-"),
        Column(header="SAMPLES", cell=lambda count: str(count.count), number=True),
    )
    printer.section("counts", columns, list(found.counts))


@app.command(help_epilogue="Example: lineside datasets export solar-1 --format coco --out solar-1")
def export(
    dataset: str,
    /,
    *,
    out: Path,
    format: DatasetFormat = DatasetFormat.FOLDERS,
    holdout: bool = False,
    session: SessionArgument,
) -> None:
    """Export what a trainer is given, as folders of pictures by class, COCO or YOLO.

    Parameters
    ----------
    dataset
        The dataset's id.
    out
        A new folder.
    format
        How to write.
    holdout
        Export what is held out instead. Whoever trains on it is judged by what he learnt: the audit log keeps it.
    """
    client = session.client
    items = list(client.datasets.items(dataset, holdout=holdout))
    count = export_dataset(items, out, format=format, content=client.samples.content)
    if session.printer.json:
        session.printer.document({"items": count, "out": str(out)})
    else:
        session.printer.line(str(out))


@app.command(help_epilogue="Example: lineside datasets sheet solar-1 --out solar-1.png")
def sheet(dataset: str, /, *, out: Path, pictures: int = 0, holdout: bool = False, session: SessionArgument) -> None:
    """Draw a contact sheet, a PNG with a row of small pictures for each split and class.

    Parameters
    ----------
    dataset
        The dataset's id.
    out
        File to write.
    pictures
        Pictures of each split and class; 24 by default, at most 200.
    holdout
        Draw what is held out instead; the audit log keeps it.
    """
    picture = session.client.datasets.sheet(dataset, holdout=holdout, pictures_max=pictures)
    try:
        out.write_bytes(picture)
    except OSError as error:
        raise InvalidInputError(
            f"cannot write {out}: {error.strerror}", field="out", remedy="name a file in a folder that you may write"
        ) from error
    if session.printer.json:
        session.printer.document({"file": str(out)})
    else:
        session.printer.line(str(out))


def _counter(split: dataset_pb2.DatasetItem.Split.ValueType) -> Callable[[dataset_pb2.Dataset], str]:
    return lambda dataset: str(sum(count.count for count in dataset.counts if count.split == split))


def _weight(written: str) -> dataset_pb2.WeightRule:
    match, _, number = written.rpartition(":")
    key, equals, value = match.partition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = -1.0
    if not equals or not key or weight <= 0:
        raise InvalidInputError(
            f"{written!r} is no weight", field="weight", remedy="write KEY=VALUE:WEIGHT, such as line=poly:4"
        )
    return dataset_pb2.WeightRule(key=key, value=value, weight=weight)
