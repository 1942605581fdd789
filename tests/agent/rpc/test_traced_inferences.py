"""Spans of inferences, kept in memory: whose children they are, over every way in."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as oip
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent.app.traffic import Traffic
from agent.rpc.inference_grpc import start_grpc_server
from agent.rpc.shared_memory import SharedMemory
from agent.tracing import TracedServing, Tracing
from tests.support.serving import FakeModel, MemoryOffers, MemoryResults, NoShadows, RealClock, desired_slot

TRACE, APPLICATION = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
PARENT = {"traceparent": f"00-{TRACE:032x}-{APPLICATION:016x}-01"}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(exporter: InMemorySpanExporter) -> Iterator[oip.InferenceServerClient]:
    tracing = Tracing("st-1", SimpleSpanProcessor(exporter))
    results = MemoryResults()
    serving = TracedServing(
        tracing.tracer,
        clock=RealClock(),
        results=results,
        samples=MemoryOffers(results),
        shadows=NoShadows(),
        traffic=Traffic(),
    )
    serving.swap(desired_slot(7), FakeModel())
    shared = SharedMemory("")
    server, port = start_grpc_server(serving, "127.0.0.1:0", shared=shared, interceptors=[tracing.interceptor()])
    with oip.InferenceServerClient(f"127.0.0.1:{port}") as found:
        yield found
    server.stop(1).wait()
    serving.close()
    tracing.close()


def tensor() -> Any:
    found = oip.InferInput("x", [1, 3], "FP32")
    found.set_data_from_numpy(np.zeros((1, 3), np.float32))
    return found


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


def test_a_call_is_below_the_trace_that_it_names(
    client: oip.InferenceServerClient, exporter: InMemorySpanExporter
) -> None:
    client.infer("cells", [tensor()], headers=PARENT, request_id="r-1", parameters={"part_id": "p-1"})
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert (span.context.trace_id, parent_of(span)) == (TRACE, APPLICATION)
    assert dict(span.attributes or {}) == {
        "lineside.slot": "cells",
        "lineside.version": 7,
        "lineside.device": "FAKE",
        "lineside.part_id": "p-1",
        "lineside.request_id": "r-1",
    }


def test_every_request_of_a_stream_is_below_the_trace_that_the_stream_names(
    client: oip.InferenceServerClient, exporter: InMemorySpanExporter
) -> None:
    answers: list[object] = []
    client.start_stream(callback=lambda result, error: answers.append(error or result), headers=PARENT)
    for number in range(3):
        client.async_stream_infer("cells", [tensor()], request_id=str(number))
    client.stop_stream()
    spans = exporter.get_finished_spans()
    assert [parent_of(span) for span in spans] == [APPLICATION] * 3


def test_a_call_without_a_trace_begins_one_and_leaves_none_behind(
    client: oip.InferenceServerClient, exporter: InMemorySpanExporter
) -> None:
    for headers in (PARENT, None, PARENT, None):
        client.infer("cells", [tensor()], headers=headers)
    assert [parent_of(span) for span in exporter.get_finished_spans()] == [APPLICATION, 0, APPLICATION, 0]
