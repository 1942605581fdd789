"""Expected failures on the box. `reason` is the stable word that reaches the controller and the operator.

AgentError
├── EnrollmentError        the box is not (or can no longer be) an agent
├── ControllerError        the controller refused; `retryable` says whether trying again may help
├── ArtifactError          bytes are wrong, or there is no room for them
├── PrepareError           probe, compile or first inference failed on every eligible device
├── StateError             the state folder cannot be read or written
└── RequestError           an application's request cannot be served
    └── DeviceHungError    its inference does not end
"""

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Stable words; never renamed."""

    NOT_ENROLLED = "NOT_ENROLLED"
    ENROLLMENT_REFUSED = "ENROLLMENT_REFUSED"
    CONTROLLER_UNAVAILABLE = "CONTROLLER_UNAVAILABLE"
    CONTROLLER_REFUSED = "CONTROLLER_REFUSED"
    AGENT_REVOKED = "AGENT_REVOKED"
    DIGEST_MISMATCH = "DIGEST_MISMATCH"
    DISK_FULL = "DISK_FULL"
    DEVICE_NOT_FOUND = "DEVICE_NOT_FOUND"
    COMPILE_FAILED = "COMPILE_FAILED"
    COMPILE_CRASHED = "COMPILE_CRASHED"
    COMPILE_TIMED_OUT = "COMPILE_TIMED_OUT"
    PARITY_FAILED = "PARITY_FAILED"
    PROBE_IMPLAUSIBLE = "PROBE_IMPLAUSIBLE"
    LOAD_FAILED = "LOAD_FAILED"
    LOAD_CRASHED = "LOAD_CRASHED"
    SERVE_CRASHED = "SERVE_CRASHED"
    STATE_UNREADABLE = "STATE_UNREADABLE"
    STATE_UNWRITABLE = "STATE_UNWRITABLE"
    STATE_LOCKED = "STATE_LOCKED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    VERSION_NOT_LOADED = "VERSION_NOT_LOADED"
    MODEL_NOT_READY = "MODEL_NOT_READY"
    INPUT_INVALID = "INPUT_INVALID"
    QUEUE_FULL = "QUEUE_FULL"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INFERENCE_FAILED = "INFERENCE_FAILED"
    SHARED_MEMORY_OFF = "SHARED_MEMORY_OFF"
    REGION_EXISTS = "REGION_EXISTS"
    REGION_NOT_FOUND = "REGION_NOT_FOUND"
    NOT_SERVED = "NOT_SERVED"


CLOCK_FIELD = "clock"
"""`field` of a ControllerError that a wrong clock of the box explains."""


class AgentError(Exception):
    """An expected failure with its reason, and a remedy where there is one."""

    default_reason: ClassVar[Reason]

    def __init__(self, message: str, *, field: str = "", remedy: str = "", reason: Reason | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.remedy = remedy
        self.reason = reason or self.default_reason

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f"; {self.remedy}" if self.remedy else "")


class EnrollmentError(AgentError):
    default_reason = Reason.ENROLLMENT_REFUSED


class ControllerError(AgentError):
    default_reason = Reason.CONTROLLER_UNAVAILABLE

    @property
    def retryable(self) -> bool:
        return self.reason is Reason.CONTROLLER_UNAVAILABLE


class ArtifactError(AgentError):
    default_reason = Reason.DIGEST_MISMATCH


class PrepareError(AgentError):
    default_reason = Reason.COMPILE_FAILED


class StateError(AgentError):
    default_reason = Reason.STATE_UNREADABLE


class RequestError(AgentError):
    default_reason = Reason.INPUT_INVALID


class DeviceHungError(RequestError):
    default_reason = Reason.INFERENCE_FAILED


class BehindHungError(DeviceHungError):
    """The inference itself had not begun: it waited within the runtime for others that have not ended."""
