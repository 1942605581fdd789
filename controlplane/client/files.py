"""Which files make up a model, and their digests.

One file stands for itself, together with what its format keeps beside it: IR's .bin, PaddlePaddle's .pdiparams,
ONNX's external data. A folder stands for every file in it but hidden ones, which are an editor's or a system's.
"""

import hashlib
import mmap
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lineside.v1 import artifact_pb2

from controlplane.client import limits
from controlplane.client.errors import InvalidInputError

_FIELD = "path"
FORMATS = "an .xml (IR), .onnx, .pdmodel, .pb or .tflite file, a SavedModel folder, or a .pt, .pth or .pt2 file"
READABLE = {".xml", ".onnx", ".pdmodel", ".pb", ".tflite"}
_COMPANION = {".xml": ".bin", ".pdmodel": ".pdiparams"}
TORCH = {".pt", ".pth", ".pt2"}
# StringStringEntryProto{key: "location", value: NAME} as protobuf writes it, which is how ONNX names a file of external
# data. A false match names a file that is not there, or adds a needless one; neither can spoil the model.
_EXTERNAL = re.compile(rb"\x0a\x08location\x12(?s:(.))")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file of a version: where it lies here, and its path within the artifact."""

    source: Path
    path: str
    size_bytes: int


def collect(path: Path) -> tuple[ModelFile, ...]:
    """Return the files of the model at `path`, sorted by their path in the artifact. Raises InvalidInputError."""
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise InvalidInputError(f"{path} is not there", field=_FIELD, remedy=f"give {FORMATS}")
    if path.name == "saved_model.pb":
        raise InvalidInputError(
            f"{path} is only a part of a SavedModel", field=_FIELD, remedy=f"give the folder: {path.parent}"
        )
    if path.suffix not in READABLE:
        raise InvalidInputError(f"{path.name} is in no format that can be published", field=_FIELD, remedy=_other(path))
    beside = sorted({path, *_companions(path)})
    return tuple(_file(source, source.relative_to(path.parent).as_posix()) for source in beside)


def describe(file: ModelFile, *, advance: Callable[[int], None] = lambda _: None) -> artifact_pb2.ArtifactFile:
    """Read a file once and return its digests; `advance` is told the bytes read. Raises InvalidInputError."""
    whole, chunks, size_bytes = hashlib.sha256(), [], 0
    try:
        with file.source.open("rb") as opened:
            while chunk := opened.read(limits.CHUNK_BYTES):
                whole.update(chunk)
                chunks.append(hashlib.sha256(chunk).digest())
                size_bytes += len(chunk)
                advance(len(chunk))
    except OSError as error:
        raise unreadable(file.source, error) from error
    return artifact_pb2.ArtifactFile(
        path=file.path,
        digest=f"sha256:{whole.hexdigest()}",
        size_bytes=size_bytes,
        chunk_digests=chunks,
        chunk_size_bytes=limits.CHUNK_BYTES,
    )


def artifact_of(files: tuple[artifact_pb2.ArtifactFile, ...]) -> artifact_pb2.Artifact:
    """Return the artifact of files that are sorted by path, with the digest that the contract defines."""
    lines = (f"{file.digest.removeprefix('sha256:')} {file.size_bytes} {file.path}\n" for file in files)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return artifact_pb2.Artifact(
        digest=f"sha256:{digest}", files=files, size_bytes=sum(file.size_bytes for file in files)
    )


def unreadable(path: Path, error: OSError) -> InvalidInputError:
    """Return the refusal of a file that the system does not let us read."""
    return InvalidInputError(f"cannot read {path}: {error.strerror}", field=_FIELD, remedy="make it readable")


def _of_folder(folder: Path) -> tuple[ModelFile, ...]:
    found = []
    for source in sorted(folder.rglob("*")):
        inside = source.relative_to(folder)
        if source.is_file() and not any(part.startswith(".") for part in inside.parts):
            found.append(_file(source, inside.as_posix()))
    if not any(Path(file.path).suffix in READABLE for file in found):
        raise InvalidInputError(f"no model in {folder}", field=_FIELD, remedy=f"give {FORMATS}")
    if len(found) > limits.ARTIFACT_FILES_MAX:
        raise InvalidInputError(
            f"{len(found)} files in {folder}, more than {limits.ARTIFACT_FILES_MAX}",
            field=_FIELD,
            remedy="give the folder that holds this one model alone",
        )
    return tuple(sorted(found, key=lambda file: file.path))


def _companions(path: Path) -> Iterator[Path]:
    if path.suffix in _COMPANION:
        companion = path.with_suffix(_COMPANION[path.suffix])
        if not companion.is_file():
            raise InvalidInputError(
                f"{companion.name} is missing beside {path.name}", field=_FIELD, remedy="put the two files together"
            )
        yield companion
    if path.suffix == ".onnx":
        yield from _external_data(path)


def _external_data(path: Path) -> Iterator[Path]:
    """Yield the files of external data that an ONNX file names and that lie in its folder."""
    if path.stat().st_size == 0:
        return
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for match in _EXTERNAL.finditer(content):
            length = match[1][0]
            if not 0 < length <= limits.EXTERNAL_NAME_BYTES_MAX:
                continue
            name = content[match.end() : match.end() + length].decode(errors="replace")
            inside = Path(name)
            if "\0" in name or inside.is_absolute() or ".." in inside.parts:
                continue
            if not (path.parent / inside).is_file():
                raise InvalidInputError(
                    f"{path.name} keeps weights in {name}, which is missing beside it",
                    field=_FIELD,
                    remedy="put the files together, or save the model with its weights inside",
                )
            yield path.parent / inside


def _file(source: Path, path: str) -> ModelFile:
    return ModelFile(source=source, path=path, size_bytes=source.stat().st_size)


def _other(path: Path) -> str:
    if path.suffix in _COMPANION.values():
        model = next(suffix for suffix, companion in _COMPANION.items() if companion == path.suffix)
        return f"give the {model} file beside it"
    return f"give {FORMATS}"
