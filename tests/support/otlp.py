"""Receives OpenTelemetry spans over gRPC, as a collector does."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One span. Ids are hexadecimal."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any]


@dataclass(slots=True)
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Spans as they came."""

    spans: list[ReceivedSpan] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the contract's name
        with self.lock:
            self.spans += [
                _received(resource, span)
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return trace_service_pb2.ExportTraceServiceResponse()

    def find(self, name: str, *, trace_id: str = "") -> list[ReceivedSpan]:
        with self.lock:
            return [span for span in self.spans if span.name == name and trace_id in ("", span.trace_id)]


@contextmanager
def receiving() -> Iterator[tuple[Receiver, str]]:
    """A receiver, and its URL for OTEL_EXPORTER_OTLP_ENDPOINT."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(2))
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver, f"http://127.0.0.1:{port}"
    finally:
        server.stop(1).wait()


def _received(resource: Any, span: Any) -> ReceivedSpan:
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    return ReceivedSpan(
        service=names["service.name"],
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        attributes={
            each.key: each.value.string_value or each.value.int_value or each.value.bool_value
            for each in span.attributes
        },
    )
