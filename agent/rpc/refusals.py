"""What the controller's refusals mean to the agent."""

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from agent.domain.errors import ControllerError, EnrollmentError, Reason

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
    # The controller's words name the remedy already.
    return ControllerError(_words(error), reason=reason)


def enrollment_error(error: grpc.aio.AioRpcError, target: str) -> EnrollmentError:
    """The failed enrolment, for the person who runs it."""
    if error.code() in _RETRYABLE:
        return EnrollmentError(
            f"{target} cannot be reached: {_words(error)}",
            field="--controller",
            remedy="check the address, that the controller runs, and that the token is of this controller",
            reason=Reason.CONTROLLER_UNAVAILABLE,
        )
    return EnrollmentError(f"the controller refused: {_words(error)}", reason=Reason.ENROLLMENT_REFUSED)


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
