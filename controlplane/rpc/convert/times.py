"""Times and durations on the wire; aware UTC within."""

from datetime import UTC, date, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.domain.errors import FieldInvalidError


def time_to_proto(time: datetime) -> Timestamp:
    """Return the time to the microsecond. A naive time is a programmer's error."""
    assert time.tzinfo is not None, "times are aware"
    message = Timestamp()
    message.FromDatetime(time.astimezone(UTC))
    return message


def optional_time_to_proto(time: datetime | None) -> Timestamp | None:
    """As `time_to_proto`; None leaves the message's field unset."""
    return None if time is None else time_to_proto(time)


def time_from_proto(message: Timestamp, *, field: str) -> datetime:
    """Return the time, aware, in UTC, to the microsecond; raise FieldInvalidError outside the years 1 to 9999."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise FieldInvalidError(
            "not a time between the years 1 and 9999", field=field, remedy="send seconds since 1970 in UTC"
        ) from error


def duration_to_proto(duration: timedelta) -> Duration:
    """Return the duration to the microsecond."""
    message = Duration()
    message.FromTimedelta(duration)
    return message


def seconds_to_proto(seconds: float) -> Duration:
    """Return so many seconds to the microsecond."""
    return duration_to_proto(timedelta(seconds=seconds))


def duration_from_proto(message: Duration, *, field: str) -> timedelta:
    """Return the duration to the microsecond; raise FieldInvalidError for one that cannot be counted."""
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise FieldInvalidError("not a duration", field=field, remedy="send at most 10,000 years") from error


def seconds_from_proto(message: Duration, *, field: str) -> float:
    """Return the duration in seconds; raises as `duration_from_proto`."""
    return duration_from_proto(message, field=field).total_seconds()


def day_from_text(text: str, *, field: str) -> date:
    """Return the day of "YYYY-MM-DD"; raise FieldInvalidError for any other text."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise FieldInvalidError(f"{text[:40]!r} is not a day", field=field, remedy="write it as 2026-03-01")
    return day
