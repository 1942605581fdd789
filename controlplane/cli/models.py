"""`lineside models`: publish, list, show."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from lineside.v1 import artifact_pb2, model_pb2

from controlplane.cli.document import document_of
from controlplane.cli.lineage import show_lineage
from controlplane.cli.output import Column
from controlplane.cli.preprocessing import PreprocessingOptions, preprocessing_of
from controlplane.cli.progress import publishing
from controlplane.cli.quantity import bytes_text, time_text
from controlplane.cli.session import Session, SessionArgument, resource_app
from controlplane.client import InvalidInputError
from controlplane.client.golden import Golden
from controlplane.client.names import parse_reference, short

app = resource_app("models", "Publish models and look at their versions.")


@app.command(help_epilogue="Example: lineside models publish solar build/solar.xml --notes 'more data'")
def publish(
    name: str,
    path: Path,
    /,
    *,
    notes: str = "",
    wait: bool = False,
    golden: Path | None = None,
    golden_outputs: Path | None = None,
    tolerance: float = 0.01,
    min_top1_agreement: float = 0.0,
    preprocessing: PreprocessingOptions | None = None,
    session: SessionArgument,
) -> None:
    """Publish a model as the next version of NAME, and print NAME:VERSION.

    The same bytes again print the version that they already have. An upload that was broken off goes on where it
    stopped.

    Parameters
    ----------
    name
        Model; created when it does not exist.
    path
        An .xml (IR), .onnx, .pdmodel, .pb, .tflite, .pt, .pth or .pt2 file, a folder, such as a SavedModel, or
        FILE.py:FUNCTION that returns a model.
    notes
        What changed.
    wait
        Return when the controller has read the model, which publishing always does; for scripts that say so.
    golden
        An .npz of inputs by name. What the model answers here in f32 is kept with the version, and agents serve it only
        where it answers like that.
    golden_outputs
        An .npz of the outputs for these inputs, where they come from elsewhere.
    tolerance
        How far an output may be off, as a share of the largest golden value of that output.
    min_top1_agreement
        Least share of golden rows whose largest value is at the same place, 0 to 1.
    """
    _ = wait
    if golden is None and golden_outputs is not None:
        raise InvalidInputError("there are no golden inputs", field="golden_outputs", remedy="give --golden as well")
    wanted = None
    if golden is not None:
        wanted = Golden(
            inputs=golden, outputs=golden_outputs, relative=tolerance, min_top1_agreement=min_top1_agreement
        )
    embedded = preprocessing_of(preprocessing or PreprocessingOptions())
    with publishing(session.printer) as progress:
        version = session.client.models.publish(
            name, path, notes=notes, preprocessing=embedded, golden=wanted, progress=progress
        )
    if session.printer.json:
        session.printer.document(document_of(version))
    else:
        session.printer.line(short(version.name))


@app.command(name="list", help_epilogue="Example: lineside models list")
def list_(*, limit: int | None = None, session: SessionArgument) -> None:
    """List models by name.

    Parameters
    ----------
    limit
        At most this many.
    """
    printer = session.printer
    columns: Sequence[Column[model_pb2.Model]] = (
        Column(header="MODEL", cell=lambda model: short(model.name), whole=True),
        Column(header="LATEST", cell=lambda model: str(model.latest_version or "-"), number=True),
        Column(header="CREATED", cell=lambda model: time_text(model.create_time, now=printer.now)),
        Column(header="DESCRIPTION", cell=lambda model: model.description),
    )
    printer.messages(
        session.client.models.list(limit=limit), columns, none="no models; see `lineside models publish --help`"
    )


@app.command(help_epilogue="Example: lineside models show solar:2")
def show(reference: str, /, *, session: SessionArgument) -> None:
    """Show a model with its versions, or one version with what OpenVINO read from it.

    Parameters
    ----------
    reference
        NAME or NAME:VERSION.
    """
    model, number = parse_reference(reference, field="reference")
    if number is None:
        _show_model(session, model)
    else:
        _show_version(session, session.client.models.get_version(model, number))


@app.command(help_epilogue="Example: lineside models yank solar:2 --reason 'reads glare as cracks'")
def yank(reference: str, /, *, reason: str, session: SessionArgument) -> None:
    """Forbid a version: no agent is newly given it, and a rollout to it returns its targets. Lines that run it go on.

    Parameters
    ----------
    reference
        NAME:VERSION.
    reason
        Why; whoever asks for the version is told.
    """
    model, number = _version(reference)
    _show_version(session, session.client.models.yank(model, number, reason=reason))


@app.command(help_epilogue="Example: lineside models unyank solar:2")
def unyank(reference: str, /, *, session: SessionArgument) -> None:
    """Allow a yanked version again.

    Parameters
    ----------
    reference
        NAME:VERSION.
    """
    _show_version(session, session.client.models.unyank(*_version(reference)))


@app.command(help_epilogue="Example: lineside models lineage solar:2")
def lineage(reference: str, /, *, session: SessionArgument) -> None:
    """Follow a version back to its training run, samples and base versions, and forward to its stations.

    Parameters
    ----------
    reference
        NAME:VERSION.
    """
    show_lineage(session.printer, session.client.lineages.get(*_version(reference)))


def _version(reference: str) -> tuple[str, int]:
    model, number = parse_reference(reference, field="reference")
    if number is None:
        raise InvalidInputError(f"{reference!r} names no version", field="reference", remedy="write NAME:VERSION")
    return model, number


def _show_model(session: Session, name: str) -> None:
    printer, model = session.printer, session.client.models.get(name)
    versions = list(session.client.models.list_versions(name))
    if printer.json:
        printer.document(document_of(model) | {"versions": [document_of(version) for version in versions]})
        return
    printer.pairs(
        [
            ("model", short(model.name)),
            ("description", model.description),
            ("created", time_text(model.create_time, now=printer.now)),
        ]
    )
    columns: Sequence[Column[model_pb2.ModelVersion]] = (
        Column(header="VERSION", cell=lambda version: short(version.name), whole=True),
        Column(header="FORMAT", cell=lambda version: version.signature.format),
        Column(header="PRECISION", cell=lambda version: version.signature.precision),
        Column(header="SIZE", cell=lambda version: bytes_text(version.artifact.size_bytes), number=True),
        Column(header="CREATED", cell=lambda version: time_text(version.create_time, now=printer.now)),
        Column(header="YANKED", cell=lambda version: version.yank_reason if version.HasField("yank_time") else "-"),
        Column(header="NOTES", cell=lambda version: version.notes),
    )
    printer.section("versions", columns, versions)


def _show_version(session: Session, version: model_pb2.ModelVersion) -> None:
    printer, signature = session.printer, version.signature
    if printer.json:
        printer.document(document_of(version))
        return
    pairs = [
        ("version", short(version.name)),
        ("created", time_text(version.create_time, now=printer.now)),
        ("notes", version.notes),
        *([("yanked", _yank_text(version, printer.now))] if version.HasField("yank_time") else []),
        ("format", f"{signature.format}, read from {signature.entry_path}"),
        ("precision", signature.precision),
        ("artifact", version.artifact.digest),
        ("size", bytes_text(version.artifact.size_bytes)),
    ]
    pairs += [(f"input {spec.name}", _tensor(spec)) for spec in signature.inputs]
    pairs += [(f"output {spec.name}", _tensor(spec)) for spec in signature.outputs]
    printer.pairs(pairs)
    files: Sequence[Column[artifact_pb2.ArtifactFile]] = (
        Column(header="FILE", cell=lambda file: file.path, whole=True),
        Column(header="SIZE", cell=lambda file: bytes_text(file.size_bytes), number=True),
        Column(header="DIGEST", cell=lambda file: file.digest),
    )
    printer.section("files", files, version.artifact.files)
    if signature.rt_info:
        printer.note("")
        printer.pairs((key, signature.rt_info[key]) for key in sorted(signature.rt_info))


def _yank_text(version: model_pb2.ModelVersion, now: datetime) -> str:
    return f"{time_text(version.yank_time, now=now)}: {version.yank_reason}"


def _tensor(spec: model_pb2.TensorSpec) -> str:
    return f"{spec.datatype} [{','.join('?' if size < 0 else str(size) for size in spec.shape)}]"
