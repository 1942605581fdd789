"""What the controller's refusals mean to the agent."""

from datetime import datetime

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from agent.domain.errors import CLOCK_FIELD, ControllerError, EnrollmentError, Reason

_RETRYABLE = frozenset(
    {
        # A reconnect storm is answered with any of these; a crash in the midst of a call looks like the others.
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
_CLOCK_WORDS = {
    "certificate has expired": "has expired",
    "certificate is not yet valid": "is not valid yet",
}
"""What the TLS library says of a certificate outside its time, and how we put it."""
_DETAILS_KEY = "grpc-status-details-bin"


def controller_error(error: grpc.aio.AioRpcError) -> ControllerError:
    """The failed call as ControllerError: out of reach, revoked or refused."""
    info = _error_info(error)
    if info.reason == Reason.AGENT_REVOKED:
        reason = Reason.AGENT_REVOKED
    elif error.code() in _RETRYABLE:
        reason = Reason.CONTROLLER_UNAVAILABLE
    else:
        reason = Reason.CONTROLLER_REFUSED
    what = _certificate_time(error)
    if what:
        return ControllerError(
            f"by this box's clock the controller's certificate {what} (CERTIFICATE_VERIFY_FAILED)",
            field=CLOCK_FIELD,
            remedy="set the clock of this box; if it is right, renew the controller's certificate",
            reason=reason,
        )
    # The controller's words name the remedy already.
    return ControllerError(_words(error), reason=reason)


def enrollment_error(error: grpc.aio.AioRpcError, target: str, *, now: datetime) -> EnrollmentError:
    """The failed enrolment, for the person who runs it at `now` by the box's clock."""
    what = _certificate_time(error)
    if what:
        return EnrollmentError(
            f"the certificate of {target} {what} at {now.isoformat(timespec='seconds')}, the time by this box's clock",
            field="--controller",
            remedy="set the clock of this box; if it is right, renew the controller's certificate",
            reason=Reason.CONTROLLER_UNAVAILABLE,
        )
    if error.code() in _RETRYABLE:
        return EnrollmentError(
            f"{target} cannot be reached: {_words(error)}",
            field="--controller",
            remedy="check the address, that the controller runs, and that the token is of this controller",
            reason=Reason.CONTROLLER_UNAVAILABLE,
        )
    return EnrollmentError(f"the controller refused: {_words(error)}", reason=Reason.ENROLLMENT_REFUSED)


def _certificate_time(error: grpc.aio.AioRpcError) -> str:
    """How the controller's certificate stands to the box's clock, where that is why no connection came about."""
    details = error.details() or ""
    if "CERTIFICATE_VERIFY_FAILED" not in details:
        return ""
    return next((ours for theirs, ours in _CLOCK_WORDS.items() if theirs in details), "")


def _words(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no details'}"


def _error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """The refusal's ErrorInfo, empty where there is none."""
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                if detail.Unpack(info):
                    return info
    return info
