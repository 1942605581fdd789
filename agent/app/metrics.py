"""Metrics of the agent, made at a scrape from what is counted anyway: the serving path pays nothing for being watched.

Labels are slots, versions and devices of this box (at most TALLIES_MAX together beside what serves), and words of fixed
lists: nothing that a caller makes up becomes a label.
"""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.app.conditions import TRUE
from agent.app.tallies import BOUNDS_SECONDS, TallyBook, Times
from agent.app.vitals import Vitals
from agent.domain.errors import AgentError
from agent.domain.slot import ObservedSlot, SlotState

_PREFIX = "lineside_agent_"
_MODEL = ("slot", "version", "device")

Row = tuple[Sequence[str], float]
"""Values of the labels, and the value."""


def new_registry(vitals: Vitals) -> CollectorRegistry:
    """The agent's metrics and its process's (memory, CPU, open files)."""
    registry = CollectorRegistry()
    registry.register(AgentMetrics(vitals))
    ProcessCollector(registry=registry)
    return registry


class AgentMetrics(Collector):
    """Reads the vitals at each scrape; within the agent's loop."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals

    def describe(self) -> Iterable[Metric]:
        """Nothing is read to be registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield _gauge("info", "The agent's version.", [([metadata.version("lineside")], 1)], "version")
        yield from _serving(vitals.serving.tallies())
        yield _gauge(
            "requests_in_progress",
            "Requests that are being answered, or wait for a free InferRequest.",
            [((), vitals.traffic.requests)],
        )
        yield from _slots(vitals.executor.observed())
        yield from self._sync()
        yield _gauge(
            "condition",
            "Whether a condition of the agent holds.",
            [([each.type], each.state == TRUE) for each in vitals.conditions.all()],
            "type",
        )
        yield from self._samples()
        yield from self._storage()

    def _sync(self) -> Iterator[Metric]:
        status = self._vitals.sync_loop.status()
        yield _gauge("controller_connected", "Whether the controller answers now.", [((), status.connected)])
        age = status.heard_age_seconds
        yield _gauge(
            "sync_age_seconds",
            "Since the controller was heard last; absent where it never was.",
            [] if age is None else [((), age)],
        )
        offset = status.clock_offset_seconds
        yield _gauge(
            "clock_offset_seconds",
            "How far the box's clock was ahead of the controller's when it was heard last.",
            [] if offset is None else [((), offset)],
        )
        yield _counter("sync_connections", "Streams on which the controller was heard.", [((), status.connections)])
        yield _counter("sync_failures", "Streams that ended or could not be opened.", [((), status.failures)])
        yield _gauge(
            "generation",
            "Of the desired state: as the controller told of it, and as it was taken up.",
            [(["desired"], status.desired_generation), (["observed"], status.observed_generation)],
            "kind",
        )
        with contextlib.suppress(AgentError, OSError, ValueError):  # a folder that cannot be read has a condition
            expiry = self._vitals.certificates.expire_time().timestamp()
            yield _gauge("certificate_expiry_timestamp_seconds", "When the certificate expires.", [((), expiry)])

    def _samples(self) -> Iterator[Metric]:
        counts = self._vitals.collector.counts()
        yield _counter(
            "samples_kept",
            "Inputs that were kept as samples.",
            [([reason.lower()], count) for reason, count in counts.kept.items()],
            "reason",
        )
        yield _counter(
            "samples_skipped",
            "Inputs that were picked as samples and not kept.",
            [([why], count) for why, count in counts.skipped.items()],
            "reason",
        )

    def _storage(self) -> Iterator[Metric]:
        spools = self._vitals.spools.items()
        label = "spool"
        yield _gauge("spool_bytes", "On disk.", [([name], spool.size_bytes) for name, spool in spools], label)
        yield _gauge(
            "spool_waiting",
            "Batches of results, and samples, that wait for the controller.",
            [([name], len(spool.pending())) for name, spool in spools],
            label,
        )
        yield _counter(
            "spool_dropped",
            "Results and samples for which disk or bound left no room.",
            [([name], spool.dropped) for name, spool in spools],
            label,
        )
        downloads = self._vitals.downloads
        yield _counter(
            "downloads",
            "Downloads of versions.",
            [(["complete"], downloads.complete), (["failed"], downloads.failed)],
            "outcome",
        )
        yield _counter("download_bytes", "Received of versions.", [((), downloads.received_bytes)])
        with contextlib.suppress(OSError):  # a disk that cannot be asked has no free bytes to tell of
            disk = shutil.disk_usage(self._vitals.folder)
            yield _gauge("disk_free_bytes", "Of the file system of the agent's folder.", [((), disk.free)])
            yield _gauge("disk_size_bytes", "Of the file system of the agent's folder.", [((), disk.total)])


def _serving(book: TallyBook) -> Iterator[Metric]:
    models = [([slot, str(version), device], tally) for (slot, version, device), tally in book.tallies.items()]
    yield _counter(
        "inferences",
        "Batch items, by whether the device answered.",
        [
            ([*labels, outcome], count)
            for labels, tally in models
            for outcome, count in (("ok", tally.answered), ("error", tally.failed))
        ],
        *_MODEL,
        "outcome",
    )
    yield _histogram(
        "request_seconds",
        "From a request's arrival to its answer, of requests that were answered.",
        [(labels, tally.request_times) for labels, tally in models],
    )
    yield _histogram(
        "inference_seconds",
        "The inference within a request, with the wait for a free InferRequest.",
        [(labels, tally.infer_times) for labels, tally in models],
    )
    yield _counter(
        "refused",
        "Requests that were refused; without a slot where it is none of this box.",
        [([slot, reason.lower()], count) for (slot, reason), count in book.refused.items()],
        "slot",
        "reason",
    )
    yield _counter(
        "swaps",
        "Versions that took the place of another.",
        [([slot], count) for slot, count in book.swaps.items()],
        "slot",
    )


def _slots(slots: Sequence[ObservedSlot]) -> Iterator[Metric]:
    yield _gauge(
        "slot_state",
        "1 for the state in which a slot is.",
        [([slot.slot, state.lower()], slot.state == state) for slot in slots for state in SlotState],
        "slot",
        "state",
    )
    yield _gauge(
        "slot_version",
        "Numbers of the versions that serve and that shall; 0 is none.",
        [
            ([slot.slot, kind], number)
            for slot in slots
            for kind, number in (("serving", slot.serving_version), ("target", slot.target_version))
        ],
        "slot",
        "kind",
    )
    yield _gauge(
        "shadow_compared",
        "Inputs that the slot's candidate was given in its shadow run.",
        [([slot.slot], slot.shadow.compared) for slot in slots if slot.shadow is not None],
        "slot",
    )


def _gauge(name: str, text: str, rows: Iterable[Row], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, float(value))
    return family


def _counter(name: str, text: str, rows: Iterable[Row], *labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, float(value))
    return family


def _histogram(name: str, text: str, rows: Iterable[tuple[Sequence[str], Times]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(_PREFIX + name, text, labels=_MODEL)
    bounds = [*(repr(bound) for bound in BOUNDS_SECONDS), "+Inf"]
    for values, times in rows:
        buckets = [(bound, float(count)) for bound, count in zip(bounds, accumulate(times.counts), strict=True)]
        family.add_metric(values, buckets=buckets, sum_value=times.total_seconds)
    return family
