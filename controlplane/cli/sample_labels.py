"""`lineside samples`: add, label, import, export."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from lineside.v1 import label_pb2, label_service_pb2, sample_pb2

from controlplane.cli.document import document_of
from controlplane.cli.progress import counting
from controlplane.cli.session import Session, SessionArgument
from controlplane.client import InvalidInputError
from controlplane.client.exports import LabelFormat, LabelledSample, export_labels
from controlplane.client.label_coco import read_coco
from controlplane.client.label_csv import entry_of, read_csv, rows_of
from controlplane.client.label_files import Entry, LabelFile, LabelFileError
from controlplane.client.label_studio import read_label_studio
from controlplane.client.label_yolo import read_yolo
from controlplane.client.names import short
from controlplane.client.sample_imports import ImportedFolder, Place, Side, find_pictures

_SHOWN = 5
"""Files or conflicts that are named on the screen."""


def add(
    folder: Path,
    /,
    *,
    model: str,
    labels: Path | None = None,
    part_from_name: bool = False,
    side: Side | None = None,
    site: str = "",
    line: str = "",
    station: str = "",
    session: SessionArgument,
) -> None:
    """Bring pictures as samples of a model, with their labels if there are any.

    The same file again is the sample that it was, with the part and the place that it had, so that a broken run is
    simply run again. What is no picture is told, and the rest is stored.

    Parameters
    ----------
    folder
        A folder of PNG, JPEG, BMP, TIFF or WebP files, with those below it, or one file.
    model
        Whose samples they are.
    labels
        A CSV with the columns file and label, and if wanted part and annotator.
    part_from_name
        Take a file's name without its suffix for the part's id where the CSV names none.
    side
        Where they stand in every dataset of the model, for good: training for what a version that you publish was
        fitted on, so that nothing is judged by it; holdout for what no version was fitted on. Otherwise a dataset's
        rule decides.
    site
        Where they were taken.
    line
        Where they were taken.
    station
        Where they were taken.
    """
    files = find_pictures(folder)
    told = _labels_of(labels, folder, files) if labels is not None else None
    parts = {path: path.stem for path in files} if part_from_name else {}
    if told is not None:
        parts |= {path: row["part"] for path, (row, _) in told.rows.items() if row.get("part")}
    place = Place(site=site, line=line, station=station)
    with counting(session.printer, "bringing pictures", len(files)) as done:
        outcome = session.client.sample_imports.add(model, files, place=place, parts=parts, side=side, done=done)
    added = None
    if told is not None:
        added = session.client.labels.import_file(model, told.resolved(outcome))
    _tell_added(session, outcome, added)


def label(
    sample: str,
    label: str,
    /,
    *,
    annotator: str = "",
    adjudicate: bool = False,
    session: SessionArgument,
) -> None:
    """Say what a sample shows.

    Parameters
    ----------
    sample
        The sample's id.
    label
        Its class.
    annotator
        Who says so, instead of you.
    adjudicate
        End a conflict: this label holds against every opinion.
    """
    found = session.client.samples.get(sample)
    entry = Entry(target=short(found.name), label=label, annotator=annotator, adjudicates=adjudicate, line=1)
    file = LabelFile(path=Path("command"), entries=[entry], places={1: sample})
    _tell_labels(session, session.client.labels.import_file(found.result.slot, file), dry_run=False)


def import_(
    file: Path,
    /,
    *,
    model: str,
    format: LabelFormat = LabelFormat.CSV,
    annotator: str = "",
    background: str = "",
    dry_run: bool = False,
    session: SessionArgument,
) -> None:
    """Import labels, all of a file or none of it; what is wrong is told with its line.

    The same file again changes nothing.

    Parameters
    ----------
    file
        A CSV with the columns sample, part, digest or file, and label; a COCO or Label Studio JSON file; a folder of
        YOLO files with classes.txt.
    model
        Whose samples are labelled.
    format
        How the file is written.
    annotator
        Who says so, where the file does not name anybody; else you.
    background
        Label of pictures of a COCO or YOLO file that have none.
    dry_run
        Say what would happen and change nothing.
    """
    match format:
        case LabelFormat.CSV:
            read = read_csv(file)
            for entry in read.entries:
                entry.annotator = entry.annotator or annotator
        case LabelFormat.COCO:
            read = read_coco(file, annotator=annotator, background=background)
        case LabelFormat.YOLO:
            read = read_yolo(file, annotator=annotator, background=background)
        case LabelFormat.LABEL_STUDIO:
            read = read_label_studio(file, annotator=annotator)
    _tell_labels(session, session.client.labels.import_file(model, read, dry_run=dry_run), dry_run=dry_run)


def export(
    *,
    model: str,
    out: Path,
    format: LabelFormat = LabelFormat.CSV,
    unlabelled: bool = False,
    limit: int | None = None,
    session: SessionArgument,
) -> None:
    """Export labels, with the pictures where the format names them, for other tools and back again.

    Parameters
    ----------
    model
        Whose samples.
    out
        The CSV file to write; for other formats a new folder.
    format
        How to write. CSV and Label Studio hold every opinion, COCO and YOLO what annotators agree on.
    unlabelled
        Samples that nobody has labelled yet instead, for CSV and Label Studio.
    limit
        At most this many samples, the newest.
    """
    if unlabelled and format in (LabelFormat.COCO, LabelFormat.YOLO):
        raise InvalidInputError(
            f"{format} holds no samples without a label", field="unlabelled", remedy="use --format label-studio"
        )
    client = session.client
    known = {consensus.sample: consensus for consensus in client.labels.consensus(model)}
    chosen = list(islice(_chosen(client.samples.list(model=model), known, unlabelled=unlabelled), limit))
    if not chosen:
        raise InvalidInputError(
            "there is no such sample", field="model", remedy="see `lineside samples list` and `lineside labels list`"
        )
    count = export_labels(chosen, out, format=format, content=client.samples.content)
    if session.printer.json:
        session.printer.document({"samples": count, "out": str(out)})
    else:
        session.printer.line(str(out))


def _chosen(
    samples: Iterator[sample_pb2.Sample], known: dict[str, label_pb2.Consensus], *, unlabelled: bool
) -> Iterator[LabelledSample]:
    for sample in samples:
        if (sample.name in known) != unlabelled:
            yield LabelledSample(sample=sample, consensus=known.get(sample.name))


class _FolderLabels:
    """A CSV that labels files of a folder."""

    def __init__(self, file: LabelFile) -> None:
        self.file = file
        self.rows: dict[Path, tuple[dict[str, str], int]] = {}

    def resolved(self, outcome: ImportedFolder) -> LabelFile:
        """Return the labels of the files that are stored, each with its sample."""
        for path, (row, line) in self.rows.items():
            sample = outcome.samples.get(path)
            if sample is not None:
                entry = entry_of(self.file, {**row, "sample": short(sample)}, line)
                if entry is not None:
                    self.file.entries.append(entry)
        return self.file.checked()


def _labels_of(labels: Path, folder: Path, files: Sequence[Path]) -> _FolderLabels:
    """Return which row of the CSV is of which file. Raises LabelFileError for rows of files that are not there."""
    root = folder if folder.is_dir() else folder.parent
    by_name: dict[str, list[Path]] = {}
    for path in files:
        for name in {path.name, path.relative_to(root).as_posix()}:
            by_name.setdefault(name, []).append(path)
    told = _FolderLabels(LabelFile(path=labels))
    for line, row in rows_of(told.file):
        name = row.get("file", "").replace("\\", "/")
        found = by_name.get(name) or by_name.get(name.rpartition("/")[2]) or []
        if len(found) == 1 and found[0] not in told.rows:
            told.rows[found[0]] = (dict(row), line)
        elif found:
            what = "is there twice" if len(found) == 1 else "is in several folders"
            told.file.fault(f"line {line}", f"file: {name!r} {what}", "name each file once, by its path")
        else:
            told.file.fault(f"line {line}", f"file: there is no {name!r} in {root}", "name a file of the folder")
    if told.file.faults:
        raise LabelFileError(str(labels), told.file.faults)
    return told


def _tell_added(
    session: Session, outcome: ImportedFolder, labels: label_service_pb2.ImportLabelsResponse | None
) -> None:
    printer = session.printer
    if printer.json:
        printer.document(
            {
                "added": outcome.added,
                "duplicates": outcome.duplicates,
                "errors": {str(path): error for path, error in sorted(outcome.errors.items())},
                "labels": None if labels is None else document_of(labels),
            }
        )
        return
    printer.line(f"{outcome.added} samples added, {outcome.duplicates} were there")
    for path, error in sorted(outcome.errors.items())[:_SHOWN]:
        printer.note(f"{path}: {error}")
    if len(outcome.errors) > _SHOWN:
        printer.note(f"and {len(outcome.errors) - _SHOWN} more files that could not be stored")
    if labels is not None:
        _tell_labels(session, labels, dry_run=False)


def _tell_labels(session: Session, outcome: label_service_pb2.ImportLabelsResponse, *, dry_run: bool) -> None:
    printer = session.printer
    if printer.json:
        printer.document(document_of(outcome))
        return
    classes = ", ".join(f"{name} {outcome.classes[name]}" for name in sorted(outcome.classes))
    verb = "would be added" if dry_run else "added"
    printer.line(f"{outcome.added} labels {verb}, {outcome.unchanged} were there: {classes}")
    if outcome.conflicts:
        named = ", ".join(short(name) for name in outcome.conflicts[:_SHOWN])
        printer.note(f"{len(outcome.conflicts)} samples in conflict: {named}; see `lineside labels conflicts`")
