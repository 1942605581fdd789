"""How a controller in memory refuses, pages and finds."""

from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

PAGE = 2
"""Most items of a page here, whatever is asked for: several pages come soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a call is to be answered instead; without a reason it is a bare status, as a transport gives it."""

    code: grpc.StatusCode
    message: str = "scripted"
    reason: str = ""
    field: str = ""
    remedy: str = ""

    def status(self) -> Any:
        """Return the google.rpc.Status as the controller writes it."""
        info = error_details_pb2.ErrorInfo(
            reason=self.reason, domain="lineside", metadata={"field": self.field, "remedy": self.remedy}
        )
        violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
        details = []
        for message in (info, error_details_pb2.BadRequest(field_violations=[violation] if self.field else [])):
            packed = any_pb2.Any()
            packed.Pack(message)
            details.append(packed)
        where, then = f"{self.field}: " if self.field else "", f"; {self.remedy}" if self.remedy else ""
        code = code_pb2.Code.Value(self.code.name)
        return rpc_status.to_status(
            status_pb2.Status(code=code, message=f"{where}{self.message}{then}", details=details)
        )

    def abort(self, context: grpc.ServicerContext) -> NoReturn:
        """End the call."""
        if self.reason:
            context.abort_with_status(self.status())
        context.abort(self.code, self.message)
        raise AssertionError("abort raises")


def page(items: list[Any], request: Any) -> tuple[list[Any], str]:
    start, size = int(request.page_token or 0), min(request.page_size or PAGE, PAGE)
    end = start + size
    return items[start:end], str(end) if end < len(items) else ""


def find(resources: dict[str, Any], name: str, context: grpc.ServicerContext) -> Any:
    if name not in resources:
        Refusal(
            code=grpc.StatusCode.NOT_FOUND,
            message=f"{name} does not exist",
            reason="RESOURCE_NOT_FOUND",
            field="name",
            remedy="list what there is",
        ).abort(context)
    return resources[name]
