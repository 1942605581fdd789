"""Metrics of the control process, in Prometheus' format, from what jobs and streams know anyway: a scrape asks the
database nothing. How many agents and rollouts are in which state is known to the controller that leads; the others
leave these out, so that a sum over replicas is right.
"""

from collections import Counter as Count
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from importlib import metadata
from time import perf_counter

import structlog
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane import observability
from controlplane.app.fleet import Fleet
from controlplane.app.leadership import Leadership
from controlplane.app.observations import Observations
from controlplane.app.ports import Store, UnitOfWork
from controlplane.config import Address
from controlplane.domain.assignment import Standing
from controlplane.domain.inventory import AgentState
from controlplane.domain.lease import Lease
from controlplane.domain.rollout import RolloutState

_PREFIX = "lineside_controller_"
_JOB_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_DATABASE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_ENDED = frozenset({RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED})

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """The fleet at the last convergence of this controller."""

    agents: Mapping[AgentState, int]
    rollouts: Mapping[RolloutState, int]


class Meter:
    """What is measured while it happens: jobs and transactions."""

    def __init__(self, *, silent_seconds_max: float) -> None:
        self._silent_seconds_max = silent_seconds_max
        self.registry = CollectorRegistry()
        self.seen: Seen | None = None
        self._jobs = Histogram(
            f"{_PREFIX}job_seconds",
            "Runs of a job: rollouts decide, convergence brings desired states up to date.",
            ["job", "outcome"],
            buckets=_JOB_SECONDS,
            registry=self.registry,
        )
        self._transactions = Histogram(
            f"{_PREFIX}transaction_seconds",
            "Transactions, with the wait for their turn and what is done within.",
            ["kind"],
            buckets=_DATABASE_SECONDS,
            registry=self.registry,
        )

    def see(self, standing: Standing, now: datetime) -> None:
        """Take what a convergence has read."""
        states = Count(record.state(now=now, silent_seconds_max=self._silent_seconds_max) for record in standing.agents)
        self.seen = Seen(states, Count(rollout.state for rollout in standing.rollouts))

    def timed_job(self, name: str, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        """`work`, measured."""

        async def run() -> object:
            begun, outcome = perf_counter(), "failed"
            try:
                result = await work()
                outcome = "done"
            finally:
                self._jobs.labels(name, outcome).observe(perf_counter() - begun)
            return result

        return run

    @contextmanager
    def transaction(self, kind: str) -> Iterator[None]:
        begun = perf_counter()
        try:
            yield
        finally:
            self._transactions.labels(kind).observe(perf_counter() - begun)


class MeasuredStore:
    """A store whose transactions are measured."""

    def __init__(self, store: Store, meter: Meter) -> None:
        self._store = store
        self._meter = meter

    def read(self) -> AbstractAsyncContextManager[UnitOfWork]:
        return self._read()

    @asynccontextmanager
    async def _read(self) -> AsyncGenerator[UnitOfWork, None]:
        with self._meter.transaction("read"):
            async with self._store.read() as uow:
                yield uow

    @asynccontextmanager
    async def write(self, *, lease: Lease | None = None) -> AsyncGenerator[UnitOfWork, None]:
        """As `Store.write`."""
        with self._meter.transaction("write"):
            async with self._store.write(lease=lease) as uow:
                yield uow


class ControllerMetrics(Collector):
    """Reads counters of the parts; from the thread of a scrape, so it reads single values only."""

    def __init__(self, *, meter: Meter, fleet: Fleet, observations: Observations, leadership: Leadership) -> None:
        self._meter = meter
        self._fleet = fleet
        self._observations = observations
        self._leadership = leadership

    def describe(self) -> Iterable[Metric]:
        """Nothing is read to be registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(f"{_PREFIX}info", "The controller's version.", labels=["version"])
        info.add_metric([metadata.version("lineside")], 1)
        yield info
        lease = self._leadership.lease
        yield GaugeMetricFamily(f"{_PREFIX}leader", "Whether this controller runs the jobs.", float(lease is not None))
        epoch = float(lease.epoch) if lease is not None else 0.0
        yield GaugeMetricFamily(f"{_PREFIX}leader_epoch", "Of the lease that it holds; 0 without one.", epoch)
        yield GaugeMetricFamily(f"{_PREFIX}sync_streams", "Agents connected to this controller.", self._fleet.streams)
        yield CounterMetricFamily(f"{_PREFIX}sync_messages", "States that agents sent.", self._fleet.messages)
        yield CounterMetricFamily(f"{_PREFIX}sync_answers", "Answers and pushes to agents.", self._fleet.answers)
        yield GaugeMetricFamily(
            f"{_PREFIX}observations_waiting", "Reports of agents not written yet.", self._observations.waiting
        )
        if lease is not None and (seen := self._meter.seen) is not None:
            yield _states("agents", "Agents by state, at the last convergence.", AgentState, seen.agents)
            goes_on = [state for state in RolloutState if state not in _ENDED]
            yield _states("rollouts", "Rollouts that have not ended, by state.", goes_on, seen.rollouts)


@contextmanager
def serve_metrics(registry: CollectorRegistry, address: Address) -> Iterator[None]:
    """`/metrics` at the address, in a thread of its own. Raises OSError where it is taken."""
    ProcessCollector(registry=registry)
    server, thread = start_http_server(address.port, addr=address.host, registry=registry)
    bound = address.with_port(server.server_port)
    log.info(observability.LISTENING, listener="metrics", address=str(bound), mutual=False)
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _states(
    name: str, text: str, states: Iterable[StrEnum], counts: Mapping[AgentState, int] | Mapping[RolloutState, int]
) -> GaugeMetricFamily:
    found = {str(state): count for state, count in counts.items()}
    family = GaugeMetricFamily(_PREFIX + name, text, labels=["state"])
    for state in states:
        family.add_metric([state.lower()], float(found.get(str(state), 0)))
    return family
