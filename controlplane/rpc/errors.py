"""Refusals on the wire: Reason -> gRPC code, and `google.rpc.Status` details (AIP-193).

A client finds in each refusal: the code; one line "<field>: <message>; <remedy>"; an ErrorInfo whose
`reason` is stable, with `field` and `remedy` in its metadata where there are any; and a BadRequest naming
the field, where there is one. An exception that is no DomainError is our fault: the client gets INTERNAL
with a fixed text and an id that stands beside the traceback in the log, and nothing else.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn
from uuid import uuid4

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from controlplane import observability
from controlplane.domain.errors import DomainError, Reason

ERROR_DOMAIN: Final = "lineside"
"""`ErrorInfo.domain` of every refusal."""

INTERNAL_TEXT: Final = "the controller failed; its log names the cause under id"

_Code = grpc.StatusCode

CODES: Final[Mapping[Reason, grpc.StatusCode]] = MappingProxyType(
    {
        Reason.FIELD_INVALID: _Code.INVALID_ARGUMENT,
        Reason.SELECTOR_INVALID: _Code.INVALID_ARGUMENT,
        Reason.MODEL_UNREADABLE: _Code.INVALID_ARGUMENT,
        Reason.DIGEST_MISMATCH: _Code.INVALID_ARGUMENT,
        Reason.PAGE_TOKEN_INVALID: _Code.INVALID_ARGUMENT,
        Reason.RESOURCE_NOT_FOUND: _Code.NOT_FOUND,
        Reason.RESOURCE_EXISTS: _Code.ALREADY_EXISTS,
        Reason.REQUEST_ID_REUSED: _Code.ALREADY_EXISTS,
        Reason.SELECTION_EMPTY: _Code.FAILED_PRECONDITION,
        Reason.DEPLOYMENT_OVERLAP: _Code.FAILED_PRECONDITION,
        Reason.ROLLOUT_ACTIVE: _Code.FAILED_PRECONDITION,
        Reason.ROLLOUT_STATE: _Code.FAILED_PRECONDITION,
        Reason.ARTIFACT_INCOMPLETE: _Code.FAILED_PRECONDITION,
        Reason.UPLOAD_OFFSET: _Code.FAILED_PRECONDITION,
        Reason.TRAINING_STATE: _Code.FAILED_PRECONDITION,
        Reason.PROMOTION_STATE: _Code.FAILED_PRECONDITION,
        Reason.STALE_WRITE: _Code.ABORTED,
        Reason.LEASE_LOST: _Code.ABORTED,
        Reason.VERSION_YANKED: _Code.FAILED_PRECONDITION,
        Reason.NOT_HELD: _Code.FAILED_PRECONDITION,
        Reason.DATASET_EMPTY: _Code.FAILED_PRECONDITION,
        Reason.HOLDOUT_GUARDED: _Code.PERMISSION_DENIED,
        Reason.APPROVAL_NOT_DUE: _Code.FAILED_PRECONDITION,
        Reason.SECOND_PERSON: _Code.PERMISSION_DENIED,
        Reason.LAST_OPERATOR: _Code.FAILED_PRECONDITION,
        Reason.JOIN_TOKEN_INVALID: _Code.UNAUTHENTICATED,
        Reason.JOIN_TOKEN_EXPIRED: _Code.UNAUTHENTICATED,
        Reason.JOIN_TOKEN_EXHAUSTED: _Code.UNAUTHENTICATED,
        Reason.OPERATOR_TOKEN_INVALID: _Code.UNAUTHENTICATED,
        Reason.CERTIFICATE_INVALID: _Code.UNAUTHENTICATED,
        Reason.AGENT_REVOKED: _Code.PERMISSION_DENIED,
        Reason.NOT_YOURS: _Code.PERMISSION_DENIED,
        Reason.LIMIT_EXCEEDED: _Code.RESOURCE_EXHAUSTED,
        Reason.STORAGE_FULL: _Code.RESOURCE_EXHAUSTED,
        Reason.STORAGE_UNAVAILABLE: _Code.UNAVAILABLE,
    }
)
"""The code of each reason; a test holds it total."""

_DETAILS_KEY: Final = "grpc-status-details-bin"

log = structlog.get_logger(__name__)


def code_of(reason: Reason) -> grpc.StatusCode:
    """Return the gRPC code that tells the client what kind of refusal this is."""
    return CODES[reason]


def status_of(error: DomainError) -> status_pb2.Status:
    """Return the refusal as `google.rpc.Status` with its details."""
    metadata = {key: text for key, text in (("field", error.field), ("remedy", error.remedy)) if text}
    details = [
        _packed(error_details_pb2.ErrorInfo(reason=error.reason.value, domain=ERROR_DOMAIN, metadata=metadata)),
    ]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    return status_pb2.Status(code=code_of(error.reason).value[0], message=str(error), details=details)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: DomainError) -> NoReturn:
    """End the call with the refusal; raises `grpc.aio.AbortError`."""
    status = status_of(error)
    details = ((_DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code_of(error.reason), status.message, trailing_metadata=details)
    raise AssertionError("abort returned")


async def abort_internal(context: grpc.aio.ServicerContext[Any, Any], error: Exception, *, method: str) -> NoReturn:
    """End the call with INTERNAL and log the cause under the id that the client is told."""
    error_id = uuid4().hex
    log.error(observability.RPC_FAILED, error_id=error_id, method=method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"{INTERNAL_TEXT} {error_id}")
    raise AssertionError("abort returned")


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
