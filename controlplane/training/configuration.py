"""Trainers of a controller: those that come with it, and those of `trainers.toml` in its folder.

    [trainers.my-net]
    command = ["/opt/my-net/bin/python", "/opt/my-net/train.py"]
    description = "Segments scratches"
    time_limit = "6h"
    memory_mib = 16384
    output_mib = 4096
    network = false
    read_paths = ["/opt/my-net"]
    environment = { OMP_NUM_THREADS = "4" }

`command` alone is required. A trainer of the name of one that comes with the controller takes its place.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any

from controlplane import limits
from controlplane.config import parse_duration
from controlplane.domain.errors import DomainError, FieldInvalidError
from controlplane.domain.trainer import Trainer

_KEYS = {
    "command": list,
    "description": str,
    "time_limit": str,
    "memory_mib": int,
    "output_mib": int,
    "network": bool,
    "read_paths": list,
    "environment": dict,
}


def load_trainers(path: Path) -> tuple[Trainer, ...]:
    """Return every trainer, by id; those that come with us alone where there is no such file. Raises FieldInvalidError
    (field "trainers.toml") for a file that cannot be right."""
    trainers = {trainer.id: trainer for trainer in reference_trainers()}
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        document = {}
    except (OSError, ValueError) as error:
        raise _invalid(f"{path} cannot be read: {error}") from error
    if set(document) - {"trainers"} or not isinstance(document.get("trainers", {}), dict):
        raise _invalid(f"{path} has something beside [trainers.NAME]")
    for name, values in document.get("trainers", {}).items():
        trainers[name] = _trainer(name, values)
    if len(trainers) > limits.TRAINERS_MAX:
        raise _invalid(f"{len(trainers)} trainers are more than {limits.TRAINERS_MAX}")
    return tuple(trainers[name] for name in sorted(trainers))


def reference_trainers() -> tuple[Trainer, ...]:
    """The trainers that come with the controller."""
    return tuple(
        Trainer(
            id=name,
            command=(sys.executable, "-m", f"controlplane.trainers.{name}"),
            description=description,
            time_limit_seconds=limits.TRAINING_TIME_SECONDS_DEFAULT,
            memory_bytes_max=limits.TRAINING_MEMORY_BYTES_DEFAULT,
            output_bytes_max=limits.TRAINING_OUTPUT_BYTES_DEFAULT,
        )
        for name, description in (
            ("head", "Refits the last linear layer on features of the base version: minutes, no torch"),
            ("finetune", "Trains a small network from the base version's answers and the labels; needs torch"),
            ("quantize", "Makes an INT8 candidate of the base version where that is as good and faster; needs nncf"),
        )
    )


def _trainer(name: str, values: Any) -> Trainer:
    if not isinstance(values, dict):
        raise _invalid(f"trainers.{name} is no table")
    for key, value in values.items():
        if key not in _KEYS or not isinstance(value, _KEYS[key]) or (_KEYS[key] is int and isinstance(value, bool)):
            raise _invalid(f"trainers.{name}.{key} is not known or not of its type", field=f"{name}.{key}")
    command = _texts(values.get("command", []), field=f"{name}.command")
    if not command:
        raise _invalid(f"trainers.{name} has no command", field=f"{name}.command")
    read_paths = _texts(values.get("read_paths", []), field=f"{name}.read_paths")
    if not all(Path(path).is_absolute() for path in read_paths):
        raise _invalid(f"trainers.{name}.read_paths has a path that is not absolute", field=f"{name}.read_paths")
    try:
        return Trainer(
            id=name,
            command=command,
            description=values.get("description", ""),
            time_limit_seconds=_time_limit(name, values.get("time_limit")),
            memory_bytes_max=_mib(name, values, "memory_mib", limits.TRAINING_MEMORY_BYTES_DEFAULT),
            output_bytes_max=_mib(name, values, "output_mib", limits.TRAINING_OUTPUT_BYTES_DEFAULT),
            network=values.get("network", False),
            read_paths=read_paths,
            environment=tuple(sorted((key, str(value)) for key, value in values.get("environment", {}).items())),
        )
    except DomainError as error:
        raise _invalid(str(error), field=name) from error


def _time_limit(name: str, text: str | None) -> float:
    if text is None:
        return limits.TRAINING_TIME_SECONDS_DEFAULT
    seconds = parse_duration(text, field=f"{name}.time_limit").total_seconds()
    if not 0 < seconds <= limits.TRAINING_TIME_SECONDS_MAX:
        raise _invalid(f"trainers.{name}.time_limit is not above 0 and at most 14d", field=f"{name}.time_limit")
    return seconds


def _mib(name: str, values: dict[str, Any], key: str, default: int) -> int:
    if key not in values:
        return default
    if not 1 <= values[key] <= 1 << 24:
        raise _invalid(f"trainers.{name}.{key} is not from 1 to {1 << 24}", field=f"{name}.{key}")
    return int(values[key]) << 20


def _texts(values: list[Any], *, field: str) -> tuple[str, ...]:
    if not all(isinstance(value, str) and value and "\0" not in value for value in values):
        raise _invalid(f"{field} is not a list of texts", field=field)
    return tuple(values)


def _invalid(message: str, *, field: str = "") -> FieldInvalidError:
    return FieldInvalidError(
        message,
        field=f"trainers.toml {field}".strip(),
        remedy="see docs/training.md for what a trainer's table may hold",
    )
