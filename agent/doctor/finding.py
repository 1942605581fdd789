"""What one check found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    OK = "OK"
    WARN = "WARN"
    """Works, but worse than it could, or not for long."""
    FAIL = "FAIL"
    """The agent cannot do its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`remedy` is empty where all is well."""

    check: str
    grade: Grade
    message: str
    remedy: str = ""


def well(check: str, message: str) -> Finding:
    return Finding(check=check, grade=Grade.OK, message=message)


def warn(check: str, message: str, remedy: str) -> Finding:
    return Finding(check=check, grade=Grade.WARN, message=message, remedy=remedy)


def fail(check: str, message: str, remedy: str) -> Finding:
    return Finding(check=check, grade=Grade.FAIL, message=message, remedy=remedy)


def worst(findings: Sequence[Finding]) -> Grade:
    """FAIL before WARN before OK."""
    grades = {finding.grade for finding in findings}
    return next((grade for grade in (Grade.FAIL, Grade.WARN) if grade in grades), Grade.OK)


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
