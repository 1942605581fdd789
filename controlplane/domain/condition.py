"""Conditions, as Kubernetes writes them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ConditionState(StrEnum):
    TRUE = "TRUE"
    FALSE = "FALSE"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One observed aspect of a resource."""

    type: str
    state: ConditionState
    reason: str
    message: str
    transition_time: datetime
    """When `state` last changed."""
