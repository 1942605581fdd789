"""Traces with OpenTelemetry, an extra: on where OTEL_EXPORTER_OTLP_ENDPOINT says where they go.

An inference is one span below whatever trace the application's request names (W3C `traceparent`, as gRPC metadata or
HTTP header). Calls to the controller are spans of their own, and the controller's spans are below those. What is
sampled, under which name the agent goes and how spans are sent is OpenTelemetry's own configuration
(OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_*).

Off, nothing of this is in the way: `Serving` itself serves, and no interceptor is installed.
"""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from aiohttp import web

from agent.app.serving import InferenceAnswer, Serving
from agent.domain.errors import RequestError
from agent.rpc.call_traces import CallTrace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

_log = structlog.get_logger()

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PARENT = "traceparent"


def open_tracing(agent: str) -> "Tracing | None":
    """None where no endpoint is set, or the packages are missing, which is logged."""
    if not any(os.environ.get(variable) for variable in _ENDPOINT_VARIABLES):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        _log.error("tracing_missing", module=error.name, remedy="pip install 'lineside[otel]', or unset the endpoint")
        return None
    return Tracing(agent, BatchSpanProcessor(OTLPSpanExporter()))


class Tracing:
    """Records spans through a provider of its own. `close` sends what is left."""

    def __init__(self, agent: str, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "lineside-agent"}
        self._provider = TracerProvider(resource=Resource.create({**named, "lineside.agent": agent}))
        self._provider.add_span_processor(processor)
        self.tracer: Tracer = self._provider.get_tracer("lineside.agent")

    def close(self) -> None:
        self._provider.shutdown()

    # --- what applications ask ---

    def interceptor(self) -> grpc.ServerInterceptor:
        return _ParentInterceptor()

    @property
    def middleware(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        return _parent_middleware

    # --- what the controller is asked: agent.rpc.call_traces.CallTraces ---

    @contextmanager
    def call(self, name: str) -> Iterator[CallTrace]:
        from opentelemetry import propagate, trace

        span = self.tracer.start_span(name, kind=trace.SpanKind.CLIENT, attributes={"rpc.system": "grpc"})
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context=trace.set_span_in_context(span))

        def end() -> None:
            if span.is_recording():
                span.end()

        try:
            yield CallTrace(metadata=tuple(carrier.items()), end=end)
        except Exception as error:
            if span.is_recording():
                span.record_exception(error)
                span.set_status(trace.StatusCode.ERROR, str(error))
            raise
        finally:
            end()


class TracedServing(Serving):
    """Serving whose every inference is a span."""

    def __init__(self, tracer: "Tracer", **ports: Any) -> None:
        super().__init__(**ports)
        self._tracer = tracer

    def infer(self, slot: str, version: int | None, *inputs: Any, **options: Any) -> InferenceAnswer:
        from opentelemetry import trace

        attributes = {
            "lineside.slot": slot,
            "lineside.part_id": options.get("part_id", ""),
            "lineside.request_id": options.get("request_id", ""),
        }
        with self._tracer.start_as_current_span(
            "inference", kind=trace.SpanKind.SERVER, attributes=attributes, record_exception=False
        ) as span:
            try:
                answer = super().infer(slot, version, *inputs, **options)
            except RequestError as error:
                span.set_attribute("lineside.reason", error.reason)
                raise
            span.set_attribute("lineside.version", answer.model.version)
            span.set_attribute("lineside.device", answer.model.device)
            return answer


class _ParentInterceptor(grpc.ServerInterceptor):
    """Makes the trace that a call's metadata names the current one while the call is answered."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        metadata = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        if handler is None or _PARENT not in metadata:
            return handler
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            with _below(metadata):
                return handler.unary_unary(request, context)

        def stream(requests: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with _below(metadata):
                yield from handler.stream_stream(requests, context)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(unary, **coders)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(stream, **coders)
        return handler


@web.middleware
async def _parent_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    if _PARENT not in request.headers:
        return await handler(request)
    with _below({key.lower(): value for key, value in request.headers.items()}):
        return await handler(request)


@contextmanager
def _below(carrier: Mapping[str, str]) -> Iterator[None]:
    """Spans of the block are below the trace that the carrier names."""
    from opentelemetry import context, propagate

    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
