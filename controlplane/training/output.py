"""What a trainer leaves, read as what a stranger wrote: plain files alone, bounded, and nothing is followed.

output/model/          source files and labels of the candidate
output/metrics.json    one object of finite numbers
output/progress.jsonl  one object a line: {"fraction": 0.4, "message": "epoch 4 of 10"}
output/declined.json   instead of a model, where there is nothing better to give: {"message": "..."}
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controlplane import limits
from controlplane.app.ports_training import JobOutput
from controlplane.domain.errors import FieldInvalidError
from controlplane.domain.training_run import Progress

_CONTRACT = "see the contract of trainers in docs/training.md"


def read_output(folder: Path) -> JobOutput:
    """Return what lies in the output folder of a trainer that has ended. Raises FieldInvalidError saying what is not as
    the contract has it."""
    declined = _read(folder / "declined.json", limits.TRAINING_METRICS_BYTES_MAX)
    if declined is not None:
        return JobOutput(model_folder=folder / "model", declined=_message(_parsed(declined, "declined.json")))
    text = _read(folder / "metrics.json", limits.TRAINING_METRICS_BYTES_MAX)
    if text is None:
        raise _invalid("metrics.json", "the trainer exited with 0 and wrote none")
    metrics = parse_metrics(text)
    _check_model(folder / "model")
    return JobOutput(model_folder=folder / "model", metrics=metrics)


def parse_metrics(text: bytes) -> Mapping[str, float]:
    """Return the numbers by name. Raises FieldInvalidError for anything else."""
    values = _parsed(text, "metrics.json")
    if len(values) > limits.TRAINING_METRICS_MAX:
        raise _invalid("metrics.json", f"{len(values)} metrics are more than {limits.TRAINING_METRICS_MAX}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _invalid("metrics.json", f"{name[:100]!r} is not a finite number")
        if not name.isprintable() or len(name) > 100:
            raise _invalid("metrics.json", f"{name[:100]!r} is not a name")
    return MappingProxyType({name: float(value) for name, value in sorted(values.items())})


def read_progress(folder: Path) -> Progress | None:
    """Return the last whole line of the progress file that says something; None without one. A line that is not as
    the contract has it is passed over: progress is for eyes, and no reason to end a run."""
    try:
        text = _read(folder / "progress.jsonl", limits.TRAINING_PROGRESS_BYTES_MAX, tail=True)
    except FieldInvalidError:
        return None
    lines = (text or b"").split(b"\n")[:-1]
    return next((progress for line in reversed(lines) if (progress := _progress(line)) is not None), None)


def _progress(line: bytes) -> Progress | None:
    try:
        values = json.loads(line)
        fraction, message = float(values["fraction"]), str(values.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Progress(fraction=fraction, message=_words(message)) if 0.0 <= fraction <= 1.0 else None


def _check_model(folder: Path) -> None:
    if not folder.is_dir() or folder.is_symlink():
        raise _invalid("model", "the trainer exited with 0 and wrote no folder of it")
    size_bytes, count = 0, 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = (Path(parent) / name).lstat()
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise _invalid("model", f"{name[:100]!r} is neither a file nor a folder")
            size_bytes += status.st_size
        count += len(files)
        if count > limits.ARTIFACT_FILES_MAX:
            raise _invalid("model", f"there are more than {limits.ARTIFACT_FILES_MAX} files")
    if count == 0:
        raise _invalid("model", "the folder is empty")
    if size_bytes > limits.UPLOAD_BYTES_MAX:
        raise _invalid("model", f"{size_bytes} bytes are more than {limits.UPLOAD_BYTES_MAX}")


def _read(path: Path, bytes_max: int, *, tail: bool = False) -> bytes | None:
    """Return the bytes of a plain file, its last `bytes_max` where `tail`; None where there is none."""
    try:
        # Not to wait for whoever writes into a pipe, and not to go where a link leads.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _invalid(path.name, f"it cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _invalid(path.name, "it is not a file")
        if tail:
            file.seek(max(status.st_size - bytes_max, 0))
        elif status.st_size > bytes_max:
            raise _invalid(path.name, f"{status.st_size} bytes are more than {bytes_max}")
        return file.read(bytes_max)


def _parsed(text: bytes, name: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(name, "it is not JSON") from error
    if not isinstance(values, dict):
        raise _invalid(name, "it is not an object")
    return values


def _message(values: Mapping[str, Any]) -> str:
    return _words(str(values.get("message", ""))) or "it does not say why"


def _words(text: str) -> str:
    """One line of bounded length, without what a terminal would obey."""
    line = "".join(sign if sign.isprintable() else " " for sign in text)
    return line.strip()[: limits.TRAINING_WORDS_CHARS_MAX]


def _invalid(name: str, message: str) -> FieldInvalidError:
    return FieldInvalidError(message, field=f"output/{name}", remedy=_CONTRACT)
