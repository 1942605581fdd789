"""Audit: who or which rule decided what, on what evidence.

Events are added in the transaction of what they tell of, and never changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def rule(name: str) -> str:
    """The actor that stands for one of the controller's own rules: "gate", "window", "deadline"."""
    return f"rules/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """A decision before it is written down: the domain says what and why, the use case adds when and its id."""

    actor: str
    """`operators/{operator}`, `agents/{agent}` or `rules/{rule}`."""
    action: str
    """One stable lower-case word after its resource: "rollout.start", "wave.admit"."""
    resource: str
    reason: str = ""
    message: str = ""
    evidence: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}))
    related: tuple[str, ...] = ()
    """Further resources that it touches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """A decision as it is kept."""

    id: str
    """A UUID that sorts by time."""
    create_time: datetime
    happening: Happening
