"""Identifiers, and the one place that says how they look."""

import re
from typing import NewType

from controlplane.domain.errors import FieldInvalidError

AgentId = NewType("AgentId", str)
"""`st-1` of `agents/st-1`."""
ModelId = NewType("ModelId", str)
"""`solar` of `models/solar`; also the slot's name on an agent."""
DeploymentId = NewType("DeploymentId", str)
RolloutId = NewType("RolloutId", str)
JoinTokenId = NewType("JoinTokenId", str)
SampleId = NewType("SampleId", str)
LabelId = NewType("LabelId", str)
"""A UUID that sorts by time."""
DatasetId = NewType("DatasetId", str)
TrainingRunId = NewType("TrainingRunId", str)
"""`k3x9` of `trainingRuns/k3x9`."""
Digest = NewType("Digest", str)
"""`sha256:` and 64 hex digits."""

_RESOURCE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_resource_id(value: str, *, field: str) -> str:
    """Return `value` if it is lower-case RFC-1123 of at most 63 characters, else raise FieldInvalidError."""
    if not _RESOURCE_ID.fullmatch(value):
        raise FieldInvalidError(
            f"{value!r} is not an id",
            field=field,
            remedy="use 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
        )
    return value


def check_digest(value: str, *, field: str) -> Digest:
    """Return `value` as a Digest, else raise FieldInvalidError."""
    if not _DIGEST.fullmatch(value):
        raise FieldInvalidError(
            f"{value!r} is not a digest", field=field, remedy='write "sha256:" and 64 lower-case hex digits'
        )
    return Digest(value)
