"""`lineside metrics`: show."""

from collections.abc import Sequence
from datetime import datetime

from lineside.v1 import result_service_pb2

from controlplane.cli.output import Column
from controlplane.cli.quantity import DurationOption, time_text
from controlplane.cli.session import SessionArgument, resource_app
from controlplane.client.names import short

app = resource_app("metrics", "Counts and latencies by version.")
Summary = result_service_pb2.MetricSummary


@app.command(help_epilogue="Example: lineside metrics show --model solar --by-agent --since 1h")
def show(
    *,
    model: str,
    by_agent: bool = False,
    since: DurationOption | None = None,
    session: SessionArgument,
) -> None:
    """Show inferences, errors and latencies of every version of a model.

    Parameters
    ----------
    model
        The model's name.
    by_agent
        A row for each agent and device.
    since
        Only what was measured in this last time: 10s, 5m, 1h, 2d; without it, in the last 24h.
    """
    printer = session.printer
    start_time = None if since is None else printer.now - since
    summaries = session.client.results.metrics(model, start_time=start_time, by_agent=by_agent)
    absent = set() if by_agent else {"AGENT", "DEVICE"}
    if not any(row.omitted_count for row in summaries):
        absent.add("NOT KEPT")
    columns = [column for column in _columns(printer.now) if column.header not in absent]
    printer.messages(summaries, columns, none=f"no metrics of {model}")
    dropped = max((row.dropped_results for row in summaries), default=0)
    if dropped and not printer.json:
        printer.note(
            f"{dropped} results of {model} were dropped on boxes that ran out of room; they are counted all the same"
        )


def _columns(now: datetime) -> Sequence[Column[Summary]]:
    return (
        Column(header="VERSION", cell=lambda row: short(row.model_version), whole=True),
        Column(header="AGENT", cell=lambda row: short(row.agent), whole=True),
        Column(header="DEVICE", cell=lambda row: row.device),
        Column(header="INFERENCES", cell=lambda row: str(row.inference_count), number=True),
        Column(header="ERRORS", cell=lambda row: str(row.error_count), number=True),
        Column(header="REFUSED", cell=lambda row: str(row.refused_count), number=True),
        Column(header="NOT KEPT", cell=lambda row: str(row.omitted_count), number=True),
        Column(header="P50 MS", cell=lambda row: f"{row.latency_ms_p50:.2f}", number=True),
        Column(header="P95 MS", cell=lambda row: f"{row.latency_ms_p95:.2f}", number=True),
        Column(header="P99 MS", cell=lambda row: f"{row.latency_ms_p99:.2f}", number=True),
        Column(header="LAST", cell=lambda row: time_text(row.end_time, now=now)),
    )
