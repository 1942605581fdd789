"""Refusals of the local inference servers on the wire: one map from Reason for both transports.

A client finds the line "<field>: <message>; <remedy>" in either; over gRPC also an ErrorInfo with the stable reason. An
exception that is no AgentError is our fault: a fixed text and an id that stands beside the traceback in the log.
"""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NoReturn
from uuid import uuid4

import grpc
import structlog
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agent.domain.errors import AgentError, Reason, RequestError

_log = structlog.get_logger()

GRPC_CODES: Mapping[Reason, grpc.StatusCode] = MappingProxyType(
    {
        Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.VERSION_NOT_LOADED: grpc.StatusCode.NOT_FOUND,
        Reason.MODEL_NOT_READY: grpc.StatusCode.UNAVAILABLE,
        Reason.INPUT_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
        Reason.INFERENCE_FAILED: grpc.StatusCode.INTERNAL,
        Reason.SHARED_MEMORY_OFF: grpc.StatusCode.UNIMPLEMENTED,
        Reason.REGION_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        Reason.REGION_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.NOT_SERVED: grpc.StatusCode.UNIMPLEMENTED,
    }
)
HTTP_CODES: Mapping[Reason, int] = MappingProxyType(
    {
        Reason.MODEL_NOT_FOUND: 404,
        Reason.VERSION_NOT_LOADED: 404,
        Reason.MODEL_NOT_READY: 503,
        Reason.INPUT_INVALID: 400,
        Reason.QUEUE_FULL: 429,
        Reason.DEADLINE_EXCEEDED: 504,
        Reason.INFERENCE_FAILED: 500,
        Reason.SHARED_MEMORY_OFF: 501,
        Reason.REGION_EXISTS: 400,  # as Triton answers
        Reason.REGION_NOT_FOUND: 404,
        Reason.NOT_SERVED: 501,
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
    """Turns what calls raise into the codes above, and bytes that are no message into a refusal, which gRPC would
    answer with INTERNAL."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}
        """By method; made once, since each call asks for its own in the one thread that all calls share."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        made = self._handlers.get(method)
        if made is None and (handler := continuation(handler_call_details)) is not None:
            made = self._handlers[method] = _refusing(handler, method)
        return made


def _refusing(handler: Any, method: str) -> Any:
    serializers = {
        "request_deserializer": _tolerant(handler.request_deserializer),
        "response_serializer": handler.response_serializer,
    }
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream), **serializers)
    if handler.unary_unary is None:
        return handler
    return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, method), **serializers)


def _unary(behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            if isinstance(request, RequestError):
                raise request
            return behaviour(request, context)
        except AgentError as error:
            context.abort_with_status(refusal_status(error))
        except NotImplementedError:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here")
        except Exception as error:  # noqa: BLE001 - the last line of defence: logged with an id
            abort_internal(context, error)

    return call


def _stream(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """Behaviours answer refusals within the stream; bytes that are no message end it."""

    def call(request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        def messages() -> Iterator[Any]:
            for request in request_iterator:
                if isinstance(request, RequestError):
                    context.abort_with_status(refusal_status(request))
                yield request

        yield from behaviour(messages(), context)

    return call


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse(content: bytes) -> Any:
        try:
            return deserialize(content)
        except DecodeError:
            return RequestError(
                f"{len(content)} bytes that are no such message",
                field="message",
                remedy="send what the protocol's .proto file describes",
            )

    return parse


def abort_internal(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """End the call for an exception that nobody expected."""
    context.abort(grpc.StatusCode.INTERNAL, internal_text(error))
