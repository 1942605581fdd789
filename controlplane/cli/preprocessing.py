"""What `lineside models publish` embeds, as options or as a file of the same words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclopts import Group, Parameter

from controlplane.client import InvalidInputError, Preprocessing
from controlplane.client.preprocessing import Wishes, read_wishes

_GROUP = Group("Preprocessing", sort_key=10)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingOptions:
    """Each may be repeated as INPUT=VALUE where the model has several inputs. All of them need openvino here."""

    preprocess: Path | None = None
    """TOML file with the same words; what stands on the command line wins."""
    input_shape: tuple[str, ...] = ()
    """What the network is to take, where not every size is good: '?,3,48,?', '1..8,3,224,224'."""
    input_layout: tuple[str, ...] = ()
    """Layout as sent: NHWC, NCHW."""
    model_layout: tuple[str, ...] = ()
    """Layout of the network, where its shape does not say it."""
    input_type: tuple[str, ...] = ()
    """Element type as sent: u8."""
    input_size: tuple[str, ...] = ()
    """HEIGHTxWIDTH as sent; else any, where it is resized."""
    resize: tuple[str, ...] = ()
    """linear, cubic, nearest or area; linear:224x224 where the network takes any size."""
    mean: tuple[str, ...] = ()
    """Subtracted: one number, or one a channel in the order that the network wants: 123.7,116.3,103.5."""
    scale: tuple[str, ...] = ()
    """Divisors, like the mean."""
    reverse_channels: bool = False
    """BGR is sent and RGB wanted, or the other way; where there are several inputs this goes into the file."""
    model_info: tuple[str, ...] = ()
    """KEY=VALUE of Model API: labels='ok defect', confidence_threshold=0.5; may be repeated."""


def preprocessing_of(options: PreprocessingOptions) -> Preprocessing:
    """File and options together. Raises InvalidInputError."""
    below = read_wishes(options.preprocess) if options.preprocess else Wishes()
    return _wishes(options).over(below).understood()


def _wishes(options: PreprocessingOptions) -> Wishes:
    wishes = Wishes()
    by_key = {
        "shape": options.input_shape,
        "layout": options.input_layout,
        "model_layout": options.model_layout,
        "type": options.input_type,
        "size": options.input_size,
        "resize": options.resize,
        "mean": options.mean,
        "scale": options.scale,
    }
    for key, words in by_key.items():
        for word in words:
            name, _, value = word.rpartition("=")
            _once(wishes.inputs.setdefault(name, {}), key, value)
    if options.reverse_channels:
        wishes.inputs.setdefault("", {})["reverse_channels"] = True
    for word in options.model_info:
        key, mark, value = word.partition("=")
        if not mark:
            raise InvalidInputError(f"{word!r} has no value", field="model_info", remedy="write KEY=VALUE")
        _once(wishes.model_info, key, value)
    return wishes


def _once(keys: dict[str, Any], key: str, value: str) -> None:
    if key in keys:
        raise InvalidInputError("given twice", field=key, remedy="give it once, or as INPUT=VALUE for each input")
    keys[key] = value
