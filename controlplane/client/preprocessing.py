"""What an application sends instead of what the network takes, as options or as a file say it.

    [inputs.image]                        # the keys may stand at the top of the file where there is one input
    layout = "NHWC"                       # as sent
    type = "u8"                           # as sent
    size = "1080x1920"                    # height x width as sent; else any, where it is resized
    resize = "linear"                     # or cubic, nearest, area; "linear:224x224" where the network takes any size
    reverse_channels = true               # BGR is sent and RGB wanted, or the other way
    mean = [123.675, 116.28, 103.53]      # in the order that the network wants; one number stands for all channels
    scale = [58.395, 57.12, 57.375]       # divisors
    model_layout = "NCHW"                 # of the network, where its shape does not say it
    shape = "?,3,48,?"                    # what the network is to take, where not every size is good: 48, ?, 1..8

    [model_info]                          # Model API's keys
    labels = "ok defect"

This module needs no OpenVINO; `embedding.py` puts it into the network.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controlplane.client import limits
from controlplane.client.errors import InvalidInputError

TYPES = ("u8", "i8", "u16", "i16", "u32", "i32", "f16", "f32")
RESIZES = ("linear", "cubic", "nearest", "area")
MODEL_INFO = "model_info"
_KEYS = ("layout", "type", "size", "resize", "reverse_channels", "mean", "scale", "model_layout", "shape")
_FIELD = "preprocess"
_SHAPE = re.compile(r"(\?|\d+(\.\.\d+)?)(,(\?|\d+(\.\.\d+)?))*")

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPreprocessing:
    """Steps of one input, done in this order: type, size, channels, mean, scale, layout. `shape` is none of them: it
    narrows what the network itself takes."""

    shape: str = ""
    layout: str = ""
    model_layout: str = ""
    element_type: str = ""
    size: Size | None = None
    resize: str = ""
    resize_to: Size | None = None
    reverse_channels: bool = False
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _among("type", self.element_type, TYPES)
        _among("resize", self.resize, RESIZES)
        if self.shape and not _SHAPE.fullmatch(self.shape):
            raise _invalid(
                f"{self.shape!r} is no shape", "shape", "write sizes, ? for any, LOW..HIGH: '?,3,48,32..640'"
            )
        for key, layout in (("layout", self.layout), ("model_layout", self.model_layout)):
            if layout and (not layout.isalpha() or len(set(layout.upper())) != len(layout)):
                raise _invalid(f"{layout!r} is no layout", key, "write a letter a dimension: NHWC, NCHW, HWC")
        if any(value == 0 for value in self.scale):
            raise _invalid("a divisor is 0", "scale", "leave out what is not to be scaled, or write 1")
        if self.size and not self.resize:
            raise _invalid("a size without a resize", "size", "say how to resize: linear, cubic, nearest or area")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Inputs by name; "" is the only input of a model that has one. `model_info` is Model API's, by key."""

    inputs: Mapping[str, InputPreprocessing] = field(default_factory=lambda: MappingProxyType({}))
    model_info: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if "" in self.inputs and len(self.inputs) > 1:
            raise _invalid("steps with and without the name of an input", "inputs", "name the input of each")
        for key, value in self.model_info.items():
            if not key.replace("_", "").isalnum() or not key.isascii():
                raise _invalid(f"{key!r} is no key", MODEL_INFO, "write KEY=VALUE, such as labels='ok defect'")
            if len(value.encode()) > limits.MODEL_INFO_VALUE_BYTES_MAX:
                bound = limits.MODEL_INFO_VALUE_BYTES_MAX
                raise _invalid(f"{key} has more than {bound} bytes", MODEL_INFO, "shorten it")

    def __bool__(self) -> bool:
        return bool(self.inputs or self.model_info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Preprocessing as it is written, by the file's keys: by input, and of model_info."""

    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    model_info: dict[str, Any] = field(default_factory=dict)

    def over(self, below: "Wishes") -> "Wishes":
        """Both, with the words of this one where both have one."""
        names = {**below.inputs, **self.inputs}
        return Wishes(
            inputs={name: {**below.inputs.get(name, {}), **self.inputs.get(name, {})} for name in names},
            model_info={**below.model_info, **self.model_info},
        )

    def understood(self) -> Preprocessing:
        """Raises InvalidInputError naming the key."""
        inputs = {
            name: _input(keys, where=f"inputs.{name}." if name else "") for name, keys in self.inputs.items() if keys
        }
        info = {key: info_text(value) for key, value in self.model_info.items()}
        return Preprocessing(inputs=MappingProxyType(inputs), model_info=MappingProxyType(info))


def read_wishes(path: Path) -> Wishes:
    """Read a file as above. Raises InvalidInputError."""
    try:
        if path.stat().st_size > limits.CONFIG_BYTES_MAX:
            raise _invalid(f"{path} is too large", _FIELD, "give a TOML file")
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise _invalid(f"cannot read {path}: {error.strerror}", _FIELD, "give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(f"{path} is no TOML: {error}", _FIELD, "mend it") from error
    info = _table(document.pop(MODEL_INFO, {}), MODEL_INFO)
    named = _table(document.pop("inputs", {}), "inputs")
    inputs = {name: _table(keys, f"inputs.{name}") for name, keys in named.items()}
    if document:
        inputs[""] = document
    return Wishes(inputs=inputs, model_info=info)


def read_preprocessing(path: Path) -> Preprocessing:
    """Read a file as above. Raises InvalidInputError naming the key."""
    return read_wishes(path).understood()


def _input(keys: Mapping[str, Any], *, where: str) -> InputPreprocessing:
    for key in keys:
        if key not in _KEYS:
            raise _invalid("there is no such key", f"{where}{key}", f"use {', '.join(_KEYS)}")
    kind, _, target = _text(keys, "resize").partition(":")
    return InputPreprocessing(
        shape=_text(keys, "shape").replace(" ", ""),
        layout=_text(keys, "layout").upper(),
        model_layout=_text(keys, "model_layout").upper(),
        element_type=_text(keys, "type").lower(),
        size=_size("size", _text(keys, "size")),
        resize=kind.lower(),
        resize_to=_size("resize", target),
        reverse_channels=_flag(keys.get("reverse_channels", False)),
        mean=_numbers("mean", keys.get("mean", ())),
        scale=_numbers("scale", keys.get("scale", ())),
    )


def info_text(value: object) -> str:
    """A value as Model API writes it: lists with spaces between, booleans True and False."""
    match value:
        case list() | tuple():
            return " ".join(info_text(item).replace(" ", "_") for item in value)
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _text(keys: Mapping[str, Any], key: str) -> str:
    value = keys.get(key, "")
    if not isinstance(value, str):
        raise _invalid(f"{value!r} is no text", key, "put it in quotes")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _invalid(f"{value!r} is neither true nor false", "reverse_channels", "write true or false")
    return value


def _numbers(key: str, value: Any) -> tuple[float, ...]:
    """A number, numbers, or text of numbers with commas between."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        return tuple(float(item) for item in items)
    except (TypeError, ValueError) as error:
        raise _invalid(f"{value!r} is no number", key, "write one number, or one a channel: 1,2,3") from error


def _size(key: str, text: str) -> Size | None:
    if not text:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) > 0 and int(width) > 0):
        raise _invalid(f"{text!r} is no size", key, "write HEIGHTxWIDTH, such as 224x224")
    return int(height), int(width)


def _table(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid("not a table", key, f"write [{key}] and its keys below")
    return value


def _among(key: str, word: str, words: tuple[str, ...]) -> None:
    if word and word not in words:
        raise _invalid(f"{word!r} is not known", key, f"use {', '.join(words)}")


def _invalid(message: str, key: str, remedy: str) -> InvalidInputError:
    return InvalidInputError(message, field=key, remedy=remedy)
