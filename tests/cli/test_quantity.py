from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.cli.quantity import (
    bytes_text,
    duration_text,
    labels_text,
    parse_bytes,
    parse_duration,
    parse_labels,
    time_text,
)

NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("10s", 10), ("5m", 300), ("1h", 3600), ("2d", 172800), ("1h30m", 5400), ("1d2h3m4s", 93784), ("0s", 0)],
)
def test_durations_are_read(written: str, seconds: int) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", "10", "s", "-1s", "1.5h", "30m1h", "1h 30m", "1w", "99999999999999d"])
def test_other_durations_are_refused_with_the_form(written: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("0", 0), ("1000", 1000), ("5kB", 5000), ("200MB", 200_000_000), ("1GiB", 1 << 30), ("2 TB", 2 * 10**12)],
)
def test_byte_counts_are_read(written: str, size_bytes: int) -> None:
    assert parse_bytes(written) == size_bytes


@pytest.mark.parametrize("written", ["", "MB", "-1", "1.5GB", "1XB"])
def test_other_byte_counts_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_bytes(written)


def test_labels_are_read() -> None:
    assert parse_labels(["line=3", "note=a=b", "empty="]) == {"line": "3", "note": "a=b", "empty": ""}


@pytest.mark.parametrize("written", ["line", "=3", ""])
def test_other_labels_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match="KEY=VALUE"):
        parse_labels([written])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (5400, "1h 30m"), (93784, "1d 2h")],
)
def test_durations_are_written_short(seconds: int, expected: str) -> None:
    assert duration_text(timedelta(seconds=seconds)) == expected


def test_times_are_written_as_distances() -> None:
    def at(moment: datetime) -> Timestamp:
        timestamp = Timestamp()
        timestamp.FromDatetime(moment)
        return timestamp

    assert time_text(at(NOW - timedelta(minutes=3)), now=NOW) == "3m ago"
    assert time_text(at(NOW + timedelta(hours=2)), now=NOW) == "in 2h"
    assert time_text(at(NOW), now=NOW) == "now"
    assert time_text(Timestamp(), now=NOW) == time_text(None, now=NOW) == "-"


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (18_800_000, "18.8 MB"),
        (217_000_000, "217 MB"),
        (5 * 10**12, "5000 GB"),
    ],
)
def test_byte_counts_are_written(size_bytes: int, expected: str) -> None:
    assert bytes_text(size_bytes) == expected


def test_labels_are_written_as_selectors_are() -> None:
    assert labels_text({"station": "1", "line": "3"}.items()) == "line=3,station=1"
    assert labels_text([]) == "-"
