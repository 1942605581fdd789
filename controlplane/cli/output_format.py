"""The choice between answers for people and for programs; a module of its own, since `--help` needs nothing else."""

from enum import StrEnum


class OutputFormat(StrEnum):
    """Answers for people or for programs."""

    TABLE = "table"
    JSON = "json"
