"""Failed calls as ClientError: google.rpc.Status details, as the controller writes them, are taken apart here alone."""

from typing import cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from controlplane.client.errors import ApiError, ClientError, UnreachableError

_REMEDY_DOWN = "check that the controller runs and that this address is right (--controller or LINESIDE_CONTROLLER)"
_REMEDY_TLS = "use the operator.toml of this very controller: its CA certificate is pinned"
_REMEDY_SLOW = "try again; if it stays so, look at the controller's log and load"
_NO_ANSWER = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


def failure_of(error: grpc.RpcError, *, address: str) -> ClientError:
    """Return what a failed call to `address` means: ApiError when the controller itself answered."""
    call = cast("grpc.Call", error)  # whatever a call raises is the call itself, which its declared type does not say
    code, text = call.code(), call.details() or ""
    info, violation = _details_of(call)
    if info is None and code in _NO_ANSWER:
        return UnreachableError(address=address, code=code.name, detail=_detail(code, text), remedy=_remedy(code, text))
    field = violation or (info.metadata.get("field", "") if info else "")
    remedy = info.metadata.get("remedy", "") if info else ""
    return ApiError(
        code=code.name,
        reason=info.reason if info else "",
        message=_bare_message(text, field=field, remedy=remedy) or code.name,
        field=field,
        remedy=remedy,
    )


def _details_of(error: grpc.Call) -> tuple[error_details_pb2.ErrorInfo | None, str]:
    """Return the ErrorInfo and the first field violation of the status; None and "" where there is none."""
    info, field = None, ""
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest()
            detail.Unpack(request)
            field = next((violation.field for violation in request.field_violations), "")
    return info, field


def _bare_message(text: str, *, field: str, remedy: str) -> str:
    """Take the field and the remedy, which have places of their own, out of "<field>: <message>; <remedy>"."""
    if field:
        text = text.removeprefix(f"{field}: ")
    if remedy:
        text = text.removesuffix(f"; {remedy}")
    return text


def _detail(code: grpc.StatusCode, text: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "it did not answer in time"
    return text or code.name


def _remedy(code: grpc.StatusCode, text: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in text or "handshake" in text.lower():
        return _REMEDY_TLS
    return _REMEDY_SLOW if code is grpc.StatusCode.DEADLINE_EXCEEDED else _REMEDY_DOWN
