"""Traces with OpenTelemetry, an extra: on where OTEL_EXPORTER_OTLP_ENDPOINT says where they go.

Each call is a span below the trace that its metadata names (W3C `traceparent`). A call that streams answers is shown
until its first: Sync goes on for hours. What is sampled and how spans are sent is OpenTelemetry's own configuration.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import grpc
import structlog

from controlplane import observability
from controlplane.rpc import server

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

log = structlog.get_logger(__name__)


def open_tracing() -> "Tracing | None":
    """None where no endpoint is set, or the packages are missing, which is logged."""
    if not any(os.environ.get(variable) for variable in _ENDPOINT_VARIABLES):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        log.error(  # noqa: TRY400  # the module's name says it all
            observability.TRACING_MISSING,
            module=error.name,
            remedy="pip install 'lineside[otel]', or unset the endpoint",
        )
        return None
    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


def traced(listener: server.Listener, tracing: "Tracing | None") -> server.Listener:
    """The listener, with its calls in traces where these are on."""
    if tracing is None:
        return listener
    return replace(listener, interceptors=(TracingInterceptor(tracing), *listener.interceptors))


class Tracing:
    """Records spans through a provider of its own. `close` sends what is left."""

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "lineside-controlplane"}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("lineside.controlplane")

    def close(self) -> None:
        self._provider.shutdown()

    @contextmanager
    def call(self, details: grpc.HandlerCallDetails) -> Iterator["Span"]:
        """A span of the call; an exception that leaves the block is part of it."""
        from opentelemetry import propagate, trace

        metadata = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        method = details.method.rpartition(".")[2]
        span = self._tracer.start_span(
            method,
            context=propagate.extract(metadata),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": method},
        )
        try:
            yield span
        except Exception as error:
            if span.is_recording():
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            if span.is_recording():
                span.end()


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps each call of a listener."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        tracing, details = self._tracing, handler_call_details
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, tracing, details), **coders)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(_unary(handler.stream_unary, tracing, details), **coders)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, tracing, details), **coders)
            case _:
                return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream, tracing, details), **coders)


def _unary(behaviour: Any, tracing: Tracing, details: grpc.HandlerCallDetails) -> Any:
    async def call(request: Any, context: Any) -> Any:
        with tracing.call(details):
            return await behaviour(request, context)

    return call


def _stream(behaviour: Any, tracing: Tracing, details: grpc.HandlerCallDetails) -> Any:
    async def call(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        with tracing.call(details) as span:
            async with aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    if span.is_recording():
                        span.end()
                    yield response

    return call
