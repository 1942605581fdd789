"""What can go wrong on the way to the controller and there. Each names the field, where there is one, and the remedy.

ClientError
├── InvalidInputError     it cannot be right: a configuration, a path, a reference
├── ApiError              the controller refused
├── UnreachableError      the controller did not answer
├── WaitTimeoutError      what was waited for did not come in time
└── IntegrityError        what came is not what was announced

This module imports no transport, so that a command line can name these errors without waiting for gRPC to load.
"""

from typing import ClassVar


class ClientError(Exception):
    """A failure that the caller can act on."""

    default_reason: ClassVar[str] = "CLIENT"
    code: str = ""
    """gRPC status code by name; empty when no call was answered."""

    def __init__(self, message: str, *, field: str = "", remedy: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """Path of the field, option or key at fault; empty when there is none."""
        self.remedy = remedy
        """What to do, as an imperative sentence without a full stop; empty when there is nothing to do."""
        self.reason = reason or self.default_reason
        """Stable UPPER_SNAKE word for programs."""

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f"; {self.remedy}" if self.remedy else "")


class InvalidInputError(ClientError):
    """What was given cannot be right; nothing was sent."""

    default_reason = "INPUT_INVALID"


class ApiError(ClientError):
    """The controller refused. `reason` is the controller's, as ErrorInfo carries it."""

    default_reason = "REFUSED"

    def __init__(self, *, code: str, reason: str, message: str, field: str = "", remedy: str = "") -> None:
        super().__init__(message, field=field, remedy=remedy, reason=reason)
        self.code = code


class UnreachableError(ClientError):
    """The controller did not answer at `address`; whether it acted is not known."""

    default_reason = "UNREACHABLE"

    def __init__(self, *, address: str, code: str, detail: str, remedy: str) -> None:
        super().__init__(f"no answer from {address}: {detail}", field="controller", remedy=remedy)
        self.address = address
        self.code = code


class WaitTimeoutError(ClientError):
    """What was waited for did not come in time; it may still come."""

    default_reason = "WAIT_TIMEOUT"


class IntegrityError(ClientError):
    """Bytes that came are not those that were announced."""

    default_reason = "INTEGRITY"
