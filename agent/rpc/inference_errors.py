"""Refusals of the local inference servers on the wire: one map from Reason for both transports.

A client finds the line "<field>: <message>; <remedy>" in either; over gRPC also an ErrorInfo with the stable reason. An
exception that is no AgentError is our fault: a fixed text and an id that stands beside the traceback in the log.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn
from uuid import uuid4

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agent.domain.errors import AgentError, Reason

_log = structlog.get_logger()

GRPC_CODES: Mapping[Reason, grpc.StatusCode] = MappingProxyType(
    {
        Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.VERSION_NOT_LOADED: grpc.StatusCode.NOT_FOUND,
        Reason.MODEL_NOT_READY: grpc.StatusCode.UNAVAILABLE,
        Reason.INPUT_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.INFERENCE_FAILED: grpc.StatusCode.INTERNAL,
        Reason.SHARED_MEMORY_OFF: grpc.StatusCode.UNIMPLEMENTED,
        Reason.REGION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        Reason.REGION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    }
)
HTTP_CODES: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.MODEL_NOT_FOUND: 404,
        Reason.VERSION_NOT_LOADED: 404,
        Reason.MODEL_NOT_READY: 503,
        Reason.INPUT_INVALID: 400,
        Reason.QUEUE_FULL: 429,
        Reason.INFERENCE_FAILED: 500,
        Reason.SHARED_MEMORY_OFF: 501,
        Reason.REGION_EXISTS: 409,
        Reason.REGION_NOT_FOUND: 404,
    }
)


def refusal_status(error: AgentError) -> grpc.Status:
    """The refusal as a rich gRPC status."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain="lineside", metadata={"field": error.field, "remedy": error.remedy}
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    code = GRPC_CODES.get(error.reason, grpc.StatusCode.INTERNAL)
    status = status_pb2.Status(code=code.value[0], message=str(error), details=[detail])
    result: grpc.Status = rpc_status.to_status(status)
    return result


def internal_text(error: Exception) -> str:
    """Log an exception that nobody expected; the text to answer with names the log line."""
    identity = uuid4().hex
    _log.error("inference_call_broke", id=identity, exc_info=error)
    return f"the agent failed; its log names the cause under id {identity}"


class RefusalInterceptor(grpc.ServerInterceptor):
    """Turns what unary calls raise into the codes above."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def call(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return handler.unary_unary(request, context)
            except AgentError as error:
                context.abort_with_status(refusal_status(error))
            except NotImplementedError:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{handler_call_details.method} is not served here")
            except Exception as error:  # noqa: BLE001 - the last line of defence: logged with an id
                abort_internal(context, error)

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )


def abort_internal(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call for an exception that nobody expected."""
    context.abort(grpc.StatusCode.INTERNAL, internal_text(error))
