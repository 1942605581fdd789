"""Times and floats within JSON values, and the type of a row."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

Row = Mapping[str, Any]
"""Column values of one row, by name; JSON columns are already parsed."""


@dataclass(frozen=True, slots=True)
class EncodedJson:
    """The value of a JSON column that is text already."""

    text: str


def encode_json(value: Any) -> str:
    """What the engines write JSON columns with."""
    return value.text if isinstance(value, EncodedJson) else json.dumps(value)


def time_to_json(value: datetime | None) -> str | None:
    """Return ISO 8601 in UTC; None stays None."""
    return None if value is None else value.astimezone(UTC).isoformat()


def time_from_json(value: str | None) -> datetime | None:
    """Undo time_to_json."""
    return None if value is None else datetime.fromisoformat(value)


def float_to_json(value: float) -> float | str:
    """Return the number, or its name where it is not finite: JSON has no word for those, a broken model has."""
    return value if math.isfinite(value) else str(value)


def float_from_json(value: float | str) -> float:
    """Undo float_to_json."""
    return float(value)


def sparse(value: dict[str, Any]) -> dict[str, Any]:
    """Return it without what is None, empty, 0 or False, which a reader takes for granted: most of what an agent
    observes is that, and it is written with every heartbeat."""
    return {name: item for name, item in value.items() if item}


def text_map(value: Mapping[str, str]) -> Mapping[str, str]:
    """Return an immutable copy."""
    return MappingProxyType(dict(value))
