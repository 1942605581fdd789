"""Expected refusals. Each names the field, where there is one, and the remedy.

DomainError
├── FieldInvalidError          the request cannot be right: change it
├── ResourceNotFoundError      it names nothing that exists
├── ResourceExistsError        the name is taken
├── PreconditionError          right in itself, but not in this state
├── StaleWriteError            somebody else was faster: read again
├── LeaseLostError             another controller leads now
├── CredentialError            who you are is not proven
├── ForbiddenError             who you are may not do that
├── LimitExceededError         a bound of ours was reached
└── StorageError               our disk or object store failed: try later

`Reason` is the stable word that programs may match on; `rpc/errors.py` maps each to a
gRPC code and a test proves that map total.
"""

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Stable words for refusals (AIP-193); never renamed."""

    FIELD_INVALID = "FIELD_INVALID"
    SELECTOR_INVALID = "SELECTOR_INVALID"
    MODEL_UNREADABLE = "MODEL_UNREADABLE"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    PAGE_TOKEN_INVALID = "PAGE_TOKEN_INVALID"
    RESOURCE_NOT_FOUND = "RESOURCE_NOT_FOUND"
    RESOURCE_EXISTS = "RESOURCE_EXISTS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    SELECTION_EMPTY = "SELECTION_EMPTY"
    DEPLOYMENT_OVERLAP = "DEPLOYMENT_OVERLAP"
    ROLLOUT_ACTIVE = "ROLLOUT_ACTIVE"
    ROLLOUT_STATE = "ROLLOUT_STATE"
    ARTIFACT_INCOMPLETE = "ARTIFACT_INCOMPLETE"
    UPLOAD_OFFSET = "UPLOAD_OFFSET"
    TRAINING_STATE = "TRAINING_STATE"
    PROMOTION_STATE = "PROMOTION_STATE"
    STALE_WRITE = "STALE_WRITE"
    LEASE_LOST = "LEASE_LOST"
    VERSION_YANKED = "VERSION_YANKED"
    NOT_HELD = "NOT_HELD"
    DATASET_EMPTY = "DATASET_EMPTY"
    HOLDOUT_GUARDED = "HOLDOUT_GUARDED"
    APPROVAL_NOT_DUE = "APPROVAL_NOT_DUE"
    SECOND_PERSON = "SECOND_PERSON"
    LAST_OPERATOR = "LAST_OPERATOR"
    JOIN_TOKEN_INVALID = "JOIN_TOKEN_INVALID"
    JOIN_TOKEN_EXPIRED = "JOIN_TOKEN_EXPIRED"
    JOIN_TOKEN_EXHAUSTED = "JOIN_TOKEN_EXHAUSTED"
    OPERATOR_TOKEN_INVALID = "OPERATOR_TOKEN_INVALID"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    AGENT_REVOKED = "AGENT_REVOKED"
    NOT_YOURS = "NOT_YOURS"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    STORAGE_FULL = "STORAGE_FULL"
    STORAGE_UNAVAILABLE = "STORAGE_UNAVAILABLE"


class DomainError(Exception):
    """A refusal that the caller can act on."""

    default_reason: ClassVar[Reason]

    def __init__(self, message: str, *, field: str = "", remedy: str = "", reason: Reason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """Path of the request field at fault, as the proto names it; empty when there is none."""
        self.remedy = remedy
        """What to do, as an imperative sentence without a full stop; empty when there is nothing to do."""
        self.reason = reason or self.default_reason

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f"; {self.remedy}" if self.remedy else "")


class FieldInvalidError(DomainError):
    """The request cannot be right."""

    default_reason = Reason.FIELD_INVALID


class ResourceNotFoundError(DomainError):
    """It names nothing that exists."""

    default_reason = Reason.RESOURCE_NOT_FOUND


class ResourceExistsError(DomainError):
    """The name is taken."""

    default_reason = Reason.RESOURCE_EXISTS


class PreconditionError(DomainError):
    """Right in itself, but not in this state. Always given its own reason."""

    default_reason = Reason.ROLLOUT_STATE


class StaleWriteError(DomainError):
    """Somebody else changed the resource first."""

    default_reason = Reason.STALE_WRITE


class LeaseLostError(DomainError):
    """Another controller leads now."""

    default_reason = Reason.LEASE_LOST


class CredentialError(DomainError):
    """Who the caller is is not proven. Always given its own reason."""

    default_reason = Reason.OPERATOR_TOKEN_INVALID


class ForbiddenError(DomainError):
    """The caller may not do that."""

    default_reason = Reason.NOT_YOURS


class LimitExceededError(DomainError):
    """A bound of ours was reached."""

    default_reason = Reason.LIMIT_EXCEEDED


class StorageError(DomainError):
    """Our disk or object store failed."""

    default_reason = Reason.STORAGE_UNAVAILABLE
