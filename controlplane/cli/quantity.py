"""Durations, byte counts and labels as people write and read them."""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from google.protobuf.timestamp_pb2 import Timestamp

_UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_BYTES = re.compile(r"(\d+)\s*([kMGT]i?)?B?")
_BYTE_UNITS = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_BYTE_UNITS["ki"] = 1 << 10
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%|(0(?:\.\d{1,6})?|1(?:\.0{1,6})?)")
_DURATION_DAYS_MAX = 36500


def parse_duration(written: str) -> timedelta:
    """Return the duration of `10s`, `5m`, `1h`, `2d`, `1h30m`. Raises ValueError."""
    match = _DURATION.fullmatch(written)
    if not written or match is None:
        raise ValueError(f"{written!r} is not a duration; write it as 10s, 5m, 1h, 2d or 1h30m")
    parts = zip(match.groups(), _UNIT_SECONDS.values(), strict=True)
    seconds = sum(int(number) * unit for number, unit in parts if number)
    if seconds > _DURATION_DAYS_MAX * _UNIT_SECONDS["d"]:
        raise ValueError(f"{written!r} is longer than a century; write a shorter duration")
    return timedelta(seconds=seconds)


def parse_bytes(written: str) -> int:
    """Return the number of bytes of `1000`, `200MB`, `1GiB`. Raises ValueError."""
    match = _BYTES.fullmatch(written)
    if match is None:
        raise ValueError(f"{written!r} is not a number of bytes; write it as 1000, 200MB or 1GiB")
    size_bytes = int(match[1]) * _BYTE_UNITS[match[2]]
    if size_bytes >= 1 << 63:
        raise ValueError(f"{written!r} is more than any disk holds; write a smaller number")
    return size_bytes


def parse_share(written: str) -> int:
    """Return a share, `95%`, `99.5%` or `0.95`, in thousandths. Raises ValueError."""
    match = _SHARE.fullmatch(written)
    thousandths = None if match is None else Decimal(match[1] or match[2]) * (10 if match[1] else 1000)
    if thousandths is None or thousandths > 1000:
        raise ValueError(f"{written!r} is not a share; write it as 95%, 99.5% or 0.95")
    if thousandths != int(thousandths):
        raise ValueError(f"{written!r} is finer than a thousandth; write it as 99.5% or 0.995")
    return int(thousandths)


def share_text(thousandths: int) -> str:
    """Return thousandths in percent: `95%`, `99.5%`."""
    return f"{thousandths / 10:g}%"


def parse_labels(written: Iterable[str]) -> dict[str, str]:
    """Return the labels of `line=3` words. Raises ValueError."""
    labels = {}
    for label in written:
        key, equals, value = label.partition("=")
        if not (key and equals):
            raise ValueError(f"{label!r} is not a label; write KEY=VALUE")
        labels[key] = value
    return labels


def duration_text(duration: timedelta) -> str:
    """Return a duration in its largest unit, or two: `3d 4h`, `12m`, `5s`."""
    seconds = int(duration.total_seconds())
    if seconds < 60:
        return f"{seconds}s"
    words = []
    for unit, size in _UNIT_SECONDS.items():
        number, seconds = divmod(seconds, size)
        if number:
            words.append(f"{number}{unit}")
    return " ".join(words[:2] if words[0][-1] in "dh" else words[:1])


def time_text(time: Timestamp | None, *, now: datetime) -> str:
    """Return how long ago a time was, or how far ahead it is; "-" for none."""
    if time is None or not (time.seconds or time.nanos):
        return "-"
    distance = now - time.ToDatetime(tzinfo=UTC)
    if abs(distance) < timedelta(seconds=1):
        return "now"
    return f"{duration_text(distance)} ago" if distance > timedelta() else f"in {duration_text(-distance)}"


def bytes_text(size_bytes: int) -> str:
    """Return a number of bytes with three digits or so and a decimal unit."""
    size, units = float(size_bytes), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    for larger in units:
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    """Return labels as a selector writes them."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels)) or "-"


def _one(parse: Any, show: Any) -> Parameter:
    def convert(_: Any, tokens: Sequence[Any]) -> Any:
        return parse(tokens[0].value)

    return Parameter(converter=convert, n_tokens=1, show_default=lambda value: None if value is None else show(value))


DurationOption = Annotated[timedelta, _one(parse_duration, duration_text)]
BytesOption = Annotated[int, _one(parse_bytes, bytes_text)]
ShareOption = Annotated[int, _one(parse_share, share_text)]
CountOption = Annotated[int, Parameter(validator=Number(gte=0, lte=(1 << 31) - 1))]
"""What an integer of the contract can hold."""
MillisecondsOption = Annotated[float, Parameter(validator=Number(gte=0))]
